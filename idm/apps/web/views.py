"""The contents of the page: pictures in a folder of results, and HTML that refers to them.

Every picture has an alternative text, and the slider between two pictures is an input of the browser, which the
keyboard reaches.
"""

import html
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from idm.apps.photo.face import FaceReport
from idm.apps.photo.preview import draw_faces
from idm.apps.photo.reference import Reference
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.upscale import bicubic
from idm.apps.web.restoration import Restoration, StoredResult
from idm.apps.web.session import RestoreResult
from idm.faces.align import to_unit
from idm.faces.detect import DetectedFace, shrink
from idm.faces.geometry import why_implausible
from idm.io.ranges import to_uint8
from idm.io.slider import picture_slider

_MIN_PREVIEW = 1000  # about the longer side of the smallest preview
_MAX_SHOWN = 1600  # longer side of what the page shows; what is downloaded has all pixels
_MAX_FACE = 1024
_HEIGHT = 600  # of the two pictures that are compared, in pixels of the browser

Pixels = Integer[np.ndarray, "h w 3"]

# ------------------------------------------------------------------------------------------- pictures


def write_preview(folder: Path, pixels: Pixels, faces: Sequence[DetectedFace], chosen: Sequence[int]) -> None:
    """The photograph with its faces framed and numbered; a small one is enlarged, so that numbers can be read."""
    times = max(1, round(_MIN_PREVIEW / max(pixels.shape[:2])))
    large = bicubic(pixels, (times * pixels.shape[0], times * pixels.shape[1]))
    scaled = [replace(face, box=(face.box + 0.5) * times - 0.5) for face in faces]
    _write(folder, "preview", draw_faces(large, scaled, chosen))


def write_pictures(folder: Path, restoration: Restoration, done: RestoreResult) -> None:
    """Everything that is shown of a result: the photograph, each face before and after, and each face's variants."""
    sides = {"given": done.before, "restored": done.result.photo.pixels}
    for side, pixels in sides.items():
        _write(folder, side, _shown(pixels))
    for face in done.result.faces:
        for side, pixels in sides.items():
            _write(folder, f"face{face.number}_{side}", _square(pixels, np.array(face.box) * done.scale))
    for number, variants in restoration.variants.items():
        for position, variant in enumerate(variants):
            if not variant.face.failure:
                _write(folder, f"face{number}_crop", variant.face.crop)
                _write(folder, f"face{number}_variant{position}", variant.face.restored)


def _write(folder: Path, name: str, pixels: np.ndarray) -> None:
    levels = to_uint8(pixels) if pixels.dtype == np.float32 else pixels
    Image.fromarray(levels).save(folder / f"{name}.png", compress_level=1)


def _shown(pixels: Pixels, side: int = _MAX_SHOWN) -> UInt8[np.ndarray, "h2 w2 3"]:
    """A copy with 8 bits that is at most ``side`` pixels large."""
    return to_uint8(to_unit(shrink(pixels, side)))


