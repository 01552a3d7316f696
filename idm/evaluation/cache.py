"""Values of metrics and features of images on the disk, so that no run computes again what an earlier one did.

A value is found by the contents of its images and by everything that determines its last bit (:func:`identify`), so an
old value is never returned for a changed image, weights file, package or line of our code.
"""

import hashlib
import io
import json
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from idm.io.atomic import sha256

_CHECKSUM = 16  # bytes
_SECONDS = 30  # to wait for another process that is writing


class MetricCache:
    """One SQLite file of values, which several processes may use at once.

    A value is stored as soon as it is known, so that a killed process loses none. A value whose checksum is wrong is
    reported and computed again. A file that cannot be used at all, because it is damaged or cannot be written, is
    reported once, and then all values are computed.

    Args:
        path: of the file, which is made with the first value.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._usable = True

    def load(self, key: bytes) -> np.ndarray | None:
        """The value of a key; None if it is not known."""
        found = self._execute("SELECT value FROM metric_values WHERE key = ?", key)
        if not found:
            return None
        [(stored,)] = found
        checksum, content = stored[:_CHECKSUM], stored[_CHECKSUM:]
        if checksum != _checksum(content):
            print(f"warning: {self._path}: a value is damaged and is computed again", file=sys.stderr)
            return None
        value: np.ndarray = np.load(io.BytesIO(content), allow_pickle=False)
        return value

    def save(self, key: bytes, value: np.ndarray) -> None:
        """Store a value."""
        content = io.BytesIO()
        np.save(content, value, allow_pickle=False)
        stored = _checksum(content.getvalue()) + content.getvalue()
        self._execute("INSERT OR REPLACE INTO metric_values VALUES (?, ?)", key, stored)

    def _execute(self, statement: str, *values: bytes) -> list[tuple[bytes, ...]]:
        if not self._usable:
            return []
        try:
            self._connection = self._connection or self._open()
            return self._connection.execute(statement, values).fetchall()
        except (sqlite3.Error, OSError) as error:
            self._usable = False
            print(
                f"warning: {self._path}: cannot be used ({error}), so that everything is computed; "
                "a damaged file can be deleted",
                file=sys.stderr,
            )
            return []

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_SECONDS, isolation_level=None, check_same_thread=False)
        # The kernel keeps what a killed process wrote; only a crash of the machine can damage the file.
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("CREATE TABLE IF NOT EXISTS metric_values (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
        return connection


class KnownValues:
    """The values of one function of images, which is computed once for equal images.

    Args:
        identity: of the function, as of :func:`identify`.
        disk: where values outlive the process; without it they are in memory only.
    """

    def __init__(self, identity: str = "", disk: MetricCache | None = None) -> None:
        self._identity, self._disk = identity, disk
        self._memory: dict[bytes, np.ndarray] = {}

    def get(self, images: Sequence[np.ndarray], compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The value for these images, in this order; ``compute`` is called if it is not known."""
        key = self._key(images)
        if key not in self._memory:
            value = None if self._disk is None else self._disk.load(key)
            if value is None:
                value = compute()
                if self._disk is not None:
                    self._disk.save(key, value)
            self._memory[key] = value
        return self._memory[key]

    def _key(self, images: Sequence[np.ndarray]) -> bytes:
        digest = hashlib.sha256(self._identity.encode())
        for image in images:
            digest.update(f"\n{image.dtype} {image.shape}\n".encode())
            digest.update(np.ascontiguousarray(image).data)
        return digest.digest()


def identify(name: str, weights: Sequence[Path], device: str) -> str:
    """Return all that determines a function's values to the last bit: its name, the sha256 of its weights files and of
    our code, the versions of packages, and the processor, number of threads and device that compute it.

    Raises:
        OSError: a weights file cannot be read.
    """
    files = [sha256(path) for path in weights]
    return json.dumps({"name": name, "weights": files, "device": device, "code": _code(), "made by": _made_by(device)})


@cache
def _code() -> str:
    """The sha256 of the modules that metrics and features are computed by."""
    digest = hashlib.sha256()
    packages = Path(__file__).parents[1]
    for path in (*sorted(packages.glob("evaluation/*.py")), *sorted(packages.glob("faces/*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _made_by(device: str) -> dict[str, object]:
    from idm.io.machine import provenance

    made_by = provenance()
    machine = made_by["machine"]
    assert isinstance(machine, dict)
    names = ("processor", "threads") if device == "cpu" else ("processor", "threads", "gpus")
    return {"versions": made_by["versions"], **{name: machine[name] for name in names}}


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM).digest()
