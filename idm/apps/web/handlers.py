"""Event handlers of the page: from the values of its components to updates of its components."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from idm.apps.web import theme, views
from idm.apps.web.request import MAX_SEED, MODEL_OPTIONS, PHOTO_OPTIONS, most_steps
from idm.apps.web.restoration import MAX_VARIANTS, Restoration, ResultStore, StoredResult
from idm.apps.web.session import PageService, RestoreResult, faces_by_default, save_map, save_result
from idm.apps.web.work import Work, errors_shown_on_page
from idm.faces.detect import DetectedFace
from idm.faces.names import FaceGroup, Turn
from idm.io.errors import InvalidInput

# The settings that the page has a control for, in the order in which handlers take their values; faces are ticked.
SETTINGS = (*MODEL_OPTIONS, *(name for name in PHOTO_OPTIONS if name != "faces"))
NO_LIMIT = -1.0  # of the control of min_identity: no cosine is below it
AS_GIVEN = -1  # the choice of a face as given, in a control whose other values are positions of variants

_PROGRESS = gr.Progress()
Update = Any  # of a component, as gradio takes it


def named(values: Sequence[Any], faces: Sequence[int] | FaceGroup) -> dict[str, Any]:
    """The values of the page's controls, by the names of the settings."""
    settings = dict(zip(SETTINGS, values, strict=True))
    if settings["min_identity"] == NO_LIMIT:
        settings["min_identity"] = None
    settings["reference"] = tuple(settings["reference"] or ()) or None
    return settings | {"faces": faces if isinstance(faces, str) else tuple(sorted(faces))}


