"""Affine warps with exact pixel centres, and the aligned crop of a face."""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from einops import rearrange, reduce
from jaxtyping import Float, Float32, Float64, Num, Shaped
from torch.nn import functional as F

from idm.faces.template import ffhq_landmarks, umeyama

_MAX_SAMPLES = 32
_REACH = 2  # pixels beside a sample that bicubic interpolation reads
_TILE_SAMPLES = 1024  # samples per side of a tile: bounds the memory of any warp

Matrix = Float64[np.ndarray, "2 3"]
Interpolation = Literal["bilinear", "bicubic"]


def to_unit(pixels: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """uint8 or uint16 levels -> float32 in [0, 1]; floats stay as they are."""
    if pixels.dtype.kind == "f":
        return pixels.astype(np.float32, copy=False)
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def apply_matrix(matrix: Matrix, points: Num[np.ndarray, "*n 2"]) -> Float64[np.ndarray, "*n 2"]:
    """Map points (x, y) by an affine matrix."""
    return points @ matrix[:, :2].T + matrix[:, 2]


def invert(matrix: Matrix) -> Matrix:
    """The matrix of the inverse map."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def scale_of(matrix: Matrix) -> float:
    """The scale factor per side."""
    return math.sqrt(abs(np.linalg.det(matrix[:, :2])))


def warp(
    image: Shaped[np.ndarray, "h w c"],
    matrix: Matrix,
    size: tuple[int, int],
    interpolation: Interpolation = "bilinear",
) -> Float32[np.ndarray, "h2 w2 c"]:
    """Resample a picture so that its point (x, y) is mapped to ``matrix @ (x, y, 1)``.

    Each pixel is the mean of n x n bilinear samples, n = ceil(1 / scale), at most 32, which antialiases when the
    picture shrinks; n = 1 is plain interpolation. Outside the picture its nearest edge pixel continues. Works in tiles
    and converts only what each tile reads, so that a picture of any size needs little memory.

    Args:
        image: uint8, uint16 or float.
        matrix: from pixel indices (x, y) of ``image`` to those of the result; (0, 0) is the centre of the first.
        size: height and width of the result.

    Returns:
        Floats, [0, 1] for integer levels; bicubic (a = -0.5) may overshoot.
    """
    height, width = size
    num_samples = min(max(1, math.ceil(1 / scale_of(matrix) - 1e-6)), _MAX_SAMPLES)
    to_image = invert(matrix)
    side = _TILE_SAMPLES // num_samples
    warped = np.empty((height, width, image.shape[2]), np.float32)
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            places = _places(
                to_image.tobytes(), (left, top), (bottom - top, right - left), num_samples, image.shape[:2]
            )
            part = np.ascontiguousarray(to_unit(image[places.rows, places.columns]))
            is_cubic = interpolation == "bicubic" and num_samples == 1
            samples = _sample_cubic(part, places.points) if is_cubic else _sample_linear(part, places.grid)
            pattern = "(h n) (w m) c -> h w c"
            warped[top:bottom, left:right] = reduce(samples, pattern, "mean", n=num_samples, m=num_samples)
    return warped


@dataclass(frozen=True)
class _Places:
    """The places to read in a picture: its rectangle within two pixels of all samples, and the samples in it, as
    points (x, y) and as ``grid_sample`` counts."""

    rows: slice
    columns: slice
    points: Float64[np.ndarray, "h w 2"]
    grid: Float32[np.ndarray, "h w 2"]


@lru_cache(maxsize=1)  # faces of one size are all read in the same places; at most 24 MB
def _places(
    to_picture: bytes, first: tuple[int, int], size: tuple[int, int], num_samples: int, picture: tuple[int, int]
) -> _Places:
    points = apply_matrix(np.frombuffer(to_picture).reshape(2, 3), _samples_of(first, size, num_samples))
    limits = np.array(picture[::-1])
    corners = points[:: max(1, len(points) - 1), :: max(1, points.shape[1] - 1)]  # an affine image of a rectangle
    low = (np.floor(corners.min(axis=(0, 1))).astype(int) - _REACH).clip(0, limits - 1)
    high = (np.ceil(corners.max(axis=(0, 1))).astype(int) + _REACH + 1).clip(low + 1, limits)
    (left, top), (right, bottom) = low.tolist(), high.tolist()
    grid = _as_grid(points - low, (bottom - top, right - left)).astype(np.float32)
    return _Places(slice(top, bottom), slice(left, right), points - low, grid)


def _samples_of(first: tuple[int, int], size: tuple[int, int], num_samples: int) -> Float64[np.ndarray, "h w 2"]:
    """(x, y) of the samples in the pixels of a result of (height, width), whose first pixel is (x, y) ``first``."""
    ys, xs = ((np.arange(side * num_samples) + 0.5) / num_samples - 0.5 for side in size)
    return np.stack(np.meshgrid(xs, ys), axis=-1) + first


def _as_grid(points: Float64[np.ndarray, "h w 2"], picture: tuple[int, int]) -> Float64[np.ndarray, "h w 2"]:
    """grid_sample's own coordinates: -1 and 1 are the outer edges of the border pixels."""
    return (2 * points + 1) / picture[::-1] - 1


def _sample_linear(
    image: Float32[np.ndarray, "h w c"], grid: Float32[np.ndarray, "h2 w2 2"]
) -> Float32[np.ndarray, "h2 w2 c"]:
    samples = F.grid_sample(
        rearrange(torch.from_numpy(image), "h w c -> 1 c h w"),
        torch.from_numpy(grid[None]),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return rearrange(samples, "1 c h w -> h w c").numpy()


def _sample_cubic(
    image: Float32[np.ndarray, "h w c"], points: Float64[np.ndarray, "h2 w2 2"]
) -> Float32[np.ndarray, "h2 w2 c"]:
    """Keys' cubic with a = -0.5 (IEEE TASSP 29(6), 1981), which keeps linear ramps and so moves nothing.
    OpenCV's and torch's, with a = -0.75, move edges by up to a twentieth of a pixel."""
    height, width, channels = image.shape
    first = np.floor(points).astype(np.int64)
    t = (points - first).astype(np.float32)
    t2, t3 = t * t, t * t * t
    taps = (-0.5 * t + t2 - 0.5 * t3, 1 - 2.5 * t2 + 1.5 * t3, 0.5 * t + 2 * t2 - 1.5 * t3, -0.5 * t2 + 0.5 * t3)
    places = [(first + k).clip(0, (width - 1, height - 1)) for k in (-1, 0, 1, 2)]
    pixels = image.reshape(-1, channels)
    values = np.zeros((*points.shape[:2], channels), np.float32)
    for y, weight_y in zip(places, taps, strict=True):
        for x, weight_x in zip(places, taps, strict=True):
            weight = (weight_x[..., 0] * weight_y[..., 1])[..., None]
            values += weight * np.take(pixels, y[..., 1] * width + x[..., 0], axis=0)
    return values


def align_face(
    pixels: Shaped[np.ndarray, "h w 3"], landmarks: Float[np.ndarray, "5 2"], size: int
) -> tuple[Float32[np.ndarray, "s s 3"], Matrix]:
    """The aligned crop of a face, in [0, 1], and the similarity from pixels of the picture to pixels of the crop.

    Args:
        pixels: RGB, uint8 or uint16 levels, or floats in [0, 1].
        landmarks: (x, y) of left eye, right eye, nose, left and right mouth corner as seen in the picture.
        size: side of the crop, whose landmarks are :func:`idm.faces.template.ffhq_landmarks`.

    Raises:
        ValueError: landmarks are not finite or coincide.
    """
    to_crop = umeyama(landmarks, ffhq_landmarks(size))
    return warp(pixels, to_crop, (size, size), "bicubic").clip(0, 1), to_crop