def _square(pixels: Pixels, box: np.ndarray) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The square around a box."""
    height, width = pixels.shape[:2]
    left, top, right, bottom = (float(x) for x in box)
    side = max(2, min(round(1.4 * max(right - left, bottom - top)), height, width))
    x = round(min(max(0, (left + right - side) / 2), width - side))
    y = round(min(max(0, (top + bottom - side) / 2), height - side))
    return _shown(pixels[y : y + side, x : x + side], _MAX_FACE)


def remove(folder: Path) -> None:
    """Remove the files of a result that another one replaces."""
    shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------- HTML


def _image(folder: Path, name: str, alt: str) -> str:
    source = html.escape(f"gradio_api/file={folder / name}.png")
    return f'<img src="{source}" alt="{html.escape(alt)}">'


def preview(folder: Path, faces: Sequence[DetectedFace]) -> str:
    """The picture of :func:`write_preview`."""
    alt = f"The photograph, with {_faces(len(faces))} framed and numbered"
    return f'<div class="idm-preview">{_image(folder, "preview", alt)}</div>'


def comparison_slider(folder: Path, prefix: str, what: str) -> str:
    """Two pictures over one another, ``prefix`` + "given" and "restored", and the slider that moves their edge."""
    with Image.open(folder / f"{prefix}given.png") as image:
        width = round(_HEIGHT * image.width / image.height)
    return (
        picture_slider(
            _image(folder, f"{prefix}given", f"{what}, as given"),
            _image(folder, f"{prefix}restored", f"{what}, restored"),
            f"{what}: percent of the picture that shows it as given",
            width,
        )
        + '<p class="idm-note">Left: as given. Right: restored. Drag the line, or move it with the arrow keys.</p>'
    )


def uncertainty_map(stored: StoredResult) -> str:
    """The picture of :func:`~idm.apps.web.session.save_map`, if there is one."""
    name = f"{stored.source.stem}_restored.uncertainty"
    if not (stored.folder / f"{name}.png").is_file():
        return ""
    return (
        f'<figure class="idm-map">{_image(stored.folder, name, "Where the samples of the faces differ")}'
        '<figcaption class="idm-note">Uncertainty: white where the standard deviation of the samples is a tenth of the '
        "range or more. All samples are the model's, so where they agree they may still be wrong.</figcaption></figure>"
    )


def face(stored: StoredResult, report: FaceReport) -> str:
    """One face before and after, its state and the reason for it."""
    note = f"<br>{html.escape(report.note)}" if report.note else ""
    return (
        comparison_slider(stored.folder, f"face{report.number}_", f"Face {report.number}")
        + f'<p class="idm-state" role="status"><strong>{report.state}</strong>{_cosines(report)}{note}</p>'
    )


def variants(stored: StoredResult, number: int) -> str:
    """The face as given and its variants, side by side and of one size."""
    drawn = [k for k, variant in enumerate(stored.restoration.variants[number]) if not variant.face.failure]
    position = stored.restoration.choice.get(number, 0)
    if not drawn:
        return ""
    figures = [_figure(stored, f"face{number}_crop", f"Face {number}, as given", "as given", position is None)]
    for k in drawn:
        label = variant_label(stored.restoration, number, k)
        figures.append(_figure(stored, f"face{number}_variant{k}", f"Face {number}, {label}", label, position == k))
    return f'<div class="idm-variants">{"".join(figures)}</div>'


def _figure(stored: StoredResult, name: str, alt: str, caption: str, is_used: bool) -> str:
    used = ' class="used"' if is_used else ""
    marked = f"<strong>{html.escape(caption)}, in use</strong>" if is_used else html.escape(caption)
    return f"<figure{used}>{_image(stored.folder, name, alt)}<figcaption>{marked}</figcaption></figure>"


def variant_label(restoration: Restoration, number: int, position: int) -> str:
    """Seed and identity of a variant, and whether it was rejected by the settings."""
    variant = restoration.variants[number][position]
    report = variant.face.report(restoration.request.settings)
    return f"seed {variant.seed}{_cosines(report)}{'' if report.state == 'restored' else f', {report.state}'}"


def _cosines(report: FaceReport) -> str:
    identity = "" if report.identity is None else f", identity {report.identity:.2f}"
    return identity if report.reference is None else f"{identity}, to the reference {report.reference:.2f}"


def face_label(number: int, found: DetectedFace) -> str:
    """Number, size and score of a face that was found, and why it is not chosen by default."""
    label = f"{number}: {found.size:.0f} px, score {found.score:.2f}"
    if problem := why_implausible(found.landmarks):
        return f"{label}, no plausible face: {problem}"
    least = PhotoSettings.min_face
    return label if found.size >= least else f"{label}, smaller than {least:g} px"


def faces_table(done: RestoreResult) -> str:
    """State, reason, size, score and identity of each face, those left alone included."""
    result, settings = done.result, done.request.settings
    faces = sorted([*result.faces, *result.left_alone], key=lambda report: report.number)
    identity = (
        "Identity is the cosine between the given and the restored face in a face-recognition network: 1 is the same. "
        "It cannot say whether the given face was still that of the person."
        if any(report.identity is not None for report in faces)
        else "Identities were not measured: the weights of the identity network are not installed."
    )
    height, width = result.photo.pixels.shape[:2]
    if done.reference is not None:
        identity = f"{_reference(done.reference)} {identity}"
    return (
        '<table class="idm-faces"><thead><tr><th>Face</th><th>State</th><th>Size</th><th class="wide">Score</th>'
        f"<th>Identity</th></tr></thead><tbody>{''.join(map(_row, faces))}</tbody></table>"
        f'<p class="idm-note">{html.escape(done.request.restorer)}, seed {settings.seed}, {width} × {height} pixels. '
        f"{identity}</p>"
    )


def _reference(reference: Reference) -> str:
    left_out = "; ".join(f"{name}: {why}" for name, why in reference.left_out.items())
    number = reference.num_faces
    used = f"{number} reference photograph{'s were' if number != 1 else ' was'} used"
    return html.escape(f"{used}; not used: {left_out}." if left_out else f"{used}.")


def _row(report: FaceReport) -> str:
    left, top, right, bottom = report.box
    note = f"<small>{html.escape(report.note)}</small>" if report.note else ""
    return (
        f'<tr><td class="num">{report.number}</td><td>{report.state}{note}</td>'
        f'<td class="num">{max(right - left, bottom - top):.0f} px</td>'
        f'<td class="num wide">{report.score:.2f}</td><td class="num">{_identity(report)}</td></tr>'
    )


def _identity(report: FaceReport) -> str:
    if report.identity is None:
        return "–"
    bar = f'<div class="idm-bar"><i style="width:{100 * max(0.0, report.identity):.0f}%"></i></div>'
    reference = "" if report.reference is None else f"<small>reference {report.reference:.2f}</small>"
    return f'<span class="idm-identity">{report.identity:.2f}</span>{bar}{reference}'


def _faces(number: int) -> str:
    return f"{number} face{'s' * (number != 1)}"
