"""Detected faces, the protocol of a detector, and the choice of the faces to restore."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Float64, Integer

from idm.faces.geometry import why_implausible
from idm.faces.names import FaceGroup
from idm.io.errors import InvalidInput

MAX_SIDE = 1600  # pixels; default of the longer side of the copy that is searched


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face in pixel indices of its photograph; (0, 0) is the centre of the first pixel.

    ``box`` is left, top, right, bottom; ``landmarks`` are (x, y) of left eye, right eye, nose, left and right mouth
    corner as seen when the face is upright; ``score`` is the detector's confidence in [0, 1].
    """

    box: Float64[np.ndarray, "4"]
    landmarks: Float64[np.ndarray, "5 2"]
    score: float

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@runtime_checkable
class Detector(Protocol):
    """Finds faces. :func:`idm.faces.detector.load.load_detector` builds one."""

    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """All faces of a uint8 or uint16 RGB picture, the largest first."""
        ...


def shrink(pixels: Integer[np.ndarray, "h w 3"], max_side: int) -> Integer[np.ndarray, "h2 w2 3"]:
    """A copy, resized by area, whose longer side is at most ``max_side``; the picture itself if it is small enough."""
    height, width = pixels.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def choose_faces(
    faces: Sequence[DetectedFace], min_size: float = 0, which: FaceGroup | Sequence[int] = "all"
) -> list[int]:
    """The numbers of the faces to restore, which are their positions in ``faces``: of those with plausible landmarks
    that are at least ``min_size`` pixels large all or the largest, or exactly the ones that are named.

    Raises:
        ValueError: a number that no face has.
    """
    large = [n for n, face in enumerate(faces) if face.size >= min_size and not why_implausible(face.landmarks)]
    if which == "all":
        return large
    if which == "largest":
        return sorted(large, key=lambda number: -faces[number].size)[:1]
    assert not isinstance(which, str)
    unknown = sorted(set(which) - set(range(len(faces))))
    if unknown:
        there = f"0..{len(faces) - 1}" if faces else "none"
        raise InvalidInput(f"there is no face {', '.join(map(str, unknown))}; the faces found are {there}")
    return sorted(set(which))
