"""The quality of a picture of a face, without its original and without weights: three numbers, one for each fault.

One number is not enough, since a measure of fine detail also counts noise as detail. So sharpness is measured at edges,
noise in flat parts, and blockiness on JPEG's grid. All three are our own choice; how well each separates degraded faces
from their originals is measured by ``experiments/extrinsic/quality.py``.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from idm.io.errors import InvalidInput

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
_DX = np.array([[-0.5, 0, 0.5]], np.float32)
# Immerkaer, Fast Noise Variance Estimation (1996), eq. 3: blind to constants and slopes; unit response to white noise.
_NOISE_KERNEL = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
_STEEPEST, _FLATTEST = 0.2, 0.3  # shares of the pixels
_BORDER = 2
_JPEG_BLOCK = 8
_MIN_SIDE = 3 * _JPEG_BLOCK


@dataclass(frozen=True)
class Quality:
    """Attributes:
    sharpness: steepness of the strongest edges, against that of the same edges slightly blurred; higher is better.
    noise: standard deviation of the noise in the flattest parts, in 1/255; lower is better.
    blockiness: bends across the borders of JPEG's blocks against those elsewhere, 1 without any; lower is better.
    """

    sharpness: float
    noise: float
    blockiness: float


def measure(image: UInt8[np.ndarray, "s s 3"]) -> Quality:
    """Measure an 8-bit RGB picture.

    Raises:
        ValueError: a side is below 24 pixels.
    """
    if min(image.shape[:2]) < _MIN_SIDE:
        raise InvalidInput(f"quality needs sides of {_MIN_SIDE} pixels, got {image.shape[0]} x {image.shape[1]}")
    rgb = image.astype(np.float32)
    luma = rgb @ _LUMA
    slope = _slopes(cv2.GaussianBlur(luma, (0, 0), 1.0))
    steepness = cv2.magnitude(*slope)
    inside = _inside(steepness)
    least, most = (inside.size - 1) * _FLATTEST, (inside.size - 1) * (1 - _STEEPEST)
    ordered = np.partition(inside, (math.floor(least), math.ceil(most)), axis=None)
    return Quality(
        sharpness=_sharpness(luma, slope, steepness, inside >= ordered[math.ceil(most)]),
        noise=_noise(rgb, inside <= ordered[math.floor(least)]),
        blockiness=(_blockiness(luma) + _blockiness(luma.T)) / 2,
    )


def sharpness_at_edges_of(image: UInt8[np.ndarray, "s s 3"], other: UInt8[np.ndarray, "s s 3"]) -> float:
    """Sharpness of a picture at the strongest edges of another picture of the same face, measured across these edges.

    :func:`measure` looks for the edges in the picture itself, where strong noise makes some of its own. What looks for
    them in a picture that has none is not misled: noise is then as often against an edge as with it.
    """
    luma, reference = (picture.astype(np.float32) @ _LUMA for picture in (image, other))
    across = _slopes(cv2.GaussianBlur(reference, (0, 0), 1.0))
    steepness = cv2.magnitude(*across)
    edges = steepness >= np.quantile(_inside(steepness), 1 - _STEEPEST)
    weights = _inside(edges / (steepness + 1e-6))
    fine, coarse = (
        sum((_inside(slope * direction) * weights).sum() for slope, direction in zip(_slopes(x), across, strict=True))
        for x in (luma, cv2.GaussianBlur(luma, (0, 0), 1.0))
    )
    return float(fine / (coarse + 1e-6))


def _slopes(luma: Float32[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    return cv2.filter2D(luma, -1, _DX), cv2.filter2D(luma, -1, _DX.T)


def _sharpness(
    luma: np.ndarray, slope: tuple[np.ndarray, np.ndarray], steepness: np.ndarray, edges: np.ndarray
) -> float:
    """Slope of the picture along the blurred picture's gradient: noise, which has no direction, cancels."""
    fine_x, fine_y = _slopes(luma)
    along = np.abs(fine_x * slope[0] + fine_y * slope[1]) / (steepness + 1e-6)
    return _mean(_inside(along), edges) / (_mean(_inside(steepness), edges) + 1e-6)


def _noise(rgb: np.ndarray, flat: np.ndarray) -> float:
    """Immerkaer's estimate."""
    response = np.abs(_inside(cv2.filter2D(rgb, -1, _NOISE_KERNEL)))
    return math.sqrt(math.pi / 2) * _mean(response, flat)


def _blockiness(luma: np.ndarray) -> float:
    """Measure how much more a row bends where blocks of 8 columns meet than where they do not."""
    step = np.diff(luma, axis=1)
    bend = np.abs(step[:, 1:-1] - (step[:, :-2] + step[:, 2:]) / 2)  # of the step between columns i + 1 and i + 2
    meets = (np.arange(bend.shape[1]) + 2) % _JPEG_BLOCK == 0
    return float((bend[:, meets].mean() + 0.02) / (bend[:, ~meets].mean() + 0.02))


def _inside(values: np.ndarray) -> np.ndarray:
    return values[_BORDER:-_BORDER, _BORDER:-_BORDER]


def _mean(values: np.ndarray, where: np.ndarray) -> float:
    """Average over some pixels and all channels; several times faster than indexing by a mask."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    return sum(cv2.mean(values, where.view(np.uint8))) / channels
