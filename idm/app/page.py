"""The page: what stands where, and which function answers what the user does."""

import html
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from idm.app import look
from idm.app.studio import Order, Studio, choose, save
from idm.faces.detect import DetectedFace

MAX_STEPS = 50
MAX_SAMPLES = 8
MAX_SEED = 2**32 - 1

_PROGRESS = gr.Progress()
Update = Any  # what gradio takes as the news of a component


@contextmanager
def told_to_the_user(path: Path) -> Iterator[None]:
    """A mistake of the user becomes a message on the page, which names the file but not where the server keeps it."""
    try:
        yield
    except ValueError as error:
        message = str(error).replace(str(path), path.name)
        raise gr.Error(html.escape(message), duration=None, title="", print_exception=False) from None


@dataclass(frozen=True)
class Answers:
    """What the page does, for all users; what belongs to one user is in the arguments."""

    studio: Studio
    examples: Sequence[Path]
    results: Path

    def example(self, event: gr.SelectData) -> str:
        return str(self.examples[event.index])

    def find(self, file: str | None) -> tuple[Update, ...]:
        """Faces found, preview, tick boxes, hint, button, tabs; and the last result is put away."""
        nothing = (gr.ImageSlider(value=None, visible=False), gr.HTML(look.EMPTY_RESULT), *self._downloads([]))
        if file is None:
            hidden = (gr.Image(value=None, visible=False), gr.CheckboxGroup(choices=[], value=[], visible=False))
            return [], *hidden, gr.HTML(look.EMPTY_FACES, visible=True), *_ready(False), *nothing
        path = Path(file)
        with told_to_the_user(path):
            photo = self.studio.read(path)
            found = self.studio.find(photo)
        chosen = choose(found)
        preview = Image.fromarray(look.preview(photo.pixels, found, chosen))
        labels = [(look.face_label(number, face.size, face.score), number) for number, face in enumerate(found)]
        return (
            found,
            gr.Image(preview, visible=True),
            gr.CheckboxGroup(choices=labels, value=chosen, visible=bool(found)),
            gr.HTML(look.NO_FACES, visible=not found),
            *_ready(bool(chosen)),
            *nothing,
        )

    def tick(self, file: str | None, found: list[DetectedFace], ticked: list[int]) -> tuple[Update, ...]:
        """The preview with the chosen faces in green, and whether there is something to restore."""
        if file is None:
            return gr.skip(), gr.skip()
        path = Path(file)
        with told_to_the_user(path):
            photo = self.studio.read(path)
        return Image.fromarray(look.preview(photo.pixels, found, ticked)), gr.Button(interactive=bool(ticked))

    def choose_restorer(self, label: str) -> tuple[Update, ...]:
        order, has_chain = self.studio.defaults(label), self.studio.has_chain(label)
        return (
            gr.Slider(value=order.num_steps, interactive=has_chain),
            gr.Slider(value=order.fidelity, interactive=has_chain),
        )

    def new_seed(self) -> int:
        return secrets.randbelow(MAX_SEED + 1)

    def restore(
        self,
        file: str | None,
        faces: list[int],
        restorer: str,
        steps: int,
        fidelity: float,
        seed: int,
        upscale: float,
        samples: int,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[Update, ...]:
        """Before and after, the table of faces, and the files to download."""
        path = Path(file or "")
        with told_to_the_user(path):
            if file is None:
                raise ValueError("choose a photograph first")
            order = Order(restorer, tuple(faces), int(steps), fidelity, int(seed), upscale, int(samples))
            what = f"Restoring {len(faces)} face{'s' * (len(faces) != 1)}"
            progress(0.0, desc=what)
            done = self.studio.restore(
                self.studio.read(path),
                order,
                lambda count, total: progress((count, total), desc=what, unit="steps"),
            )
            folder = self.results / secrets.token_urlsafe(16)
            folder.mkdir()
            files = save(done, path, folder)
        pair = tuple(Image.fromarray(look.shown(x)) for x in (done.before, done.result.photo.pixels))
        table = gr.HTML(look.faces_table(done))
        return gr.ImageSlider(pair, visible=True), table, *self._downloads(files)

    def _downloads(self, files: Sequence[Path]) -> tuple[Update, Update]:
        """PNG, and the photograph's own kind where it is another."""
        first = gr.DownloadButton(value=files[0] if files else None, visible=bool(files))
        if len(files) < 2:
            return first, gr.DownloadButton(value=None, visible=False)
        kind = {".webp": "WebP"}.get(files[1].suffix, "JPEG")
        return first, gr.DownloadButton(f"Download {kind}", value=files[1], visible=True)


def _ready(is_ready: bool) -> tuple[Update, Update]:
    """The button, and the tab with the faces in front."""
    return gr.Button(interactive=is_ready), gr.Tabs(selected="faces")


# ------------------------------------------------------------------------------------------- the layout


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
    tabs: gr.Tabs
    preview: gr.Image
    faces: gr.CheckboxGroup
    hint: gr.HTML
    slider: gr.ImageSlider
    table: gr.HTML
    downloads: tuple[gr.DownloadButton, gr.DownloadButton]
    found: gr.State


def build_page(studio: Studio, examples: Sequence[Path], results: Path, max_mb: float) -> gr.Blocks:
    """The page over a studio.

    Args:
        examples: photographs to try.
        results: an existing folder, below gradio's own, for the files that users download.
        max_mb: of an upload; here it is only said.
    """
    limits = f"up to {max_mb:g} MB and {studio.max_pixels / 1e6:g} megapixels"
    with gr.Blocks(title="Face restoration", analytics_enabled=False) as page:
        gr.HTML(look.HEADER, elem_id="idm-header")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                controls = _controls(studio, examples, limits)
            with gr.Column(scale=4, min_width=320):
                pictures = _pictures()
        _wire(Answers(studio, examples, results), _Parts(**controls, **pictures, found=gr.State([])))
    return page


def _controls(studio: Studio, examples: Sequence[Path], limits: str) -> dict[str, Any]:
    first = next(iter(studio.restorers))
    order, has_chain = studio.defaults(first), studio.has_chain(first)
    choices = [(f"{label}, {restorer.image_size} px", label) for label, restorer in studio.restorers.items()]
    photo = gr.File(label=f"Photograph, {limits}", height=140, elem_id="idm-photo")
    gr.HTML("or try an example", elem_id="idm-or")
    return {
        "photo": photo,
        "gallery": gr.Gallery(
            [str(path) for path in examples],
            show_label=False,
            columns=3,
            height=118,
            object_fit="cover",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="idm-examples",
        ),
        "restorer": gr.Dropdown(choices, value=first, label="Restorer", elem_id="idm-restorer"),
        "steps": gr.Slider(1, MAX_STEPS, order.num_steps, step=1, label="Steps", interactive=has_chain),
        "fidelity": gr.Slider(
            0,
            1,
            order.fidelity,
            step=0.05,
            label="Fidelity",
            info="0: the most restoration; 1: closest to the given face",
            interactive=has_chain,
        ),
        **_more_controls(),
        "restore": gr.Button("Restore", variant="primary", size="lg", interactive=False, elem_id="idm-restore"),
    }


def _more_controls() -> dict[str, Any]:
    with gr.Row(equal_height=True):
        seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120, scale=3)
        new_seed = gr.Button("New seed", size="sm", min_width=90, scale=1, elem_id="idm-new-seed")
    with gr.Accordion("More", open=False):
        upscale = gr.Radio([("as it is", 1), ("2×", 2), ("4×", 4)], value=1, label="Size of the picture")
        samples = gr.Slider(
            1, MAX_SAMPLES, 1, step=1, label="Samples of each face", info="the one with the closest identity is taken"
        )
    return {"seed": seed, "new_seed": new_seed, "upscale": upscale, "samples": samples}


