"""The HTTP interface: what programs call. Names end with the version; a change that breaks callers gets a new one."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from idm.apps.web.session import faces_by_default, save_map, save_result
from idm.apps.web.work import Work, errors_shown_on_page
from idm.faces.geometry import why_implausible
from idm.io.errors import InvalidInput

_PROGRESS = gr.Progress()
_NO_PHOTOGRAPH = "upload a photograph first, and name it"


@dataclass(frozen=True)
class Endpoints:
    """Functions from an uploaded photograph to JSON, and to files."""

    work: Work

    def find(self, file: str | None) -> list[dict[str, Any]]:
        """The faces of a photograph, the largest first: number, box (left, top, right, bottom), score, and whether it
        is restored by default."""
        path = Path(file) if file else None
        with errors_shown_on_page(path):
            if path is None:
                raise InvalidInput(_NO_PHOTOGRAPH)
            with self.work.page_service.memory_for(path):
                found = self.work.page_service.find(self.work.page_service.read(path))
        chosen = faces_by_default(found)
        return [
            {
                "number": number,
                "box": [round(float(x), 2) for x in face.box],
                "score": round(face.score, 4),
                "chosen": number in chosen,
                "note": why_implausible(face.landmarks),
            }
            for number, face in enumerate(found)
        ]

    def restore(
        self,
        file: str | None,
        settings: Mapping[str, Any] | None,
        request: gr.Request,
        progress: gr.Progress = _PROGRESS,
    ) -> tuple[list[str], dict[str, Any]]:
        """Restore a photograph: the files of the result, and a report for each face.

        ``settings`` are those of :func:`idm.apps.web.request.photo_settings`, and ``restorer``, ``steps`` and
        ``fidelity``; all may be left out. ``reference`` is a list of uploaded files.
        """
        path, service = Path(file) if file else None, self.work.page_service
        with self.work.on(path, request.session_hash, progress, "Restoring") as on_progress:
            if path is None:
                raise InvalidInput(_NO_PHOTOGRAPH)
            wanted = service.request(self._with_paths(settings or {}))
            with service.memory_for(path, wanted):
                done = service.restore(service.read(path, wanted.settings.upscale), wanted, on_progress)
                folder = self.work.new_folder()
                files = [*save_result(done, path, folder), *save_map(done, path, folder)]
        result = done.result
        answer = {
            "settings": wanted.named(),
            "num_found": result.num_found,
            "faces": [asdict(face) for face in result.faces],
            "left_alone": [asdict(face) for face in result.left_alone],
            "reference_faces": None if done.reference is None else done.reference.summary(),
        }
        return [str(file) for file in files], answer

    def _with_paths(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The settings, in which ``reference`` is the paths of uploads; a call cannot name other files of the server.

        Raises:
            ValueError: ``reference`` is no list of uploaded files.
        """
        given = settings.get("reference")
        if given is None:
            return dict(settings)
        uploads = self.work.results.parent.resolve()
        named = given if isinstance(given, list) else [given]
        files = [str(file["path"]) if isinstance(file, dict) and "path" in file else "" for file in named]
        if not all(Path(file).resolve().is_relative_to(uploads) for file in files):
            raise InvalidInput("reference: upload the photographs, and give them as the photograph is given")
        return {**settings, "reference": tuple(files)}
