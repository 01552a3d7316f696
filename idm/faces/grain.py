"""Separate grain from structure: remove it from detail finer than a crop's pixels, or keep it in a restored face."""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Integer

from idm.faces.align import Matrix, apply_matrix, invert, to_unit, warp
from idm.faces.paste import blend_weights, corners_of

_WINDOW = 7  # pixels per side, in which variances are taken
_FLATTEST = 0.3  # quantile of the local variances that is taken for the noise's
_MARGIN = 1.5  # how much the variance of pure noise may exceed that (our choices)
_UNSEEN = 0.6 / 255  # noise as weak as this, such as that of JPEG and of rounding, is not grain (our choice)


def remove_grain(picture: Integer[np.ndarray, "h w 3"], crop: Float32[np.ndarray, "s s 3"], to_crop: Matrix) -> None:
    """Remove the grain from a face in a uint8 or uint16 picture, in place; its structure and what the crop itself shows
    stay.

    Args:
        crop: the aligned face in [0, 1], with fewer pixels than it has in the picture.
        to_crop: from pixel indices of the picture to those of the crop.
    """
    low, high = corners_of(to_crop, len(crop))
    left, top = np.maximum(np.floor(low), 0).astype(int)
    right, bottom = np.ceil(high).astype(int) + 1
    part = picture[top : max(top, bottom), left : max(left, right)]
    xy = np.stack(np.meshgrid(np.arange(part.shape[1]), np.arange(part.shape[0])), axis=-1) + np.array([left, top])
    weights = blend_weights(apply_matrix(to_crop, xy), len(crop))
    touched = weights > 0
    if not touched.any():
        return
    to_part = invert(to_crop)
    to_part[:, 2] -= left, top
    values = to_unit(part)
    fine = values - warp(crop, to_part, part.shape[:2], "bicubic")
    values -= weights[..., None] * (fine - without_grain(fine, touched))
    levels = np.rint(values.clip(0, 1) * np.iinfo(part.dtype).max)
    part[touched] = levels[touched].astype(part.dtype)


def without_grain(fine: Float32[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w 3"]:
    """The structure of a layer of fine detail: its local Wiener estimate, which removes what is no stronger than noise
    and keeps edges.

    Source: J. S. Lee, Digital Image Enhancement and Noise Filtering by Use of Local Statistics, IEEE TPAMI 2(2), 1980.
    The noise's variance is that of the flattest third of the layer, so that a layer of noise alone vanishes.

    Args:
        fine: a picture less its smoothed self: of mean zero nearly everywhere.
        where: the part from which the noise is learnt.
    """
    return fine * _share_of_structure(fine, where, _WINDOW)[..., None]


def share_of_grain(
    change: Float32[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"], noise: float, pixel: float = 1.0
) -> Float32[np.ndarray, "h w"]:
    """The share of a change that is grain which it removed, in [0, 1]: 1 where the change is no stronger than in flat
    parts, hardly anything at edges that it redrew, and 0 everywhere if the given face has no grain.

    Args:
        change: the restored less the given face.
        where: the part from which the strength of the grain is learnt.
        noise: standard deviation of the noise in flat parts of the given face, in [0, 1].
        pixel: side of a pixel of the photograph, in pixels of the faces.
    """
    is_seen = max(0.0, 1 - (_UNSEEN / max(noise, 1e-6)) ** 2)
    window = 2 * round(pixel * _WINDOW / 2) + 1
    return (is_seen * (1 - _share_of_structure(change, where, window))).astype(np.float32)


def _share_of_structure(
    fine: Float32[np.ndarray, "h w 3"], where: Bool[np.ndarray, "h w"], window: int
) -> Float32[np.ndarray, "h w"]:
    """Share of the local variance that is not noise."""
    energy = np.square(fine).mean(axis=2)
    variance = cv2.boxFilter(energy, -1, (window, window), borderType=cv2.BORDER_REFLECT_101)
    noise = np.float32(_MARGIN * np.quantile(variance[where], _FLATTEST))
    return np.divide(variance - noise, variance, out=np.zeros_like(variance), where=variance > noise)
