"""The controls of the page: the photograph, and the settings that have the names of ``idm restore``'s options."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import gradio as gr

from idm.apps.photo.settings import Change, Detail, Grayscale, PhotoSettings, Pick
from idm.apps.web.handlers import NO_LIMIT
from idm.apps.web.request import MAX_REFERENCES, MAX_SAMPLES, MAX_SEED, most_steps
from idm.apps.web.session import PageService
from idm.faces.names import ColorFix, Turn

_NAMES = ("the astronaut Eileen Collins, small", "the same, as an old grey print", "three drawn people")


def controls(page_service: PageService, examples: Sequence[Path], limits: str) -> dict[str, Any]:
    """Photograph, examples, settings and buttons, by name."""
    photo = gr.File(label=f"Photograph, {limits}", height=140, elem_id="idm-photo")
    gr.HTML("or try an example", elem_id="idm-or")
    gallery = gr.Gallery(
        [(str(path), name) for path, name in zip(examples, _NAMES, strict=True)],
        label="Examples",
        show_label=False,
        columns=3,
        height=128,
        object_fit="cover",
        allow_preview=False,
        interactive=False,
        buttons=[],
        elem_id="idm-examples",
    )
    return {
        "photo": photo,
        "gallery": gallery,
        **_model_controls(page_service),
        **_seed_controls(),
        **_more_controls(),
        **_trust_controls(page_service.identity is not None),
        "restore": gr.Button("Restore", variant="primary", size="lg", interactive=False, elem_id="idm-restore"),
        "cancel": gr.Button("Cancel", size="sm", elem_id="idm-cancel"),
    }


def _model_controls(page_service: PageService) -> dict[str, Any]:
    first = next(iter(page_service.restorers))
    chain, has_chain = page_service.chain(first), page_service.has_chain(first)
    choices = [(f"{label}, {restorer.image_size} px", label) for label, restorer in page_service.restorers.items()]
    return {
        "restorer": gr.Dropdown(choices, value=first, label="Restorer", elem_id="idm-restorer"),
        "steps": gr.Slider(
            1,
            most_steps(chain),
            chain.num_steps,
            step=1,
            label="Steps",
            interactive=has_chain,
            elem_id="idm-steps",
        ),
        "fidelity": gr.Slider(
            0,
            1,
            chain.fidelity,
            step=0.05,
            label="Fidelity",
            info="0: the most restoration; 1: closest to the given face",
            interactive=has_chain,
            elem_id="idm-fidelity",
        ),
        "change": gr.Radio(
            get_args(Change),
            value="auto",
            label="Change",
            info="auto: as much as each face needs; full: all of the model's change",
            elem_id="idm-change",
        ),
    }


def _seed_controls() -> dict[str, Any]:
    with gr.Row(equal_height=True):
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120, scale=3, elem_id="idm-seed"
        )
        new_seed = gr.Button("New seed", size="sm", min_width=90, scale=1, elem_id="idm-new-seed")
    return {"seed": seed, "new_seed": new_seed}


def _more_controls() -> dict[str, Any]:
    with gr.Accordion("More", open=False, elem_id="idm-more"):
        return {
            "turn": gr.Dropdown(
                get_args(Turn),
                value="auto",
                label="Turn",
                info="degrees clockwise by which the picture is turned to find faces; the result is not turned",
                elem_id="idm-turn",
            ),
            "detail": gr.Dropdown(
                get_args(Detail),
                value="auto",
                label="Detail",
                info="finer detail of large faces: the photograph's (keep), without its grain (clean), none (replace)",
                elem_id="idm-detail",
            ),
            "grain": gr.Slider(
                0,
                1,
                PhotoSettings.grain,
                step=0.05,
                label="Grain",
                info="share of the photograph's grain that restored faces keep; 1: as much as their surroundings",
                elem_id="idm-grain",
            ),
            "grayscale": gr.Radio(
                get_args(Grayscale),
                value="auto",
                label="Grayscale",
                info="keep: only the lightness changes; auto: so in photographs that are grey or have one tint",
                elem_id="idm-grayscale",
            ),
            "color_fix": gr.Radio(
                get_args(ColorFix),
                value="wavelet",
                label="Color fix",
                info="match the photograph's colours: not at all, their mean, or all coarse tones (wavelet)",
                elem_id="idm-color-fix",
            ),
            "upscale": gr.Radio(
                [("as it is", 1), ("2×", 2), ("4×", 4)], value=1, label="Upscale", elem_id="idm-upscale"
            ),
        }


def _trust_controls(has_identity: bool) -> dict[str, Any]:
    missing = "the weights of the identity network are not installed"
    with gr.Accordion("Identity and uncertainty", open=False, elem_id="idm-trust"):
        return {
            "samples": gr.Slider(
                1,
                MAX_SAMPLES,
                1,
                step=1,
                label="Samples",
                info="restorations of each face, of which Pick makes one",
                elem_id="idm-samples",
            ),
            "pick": gr.Radio(
                get_args(Pick),
                value="identity" if has_identity else "median",
                label="Pick",
                info="the sample closest in identity, or the median of each pixel" if has_identity else missing,
                interactive=has_identity,
                elem_id="idm-pick",
            ),
            "min_identity": gr.Slider(
                NO_LIMIT,
                1,
                NO_LIMIT,
                step=0.05,
                label="Min identity",
                info="a restored face whose identity is below this is not used; -1: no limit"
                if has_identity
                else missing,
                interactive=has_identity,
                elem_id="idm-min-identity",
            ),
            "reference": _reference(has_identity, missing),
            "uncertainty": gr.Checkbox(
                False,
                label="Uncertainty",
                info="show where the samples differ; needs at least 2 samples",
                elem_id="idm-uncertainty",
            ),
        }


def _reference(has_identity: bool, missing: str) -> gr.File:
    note = (
        f"Up to {MAX_REFERENCES} photographs that show this person alone. Pick and Min identity compare with them "
        "instead of with the given face."
        if has_identity
        else missing
    )
    file = gr.File(
        label="Reference", file_count="multiple", height=140, interactive=has_identity, elem_id="idm-reference"
    )
    gr.HTML(f'<p class="idm-note">{note}</p>')
    return file
