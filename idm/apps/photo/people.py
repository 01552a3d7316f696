"""Photographs by name, and the people that their names identify."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from idm.io.errors import InvalidInput
from idm.io.find import as_text, find_images


def name_photos(inputs: Sequence[Path]) -> dict[str, Path]:
    """All photographs by their names: paths that begin with the folder that was given.

    Raises:
        ImageError: a path does not exist, or a folder holds no image.
        InvalidInput: two photographs have one name.
    """
    photos: dict[str, Path] = {}
    for given in inputs:
        for path in find_images([given]):
            name = as_text(path.relative_to(given.parent).as_posix())
            if name in photos and photos[name] != path:
                raise InvalidInput(f"{path}: has the name {name}, as {photos[name]}; rename one of their folders")
            photos[name] = path
    return photos


def person_of(name: str, people: str, known: Mapping[str, str]) -> str | None:
    """The person that a photograph shows; None if it is not known.

    Args:
        people: "auto": the folder's name, if the file's is the same with a number (LFW); "folders": the folder's name
            in any case; "none"; else a file whose lines are file name and person (CelebA's identities), in ``known``.
    """
    folder, _, file = name.rpartition("/")
    folder = folder.rpartition("/")[2]
    match people:
        case "none":
            return None
        case "folders":
            return folder or None
        case "auto":
            return folder if re.fullmatch(rf"{re.escape(folder)}[_\- ]?\d+\.\w+", file) and folder else None
    return known.get(file)


def read_people(people: str) -> dict[str, str]:
    """The persons by file name, where ``people`` is a file.

    Raises:
        InvalidInput: it is not a text file, or a line is not a file name and a person.
    """
    if people in ("auto", "folders", "none"):
        return {}
    try:
        text = Path(people).read_text()
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{people}: is not a text file ({error})") from None
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if wrong := [line for line in lines if len(line) != 2]:
        raise InvalidInput(f"{people}: {' '.join(wrong[0])!r} is not a file name and a person")
    return dict(lines)
