"""The layout of the page, and which handler belongs to which component."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from idm.apps.web import theme
from idm.apps.web.blocks import PageBlocks
from idm.apps.web.handlers import MAX_SEED, Handlers, most_steps
from idm.apps.web.session import PageService

MAX_SAMPLES = 8


@dataclass(frozen=True)
class _Parts:
    """The components that take part in events."""

    photo: gr.File
    gallery: gr.Gallery
    restorer: gr.Dropdown
    steps: gr.Slider
    fidelity: gr.Slider
    seed: gr.Number
    new_seed: gr.Button
    upscale: gr.Radio
    samples: gr.Slider
    restore: gr.Button
    cancel: gr.Button
    tabs: gr.Tabs
    preview: gr.Image
    faces: gr.CheckboxGroup
    hint: gr.HTML
    slider: gr.ImageSlider
    table: gr.HTML
    downloads: tuple[gr.DownloadButton, gr.DownloadButton]
    found: gr.State


def build_page(
    page_service: PageService, examples: Sequence[Path], results: Path, max_mb: float, total_mb: float
) -> gr.Blocks:
    """The page over a page_service.

    Args:
        examples: photographs to try.
        results: an existing folder, below gradio's own, for the files that users download.
        max_mb: of an upload; here it is only said.
        total_mb: of all results that are kept.
    """
    limits = f"up to {max_mb:g} MB and {page_service.max_pixels / 1e6:g} megapixels"
    with PageBlocks(title="Face restoration", analytics_enabled=False) as page:
        gr.HTML(theme.HEADER, elem_id="idm-header")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                controls = _controls(page_service, examples, limits)
            with gr.Column(scale=4, min_width=320):
                pictures = _pictures()
        handlers = Handlers(page_service, examples, results, round(total_mb * 1e6))
        _wire(handlers, _Parts(**controls, **pictures, found=gr.State([])))
        page.unload(handlers.cancel)
    return page


def _controls(page_service: PageService, examples: Sequence[Path], limits: str) -> dict[str, Any]:
    first = next(iter(page_service.restorers))
    defaults, has_chain = page_service.defaults(first), page_service.has_chain(first)
    choices = [(f"{label}, {restorer.image_size} px", label) for label, restorer in page_service.restorers.items()]
    photo = gr.File(label=f"Photograph, {limits}", height=140, elem_id="idm-photo")
    gr.HTML("or try an example", elem_id="idm-or")
    return {
        "photo": photo,
        "gallery": gr.Gallery(
            [str(path) for path in examples],
            show_label=False,
            columns=3,
            height=128,
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="idm-examples",
        ),
        "restorer": gr.Dropdown(choices, value=first, label="Restorer", elem_id="idm-restorer"),
        "steps": gr.Slider(
            1,
            most_steps(defaults),
            defaults.num_steps,
            step=1,
            label="Steps",
            interactive=has_chain,
            elem_id="idm-steps",
        ),
        "fidelity": gr.Slider(
            0,
            1,
            defaults.fidelity,
            step=0.05,
            label="Fidelity",
            info="0: the most restoration; 1: closest to the given face",
            interactive=has_chain,
            elem_id="idm-fidelity",
        ),
        **_more_controls("their median" if page_service.identity is None else "the one closest in identity"),
        "restore": gr.Button("Restore", variant="primary", size="lg", interactive=False, elem_id="idm-restore"),
        "cancel": gr.Button("Cancel", size="sm", elem_id="idm-cancel"),
    }


def _more_controls(taken: str) -> dict[str, Any]:
    with gr.Row(equal_height=True):
        seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120, scale=3, elem_id="idm-seed"
        )
        new_seed = gr.Button("New seed", size="sm", min_width=90, scale=1, elem_id="idm-new-seed")
    with gr.Accordion("More", open=False):
        upscale = gr.Radio([("as it is", 1), ("2×", 2), ("4×", 4)], value=1, label="Size of the picture")
        samples = gr.Slider(1, MAX_SAMPLES, 1, step=1, label="Samples of each face", info=f"{taken} is taken")
    return {"seed": seed, "new_seed": new_seed, "upscale": upscale, "samples": samples}


def _pictures() -> dict[str, Any]:
    with gr.Tabs(selected="faces") as tabs:
        with gr.Tab("Faces found", id="faces"):
            hint = gr.HTML(theme.EMPTY_FACES)
            preview = gr.Image(
                visible=False,
                format="png",
                type="pil",
                show_label=False,
                interactive=False,
                elem_id="idm-preview",
                buttons=["fullscreen"],
            )
            faces = gr.CheckboxGroup(label="Restore these faces", visible=False, elem_id="idm-faces")
        with gr.Tab("Before and after", id="result"):
            slider = gr.ImageSlider(
                visible=False,
                format="png",
                type="pil",
                show_label=False,
                interactive=False,
                max_height=640,
                buttons=["fullscreen"],
                elem_id="idm-slider",
            )
            with gr.Row():
                png = gr.DownloadButton("Download PNG", visible=False, variant="primary", elem_id="idm-png")
                same = gr.DownloadButton("Download JPEG", visible=False, elem_id="idm-same")
            table = gr.HTML(theme.EMPTY_RESULT, elem_id="idm-table")
    return {
        "tabs": tabs,
        "hint": hint,
        "preview": preview,
        "faces": faces,
        "slider": slider,
        "downloads": (png, same),
        "table": table,
    }


def _wire(handlers: Handlers, parts: _Parts) -> None:
    result = [parts.slider, parts.table, *parts.downloads]
    private = {"api_visibility": "private"}
    parts.gallery.select(handlers.example, None, parts.photo, show_progress="hidden", **private)
    looked = [parts.found, parts.preview, parts.faces, parts.hint, parts.restore, parts.tabs, *result]
    parts.photo.change(
        handlers.find,
        parts.photo,
        looked,
        api_name="find",
        concurrency_limit=4,
        show_progress_on=[parts.hint, parts.preview],
    ).failure(lambda: handlers.find(None), None, looked, **private)
    parts.faces.input(
        handlers.tick,
        [parts.photo, parts.found, parts.faces],
        [parts.preview, parts.restore],
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=4,
        **private,
    )
    parts.restorer.input(handlers.choose_restorer, parts.restorer, [parts.steps, parts.fidelity], **private)
    parts.new_seed.click(handlers.new_seed, None, parts.seed, show_progress="hidden", **private)
    parts.cancel.click(handlers.cancel, None, None, concurrency_limit=None, show_progress="hidden", **private)
    parts.restore.click(lambda: gr.Tabs(selected="result"), None, parts.tabs, concurrency_limit=None, **private).then(
        handlers.restore,
        [
            parts.photo,
            parts.faces,
            parts.restorer,
            parts.steps,
            parts.fidelity,
            parts.seed,
            parts.upscale,
            parts.samples,
        ],
        result,
        api_name="restore",
        concurrency_limit=1,
        show_progress_on=[parts.slider, parts.table],
        scroll_to_output=True,
    ).failure(lambda: gr.Tabs(selected="faces"), None, parts.tabs, **private)
