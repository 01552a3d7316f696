"""A job over many files: pending files, finished files, and a status file that survives a kill."""

import hashlib
import json
import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

from idm import __version__
from idm.apps.photo.plan import as_png, nothing_beside, plan
from idm.apps.photo.status import Status
from idm.io.images import READ_SUFFIXES, ImageError, image_error
from idm.io.lock import FolderInUse, locked
from idm.io.memory import default_budget

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_UNDECIDING = ("name", "batch_size")  # settings that results do not depend on


@dataclass
class Report:
    """The outcome of a job.

    ``states`` counts the written files by state, ``faces`` their faces. ``passed_over`` counts by suffix the files in
    folders that are not inputs. ``longest_side`` is that of the largest photograph.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[Exception] = field(default_factory=list)
    states: Counter[str] = field(default_factory=Counter)
    faces: Counter[str] = field(default_factory=Counter)
    passed_over: dict[str, int] = field(default_factory=dict)
    longest_side: int = 0


@dataclass(frozen=True)
class ProgressCallbacks:
    """Callbacks: ``on_start`` gets the number of files to do, ``on_file`` each finished file and its error, if any,
    ``on_frames`` a video, the number of its finished frames, and the number of all frames if it is known."""

    on_start: Callable[[int], None] = lambda num_files: None
    on_file: Callable[[Path, Exception | None], None] = lambda path, error: None
    on_frames: Callable[[Path, int, int | None], None] = lambda path, done, of: None


class Job:
    """The files of one command, as a context manager that leaves a complete status file in any case. Iterating over a
    job yields the pending files. The output folder is locked meanwhile. Its status file, see
    :class:`~idm.apps.photo.status.Status`, has an entry for each input of this job and of earlier ones: its state, its
    output and further facts. Only files that a job wrote, according to this file, are replaced, unless ``overwrite`` is
    set.

    With ``skip_existing`` a file is skipped, and keeps its entry, if its output exists and was made from the same bytes
    with the same settings. Files in the input folders that cannot be read count as failed.

    Args:
        settings: everything that the results depend on, as JSON.
        beside: gives the further files that are written with an output.
        max_memory: of one input, in bytes.

    Raises:
        ImageError: as :func:`~idm.apps.photo.plan.plan`; on entering, before any work: a file is in the way, the
            status cannot be understood or written, or another job works in the output folder.
    """

    def __init__(
        self,
        inputs: Sequence[Path],
        output: Path,
        *,
        settings: Mapping[str, Any],
        suffix: Callable[[Path], str] = as_png,
        suffixes: Sequence[str] = READ_SUFFIXES,
        beside: Callable[[Path], Sequence[Path]] = nothing_beside,
        status: str = "status.json",
        skip_existing: bool = False,
        overwrite: bool = False,
        max_memory: int | None = None,
        progress: ProgressCallbacks | None = None,
    ) -> None:
        self.todo, self._passed_over = plan(inputs, output, suffix, suffixes, beside, [output / status])
        passed_over = Counter(path.suffix.lower() for path in self._passed_over.others)
        self.report = Report(passed_over=dict(passed_over.most_common()))
        self.output = output
        self.settings = dict(settings)
        self.max_memory = default_budget() if max_memory is None else max_memory
        self.progress = progress or ProgressCallbacks()
        self.status = Status(output / status, self.settings, self.report.passed_over)
        self._beside, self._skips, self._overwrites = beside, skip_existing, overwrite
        self._fingerprints: dict[Path, str] = {}
        self._replaced: set[Path] = set()  # results of earlier jobs
        self._stack = ExitStack()

    def __enter__(self) -> "Job":
        try:
            self.output.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(locked(self.output))
        except FolderInUse:
            raise image_error(self.output, "another job works in this folder", "wait, or name another") from None
        except OSError as error:
            raise image_error(self.output, f"this folder cannot be made ({error.strerror})", "name another") from error
        with ExitStack() as undo:
            undo.push(self._stack)
            self.status.read(or_begin_anew=self._overwrites)
            self._refuse_foreign()
            if self._skips:
                self._skip()
            self._claim()
            undo.pop_all()
        return self

    def _refuse_foreign(self) -> None:
        """Refuse to replace a file that no job wrote."""
        ours = self.status.written()
        for target in self.todo.values():
            for path, name in zip(self._writes(target), self._names(target), strict=True):
                if name in ours:
                    self._replaced.add(path)
                else:
                    self._refuse_if_there(path)

    def _refuse_if_there(self, path: Path) -> None:
        if not self._overwrites and path not in self._replaced and os.path.lexists(path):
            problem = "already exists, and no job in this folder wrote it"
            raise image_error(path, problem, "choose another output folder, or replace it with --overwrite")

    def _skip(self) -> None:
        for source, target in list(self.todo.items()):
            entry = self.status.find(self._names(target))
            if entry is None or not all(path.is_file() for path in self._writes(target)):
                continue
            try:
                is_same = entry.get("fingerprint") == self._fingerprint(source)
            except OSError:  # reading it will fail too, and be reported
                continue
            if is_same:
                del self.todo[source]
                self.report.skipped.append(target)
                self.status.put(source, entry)

    def _claim(self) -> None:
        """Record in the status file which files will be written, so that a later job knows them as ours after a
        kill."""
        for source, target in self.todo.items():
            self.status.put(source, {"state": "waiting", "output": str(target), "writes": self._names(target)})
        unusable = self._passed_over.unlistable | self._passed_over.unusable
        self.progress.on_start(len(self.todo) + len(unusable))
        self.status.reserve_space(len(self.todo))
        self.status.write()
        for path, error in unusable.items():
            self.failed(path, error)

    def __iter__(self) -> Iterator[Path]:
        for source in self.todo:
            try:
                self._fingerprints[source] = self._fingerprint(source)
                self.status.begin(source, self._fingerprints[source])
            except OSError:  # reading it will fail too, and be reported
                self._fingerprints.pop(source, None)
            yield source

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            try:
                self.status.write(finished=kind is None)
            except ImageError as problem:
                self.report.failed.append(problem)
                self.progress.on_file(self.status.path, problem)

    def make_folder(self, source: Path) -> Path:
        """Create the folder of a source's output, and return the path of the output.

        Raises:
            ImageError: the folder cannot be created, or someone else has written the output since the job began.
        """
        target = self.todo[source]
        for path in self._writes(target):
            self._refuse_if_there(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImageError(f"{target}: its folder cannot be made ({error.strerror})") from error
        return target

    def wrote(self, source: Path, state: str = "restored", details: Mapping[str, Any] = _NOTHING) -> None:
        """Record that a file's output was written.

        Args:
            state: the outcome, such as "restored", "no face" or "kept".
            details: further facts for the file's entry.
        """
        target = self.todo[source]
        self.report.written.append(target)
        self.report.states[state] += 1
        entry = {"state": state, "output": str(target), "writes": self._names(target)}
        if source in self._fingerprints:
            entry["fingerprint"] = self._fingerprints[source]
        self._note(source, None, {**entry, **details})

    def failed(self, source: Path, error: Exception, details: Mapping[str, Any] = _NOTHING) -> None:
        """Record why a file has no output. The entry of an unexpected error has its traceback."""
        self.report.failed.append(error)
        entry = {"state": "failed", "error": _message(error), **details}
        if source in self.todo:
            entry["writes"] = self._names(self.todo[source])
        if not isinstance(error, ImageError):
            entry["traceback"] = "".join(traceback.format_exception(error))
        self._note(source, error, entry)

    def _note(self, source: Path, error: Exception | None, entry: dict[str, Any]) -> None:
        self.status.note(source, entry)
        self.status.write_in_time()
        self.progress.on_file(source, error)

    def _writes(self, target: Path) -> list[Path]:
        return [target, *self._beside(target)]

    def _names(self, target: Path) -> list[str]:
        return [path.relative_to(self.output).as_posix() for path in self._writes(target)]

    def _fingerprint(self, source: Path) -> str:
        """A hash of the file's bytes and of everything else that its result depends on."""
        decides = {"version": __version__, "settings": _without(self.settings, _UNDECIDING)}
        with source.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha256(json.dumps([content, decides], sort_keys=True, default=str).encode()).hexdigest()


def _without(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, Mapping):
        return {name: _without(item, names) for name, item in value.items() if name not in names}
    return value


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, ValueError) and str(error) else f"{type(error).__name__}: {error}"
