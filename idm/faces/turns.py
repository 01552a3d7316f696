"""Find faces in any rotation: a picture is searched in all four turns if the detector knows only upright faces."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Integer

from idm.faces.align import apply_matrix
from idm.faces.detect import DetectedFace, Detector
from idm.faces.geometry import roll_angle, template_distance
from idm.faces.names import Turn

# A face that is found the right way up: on 44 degraded and tilted faces scores were above .99, landmarks within
# .11 eye distances of the template and tilted by at most 21 degrees; turned, one of the three nearly always fails.
_SURE_SCORE, _SURE_DISTANCE, _SURE_ROLL = 0.985, 0.2, 45.0


@dataclass(frozen=True, eq=False)
class _Find:
    """A face in pixels of the photograph, the turn in which it was found, and how well."""

    face: DetectedFace
    turn: int
    rank: float
    is_sure: bool


def detect_faces(detector: Detector, pixels: Integer[np.ndarray, "h w 3"], turn: Turn = "auto") -> list[DetectedFace]:
    """All faces of a uint8 or uint16 RGB picture in any rotation, the largest first.

    Landmarks are those of the face's own left and right: of an upside-down face the left eye is on the right. "auto"
    searches the picture as it is. If no face is found, or one that may be turned, it also searches the three other
    turns and keeps, of finds of the same face, the one that looks most like an upright face in its turn. A detector
    with ``finds_turned`` tells turns by itself: one search is enough.

    Args:
        turn: "auto", or by how many degrees clockwise the picture is turned before it is searched, in that turn alone.
    """
    if turn != "auto":
        return _ordered(_search(detector, pixels, turn))
    finds = _search(detector, pixels, 0)
    if getattr(detector, "finds_turned", False):
        return _ordered(finds)
    if not finds or not all(find.is_sure for find in finds):
        # what looks like no upright face in a turned picture is not news
        finds += [find for turned in (90, 180, 270) for find in _search(detector, pixels, turned) if find.is_sure]
    return _ordered(_best_of_each(finds))


def _search(detector: Detector, pixels: Integer[np.ndarray, "h w 3"], turn: int) -> list[_Find]:
    turned = np.ascontiguousarray(np.rot90(pixels, -turn // 90))
    return [_to_find(face, turn, pixels.shape[:2]) for face in detector.detect(turned)]


def _to_find(face: DetectedFace, turn: int, size: tuple[int, int]) -> _Find:
    distance, roll = template_distance(face.landmarks), abs(roll_angle(face.landmarks))
    is_sure = face.score >= _SURE_SCORE and distance <= _SURE_DISTANCE and roll <= _SURE_ROLL
    rank = face.score - 0.1 * min(distance, 10.0) - 0.2 * roll / 90
    return _Find(_turned_back(face, turn, size), turn, rank, is_sure)


def _turned_back(face: DetectedFace, turn: int, size: tuple[int, int]) -> DetectedFace:
    """Map a picture that was turned clockwise to the original of ``size`` (height, width)."""
    if turn == 0:
        return face
    height, width = size
    back = {
        90: np.array([(0.0, 1, 0), (-1, 0, height - 1)]),
        180: np.array([(-1.0, 0, width - 1), (0, -1, height - 1)]),
        270: np.array([(0.0, -1, width - 1), (1, 0, 0)]),
    }[turn]
    corners = apply_matrix(back, face.box.reshape(2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    return DetectedFace(box, apply_matrix(back, face.landmarks), face.score)


def _best_of_each(finds: Sequence[_Find]) -> list[_Find]:
    """Keep the best detection of one face in several turns; within one turn the detector has done so."""
    best: list[_Find] = []
    for find in sorted(finds, key=lambda find: -find.rank):
        if not any(find.turn != other.turn and _is_same(find.face, other.face) for other in best):
            best.append(find)
    return best


def _is_same(a: DetectedFace, b: DetectedFace) -> bool:
    """Return whether the middle of either lies in the other's box: boxes of one face differ much from turn to turn."""
    return _holds(a.box, b.box) or _holds(b.box, a.box)


def _holds(box: Float[np.ndarray, "4"], other: Float[np.ndarray, "4"]) -> bool:
    x, y = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    return bool(box[0] <= x <= box[2] and box[1] <= y <= box[3])


def _ordered(finds: Sequence[_Find]) -> list[DetectedFace]:
    return sorted((find.face for find in finds), key=lambda face: (-face.size, *face.box))
