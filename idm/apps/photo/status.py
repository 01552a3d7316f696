"""The status file of a job, which is complete and correct even after a crash."""

import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from idm.io.image_writer import write_whole
from idm.io.images import ImageError, image_error

# Of a job's time, at most this share goes into writing its status.
_STATUS_SHARE = 0.05
_RESERVED_BYTES = (1 << 16, 2048)  # for the whole, and for each file: about twice what entries take


class Status:
    """The content of the file: a job's settings and an entry for each input, including those of earlier jobs. The file
    is replaced as a whole, after every input or, in large jobs, as often as a twentieth of the time allows. Changes in
    between are appended to a journal beside it, so that a killed job loses nothing.

    An entry's ``writes`` are the files, by their path in the folder, that a job wrote or was about to write. Names that
    are not UTF-8 are written as lone surrogates in JSON, which Python's ``json`` reads as the same path.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], passed_over: Mapping[str, int]) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self._owners: dict[str, str] = {}  # by what they wrote
        self._earlier: set[str] = set()  # what jobs wrote that no entry names any more
        self._settings, self._passed_over = settings, passed_over
        self._journal = path.with_name(f".{path.name}.journal")
        self._reserve = path.with_name(f".{path.name}.reserve")
        self._started = _now()
        self._next_write = 0.0
        self._reserved = 0

    def read(self, *, or_begin_anew: bool) -> None:
        """Take over the entries of earlier jobs.

        Raises:
            ImageError: the file exists and is not a job's; not raised with ``or_begin_anew``.
        """
        if not os.path.lexists(self.path):
            return
        try:
            before = json.loads(self.path.read_text(encoding="utf-8"))
            entries = {Path(source): dict(entry) for source, entry in before["files"].items()}
            self._earlier = set(before.get("earlier_writes", []))
            for source, entry in [*entries.items(), *self._read_journal()]:
                self.put(source, self._settled(entry))
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            if not or_begin_anew:
                problem = f"is not the status of a job ({error})"
                raise image_error(self.path, problem, "move it away, or replace it with --overwrite") from error
            self.entries, self._owners, self._earlier = {}, {}, set()

    def _read_journal(self) -> Iterator[tuple[Path, dict[str, Any]]]:
        """The changes after the status was last written; an incomplete last line is ignored."""
        if not self._journal.is_file():
            return
        for line in self._journal.read_bytes().splitlines():
            with suppress(ValueError):
                source, entry = json.loads(line)
                yield Path(source), entry

    def _settled(self, entry: dict[str, Any]) -> dict[str, Any]:
        """An entry of an earlier job: work that it had begun when it was killed is done if the output has changed."""
        if entry["state"] != "begun":
            return entry
        left = {key: entry[key] for key in ("output", "writes")}
        if _identity(self.path.parent / entry["writes"][0]) == entry["before"]:
            return {"state": "waiting", **left}
        return {"state": "already there", **left, "fingerprint": entry["fingerprint"]}

    def begin(self, source: Path, fingerprint: str) -> None:
        """Record that work begins on an input that has an entry."""
        entry = self.entries[str(source)]
        before = _identity(self.path.parent / entry["writes"][0])
        left = {key: entry[key] for key in ("output", "writes")}
        self.note(source, {"state": "begun", **left, "fingerprint": fingerprint, "before": before})

    def note(self, source: Path, entry: dict[str, Any]) -> None:
        """Set an input's entry and append it to the journal."""
        self.put(source, entry)
        line = json.dumps([str(source), entry], default=str) + "\n"  # on one line, in ASCII
        with suppress(OSError), self._journal.open("a") as journal:  # on a full disk the status has space in reserve
            journal.write(line)

    def written(self) -> set[str]:
        """All files that jobs wrote into this folder, as relative paths."""
        return self._owners.keys() | self._earlier

    def find(self, names: Sequence[str]) -> dict[str, Any] | None:
        """The entry of the input that was written under these names."""
        owner = self._owners.get(names[0])
        if owner is None or self.entries[owner].get("writes") != list(names):
            return None
        return self.entries[owner]

    def put(self, source: Path, entry: dict[str, Any]) -> None:
        """Set an input's entry. That of another input that was written to the same place is out of date."""
        names = list(entry.get("writes", []))
        for key in {str(source), *(self._owners[name] for name in names if name in self._owners)}:
            for name in self.entries.pop(key, {}).get("writes", []):
                self._earlier.add(name)
                self._owners.pop(name, None)
        self.entries[str(source)] = entry
        self._owners |= dict.fromkeys(names, str(source))
        self._earlier.difference_update(names)

    def reserve_space(self, num_files: int) -> None:
        """Reserve the space that the status may need if the disk becomes full: its size now, and more for new entries.

        Raises:
            ImageError: there is no such space.
        """
        for_all, for_each = _RESERVED_BYTES
        now = self.path.stat().st_size if self.path.is_file() else 0
        self._reserved = now + for_all + num_files * for_each
        self._make_reserve()

    def _make_reserve(self) -> None:
        write_whole(self._reserve, os.urandom(self._reserved))  # what compresses would reserve nothing

    def write_in_time(self) -> None:
        """Write the file if a write is due; an error is left to the next attempt."""
        if time.monotonic() >= self._next_write:
            with suppress(ImageError):
                self.write(finished=None)

    def write(self, *, finished: bool | None = None) -> None:
        """Write the file; with ``finished`` for the last time.

        Raises:
            ImageError: it cannot be written.
        """
        start = time.monotonic()
        status = {
            "started": self._started,
            "written": _now(),
            "finished": bool(finished),
            "settings": self._settings,
            "counts": dict(sorted(Counter(entry["state"] for entry in self.entries.values()).items())),
            "passed_over": self._passed_over,
            "files": self.entries,
            "earlier_writes": sorted(self._earlier),
        }
        # in JSON a lone surrogate, which a name that is no UTF-8 has, stands only in strings, where \udcxx is its name
        data = json.dumps(status, indent=1, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
        try:
            if finished is not None:
                self._reserve.unlink(missing_ok=True)
            write_whole(self.path, data)
        except ImageError:
            if not self._reserve.exists():
                raise
            self._reserve.unlink()
            before = self.path.stat().st_size if self.path.is_file() else 0
            write_whole(self.path, data)
            self._reserved = max(0, self._reserved - max(0, len(data) - before))  # the status itself took the rest
        self._journal.unlink(missing_ok=True)  # after a kill before this, it repeats the status
        if finished is None and self._reserved and not self._reserve.exists():
            with suppress(ImageError):  # the next photograph must not take it
                self._make_reserve()
        end = time.monotonic()
        self._next_write = end + (end - start) / _STATUS_SHARE


def _identity(path: Path) -> list[int] | None:
    """Numbers that change if another file takes a file's place; None if there is no file."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return [found.st_ino, found.st_mtime_ns]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
