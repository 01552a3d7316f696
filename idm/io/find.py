"""Finding files: inputs, other files, and inputs that cannot be read."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from idm.io.images import READ_SUFFIXES, ImageError, image_error


@dataclass
class FoundFiles:
    """The files below a folder, at any depth. Hidden files and folders are left out.

    Attributes:
        files: regular files with one of the requested suffixes, in natural order (2 before 10).
        others: regular files with another suffix.
        unlistable: folders that cannot be listed, with the reason.
        unusable: dangling links, pipes and other special files with one of the suffixes, and links to folders,
            which are not followed.
    """

    files: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    unlistable: dict[Path, ImageError] = field(default_factory=dict)
    unusable: dict[Path, ImageError] = field(default_factory=dict)


def list_files(folder: Path, suffixes: Sequence[str] = READ_SUFFIXES) -> FoundFiles:
    """The files below a folder. An unreadable part does not affect the others."""
    found = FoundFiles()

    def note(error: OSError) -> None:
        path = Path(error.filename)
        found.unlistable[path] = image_error(path, f"cannot be listed ({error.strerror})", "check its permissions")

    for parent, folders, names in os.walk(folder, onerror=note):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in folders):
            if path.is_symlink():
                found.unusable[path] = image_error(path, "is a link to a folder and not followed", "name it by itself")
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            is_wanted = path.suffix.lower() in suffixes
            if path.is_file():
                (found.files if is_wanted else found.others).append(path)
            elif is_wanted:
                found.unusable[path] = not_regular(path)
    found.files.sort(key=lambda path: (_natural(path.relative_to(folder).parts), str(path)))
    return found


def find_images(inputs: Sequence[Path], suffixes: Sequence[str] = READ_SUFFIXES) -> list[Path]:
    """All image files that ``inputs`` name, in an order that does not depend on the file system.

    A file named explicitly is taken whatever its suffix. Of a folder, the ``files`` of :func:`list_files` are taken.
    A file found twice is listed once.

    Raises:
        ImageError: a path does not exist, a folder holds no image, or a part of it cannot be listed or used.
    """
    found: dict[Path, Path] = {}
    for path in inputs:
        files = [path]
        if path.is_dir():
            below = list_files(path, suffixes)
            for error in (below.unlistable | below.unusable).values():
                raise error
            files = below.files
            if not files:
                raise no_image(path, suffixes)
        elif not path.exists():
            raise image_error(path, "no such file or folder", "check the spelling")
        for file in files:
            found.setdefault(file.absolute(), file)
    return list(found.values())


def not_regular(path: Path) -> ImageError:
    """The error for a dangling link, a pipe or another special file."""
    what = "is a link to nothing" if path.is_symlink() else "is not a regular file"
    return image_error(path, what, "replace it by the picture")


def no_image(folder: Path, suffixes: Sequence[str]) -> ImageError:
    """The error for a folder in which no file has one of the suffixes."""
    return image_error(folder, f"no image in this folder ({' '.join(suffixes)})", "name another folder")


def as_text(name: str) -> str:
    """A file name, or a text with one; bytes that are not UTF-8 are escaped."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _natural(parts: Iterable[str]) -> list[list[str | int]]:
    """Sort key that reads runs of digits as numbers; texts and numbers alternate, so keys always compare."""
    split = (re.split(r"([0-9]+)", part.casefold()) for part in parts)
    return [[int(piece) if i % 2 else piece for i, piece in enumerate(pieces)] for pieces in split]
