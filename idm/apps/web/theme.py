"""How the page looks: its theme, its style sheet, and the table of faces."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import replace

import gradio as gr
import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from idm.apps.photo.face import FaceReport
from idm.apps.photo.preview import draw_faces
from idm.apps.photo.upscale import bicubic
from idm.apps.web.session import RestoreResult
from idm.faces.align import to_unit
from idm.faces.detect import DetectedFace, shrink
from idm.io.ranges import to_uint8

_LEAST_PREVIEW = 1000  # about the longer side of the smallest preview

MAX_SHOWN = 1600  # longer side of what the page shows; what is downloaded has all pixels
_CROP = 88

HEADER = """
<h1>Face restoration</h1>
<p>Finds the faces of a photograph and restores each of them.
The details of a restored face are <strong>invented by the model</strong>: likely, but not evidence of how anyone
looked.</p>
"""

EMPTY_FACES = '<div class="idm-empty">Drop a photograph, or try an example.<br>The faces found appear here.</div>'
NO_FACES = (
    '<div class="idm-empty">No face was found in this photograph.<br>'
    "Faces must be at least about 12 pixels large, upright and not hidden.</div>"
)
EMPTY_RESULT = '<div class="idm-empty">Before and after appear here.</div>'

# System fonts only: a theme's default ones are fetched from another host.
THEME = gr.themes.Base(
    primary_hue=gr.themes.colors.teal,
    secondary_hue=gr.themes.colors.teal,
    neutral_hue=gr.themes.colors.slate,
    radius_size=gr.themes.sizes.radius_lg,
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_border_width="1px",
    block_shadow="none",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_label_border_width="0px",
    body_text_color_subdued="*neutral_500",
    body_text_color_subdued_dark="*neutral_400",
    block_label_text_color="*body_text_color_subdued",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_500",
    button_primary_text_color="white",
    button_large_text_weight="600",
)

CSS = """
.gradio-container main { max-width: 1240px !important; margin: 0 auto !important; }
footer { display: none !important; }
#idm-header h1 { font-size: 1.6rem; font-weight: 650; letter-spacing: -0.01em; margin: 0.4rem 0 0.2rem; }
#idm-header p { margin: 0; max-width: 46rem; color: var(--body-text-color-subdued); line-height: 1.5; }
#idm-header strong { color: var(--body-text-color); font-weight: 600; }
.idm-empty { display: flex; align-items: center; justify-content: center; text-align: center; min-height: 320px;
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg); padding: 1.5rem; line-height: 1.7;
  color: var(--body-text-color-subdued); }
.idm-faces { width: 100%; border-collapse: collapse; font-size: 0.92rem; }
.idm-faces, .idm-faces * { border-width: 0 !important; border-style: solid; }
.idm-faces th, .idm-faces td { text-align: left; vertical-align: middle;
  padding: 0.6rem !important; color: var(--body-text-color); }
.idm-faces th { font-weight: 500; color: var(--body-text-color-subdued); padding: 0.3rem 0.6rem !important; }
.idm-faces td { border-color: var(--border-color-primary) !important; border-top-width: 1px !important; }
.idm-faces .num { font-variant-numeric: tabular-nums; white-space: nowrap; }
.idm-faces img { width: 88px; height: 88px; max-width: none; object-fit: cover; border-radius: 8px;
  display: inline-block; margin: 0 4px 0 0; }
