"""Are the evaluated faces really held out? Byte-identical files of two splits."""

import hashlib
from collections import defaultdict
from pathlib import Path

from idm.io.find import find_images


def shared_faces(train: Path, evaluated: Path) -> list[tuple[str, str]]:
    """Images of two folders that have the same bytes (sha256), as names relative to their folders."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in find_images([train]):
        by_size[path.stat().st_size].append(path)
    shared = []
    for path in find_images([evaluated]):
        alike = by_size.get(path.stat().st_size, [])
        digest = _sha256(path) if alike else ""
        shared += [
            (other.relative_to(train).as_posix(), path.relative_to(evaluated).as_posix())
            for other in alike
            if _sha256(other) == digest
        ]
    return shared


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
