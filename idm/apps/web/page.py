"""The layout of the page, and which handler belongs to which component."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gradio as gr

from idm.apps.web import theme
from idm.apps.web.batch import BatchHandlers
from idm.apps.web.blocks import PageBlocks
from idm.apps.web.controls import controls
from idm.apps.web.endpoints import Endpoints
from idm.apps.web.handlers import SETTINGS, Handlers
from idm.apps.web.restoration import ResultStore
from idm.apps.web.session import PageService
from idm.apps.web.work import Work

MAX_STORED_BYTES = 1_000_000_000  # of all users' restored faces, in memory
_PRIVATE = {"api_visibility": "private"}


@dataclass(frozen=True)
class _Controls:
    photo: gr.File
    gallery: gr.Gallery
    restorer: gr.Dropdown
    steps: gr.Slider
    fidelity: gr.Slider
    change: gr.Radio
    seed: gr.Number
    new_seed: gr.Button
    turn: gr.Dropdown
    detail: gr.Dropdown
    grain: gr.Slider
    grayscale: gr.Radio
    color_fix: gr.Radio
    upscale: gr.Radio
    samples: gr.Slider
    pick: gr.Radio
    min_identity: gr.Slider
    reference: gr.File
    uncertainty: gr.Checkbox
    restore: gr.Button
    cancel: gr.Button

    @property
    def settings(self) -> list[Any]:
        return [getattr(self, name) for name in SETTINGS]


@dataclass(frozen=True)
class _Result:
    """The components that show a result, in the order in which handlers update them."""

    name: gr.State
    photo: gr.HTML
    table: gr.HTML
    png: gr.DownloadButton
    same: gr.DownloadButton
    map: gr.HTML
    stale: gr.HTML
    face: gr.Radio
    before_after: gr.HTML
    used: gr.Radio
    variants: gr.HTML
    redraw: gr.Button

    @property
    def all(self) -> list[Any]:
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def of_one_face(self) -> list[Any]:
        return [self.before_after, self.used, self.variants, self.redraw]


@dataclass(frozen=True)
class _Found:
    tabs: gr.Tabs
    preview: gr.HTML
    faces: gr.CheckboxGroup
    found: gr.State


@dataclass(frozen=True)
class _Several:
    files: gr.File
    start: gr.Button
    download: gr.DownloadButton
    summary: gr.HTML


def build_page(
    page_service: PageService, examples: Sequence[Path], results: Path, max_mb: float, total_mb: float
) -> gr.Blocks:
    """The page of a service.

    Args:
        examples: photographs to try.
        results: an existing folder, below gradio's own, for the files that users download.
        max_mb: of an upload; only shown here.
        total_mb: of all results that are kept.
    """
    limits = f"up to {max_mb:g} MB and {page_service.max_pixels / 1e6:g} megapixels"
    work = Work(page_service, results, round(total_mb * 1e6))
    with PageBlocks(title="Face restoration", analytics_enabled=False) as page:
        marks, name = gr.State([]), gr.State("")  # not within the tabs, each child of which counts as one
        gr.HTML(theme.HEADER, elem_id="idm-header")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                given = _Controls(**controls(page_service, examples, limits))
            with gr.Column(scale=4, min_width=320), gr.Tabs(selected="faces") as tabs:
                found = _found_tab(tabs, marks)
                result = _result_tabs(name)
                several = _several_tab(limits)
        handlers = Handlers(work, examples, ResultStore(MAX_STORED_BYTES))
        _wire_faces(handlers, given, found, result)
        begun = [*_wire_result(handlers, given, found, result), _wire_several(BatchHandlers(work), given, several)]
        _wire_cancel(work, given, begun)
        _wire_endpoints(Endpoints(work), given.photo)
        page.unload(work.cancel)
        for event in page.fns.values():
            event.fn = event.fn or _nothing
    return page


def _nothing() -> None:
    """The function of gradio's own events, such as that of ``cancels``; a call of an event without one would be logged
    as a fault."""


# ------------------------------------------------------------------------------------------- layout


def _found_tab(tabs: gr.Tabs, marks: gr.State) -> _Found:
    with gr.Tab("Faces", id="faces"):
        preview = gr.HTML(theme.EMPTY_FACES, elem_id="idm-preview")
        faces = gr.CheckboxGroup(label="Restore these faces", visible=False, elem_id="idm-faces")
    return _Found(tabs, preview, faces, marks)


def _result_tabs(name: gr.State) -> _Result:
    with gr.Tab("Result", id="result"):
        stale = gr.HTML(theme.STALE, visible=False, elem_id="idm-stale")
        photo = gr.HTML(theme.EMPTY_RESULT, elem_id="idm-compare")
        with gr.Row():
            png = gr.DownloadButton("Download PNG", visible=False, variant="primary", elem_id="idm-png")
            same = gr.DownloadButton("Download JPEG", visible=False, elem_id="idm-same")
        table = gr.HTML(elem_id="idm-table")
        uncertainty = gr.HTML(elem_id="idm-map")
    with gr.Tab("Each face", id="face"):
        face = gr.Radio(label="Face", visible=False, elem_id="idm-face")
        before_after = gr.HTML(theme.EMPTY_FACE, elem_id="idm-before-after")
        used = gr.Radio(label="In the photograph", visible=False, elem_id="idm-used")
        redraw = gr.Button("Draw another variant", size="sm", visible=False, elem_id="idm-redraw")
        variants = gr.HTML(elem_id="idm-variants")
    return _Result(name, photo, table, png, same, uncertainty, stale, face, before_after, used, variants, redraw)


def _several_tab(limits: str) -> _Several:
    with gr.Tab("Batch", id="several"):
        files = gr.File(label=f"Photographs, each {limits}", file_count="multiple", height=200, elem_id="idm-files")
        start = gr.Button("Restore all faces of all photographs", variant="primary", elem_id="idm-restore-all")
        download = gr.DownloadButton("Download ZIP", visible=False, elem_id="idm-zip")
        summary = gr.HTML(theme.SEVERAL, elem_id="idm-summary")
    return _Several(files, start, download, summary)


# ------------------------------------------------------------------------------------------- events


def _wire_faces(handlers: Handlers, given: _Controls, found: _Found, result: _Result) -> None:
    looked = [found.found, found.preview, found.faces, given.restore, found.tabs, *result.all]
    given.gallery.select(handlers.example, None, given.photo, show_progress="hidden", **_PRIVATE)
    gr.on(
        [given.photo.change, given.turn.input],
        handlers.find,
        [given.photo, given.turn],
        looked,
        concurrency_limit=4,
        show_progress_on=found.preview,
        **_PRIVATE,
    ).failure(lambda: handlers.find(None), None, looked, **_PRIVATE)
    found.faces.input(
        handlers.tick,
        [given.photo, found.found, found.faces],
        [found.preview, given.restore],
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=4,
        **_PRIVATE,
    )


def _wire_result(handlers: Handlers, given: _Controls, found: _Found, result: _Result) -> list[Any]:
    """Returns what restores faces."""
    given.restorer.input(handlers.choose_restorer, given.restorer, [given.steps, given.fidelity], **_PRIVATE)
    given.new_seed.click(handlers.new_seed, None, given.seed, show_progress="hidden", **_PRIVATE)
    pressed = given.restore.click(
        lambda: gr.Tabs(selected="result"), None, found.tabs, concurrency_limit=None, **_PRIVATE
    )
    restored = pressed.then(
        handlers.restore,
        [given.photo, found.faces, *given.settings],
        result.all,
        concurrency_limit=1,
        concurrency_id="restore",
        show_progress_on=[result.photo],
        scroll_to_output=True,
        **_PRIVATE,
    )
    restored.failure(lambda: gr.Tabs(selected="faces"), None, found.tabs, **_PRIVATE)
    gr.on(
        [component.change for component in (found.faces, *given.settings)],
        handlers.mark_stale,
        [result.name, found.faces, *given.settings],
        result.stale,
        concurrency_limit=None,
        show_progress="hidden",
        trigger_mode="always_last",
        **_PRIVATE,
    )
    result.face.input(
        handlers.show_face, [result.name, result.face], result.of_one_face, concurrency_limit=None, **_PRIVATE
    )
    result.used.input(
        handlers.use,
        [result.name, result.face, result.used],
        result.all,
        concurrency_limit=4,
        show_progress_on=[result.before_after],
        **_PRIVATE,
    )
    redrawn = result.redraw.click(
        handlers.redraw,
        [result.name, result.face],
        result.all,
        concurrency_limit=1,
        concurrency_id="restore",
        show_progress_on=[result.before_after],
        **_PRIVATE,
    )
    return [restored, redrawn]


def _wire_several(batch: BatchHandlers, given: _Controls, several: _Several) -> Any:
    return several.start.click(
        batch.restore,
        [several.files, *given.settings],
        [several.summary, several.download],
        concurrency_limit=1,
        show_progress_on=[several.summary],
        **_PRIVATE,
    )


def _wire_cancel(work: Work, given: _Controls, begun: list[Any]) -> None:
    """gradio removes what still waits; what runs stops by itself after its next step."""
    given.cancel.click(
        work.cancel, None, None, cancels=begun, concurrency_limit=None, show_progress="hidden", **_PRIVATE
    )


def _wire_endpoints(endpoints: Endpoints, photo: gr.File) -> None:
    """The HTTP interface, as events of components that are not shown."""
    settings, answer = gr.JSON(visible=False), gr.JSON(visible=False)
    files, caller = gr.File(file_count="multiple", visible=False), gr.Button(visible=False)
    caller.click(endpoints.find, photo, answer, api_name="find_v1", concurrency_limit=4)
    caller.click(
        endpoints.restore,
        [photo, settings],
        [files, answer],
        api_name="restore_v1",
        concurrency_limit=1,
        concurrency_id="restore",
    )