@dataclass(frozen=True)
class Handlers:
    """The handlers of all users; what belongs to one user is in the arguments."""

    work: Work
    examples: Sequence[Path]
    store: ResultStore

    @property
    def page_service(self) -> PageService:
        """The models and limits that all users share."""
        return self.work.page_service

    # --------------------------------------------------------------------------------------- faces found

    def example(self, event: gr.EventData) -> str:
        """The path of the example that a user clicked."""
        chosen = event._data.get("index") if isinstance(event._data, dict) else None
        if not isinstance(chosen, int) or not 0 <= chosen < len(self.examples):
            raise gr.Error("choose one of the examples", print_exception=False)
        return str(self.examples[chosen])

    def find(self, file: str | None, turn: Turn = "auto") -> tuple[Update, ...]:
        """Update the faces, preview, tick boxes, button and tabs, and clear the last result."""
        nothing = ("", *self._nothing())
        if file is None:
            hidden = gr.CheckboxGroup(choices=[], value=[], visible=False)
            return [], gr.HTML(theme.EMPTY_FACES), hidden, *_ready(False), *nothing
        path = Path(file)
        with errors_shown_on_page(path), self.page_service.memory_for(path):
            self.work.check_space()
            photo = self.page_service.read(path)
            found = self.page_service.find(photo, turn)
            chosen = faces_by_default(found)
            folder = self.work.new_folder()
            views.write_preview(folder, photo.pixels, found, chosen)
        labels = [(views.face_label(number, face), number) for number, face in enumerate(found)]
        return (
            found,
            gr.HTML(views.preview(folder, found) if found else theme.NO_FACES),
            gr.CheckboxGroup(choices=labels, value=chosen, visible=bool(found)),
            *_ready(bool(chosen)),
            *nothing,
        )

    def tick(self, file: str | None, found: list[DetectedFace], ticked: list[int]) -> tuple[Update, ...]:
        """Update the preview, which shows chosen faces in green, and enable or disable the button."""
        if file is None:
            return gr.skip(), gr.skip()
        path = Path(file)
        with errors_shown_on_page(path), self.page_service.memory_for(path):
            self.work.check_space()
            folder = self.work.new_folder()
            views.write_preview(folder, self.page_service.read(path).pixels, found, ticked)
        return gr.HTML(views.preview(folder, found)), gr.Button(interactive=bool(ticked))

    # --------------------------------------------------------------------------------------- settings

    def choose_restorer(self, label: str) -> tuple[Update, ...]:
        """Set steps and fidelity to the defaults of a restorer; both are disabled for one without a chain."""
        chain, has_chain = self.page_service.chain(label), self.page_service.has_chain(label)
        return (
            gr.Slider(value=chain.num_steps, maximum=most_steps(chain), interactive=has_chain),
            gr.Slider(value=chain.fidelity, interactive=has_chain),
        )

    def new_seed(self) -> int:
        """A random seed."""
        return secrets.randbelow(MAX_SEED + 1)

    def mark_stale(self, name: str, faces: list[int], *values: Any) -> Update:
        """Show that a result was made with other settings than those that are set now."""
        try:
            restoration = self.store.get(name).restoration
        except ValueError:
            return gr.HTML(visible=False)
        try:
            is_stale = self.page_service.request(named(values, faces)) != restoration.request
        except ValueError:  # settings that could not be restored with are other settings
            is_stale = True
        return gr.HTML(visible=is_stale)

    # --------------------------------------------------------------------------------------- results

    def restore(
        self,
        file: str | None,
        faces: list[int],
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
        *values: Any,
    ) -> tuple[Update, ...]:
        """Restore the ticked faces, and update all that shows a result."""
        path = Path(file) if file else None
        what = f"Restoring {len(faces)} face{'s' * (len(faces) != 1)}"
        with self.work.on(path, request.session_hash, progress, what) as on_progress:
            if path is None:
                raise InvalidInput("choose a photograph first")
            wanted = self.page_service.request(named(values, faces))
            with self.page_service.memory_for(path, wanted):
                photo = self.page_service.read(path, wanted.settings.upscale)
                restoration = self.page_service.draw(photo, wanted, on_progress)
                stored, done = self._publish(path, restoration, self.page_service.compose(photo, restoration))
        return self._result(self.store.put(stored), stored, done)

    def redraw(
        self, name: str, number: int, request: gr.Request, progress: gr.Progress = _PROGRESS
    ) -> tuple[Update, ...]:
        """Draw one more variant of a face, with another seed, and use it."""
        with errors_shown_on_page():
            before = self.store.get(name)
        with self.work.on(before.source, request.session_hash, progress, f"Drawing face {number}") as on_progress:
            wanted = before.restoration.request
            with self.page_service.memory_for(before.source, wanted):
                photo = self.page_service.read(before.source, wanted.settings.upscale)
                restoration = self.page_service.redraw(photo, before.restoration, number, self.new_seed(), on_progress)
                stored, done = self._publish(before.source, restoration, self.page_service.compose(photo, restoration))
        return self._replaced(name, before, stored, done, number)

    def use(self, name: str, number: int, position: int) -> tuple[Update, ...]:
        """Use another variant of a face, or the face as given, and put the photograph together again."""
        with errors_shown_on_page():
            before = self.store.get(name)
        wanted = before.restoration.request
        with errors_shown_on_page(before.source), self.page_service.memory_for(before.source, wanted):
            self.work.check_space()
            restoration = before.restoration.use(number, None if position == AS_GIVEN else position)
            photo = self.page_service.read(before.source, wanted.settings.upscale)
            stored, done = self._publish(before.source, restoration, self.page_service.compose(photo, restoration))
        return self._replaced(name, before, stored, done, number)

    def show_face(self, name: str, number: int) -> tuple[Update, ...]:
        """Update what shows one face."""
        with errors_shown_on_page():
            return self._face(self.store.get(name), number)

    # --------------------------------------------------------------------------------------- updates

    def _publish(
        self, source: Path, restoration: Restoration, done: RestoreResult
    ) -> tuple[StoredResult, RestoreResult]:
        """Write the files of a result."""
        folder = self.work.new_folder()
        views.write_pictures(folder, restoration, done)
        save_map(done, source, folder)
        return StoredResult(restoration, source, folder, tuple(save_result(done, source, folder))), done

    def _replaced(
        self, name: str, before: StoredResult, stored: StoredResult, done: RestoreResult, number: int
    ) -> tuple[Update, ...]:
        self.store.put(stored, name)
        views.remove(before.folder)
        return self._result(name, stored, done, number)

    def _result(
        self, name: str, stored: StoredResult, done: RestoreResult, number: int | None = None
    ) -> tuple[Update, ...]:
        """The name of the result, and updates of all that shows it; of one face in particular, by default the
        largest."""
        numbers = list(stored.restoration.variants)
        states = {report.number: report.state for report in done.result.faces}
        first = numbers[0] if number is None else number
        return (
            name,
            gr.HTML(views.comparison_slider(stored.folder, "", "The photograph")),
            gr.HTML(views.faces_table(done)),
            *_downloads(stored.files),
            gr.HTML(views.uncertainty_map(stored)),
            gr.HTML(visible=False) if number is None else gr.skip(),  # what one chooses of a face makes nothing newer
            gr.Radio([(f"{n}: {states[n]}", n) for n in numbers], value=first, visible=True),
            *self._face(stored, first),
        )

    def _face(self, stored: StoredResult, number: int) -> tuple[Update, ...]:
        restoration = stored.restoration
        position = restoration.choice.get(number, 0)
        [report] = [face.report(restoration.request.settings) for face in restoration.faces() if face.number == number]
        drawn = [(views.variant_label(restoration, number, k), k) for k in range(len(restoration.variants[number]))]
        return (
            gr.HTML(views.face(stored, report)),
            gr.Radio([("as given", AS_GIVEN), *drawn], value=AS_GIVEN if position is None else position, visible=True),
            gr.HTML(views.variants(stored, number)),
            gr.Button(visible=True, interactive=len(drawn) < MAX_VARIANTS and report.state != "failed"),
        )

    def _nothing(self) -> tuple[Update, ...]:
        """Updates that clear a result."""
        return (
            gr.HTML(theme.EMPTY_RESULT),
            gr.HTML(""),
            *_downloads([]),
            gr.HTML(""),
            gr.HTML(visible=False),
            gr.Radio(choices=[], value=None, visible=False),
            gr.HTML(theme.EMPTY_FACE),
            gr.Radio(choices=[], value=None, visible=False),
            gr.HTML(""),
            gr.Button(visible=False),
        )


def _downloads(files: Sequence[Path]) -> tuple[Update, Update]:
    """PNG, and the photograph's own kind where it is another."""
    first = gr.DownloadButton(value=files[0] if files else None, visible=bool(files))
    if len(files) < 2:
        return first, gr.DownloadButton(value=None, visible=False)
    kind = {".webp": "WebP"}.get(files[1].suffix, "JPEG")
    return first, gr.DownloadButton(f"Download {kind}", value=files[1], visible=True)


def _ready(is_ready: bool) -> tuple[Update, Update]:
    """The button, and the tab with the faces in front."""
    return gr.Button(interactive=is_ready), gr.Tabs(selected="faces")
