"""A job over many files: what becomes what, what is done already, and a status file that survives a kill."""

import json
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from idm.io.images import READ_SUFFIXES, ImageError, find_images, find_others, image_error, write_whole

# Of a job's time, at most this share goes into writing its status.
_STATUS_SHARE = 0.05
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass
class Report:
    """What became of a job's files.

    ``states`` counts what was written, and ``faces`` the faces in it, by what became of them. ``passed_over`` counts
    by suffix the files of folders that are no inputs. ``longest_side`` is that of the largest photograph.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    faces: Counter[str] = field(default_factory=Counter)
    passed_over: dict[str, int] = field(default_factory=dict)
    longest_side: int = 0


@dataclass(frozen=True)
class Progress:
    """Who wants to know: ``on_start`` of the number of files to do, ``on_file`` of each and its error, if any,
    ``on_frames`` of a clip's frames that are done, and of how many there are, if that is known."""

    on_start: Callable[[int], None] = lambda num_files: None
    on_file: Callable[[Path, Exception | None], None] = lambda path, error: None
    on_frames: Callable[[Path, int, int | None], None] = lambda path, done, of: None


def same_suffix(suffixes: Sequence[str]) -> Callable[[Path], str]:
    """Keeps a suffix that is one of these; others become PNG."""
    return lambda path: path.suffix if path.suffix.lower() in suffixes else ".png"


def as_png(path: Path) -> str:
    return ".png"


def as_preview(path: Path) -> str:
    return ".preview.png"


def plan(
    inputs: Sequence[Path],
    output: Path,
    suffix: Callable[[Path], str] = as_png,
    suffixes: Sequence[str] = READ_SUFFIXES,
) -> dict[Path, Path]:
    """Which file each input becomes: its path within the folder it was found in, with the suffix asked for. In
    folders, files with one of ``suffixes`` are inputs; an output folder in a folder of inputs is none of those.

    Raises:
        ImageError: an input does not exist or holds no image, two would become one file, or one be overwritten.
    """
    targets: dict[Path, Path] = {}
    taken: set[Path] = set()
    for given in inputs:
        for source in find_images([given], suffixes):
            inside = source.relative_to(given) if given.is_dir() else Path(source.name)
            if _is_result(given, inside, output):
                continue
            target = output / inside.with_suffix(suffix(source))
            if target in taken:  # a.jpg beside a.png
                target = output / inside.with_name(f"{inside.stem}_{inside.suffix[1:]}{suffix(source)}")
            if target in taken:
                raise ImageError(f"{source}: another input would be written to {target} too; restore it by itself")
            targets[source] = target
            taken.add(target)
    overwritten = {source.resolve() for source in targets} & {target.resolve() for target in targets.values()}
    if overwritten:
        raise ImageError(f"{min(overwritten)}: would be overwritten; choose another output folder")
    return targets


def _is_result(given: Path, inside: Path, output: Path) -> bool:
    """Whether a file lies in the output folder, and that within the folder of inputs."""
    folder, results = given.resolve(), output.resolve()
    return folder in results.parents and results in (folder / inside).parents


class Job:
    """The files of one command, as a context: on leaving, however that happens, the status file is whole and true.

    ``status`` in the output folder has the job's settings and, for each input, its state, its output and what
    else is known of it. It is replaced whole, after every file or, in large jobs, as often as a twentieth of the
    time allows; a killed job loses at most what was done since. With ``skip_existing`` a file whose output is
    there is left out, and keeps the entry it has in the status file.

    Raises:
        ImageError: as :func:`plan`, or a status file that cannot be understood.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        output: Path,
        *,
        settings: Mapping[str, Any],
        suffix: Callable[[Path], str] = as_png,
        suffixes: Sequence[str] = READ_SUFFIXES,
        status: str = "status.json",
        skip_existing: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.todo = plan(inputs, output, suffix, suffixes)
        others = (path for path in find_others(inputs, suffixes) if output.absolute() not in path.parents)
        passed_over = Counter(path.suffix.lower() for path in others)
        self.report = Report(passed_over=dict(passed_over.most_common()))
        self.path = output / status
        self.settings = dict(settings)
        self.progress = progress or Progress()
        self.entries: dict[str, dict[str, Any]] = {}
        self._started = _now()
        self._next_write = 0.0
        if skip_existing:
            self._skip(self._read_entries())

    def _skip(self, before: Mapping[str, Any]) -> None:
        done = {source: target for source, target in self.todo.items() if target.exists()}
        for source, target in done.items():
            del self.todo[source]
            self.report.skipped.append(target)
            entry = before.get(str(source), {})
            unknown = {"state": "already there", "output": str(target)}
            self.entries[str(source)] = entry if entry.get("output") == str(target) else unknown

    def _read_entries(self) -> Mapping[str, Any]:
        if not self.path.exists():
            return {}
        try:
            entries = json.loads(self.path.read_text())["files"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise image_error(self.path, f"is not the status of a job ({error})", "move it away") from error
        return entries

    def __enter__(self) -> "Job":
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise image_error(folder, f"this folder cannot be made ({error.strerror})", "name another") from error
        self.progress.on_start(len(self.todo))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write_status(finished=kind is None)

    def make_folder(self, source: Path) -> Path:
        """The source's target, whose folder then exists."""
        target = self.todo[source]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{target}: its folder cannot be made ({error.strerror})") from error
        return target

    def wrote(self, source: Path, state: str = "restored", details: Mapping[str, Any] = _NOTHING) -> None:
        """A file's output is there."""
        target = self.todo[source]
        self.report.written.append(target)
        self.report.states[state] += 1
        self._note(source, None, {"state": state, "output": str(target), **details})

    def failed(self, source: Path, error: Exception, details: Mapping[str, Any] = _NOTHING) -> None:
        """A file has no output, and why. What is not the file's own fault is recorded with its traceback."""
        self.report.failed.append(error)
        entry = {"state": "failed", "error": _message(error), **details}
        if not isinstance(error, ImageError):
            entry["traceback"] = "".join(traceback.format_exception(error))
        self._note(source, error, entry)

    def _note(self, source: Path, error: Exception | None, entry: dict[str, Any]) -> None:
        self.entries[str(source)] = entry
        if time.monotonic() >= self._next_write:
            self._write_status(finished=False)
        self.progress.on_file(source, error)

    def _write_status(self, finished: bool) -> None:
        start = time.monotonic()
        status = {
            "started": self._started,
            "written": _now(),
            "finished": finished,
            "settings": self.settings,
            "counts": dict(sorted(Counter(entry["state"] for entry in self.entries.values()).items())),
            "passed_over": self.report.passed_over,
            "files": self.entries,
        }
        write_whole(self.path, json.dumps(status, indent=1, ensure_ascii=False).encode())
        end = time.monotonic()
        self._next_write = end + (end - start) / _STATUS_SHARE


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
