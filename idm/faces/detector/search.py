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
from idm.faces.detector.decode import (
    FACE,
    FACE_CENTRE,
    best_of_overlapping,
    face_box,
    find_peaks,
    from_crop,
    mean_with_mirrored,
)
from idm.faces.detector.network import LEAST, STRIDE, FaceMaps, FaceNet
from idm.faces.geometry import MAX_TEMPLATE_DISTANCE, template_distance
from idm.faces.mobilefacenet import fold_norms
from idm.io.weights import fill, read_weights

DETECTOR_WEIGHTS = Path(__file__).with_name("weights.safetensors")
MIN_SCORE = 0.5

_MIN_SIDE = 24  # of the coarsest level: a face that fills it is still large enough
_FIRST_SCORE = 0.3  # of the first pass
_OVERLAP = 0.5
_VIEW = 96  # pixels: side of a view, which shows one candidate upright and in its middle
_FIRST_FACE = 32.0  # pixels: length of the face in the first view
_FACES = (25.0, 32.0, 42.0)  # and in the later views, whose mean score decides

FloatPixels = Float32[np.ndarray, "_ _ 3"]
Landmarks = Float64[np.ndarray, "_ 5 2"]
Detections = tuple[Landmarks, Float64[np.ndarray, " _"]]


@dataclass(frozen=True)
class BuiltinDetector:
    """Finds faces in any rotation, with weights that are part of the package. Build it with :func:`load_builtin`.

    The landmarks of a turned face are named as in the face, not as in the picture: a face that lies on its side has
    its "left eye" above or below the right one. ``max_side`` and ``min_score`` are as for
    :class:`~idm.faces.detector.retinaface.RetinaFaceDetector`; faces below ``least_face`` pixels of the searched copy
    are left out.
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
        landmarks, scores = _apart(*self._detect_all_sizes(levels))
        landmarks, scores = self._refine(levels, landmarks, _FIRST_FACE)
        landmarks, scores = self._refine_at_sizes(levels, landmarks[scores > 0])
        found = scores >= self.min_score
        landmarks, scores = _apart(landmarks[found], scores[found])
        large = np.array([_length(points) >= self.least_face for points in landmarks], bool)
        landmarks, scores = landmarks[large], scores[large]
        factors = np.array([pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]])
        faces = [
            DetectedFace(face_box(points), points, float(score))
            for points, score in zip((landmarks + 0.5) * factors - 0.5, scores, strict=True)
        ]
        return sorted(faces, key=lambda face: (-face.size, *face.box))

    def _detect_all_sizes(self, levels: Sequence[FloatPixels]) -> Detections:
        """Faces of all sizes, several times each."""
        pictures = [rearrange(torch.from_numpy(level), "h w c -> 1 c h w") for level in levels]
        found = [_to_arrays(find_peaks(self._maps(picture), _FIRST_SCORE)) for picture in pictures]
        landmarks = [_to_level(points, -number) for number, (_, points, _) in enumerate(found)]
        return np.concatenate(landmarks), np.concatenate([scores for _, _, scores in found])

    def _refine_at_sizes(self, levels: Sequence[FloatPixels], landmarks: Landmarks) -> Detections:
        """The mean score and the mean landmarks, weighted by the scores, of each candidate in views of several sizes:
        a face remains one in each."""
        seen = [self._refine(levels, landmarks, face) for face in _FACES]
        scores = np.array([score for _, score in seen])
        weights = (scores + 1e-6)[..., None, None]
        means = (weights * np.array([points for points, _ in seen])).sum(axis=0) / weights.sum(axis=0)
        return means, scores.mean(axis=0)

    def _refine(self, levels: Sequence[FloatPixels], landmarks: Landmarks, face_length: float) -> Detections:
        """Search each candidate again, upright, centred and of one size, for a better score and position. A candidate
        that is not found again has the score 0."""
        if not len(landmarks):
            return landmarks, np.zeros(0)
        numbers = [_level_of(points, len(levels), face_length) for points in landmarks]
        views = [
            _view(_to_level(points, number), face_length) for points, number in zip(landmarks, numbers, strict=True)
        ]
        size = (_VIEW, _VIEW)
        crops = np.stack([warp(levels[number], view, size) for number, view in zip(numbers, views, strict=True)])
        pictures = rearrange(torch.from_numpy(crops), "n h w c -> n c h w")
        maps = mean_with_mirrored(self._maps(pictures), self._maps(pictures.flip(-1)))
        which, seen, again = _to_arrays(find_peaks(maps, 0.01))
        middle = np.hypot(*(seen.mean(axis=1) - _VIEW / 2).T) < face_length / 2
        better, best = landmarks.copy(), np.zeros(len(landmarks))
        for face, points, score in zip(which[middle], seen[middle], again[middle], strict=True):
            if score > best[face] and template_distance(points) <= MAX_TEMPLATE_DISTANCE:
                best[face] = score
                better[face] = _to_level(apply_matrix(invert(views[face]), points), -numbers[face])
        return better, best

    def _maps(self, pictures: Float[Tensor, "b 3 h w"]) -> FaceMaps:
        height, width = pictures.shape[2:]
        padded = F.pad(pictures, (0, -width % STRIDE, 0, -height % STRIDE), value=0.5)
        return self.network(padded.to(self.network.head.weight.device, memory_format=torch.channels_last))


def _to_arrays(peaks: tuple[Tensor, Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    numbers, landmarks, scores = (part.cpu() for part in peaks)
    return numbers.numpy(), landmarks.double().numpy(), scores.double().numpy()


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


def _level_of(landmarks: Float[np.ndarray, "5 2"], num_levels: int, face_length: float) -> int:
    """The coarsest level in which a face is no smaller than in its view."""
    return int(np.clip(np.floor(np.log2(_length(landmarks) / face_length)), 0, num_levels - 1))


def _length(landmarks: Float[np.ndarray, "5 2"]) -> float:
    """Of a face in pixels, whatever its rotation."""
    return FACE[1] * scale_of(from_crop(landmarks))


def _view(landmarks: Float[np.ndarray, "5 2"], face_length: float) -> Float64[np.ndarray, "2 3"]:
    """Map the picture to a square in which the face is upright, in the middle and of the given length."""
    to_square = invert(from_crop(landmarks))
    scale = face_length / FACE[1]
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
