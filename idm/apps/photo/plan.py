"""The files that a job will write, planned and checked before the first one."""

import os
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from idm.io.find import FoundFiles, list_files, no_image, not_regular
from idm.io.images import READ_SUFFIXES, ImageError, image_error


def same_suffix(suffixes: Sequence[str]) -> Callable[[Path], str]:
    """Keeps a suffix that is one of these; others become PNG."""
    return lambda path: path.suffix if path.suffix.lower() in suffixes else ".png"


def as_png(path: Path) -> str:
    """The suffix of a result that is always a PNG."""
    return ".png"


def as_preview(path: Path) -> str:
    """The suffix of a preview."""
    return ".preview.png"


def nothing_beside(target: Path) -> tuple[Path, ...]:
    """Return no further files."""
    return ()


def plan(
    inputs: Sequence[Path],
    output: Path,
    suffix: Callable[[Path], str] = as_png,
    suffixes: Sequence[str] = READ_SUFFIXES,
    beside: Callable[[Path], Sequence[Path]] = nothing_beside,
    taken: Sequence[Path] = (),
) -> tuple[dict[Path, Path], FoundFiles]:
    """Return the file that each input becomes: its path within the folder it was found in, with the new suffix.

    In folders, files with one of ``suffixes`` are inputs; an output folder inside a folder of inputs is not searched. A
    file that is named in several ways is one input.

    If several inputs would become one file, the input that already has this name keeps it, and the others are named
    like ``a_jpg.png``. Names that macOS and Windows do not tell apart count as one.

    Args:
        beside: gives the further files that are written with an output.
        taken: other files that the job writes.

    Returns:
        The targets by source, and the files found in folders that are not inputs.

    Raises:
        ImageError: an input does not exist or holds no image, two inputs would become one file, or an input would be
            overwritten.
    """
    inside, passed_over = _find(inputs, output, suffixes)
    targets: dict[Path, Path] = {}
    claimed = {_folded(path): path for path in taken}

    def claim(source: Path, target: Path) -> bool:
        writes = {_folded(path): path for path in (target, *beside(target))}
        if writes.keys() & claimed.keys():
            return False
        claimed.update(writes)
        targets[source] = target
        return True

    planned = {source: output / path.with_suffix(suffix(source)) for source, path in inside.items()}
    for source in sorted(planned, key=lambda source: planned[source].name != source.name):  # stable
        path, ending = inside[source], suffix(source)
        other = output / path.with_name(f"{path.stem}_{path.suffix[1:]}{ending}")  # a.jpg beside a.png
        if not claim(source, planned[source]) and not claim(source, other):
            raise ImageError(f"{source}: another input would be written to {other} too; restore it by itself")
    by_name: dict[str, list[Path]] = {}
    for source in targets:
        by_name.setdefault(_folded(_real(source)), []).append(source)
    for path in claimed.values():
        for source in by_name.get(_folded(_real(path)), ()):
            if path.exists() and path.samefile(source):
                raise ImageError(f"{source}: would be overwritten; choose another output folder")
    return {source: targets[source] for source in planned}, passed_over


def _real(path: Path) -> Path:
    """Return a path without links; unlike ``Path.resolve``, also of a link to itself."""
    return Path(os.path.realpath(path))


def _folded(path: Path) -> str:
    """Return what is equal for names that the file systems of macOS and Windows do not tell apart."""
    return unicodedata.normalize("NFC", str(path).casefold())


def _find(inputs: Sequence[Path], output: Path, suffixes: Sequence[str]) -> tuple[dict[Path, Path], FoundFiles]:
    """Each input with its path within the folder it was found in, and the files that are not inputs."""
    inside: dict[Path, Path] = {}
    passed_over = FoundFiles()
    known: set[Path] = set()

    def add(source: Path, path: Path) -> None:
        place = _real(source.parent) / source.name
        if place not in known:
            known.add(place)
            inside[source] = path

    for given in inputs:
        if not given.is_dir():
            if not given.exists():
                raise image_error(given, "no such file or folder", "check the spelling")
            if given.is_file():
                add(given, Path(given.name))
            else:
                passed_over.unusable[given] = not_regular(given)
            continue
        below = list_files(given, suffixes)
        if not below.files and not below.unlistable and not below.unusable:
            raise no_image(given, suffixes)
        for source in below.files:
            if not _is_result(given, source, output):
                add(source, source.relative_to(given))
        passed_over.others += [path for path in below.others if output.absolute() not in path.absolute().parents]
        pairs = ((passed_over.unlistable, below.unlistable), (passed_over.unusable, below.unusable))
        for errors, found in pairs:
            errors |= {path: error for path, error in found.items() if not _is_result(given, path, output)}
    passed_over.others = list({path.absolute(): path for path in passed_over.others}.values())
    return inside, passed_over


def _is_result(given: Path, source: Path, output: Path) -> bool:
    """Return whether a file lies in the output folder, or is a link to it, and that within the folder of inputs."""
    folder = _real(given)
    place = folder / source.relative_to(given)
    results = (_real(output), _real(output.parent) / output.name)
    return any(folder in result.parents and result in (place, *place.parents) for result in results)
