"""Memory limits for pictures, and estimates of their memory from their headers."""

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DEFAULT_BYTES = 4_000_000_000

# Bytes per pixel of 8 bits while a photograph is read and while it is written; tests/unit/test_memory.py holds reading
# and writing to them.
_READ, _WRITTEN = 20, 14
_DECODERS = {"JPEG2000": 16, "AVIF": 12, "WEBP": 8}  # what these take besides


def default_budget() -> int:
    """4 GB, or half of the memory that this process may use if that is less."""
    return min(DEFAULT_BYTES, usable_memory() // 2)


def usable_memory() -> int:
    """The memory of the machine, or the limit of this process's control group, in bytes."""
    known = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes")):
        try:
            known.append(int(path.read_text()))
        except (OSError, ValueError):  # not Linux, or "max"
            continue
    return min(known)


def photo_bytes(num_pixels: int, *, num_bytes: int, kind: str | None = None, scale: float | int = 1.0) -> int:
    """The largest memory for reading, restoring and writing a photograph, in bytes.

    Args:
        num_bytes: of one value, 1 or 2.
        kind: the file's format, as PIL names it.
        scale: enlargement of the whole picture.
    """
    reading = _READ * num_bytes + _DECODERS.get(kind or "", 0)
    return round(num_pixels * (reading + _WRITTEN * num_bytes * (scale**2 - 1)))


def format_bytes(num_bytes: float | int) -> str:
    """A number of bytes for messages: gigabytes, or megabytes below 100 MB."""
    return f"{num_bytes / 1e9:.2g} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.2g} MB"


class Budget:
    """Memory that several threads share; a thread that needs more than is left waits."""

    def __init__(self, num_bytes: int) -> None:
        self.num_bytes = num_bytes
        self._left = num_bytes
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, num_bytes: int) -> Iterator[None]:
        """Reserve memory, or wait for it; a request above the whole budget reserves all of it."""
        taken = min(num_bytes, self.num_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= taken)
            self._left -= taken
        try:
            yield
        finally:
            with self._changed:
                self._left += taken
                self._changed.notify_all()


def release_freed_memory() -> None:
    """Return freed memory to the kernel (glibc only). Takes milliseconds."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
