"""The built-in detector: its network on a pyramid of the picture, and again on each candidate."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Float64, Integer
from torch import Tensor
from torch.nn import functional as F

from idm.faces.align import apply_matrix, invert, scale_of, to_unit, warp
from idm.faces.detect import DetectedFace, shrink
from idm.faces.detector.decode import FACE, FACE_CENTRE, best_of_overlapping, face_box, find_peaks, from_crop
from idm.faces.detector.network import LEAST, STRIDE, FaceNet
from idm.faces.geometry import MAX_TEMPLATE_DISTANCE, template_distance
from idm.faces.mobilefacenet import fold_norms
from idm.io.weights import fill, read_weights

DETECTOR_WEIGHTS = Path(__file__).with_name("weights.safetensors")
MIN_SCORE = 0.55

_MIN_SIDE = 24  # of the coarsest level: a face that fills it is still large enough
_FIRST_SCORE = 0.3  # of the first pass
_OVERLAP = 0.5
_VIEW, _VIEW_FACE = 96, 32.0  # pixels: side of a crop for refinement, and length of the face in it
_NUM_REFINEMENTS = 2  # each starts from the landmarks of the one before

FloatPixels = Float32[np.ndarray, "_ _ 3"]
Landmarks = Float64[np.ndarray, "_ 5 2"]
Detections = tuple[Landmarks, Float64[np.ndarray, " _"]]


@dataclass(frozen=True)
class BuiltinDetector:
    """Finds faces in any rotation, with weights that are part of the package. Build it with :func:`load_builtin`.

    The landmarks of a turned face are named as in the face, not as in the picture: a face that lies on its side has
    its "left eye" above or below the right one. ``max_side`` and ``min_score`` as for
    :class:`idm.faces.detect.FaceDetector`; faces below about ``least_face`` pixels of the searched copy are missed.
    """

    finds_turned: ClassVar[bool] = True

    network: FaceNet
    max_side: int
    min_score: float
    name: str = "builtin"
    least_face: float = LEAST

    @torch.inference_mode()
    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """All faces of a uint8 or uint16 RGB picture, the largest first."""
        small = to_unit(shrink(pixels, self.max_side))
        levels = _pyramid(small)
        landmarks, first = _apart(*self._detect_all_sizes(levels))
        for _ in range(_NUM_REFINEMENTS):
            landmarks, closer = self._refine(levels, landmarks)
            scores = np.sqrt(first * closer)
            found = scores >= self.min_score
            landmarks, first, scores = landmarks[found], first[found], scores[found]
        landmarks, scores = _apart(landmarks, scores)
        factors = np.array([pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]])
        faces = [
            DetectedFace(face_box(points), points, float(score))
            for points, score in zip((landmarks + 0.5) * factors - 0.5, scores, strict=True)
        ]
        return sorted(faces, key=lambda face: (-face.size, *face.box))

    def _detect_all_sizes(self, levels: Sequence[FloatPixels]) -> Detections:
        """Faces of all sizes, several times each."""
        found = [
            self._find_peaks(rearrange(torch.from_numpy(level), "h w c -> 1 c h w"), _FIRST_SCORE) for level in levels
        ]
        landmarks = [_to_level(points, -number) for number, (_, points, _) in enumerate(found)]
        return np.concatenate(landmarks), np.concatenate([scores for _, _, scores in found])

    def _refine(self, levels: Sequence[FloatPixels], landmarks: Landmarks) -> Detections:
        """Search each candidate again, upright, centred and of one size, for a better score and position."""
        if not len(landmarks):
            return landmarks, np.zeros(0)
        numbers = [_level_of(points, len(levels)) for points in landmarks]
        views = [_view(_to_level(points, number)) for points, number in zip(landmarks, numbers, strict=True)]
        size = (_VIEW, _VIEW)
        crops = np.stack([warp(levels[number], view, size) for number, view in zip(numbers, views, strict=True)])
        which, seen, again = self._find_peaks(rearrange(torch.from_numpy(crops), "n h w c -> n c h w"), 0.01)
        middle = np.hypot(*(seen.mean(axis=1) - _VIEW / 2).T) < _VIEW_FACE / 2
        better, best = landmarks.copy(), np.zeros(len(landmarks))
        for face, points, score in zip(which[middle], seen[middle], again[middle], strict=True):
            if score > best[face] and template_distance(points) <= MAX_TEMPLATE_DISTANCE:
                best[face] = score
                better[face] = _to_level(apply_matrix(invert(views[face]), points), -numbers[face])
        return better, best

    def _find_peaks(
        self, pictures: Float[Tensor, "b 3 h w"], min_score: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        height, width = pictures.shape[2:]
        padded = F.pad(pictures, (0, -width % STRIDE, 0, -height % STRIDE), value=0.5)
        device = self.network.head.weight.device
        maps = self.network(padded.to(device, memory_format=torch.channels_last))
        numbers, landmarks, scores = find_peaks(maps, min_score)
        return numbers.cpu().numpy(), landmarks.double().cpu().numpy(), scores.double().cpu().numpy()


def _pyramid(picture: FloatPixels) -> list[FloatPixels]:
    """The picture and its halves, down to the size at which faces become too small."""
    levels = [picture]
    while min(levels[-1].shape[:2]) >= 2 * _MIN_SIDE:
        height, width = (side // 2 * 2 for side in levels[-1].shape[:2])
        even = np.ascontiguousarray(levels[-1][:height, :width])
        levels.append(cv2.resize(even, (width // 2, height // 2), interpolation=cv2.INTER_AREA))
    return levels


def _to_level(points: Float[np.ndarray, "*n 2"], number: int) -> Float64[np.ndarray, "*n 2"]:
    """Map the picture to a level of its pyramid, or back from one (a negative number)."""
    return (points + 0.5) / 2.0**number - 0.5


def _level_of(landmarks: Float[np.ndarray, "5 2"], num_levels: int) -> int:
    """The coarsest level in which a face is no smaller than it is looked at."""
    length = FACE[1] * scale_of(from_crop(landmarks))
    return int(np.clip(np.floor(np.log2(length / _VIEW_FACE)), 0, num_levels - 1))


def _view(landmarks: Float[np.ndarray, "5 2"]) -> Float64[np.ndarray, "2 3"]:
    """Map the picture to a square in which the face is upright and in the middle."""
    to_square = invert(from_crop(landmarks))
    scale = _VIEW_FACE / FACE[1]
    return np.column_stack([scale * to_square[:, :2], scale * (to_square[:, 2] - FACE_CENTRE) + (_VIEW - 1) / 2])


def _apart(landmarks: Float[np.ndarray, "n 5 2"], scores: Float[np.ndarray, " n"]) -> Detections:
    """The candidates with the shape of a face, each face once."""
    plausible = np.array([template_distance(points) <= MAX_TEMPLATE_DISTANCE for points in landmarks], bool)
    landmarks, scores = landmarks[plausible], scores[plausible]
    kept = best_of_overlapping(np.array([face_box(points) for points in landmarks]).reshape(-1, 4), scores, _OVERLAP)
    return landmarks[kept], scores[kept]


def load_builtin(device: str, max_side: int, min_score: float | None = None) -> BuiltinDetector:
    """The detector with the weights of the package."""
    network = FaceNet()
    fill(network, read_weights(DETECTOR_WEIGHTS), DETECTOR_WEIGHTS)
    fold_norms(network.eval().requires_grad_(False))
    network = network.to(memory_format=torch.channels_last).to(device)
    return BuiltinDetector(network, max_side, MIN_SCORE if min_score is None else min_score)
