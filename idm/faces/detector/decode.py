"""Decode the network's maps into faces: peaks of the score, landmarks by vote of the cells around, boxes, overlaps."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor
from torch.nn import functional as F

from idm.faces.align import apply_matrix
from idm.faces.detector.network import STRIDE, UNIT, FaceMaps
from idm.faces.template import ffhq_landmarks, umeyama

# Width and height of a face's box and its centre, in sides of the aligned crop: the mean box that RetinaFace gives to
# 104 aligned faces.
FACE = np.array([0.54, 0.758])
FACE_CENTRE = np.array([0.5, 0.543])

_TEMPLATE = (ffhq_landmarks(512) + 0.5) / 512
_MIRRORED = [1, 0, 2, 4, 3]  # the landmarks of the mirror image, by their names in the face


def cell_centres(height: int, width: int) -> Float[Tensor, "h w 2"]:
    """(x, y) of the centres of cells, in pixel indices."""
    ys, xs = (STRIDE * torch.arange(side) + (STRIDE - 1) / 2 for side in (height, width))
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)


def find_peaks(
    maps: FaceMaps, min_score: float
) -> tuple[Int64[Tensor, " n"], Float[Tensor, "n 5 2"], Float[Tensor, " n"]]:
    """Cells that score higher than their eight neighbours and at least ``min_score``.

    Returns:
        For each: the number of its picture in the batch, its landmarks in pixel indices (the mean of what the 3 x 3
        cells around it say, weighted by their scores) and its score in [0, 1].
    """
    scores = maps.logits.sigmoid()
    points = cell_centres(*scores.shape[1:]).to(scores)[..., None, :] + UNIT * maps.offsets
    votes = torch.cat([points.flatten(3) * scores[..., None], scores[..., None]], dim=-1).movedim(-1, 1)
    sums = F.avg_pool2d(votes, 3, stride=1, padding=1)
    means = (sums[:, :-1] / sums[:, -1:]).movedim(1, -1).unflatten(-1, (5, 2))
    is_peak = (scores == F.max_pool2d(scores, 3, stride=1, padding=1)) & (scores >= min_score)
    picture, y, x = is_peak.nonzero(as_tuple=True)
    return picture, means[picture, y, x], scores[picture, y, x]


def mean_with_mirrored(maps: FaceMaps, of_mirrored: FaceMaps) -> FaceMaps:
    """The mean of the maps of pictures and of their mirror images, whose width is divisible by ``STRIDE``."""
    flipped = of_mirrored.offsets.flip(2)[..., _MIRRORED, :] * maps.offsets.new_tensor([-1.0, 1.0])
    return FaceMaps((maps.logits + of_mirrored.logits.flip(2)) / 2, (maps.offsets + flipped) / 2)


def from_crop(landmarks: Float[np.ndarray, "5 2"]) -> Float64[np.ndarray, "2 3"]:
    """The similarity from the unit square of the aligned crop to the picture.

    Raises:
        ValueError: landmarks are not finite, coincide or are mirrored.
    """
    return umeyama(_TEMPLATE, landmarks)


def face_box(landmarks: Float[np.ndarray, "5 2"]) -> Float64[np.ndarray, "4"]:
    """Left, top, right, bottom of the upright rectangle around the face: an ellipse that turns with its landmarks.

    Raises:
        ValueError: landmarks are not finite, coincide or are mirrored.
    """
    matrix = from_crop(landmarks)
    centre = apply_matrix(matrix, FACE_CENTRE)
    half = np.hypot(*(matrix[:, :2] * FACE).T) / 2
    return np.concatenate([centre - half, centre + half])


def best_of_overlapping(
    boxes: Float[np.ndarray, "n 4"], scores: Float[np.ndarray, " n"], overlap: float
) -> Int64[np.ndarray, " m"]:
    """The numbers of the boxes that are kept, the best first: those that overlap with a better one are left out.

    Args:
        overlap: the area that two boxes share, as a share of the smaller one, from which they are the same face.
            (With intersection over union a face and its mouth, found at two scales, would be two faces.)
    """
    order = np.argsort(-scores, kind="stable")
    sides = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:]) - np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    same: Bool[np.ndarray, "n n"] = np.prod(sides.clip(0), axis=2) >= overlap * np.minimum(areas[:, None], areas)
    kept: list[int] = []
    for number in order:
        if not same[number, kept].any():
            kept.append(int(number))
    return np.array(kept, np.int64)
