"""The built-in detector: its network on a pyramid of the picture, and again on each candidate."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Float32, Float64, Integer
from torch import Tensor
from torch.nn import functional as F

from idm.faces.align import apply_matrix, invert, scale_of, to_unit
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
from idm.faces.geometry import MAX_TEMPLATE_DISTANCE, template_distance, why_implausible
from idm.faces.mobilefacenet import fold_norms
from idm.io.weights import fill, read_weights

DETECTOR_WEIGHTS = Path(__file__).with_name("weights.safetensors")
MIN_SCORE = 0.5

_MIN_SIDE = 24  # of the coarsest level: a face that fills it is still large enough
_FIRST_SCORE = 0.3  # of the first pass
_OVERLAP = 0.5
# Our choice: of RetinaFace's finds, 111 degraded faces of `val` score at least 0.34, and seven false finds in
# scikit-image's astronaut, enlarged and made grainy, at most 0.17.
_CONFIRMED_SCORE = 0.25
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
        [landmarks], [scores] = self._refine(levels, landmarks, (_FIRST_FACE,))
        landmarks, scores = _mean_of(*self._refine(levels, landmarks[scores > 0], _FACES))
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

    @torch.inference_mode()
    def confirm(
        self, pixels: Integer[np.ndarray, "h w 3"], landmarks: Float64[np.ndarray, "n 5 2"]
    ) -> Bool[np.ndarray, " n"]:
        """Whether what another detector found looks like a face in views of several sizes too. Implausible landmarks,
        of which there is no such view, are not judged: faces that have them are left alone and named."""
        plausible = np.array([not why_implausible(points) for points in landmarks], bool)
        confirmed = ~plausible
        levels = _pyramid(to_unit(pixels))
        _, scores = _mean_of(*self._refine(levels, landmarks[plausible], _FACES))
        confirmed[plausible] = scores >= _CONFIRMED_SCORE
        return confirmed

    def _detect_all_sizes(self, levels: Sequence[FloatPixels]) -> Detections:
        """Faces of all sizes, several times each."""
        pictures = [rearrange(torch.from_numpy(level), "h w c -> 1 c h w") for level in levels]
        found = [_to_arrays(find_peaks(self._maps(picture), _FIRST_SCORE)) for picture in pictures]
        landmarks = [_to_level(points, -number) for number, (_, points, _) in enumerate(found)]
        return np.concatenate(landmarks), np.concatenate([scores for _, _, scores in found])

    def _refine(
        self, levels: Sequence[FloatPixels], landmarks: Landmarks, lengths: Sequence[float]
    ) -> tuple[Float64[np.ndarray, "k n 5 2"], Float64[np.ndarray, "k n"]]:
        """Search each of n candidates again, upright, centred and with the face at each of k lengths, for a better
        score and position. A candidate that is not found again has the score 0."""
        better, best = np.repeat(landmarks[None], len(lengths), axis=0), np.zeros((len(lengths), len(landmarks)))
        places = list(np.ndindex(best.shape))
        if not places:
            return better, best
        numbers = [_level_of(landmarks[face], len(levels), lengths[k]) for k, face in places]
        views = [
            _view(_to_level(landmarks[face], number), lengths[k])
            for (k, face), number in zip(places, numbers, strict=True)
        ]
        crops = np.stack([_seen(levels[number], view) for number, view in zip(numbers, views, strict=True)])
        both = np.concatenate([crops, crops[:, :, ::-1]])
        maps = self._maps(rearrange(torch.from_numpy(both), "n h w c -> n c h w"))
        maps, of_mirrored = (FaceMaps(*parts) for parts in zip(*(part.chunk(2) for part in maps), strict=True))
        peaks = _to_arrays(find_peaks(mean_with_mirrored(maps, of_mirrored), 0.01))
        for view, points, score in zip(*peaks, strict=True):
            k, face = places[view]
            is_central = np.hypot(*(points.mean(axis=0) - _VIEW / 2)) < lengths[k] / 2
            if is_central and score > best[k, face] and template_distance(points) <= MAX_TEMPLATE_DISTANCE:
                best[k, face] = score
                better[k, face] = _to_level(apply_matrix(invert(views[view]), points), -numbers[view])
        return better, best

    def _maps(self, pictures: Float[Tensor, "b 3 h w"]) -> FaceMaps:
        height, width = pictures.shape[2:]
        missing = (0, -width % STRIDE, 0, -height % STRIDE)
        padded = F.pad(pictures, missing, value=0.5) if any(missing) else pictures
        return self.network(padded.to(self.network.head.weight.device, memory_format=torch.channels_last))


def _mean_of(landmarks: Float64[np.ndarray, "k n 5 2"], scores: Float64[np.ndarray, "k n"]) -> Detections:
    """The mean score and the mean landmarks, weighted by the scores, of each candidate in k views: a face remains one
    in each."""
    weights = (scores + 1e-6)[..., None, None]
    return (weights * landmarks).sum(axis=0) / weights.sum(axis=0), scores.mean(axis=0)


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


def _seen(level: FloatPixels, view: Float64[np.ndarray, "2 3"]) -> FloatPixels:
    """What a view shows: means of n x n samples per pixel, as :func:`idm.faces.align.warp` takes them, several times
    faster."""
    n = max(1, math.ceil(1 / scale_of(view) - 1e-6))
    finer = np.column_stack([n * view[:, :2], n * (view[:, 2] + 0.5) - 0.5])
    size = (n * _VIEW, n * _VIEW)
    samples = cv2.warpAffine(level, finer, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return cv2.resize(samples, (_VIEW, _VIEW), interpolation=cv2.INTER_AREA)


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
