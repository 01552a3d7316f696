"""Track faces from frame to frame, with positions smoothed over time without lag."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float64, Integer, UInt8

from idm.faces.detect import DetectedFace

# Frames before and after each that smooth it, and the most in a row that a face may be missed in; and the degree of
# the polynomials. Chosen by experiments/flicker.py: lines over as many frames are calmer, and cut the turns of a nod.
REACH, DEGREE = 4, 2

_SAME = 0.2  # intersection over union from which the faces of two frames may be the same (our choice)
_CUT = 0.2  # mean change of a thumbnail, in [0, 1], from which a new shot begins (our choice)
_THUMBNAIL = (16, 16)


@dataclass(frozen=True, eq=False)
class Sighting:
    """A face as it was detected in one frame; ``time`` in seconds."""

    frame: int
    time: float
    face: DetectedFace


@dataclass
class Track:
    """One face in the frames where it was detected, the last few of them. A closed track is not continued."""

    number: int
    sightings: list[Sighting] = field(default_factory=list)
    is_open: bool = True


class Tracker:
    """Tracks faces. It receives every frame once, in order, and returns a frame's faces ``reach`` frames later.

    A detected face continues the track whose last box it overlaps most, the best pairs first; others start tracks,
    numbered from 0. All tracks end at a change of shot. Nothing here is random, and :meth:`state` is complete: a
    tracker made from it continues exactly as the first one would.
    """

    def __init__(self, reach: int = REACH) -> None:
        self.reach = reach
        self.tracks: list[Track] = []
        self.num_seen = 0
        self.num_tracks = 0
        self._thumbnail: UInt8[np.ndarray, "h w 3"] | None = None

    def add_frame(self, time: float, pixels: Integer[np.ndarray, "h w 3"], faces: Sequence[DetectedFace]) -> None:
        """Add the next frame, with all faces detected in it; ``time`` in seconds must grow."""
        self._find_cut(pixels)
        frame, self.num_seen = self.num_seen, self.num_seen + 1
        recent = [t for t in self.tracks if t.is_open and frame - t.sightings[-1].frame <= self.reach + 1]
        pairs = associate([track.sightings[-1].face for track in recent], faces)
        for number, face in enumerate(faces):
            if number in pairs:
                track = recent[pairs[number]]
            else:
                track = Track(self.num_tracks)
                self.num_tracks += 1
                self.tracks.append(track)
            track.sightings.append(Sighting(frame, time, face))
        self._forget(before=frame - 2 * self.reach)

    def faces_at(self, frame: int, time: float) -> dict[int, DetectedFace]:
        """Faces of a frame by their tracks' numbers, smoothed. Frames up to ``frame + reach`` must have been
        added, or all that there are.

        A face is present in the frames where it was detected and between them, so it does not disappear if the detector
        misses it in up to ``reach`` frames.
        """
        found = {}
        for track in self.tracks:
            near = [sighting for sighting in track.sightings if abs(sighting.frame - frame) <= self.reach]
            if near and near[0].frame <= frame <= near[-1].frame:
                found[track.number] = smooth(near, frame, time, self.reach)
        return found

    def _find_cut(self, pixels: Integer[np.ndarray, "h w 3"]) -> None:
        before, self._thumbnail = self._thumbnail, thumbnail(pixels)
        if before is not None and np.abs(self._thumbnail.astype(float) - before).mean() / 255 > _CUT:
            for track in self.tracks:
                track.is_open = False

    def _forget(self, before: int) -> None:
        for track in self.tracks:
            track.sightings = [sighting for sighting in track.sightings if sighting.frame >= before]
        self.tracks = [track for track in self.tracks if track.sightings]

    def state(self) -> dict[str, Any]:
        """The state for JSON, which keeps floats exactly."""
        return {
            "reach": self.reach,
            "num_seen": self.num_seen,
            "num_tracks": self.num_tracks,
            "thumbnail": None if self._thumbnail is None else self._thumbnail.tolist(),
            "tracks": [[t.number, t.is_open, [_to_row(sighting) for sighting in t.sightings]] for t in self.tracks],
        }

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> "Tracker":
        """The tracker whose :meth:`state` this is."""
        tracker = cls(state["reach"])
        tracker.num_seen, tracker.num_tracks = state["num_seen"], state["num_tracks"]
        if state["thumbnail"] is not None:
            tracker._thumbnail = np.array(state["thumbnail"], np.uint8)
        tracker.tracks = [
            Track(number, [_from_row(r) for r in rows], is_open) for number, is_open, rows in state["tracks"]
        ]
        return tracker


def _to_row(sighting: Sighting) -> list[Any]:
    face = sighting.face
    return [sighting.frame, sighting.time, face.box.tolist(), face.landmarks.tolist(), face.score]


def _from_row(row: list[Any]) -> Sighting:
    frame, time, box, landmarks, score = row
    return Sighting(frame, time, DetectedFace(np.array(box), np.array(landmarks), score))


def thumbnail(pixels: Integer[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "16 16 3"]:
    """A picture's colours by area, which separate shots."""
    small = cv2.resize(pixels, _THUMBNAIL, interpolation=cv2.INTER_AREA)
    return small if small.dtype == np.uint8 else (small // 257).astype(np.uint8)


def associate(before: Sequence[DetectedFace], now: Sequence[DetectedFace]) -> dict[int, int]:
    """Match the faces of ``now`` with those of ``before`` by position: greedily, the largest overlaps first."""
    overlaps = [(-iou(a.box, b.box), j, i) for i, a in enumerate(before) for j, b in enumerate(now)]
    pairs: dict[int, int] = {}
    for negative, j, i in sorted(overlaps):
        if -negative >= _SAME and j not in pairs and i not in pairs.values():
            pairs[j] = i
    return pairs


def iou(a: Float[np.ndarray, "4"], b: Float[np.ndarray, "4"]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    common = float(np.prod(sides.clip(0)))
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return common / (areas - common) if common else 0.0


def smooth(near: Sequence[Sighting], frame: int, time: float, reach: int, degree: int = DEGREE) -> DetectedFace:
    """A face's box and landmarks at a time, of those detected before and after it."""
    distances = np.array([abs(sighting.frame - frame) for sighting in near]) / (reach + 1)
    points = np.stack([np.concatenate([s.face.box, s.face.landmarks.flatten()]) for s in near])
    values = local_fit(np.array([s.time for s in near]) - time, points, (1 - distances**3) ** 3, degree)
    nearest = near[int(np.argmin(distances))]
    return DetectedFace(values[:4], values[4:].reshape(5, 2), nearest.face.score)


def local_fit(
    times: Float[np.ndarray, " n"], values: Float[np.ndarray, "n d"], weights: Float[np.ndarray, " n"], degree: int
) -> Float64[np.ndarray, " d"]:
    """The value at time 0 of the polynomial that fits values at ``times`` with least weighted squared error.

    Motion along such a polynomial is followed without lag, with any weights. n values allow a degree of n - 1. Source:
    W. S. Cleveland, Robust Locally Weighted Regression and Smoothing Scatterplots, JASA 74(368), 1979, without its
    iterations.
    """
    span = np.abs(times).max() or 1.0
    powers = np.vander(times / span, min(degree + 1, len(times)), increasing=True)
    root = np.sqrt(weights)[:, None]
    return np.linalg.lstsq(root * powers, root * values)[0][0]