.idm-faces small { display: block; color: var(--body-text-color-subdued); line-height: 1.35; max-width: 18rem; }
.idm-bar { width: 88px; height: 5px; border-radius: 3px; background: var(--border-color-primary); margin-top: 5px; }
.idm-bar i { display: block; height: 100%; border-radius: 3px; background: var(--primary-500); }
.idm-note { color: var(--body-text-color-subdued); font-size: 0.86rem; line-height: 1.5; margin: 0.5rem 0 0; }
#idm-or { color: var(--body-text-color-subdued); font-size: 0.86rem; margin: -0.6rem 0 -0.9rem; }
#idm-or .prose { padding: 0; }
#idm-preview img { max-height: 560px; }
#idm-examples { border-width: 0 !important; padding: 0; background: transparent; min-height: 0; }
#idm-examples .grid-container { grid-template-columns: repeat(3, minmax(0, 1fr)); }
#idm-examples .thumbnail-item { border-radius: 8px; min-width: 0; }
#idm-new-seed { align-self: end; height: 2.6rem; border-radius: 8px; }
@media (max-width: 960px) { .idm-faces .wide { display: none; } }
@media (max-width: 480px) {
  .idm-faces .crops { white-space: normal; width: 96px; }
  .idm-faces img { width: 80px; height: 80px; margin: 0 0 4px; }
}
"""


def shown(pixels: Integer[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A copy with 8 bits that is at most ``MAX_SHOWN`` pixels large."""
    return to_uint8(to_unit(shrink(pixels, MAX_SHOWN)))


def preview(
    pixels: Integer[np.ndarray, "h w 3"], faces: Sequence[DetectedFace], chosen: Sequence[int]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    """:func:`idm.apps.photo.preview.draw_faces`, into a small photograph enlarged, so that the numbers can be read."""
    times = max(1, round(_LEAST_PREVIEW / max(pixels.shape[:2])))
    large = bicubic(pixels, (times * pixels.shape[0], times * pixels.shape[1]))
    return draw_faces(large, [replace(face, box=(face.box + 0.5) * times - 0.5) for face in faces], chosen)


def face_label(number: int, size: float, score: float) -> str:
    return f"{number}: {size:.0f} px, score {score:.2f}"


def faces_table(done: RestoreResult) -> str:
    """The faces before and after, with state, size, score and identity, as HTML."""
    request, result = done.request, done.result
    faces = sorted([*result.faces, *result.left_alone], key=lambda face: face.number)
    rows = "".join(_row(face, done) for face in faces)
    measured = any(face.identity is not None for face in faces)
    identity = (
        "Identity is the cosine between the given and the restored face in a face-recognition network: 1 is the same. "
        "It cannot say whether the given face was still that of the person."
        if measured
        else "Identities were not measured: the weights of the identity network are not installed."
    )
    height, width = done.result.photo.pixels.shape[:2]
    return (
        '<table class="idm-faces"><thead><tr><th></th><th>Faces</th><th>State</th>'
        '<th class="wide">Size</th><th class="wide">Score</th><th>Identity</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        f'<p class="idm-note">{html.escape(request.restorer)}, seed {request.seed}, {width} × {height} pixels. '
        f"{identity}</p>"
    )


def _row(face: FaceReport, done: RestoreResult) -> str:
    after = done.result.photo.pixels
    box = np.array(face.box) * done.request.upscale
    crops = "".join(_crop(pixels, box) for pixels in (done.before, after))
    note = f"<small>{html.escape(face.note)}</small>" if face.note else ""
    return (
        f'<tr><td class="num">{face.number}</td><td class="num crops">{crops}</td><td>{face.state}{note}</td>'
        f'<td class="num wide">{max(face.box[2] - face.box[0], face.box[3] - face.box[1]):.0f} px</td>'
        f'<td class="num wide">{face.score:.2f}</td><td class="num">{_identity(face)}</td></tr>'
    )


def _identity(face: FaceReport) -> str:
    if face.identity is None:
        return "–"
    bar = f'<div class="idm-bar"><i style="width:{100 * max(0.0, face.identity):.0f}%"></i></div>'
    return f'<span class="idm-identity">{face.identity:.2f}</span>{bar}'


def _crop(pixels: Integer[np.ndarray, "h w 3"], box: Sequence[float] | np.ndarray) -> str:
    """The square around a box, as a picture within the page."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = (float(x) for x in box)
    side = max(2, min(round(1.2 * max(right - left, bottom - top)), height, width))
    x = round(min(max(0, (left + right - side) / 2), width - side))
    y = round(min(max(0, (top + bottom - side) / 2), height - side))
    square = Image.fromarray(to_uint8(to_unit(pixels[y : y + side, x : x + side])))
    file = io.BytesIO()
    square.resize((2 * _CROP, 2 * _CROP), Image.Resampling.LANCZOS).save(file, "PNG")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}">'
