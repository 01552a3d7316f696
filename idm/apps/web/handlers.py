"""What the page answers to what users do: arguments from the page's parts, news for its parts back."""

import html
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image

from idm.apps.web import theme
from idm.apps.web.session import CancelledError, Order, Studio, choose, save
from idm.faces.detect import DetectedFace

MAX_SEED = 2**32 - 1

_PROGRESS = gr.Progress()
Update = Any  # what gradio takes as the news of a part


@contextmanager
def told_to_the_user(path: Path) -> Iterator[None]:
    """A mistake of the user becomes a message on the page, which names the file but not where the server keeps it."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:  # the latter two of values that no control of the page has
        message = str(error).replace(str(path), path.name)
        raise gr.Error(html.escape(message), duration=None, title="", print_exception=False) from None


def most_steps(defaults: Order) -> int:
    """The steps that are offered: those that a model is made for, and at least 4, so that fidelity has degrees. More
    steps take longer and usually give worse faces."""
    return max(defaults.num_steps, 4)


@dataclass(frozen=True)
class Answers:
    """One for all users: what belongs to one user is in the arguments."""

    studio: Studio
    examples: Sequence[Path]
    results: Path
    max_results_bytes: int = 2_000_000_000
    running: dict[str, set[threading.Event]] = field(default_factory=dict)

    def example(self, event: gr.SelectData) -> str:
        return str(self.examples[event.index])

    def find(self, file: str | None) -> tuple[Update, ...]:
        """Faces found, preview, tick boxes, hint, button, tabs; and the last result is put away."""
        nothing = (gr.ImageSlider(value=None, visible=False), gr.HTML(theme.EMPTY_RESULT), *self._downloads([]))
        if file is None:
            hidden = (gr.Image(value=None, visible=False), gr.CheckboxGroup(choices=[], value=[], visible=False))
            return [], *hidden, gr.HTML(theme.EMPTY_FACES, visible=True), *_ready(False), *nothing
        path = Path(file)
        with told_to_the_user(path), self.studio.memory_for(path):
            photo = self.studio.read(path)
            found = self.studio.find(photo)
            chosen = choose(found)
            preview = Image.fromarray(theme.preview(photo.pixels, found, chosen))
        labels = [(theme.face_label(number, face.size, face.score), number) for number, face in enumerate(found)]
        return (
            found,
            gr.Image(preview, visible=True),
            gr.CheckboxGroup(choices=labels, value=chosen, visible=bool(found)),
            gr.HTML(theme.NO_FACES, visible=not found),
            *_ready(bool(chosen)),
            *nothing,
        )

    def tick(self, file: str | None, found: list[DetectedFace], ticked: list[int]) -> tuple[Update, ...]:
        """The preview with the chosen faces in green, and whether there is something to restore."""
        if file is None:
            return gr.skip(), gr.skip()
        path = Path(file)
        with told_to_the_user(path), self.studio.memory_for(path):
            preview = Image.fromarray(theme.preview(self.studio.read(path).pixels, found, ticked))
        return preview, gr.Button(interactive=bool(ticked))

    def choose_restorer(self, label: str) -> tuple[Update, ...]:
        order, has_chain = self.studio.defaults(label), self.studio.has_chain(label)
        return (
            gr.Slider(value=order.num_steps, maximum=most_steps(order), interactive=has_chain),
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
        fidelity: float | int,
        seed: int | None,
        upscale: float | int,
        samples: int,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[Update, ...]:
        """Before and after, the table of faces, and the files to download."""
        path = Path(file or "")
        with told_to_the_user(path), self._until_cancelled(request.session_hash) as is_cancelled:
            if file is None:
                raise ValueError("choose a photograph first")
            if sum(path.stat().st_size for path in self.results.glob("*/*")) > self.max_results_bytes:
                raise ValueError("there is no space for more results; old ones are removed within the hour")
            if seed is None:
                raise ValueError("the seed must be a whole number")
            order = Order(restorer, tuple(faces), int(steps), float(fidelity), int(seed), float(upscale), int(samples))
            what = f"Restoring {len(faces)} face{'s' * (len(faces) != 1)}"
            progress(0.0, desc=what)

            def on_progress(count: int, total: int) -> None:
                if is_cancelled.is_set():
                    raise CancelledError("cancelled")
                progress((count, total), desc=what, unit="steps")

            with self.studio.memory_for(path, order.upscale):
                done = self.studio.restore(self.studio.read(path, order.upscale), order, on_progress)
                folder = self.results / secrets.token_urlsafe(16)
                folder.mkdir()
                files = save(done, path, folder)
                pair = tuple(Image.fromarray(theme.shown(x)) for x in (done.before, done.result.photo.pixels))
        table = gr.HTML(theme.faces_table(done))
        return gr.ImageSlider(pair, visible=True), table, *self._downloads(files)

    @contextmanager
    def _until_cancelled(self, session: str | None) -> Iterator[threading.Event]:
        """Register a restoration of a user, whose :meth:`cancel` sets the event."""
        key, event = session or "", threading.Event()
        self.running.setdefault(key, set()).add(event)
        try:
            yield event
        finally:
            self.running[key].discard(event)
            if not self.running[key]:
                del self.running[key]

    def cancel(self, request: gr.Request) -> None:
        """End the user's restorations after their next step; also when the user leaves the page."""
        for event in tuple(self.running.get(request.session_hash or "", ())):
            event.set()

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
