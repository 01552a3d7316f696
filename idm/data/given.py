"""Degraded faces as they come, with or without their originals; :class:`~idm.data.pairs.FrozenPairs` makes them."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from idm.data.pairs import Pair
from idm.data.sources import FaceSource, FolderFaces, Part
from idm.io.images import ImageError


@runtime_checkable
class Pairs(Protocol):
    """Degraded faces by index, with their originals if ``has_originals``, which then are those of ``source``."""

    source: FaceSource
    has_originals: bool

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Pair: ...


class GivenPairs:
    """Degraded faces beside their originals.

    Args:
        lq, source: as many degraded and original faces of one size, in the same order.
    """

    has_originals: bool = True

    def __init__(self, lq: FaceSource, source: FaceSource) -> None:
        self.lq, self.source = lq, source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        face = self.source[index]
        return Pair(face.image, self.lq[index].image, face.landmarks, face.key, index, face.points)


class GivenFaces:
    """Degraded faces without originals: ``hq`` of each pair is its degraded face, and only metrics that ignore it may
    be computed."""

    has_originals: bool = False

    def __init__(self, source: FaceSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        face = self.source[index]
        return Pair(face.image, face.image, face.landmarks, face.key, index, face.points)


def read_pairs(folder: Path, size: int) -> GivenPairs:
    """The pairs of a folder that holds ``lq`` and ``hq``, whose images have the same names but for their suffixes; all
    are resized to ``size``.

    Raises:
        ImageError: an image has no counterpart, or two have one name.
    """
    lq, hq = FolderFaces(folder / "lq", size), FolderFaces(folder / "hq", size)
    degraded, originals = _by_name(lq), _by_name(hq)
    if alone := sorted(degraded.keys() ^ originals.keys()):
        raise ImageError(f"{folder}: {len(alone)} images are in one of lq and hq only; first {alone[0]}")
    return GivenPairs(Part(lq, [degraded[name] for name in originals]), hq)


def _by_name(faces: FolderFaces) -> dict[str, int]:
    """The place of each face by its name without suffix."""
    names = [path.relative_to(faces.folder).with_suffix("").as_posix() for path in faces.paths]
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        twice = next(name for place, name in enumerate(names) if places[name] != place)
        raise ImageError(f"{faces.folder}: holds two images of the name {twice}")
    return places
