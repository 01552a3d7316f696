"""A lock on a folder that dies with the process that holds it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK = ".idm.lock"


class LockedError(RuntimeError):
    """Another process holds the lock."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; its file is gone afterwards. One that a killed process left is taken over.

    Raises:
        LockedError: another process holds it.
        OSError: the lock's file cannot be made.
    """
    path = folder / LOCK
    descriptor = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: whoever opened it in the meantime looks again
        os.close(descriptor)


def _take(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise LockedError(f"{path}: is held by another process") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it between our opening and locking it