def _pictures() -> dict[str, Any]:
    with gr.Tabs(selected="faces") as tabs:
        with gr.Tab("Faces found", id="faces"):
            hint = gr.HTML(look.EMPTY_FACES)
            preview = gr.Image(
                visible=False,
                format="png",
                type="pil",
                show_label=False,
                interactive=False,
                height=480,
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
            table = gr.HTML(look.EMPTY_RESULT, elem_id="idm-table")
    return {
        "tabs": tabs,
        "hint": hint,
        "preview": preview,
        "faces": faces,
        "slider": slider,
        "downloads": (png, same),
        "table": table,
    }


def _wire(answers: Answers, parts: _Parts) -> None:
    result = [parts.slider, parts.table, *parts.downloads]
    private = {"api_visibility": "private"}
    parts.gallery.select(answers.example, None, parts.photo, show_progress="hidden", **private)
    parts.photo.change(
        answers.find,
        parts.photo,
        [parts.found, parts.preview, parts.faces, parts.hint, parts.restore, parts.tabs, *result],
        api_name="find",
        concurrency_limit=4,
        show_progress_on=[parts.hint, parts.preview],
    )
    parts.faces.input(
        answers.tick,
        [parts.photo, parts.found, parts.faces],
        [parts.preview, parts.restore],
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_limit=4,
        **private,
    )
    parts.restorer.input(answers.choose_restorer, parts.restorer, [parts.steps, parts.fidelity], **private)
    parts.new_seed.click(answers.new_seed, None, parts.seed, show_progress="hidden", **private)
    parts.restore.click(lambda: gr.Tabs(selected="result"), None, parts.tabs, concurrency_limit=None, **private).then(
        answers.restore,
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
    )
