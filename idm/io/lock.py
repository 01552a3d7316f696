"""A folder that one process holds at a time; the lock dies with the process, however that ends."""

import fcntl
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

LOCK = ".lock"

_held: dict[Path, IO[str]] = {}


class FolderInUse(RuntimeError):
    """Another process holds the folder; the message says which and since when."""


def lock_folder(folder: Path) -> None:
    """Hold a folder, which is made if need be, until this process ends; its child processes do not hold it.

    Raises:
        FolderInUse: another process holds it.
        OSError: the folder cannot be made, or its file system knows no locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = (folder / LOCK).resolve()
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
