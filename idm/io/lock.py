"""Locks on folders, which end with the process that holds them, even if it is killed.

A training run holds its folder until its process ends (:func:`lock_folder`); a job that restores photographs holds its
output folder for a while (:func:`locked`).
"""

import fcntl
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from idm.io.errors import UserError

RUN_LOCK = ".lock"
LOCK = ".idm.lock"

_held: dict[Path, IO[str]] = {}


class FolderInUse(UserError, RuntimeError):
    """Another process, or another job of this one, holds the folder; the message begins with its path."""


def lock_folder(folder: Path) -> None:
    """Hold a folder, which is created if necessary, until this process ends; its child processes do not hold it.

    Raises:
        FolderInUse: another process holds it; the message says which and since when.
        OSError: the folder cannot be made, or its file system does not support locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / RUN_LOCK).resolve()
    if path in _held:
        return
    file = path.open("a+")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # POSIX: forked workers, which may outlive us, do not hold it
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise FolderInUse(f"{folder} is in use by {holder}") from None
    file.truncate(0)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    file.write(f"process {os.getpid()} on {platform.node()} since {started}\n")
    file.flush()
    _held[path] = file


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder in a ``with`` block, against other threads of this process too; the lock's file is removed
    afterwards.

    Raises:
        FolderInUse: another process or job holds it.
        OSError: the lock's file cannot be made.
    """
    path = folder / LOCK
    descriptor = _take(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: a process that opened it in the meantime looks again
        os.close(descriptor)


def _take(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BSD: two jobs of one process exclude each other
            with suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise FolderInUse(f"{path.parent} is in use by another job") from None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder removed it between our opening and locking it
