"""Several photographs at once, and their results in one ZIP file."""

import html
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from idm.apps.web import views
from idm.apps.web.handlers import named
from idm.apps.web.request import RestoreRequest
from idm.apps.web.session import CancelledError, save_map, save_result
from idm.apps.web.work import Work
from idm.apps.web.workers import OnProgress
from idm.io.errors import InvalidInput

_PROGRESS = gr.Progress()


@dataclass(frozen=True)
class BatchHandlers:
    """Restores all faces of several photographs with the settings of the page."""

    work: Work

    def restore(
        self, files: list[str] | None, request: gr.Request, progress: gr.Progress = _PROGRESS, *values: Any
    ) -> tuple[Any, Any]:
        """Update the summary and the download. A photograph that cannot be restored does not stop the others."""
        paths = [Path(file) for file in files or []]
        with self.work.on(None, request.session_hash, progress, "Restoring") as on_progress:
            if not paths:
                raise InvalidInput("choose photographs first")
            wanted = self.work.page_service.request(named(values, "all"))
            folder = self.work.new_folder()
            entries: dict[str, dict[str, Any]] = {}
            try:
                with zipfile.ZipFile(folder / "restored.zip", "w", zipfile.ZIP_STORED) as archive:
                    for path, name in zip(paths, _names(paths), strict=True):
                        progress((len(entries), len(paths)), desc=f"Restoring {name}", unit="photographs")
                        entries[name] = self._one(path, name, wanted, archive, on_progress)
                    status = {"settings": wanted.named(), "files": entries}
                    archive.writestr("status.json", json.dumps(status, indent=1))
            except CancelledError:
                views.remove(folder)
                raise
        return gr.HTML(_summary(entries)), gr.DownloadButton(value=folder / "restored.zip", visible=True)

    def _one(
        self, path: Path, name: str, wanted: RestoreRequest, archive: zipfile.ZipFile, on_progress: OnProgress
    ) -> dict[str, Any]:
        """Put a photograph's result into the archive and return its report."""
        service, folder = self.work.page_service, Path(archive.filename or "").parent
        try:
            self.work.check_space()
            with service.memory_for(path, wanted):
                done = service.restore(service.read(path, wanted.settings.upscale), wanted, on_progress)
                written = save_result(done, path, folder)
        except CancelledError:
            raise
        except ValueError as error:
            return {"state": "failed", "error": str(error).replace(str(path), name)}
        output = f"{Path(name).stem}{written[-1].suffix}"  # of the photograph's own kind where that can hold it
        archive.write(written[-1], output)
        for file in (maps := save_map(done, path, folder)):
            archive.write(file, f"{Path(name).stem}.uncertainty.png")
        for file in (*written, *maps):
            file.unlink()
        faces = [asdict(report) for report in (*done.result.faces, *done.result.left_alone)]
        return {"state": "restored" if done.result.faces else "no face", "output": output, "faces": faces}


def _names(paths: Sequence[Path]) -> list[str]:
    """The photographs' names, with a number where two results would have the same."""
    names: list[str] = []
    taken: set[str] = set()
    for path in paths:
        stem, count = path.stem, 1
        while stem.lower() in taken:
            count += 1
            stem = f"{path.stem} ({count})"
        taken.add(stem.lower())
        names.append(f"{stem}{path.suffix}")
    return names


def _summary(entries: dict[str, dict[str, Any]]) -> str:
    """A table of the photographs: how many faces were restored, and why others were not."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{entry['state']}</td><td>{_outcome(entry)}</td></tr>"
        for name, entry in entries.items()
    )
    return (
        '<table class="idm-faces"><thead><tr><th>Photograph</th><th>State</th><th>Faces</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _outcome(entry: dict[str, Any]) -> str:
    if "error" in entry:
        return f"<small>{html.escape(entry['error'])}</small>"
    faces = entry["faces"]
    restored = sum(face["state"] == "restored" for face in faces)
    notes = [f"{face['number']}: {face['state']}, {face['note']}" for face in faces if face["state"] != "restored"]
    return f"{restored} of {len(faces)} restored" + "".join(f"<small>{html.escape(note)}</small>" for note in notes)
