"""Event handlers of the page: from the values of its components to updates of its components."""

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
from idm.apps.web.session import CancelledError, PageService, RestoreRequest, choose, save
from idm.faces.detect import DetectedFace
from idm.io.errors import InvalidInput

MAX_SEED = 2**32 - 1

_PROGRESS = gr.Progress()
Update = Any  # of a component, as gradio takes it


@contextmanager
def told_to_the_user(path: Path) -> Iterator[None]:
    """Show a user's mistake as a message on the page. It names the file without its path on the server."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:  # the latter two of values that no control of the page has
        message = str(error).replace(str(path), path.name)
        raise gr.Error(html.escape(message), duration=None, title="", print_exception=False) from None


def most_steps(defaults: RestoreRequest) -> int:
    """The upper limit of the steps slider: the model's own number of steps, and at least 4, so that fidelity has
    an effect. More steps take longer and usually give worse faces."""
    return max(defaults.num_steps, 4)


@dataclass(frozen=True)
class Handlers:
    """The handlers of all users; what belongs to one user is in the arguments."""

    page_service: PageService
    examples: Sequence[Path]
    results: Path
    max_results_bytes: int = 2_000_000_000
    running: dict[str, set[threading.Event]] = field(default_factory=dict)

    def example(self, event: gr.SelectData) -> str:
        return str(self.examples[event.index])

    def find(self, file: str | None) -> tuple[Update, ...]:
        """Update the faces, preview, tick boxes, hint, button and tabs, and clear the last result."""
        nothing = (gr.ImageSlider(value=None, visible=False), gr.HTML(theme.EMPTY_RESULT), *self._downloads([]))
        if file is None:
            hidden = (gr.Image(value=None, visible=False), gr.CheckboxGroup(choices=[], value=[], visible=False))
            return [], *hidden, gr.HTML(theme.EMPTY_FACES, visible=True), *_ready(False), *nothing
        path = Path(file)
        with told_to_the_user(path), self.page_service.memory_for(path):
            photo = self.page_service.read(path)
            found = self.page_service.find(photo)
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
        """Update the preview, which shows chosen faces in green, and enable or disable the button."""
        if file is None:
            return gr.skip(), gr.skip()
        path = Path(file)
        with told_to_the_user(path), self.page_service.memory_for(path):
            preview = Image.fromarray(theme.preview(self.page_service.read(path).pixels, found, ticked))
        return preview, gr.Button(interactive=bool(ticked))

    def choose_restorer(self, label: str) -> tuple[Update, ...]:
        defaults, has_chain = self.page_service.defaults(label), self.page_service.has_chain(label)
        return (
            gr.Slider(value=defaults.num_steps, maximum=most_steps(defaults), interactive=has_chain),
            gr.Slider(value=defaults.fidelity, interactive=has_chain),
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
        """Update before and after, the table of faces, and the downloads."""
        path = Path(file or "")
        with told_to_the_user(path), self._until_cancelled(request.session_hash) as is_cancelled:
            if file is None:
                raise InvalidInput("choose a photograph first")
            if sum(path.stat().st_size for path in self.results.glob("*/*")) > self.max_results_bytes:
                raise InvalidInput("there is no space for more results; old ones are removed within an hour")
            if seed is None:
                raise InvalidInput("the seed must be a whole number")
            wanted = RestoreRequest(
                restorer, tuple(faces), int(steps), float(fidelity), int(seed), float(upscale), int(samples)
            )
            what = f"Restoring {len(faces)} face{'s' * (len(faces) != 1)}"
            progress(0.0, desc=what)

            def on_progress(count: int, total: int) -> None:
                if is_cancelled.is_set():
                    raise CancelledError("cancelled")
                progress((count, total), desc=what, unit="steps")

            with self.page_service.memory_for(path, wanted.upscale):
                done = self.page_service.restore(self.page_service.read(path, wanted.upscale), wanted, on_progress)
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
        """Stop the user's restorations after their next step; also called when the user leaves the page."""
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
