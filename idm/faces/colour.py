"""A restored face in the colours of its photograph. All crops are RGB in [0, 1]."""

from typing import Literal, assert_never

import cv2
import numpy as np
from jaxtyping import Float32, Integer

Crop = Float32[np.ndarray, "s s 3"]
ColorFix = Literal["none", "mean", "wavelet"]

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def match_colour(restored: Crop, given: Crop, weights: Float32[np.ndarray, "s s"], how: ColorFix) -> Crop:
    """Give a restored face the colours of the given one; a face that was not changed stays as it is.

    Args:
        restored, given: aligned crops of the same face.
        weights: where colours count, such as :func:`idm.faces.paste.blend_weights`.
        how: "none"; "mean" moves each channel's weighted mean; "wavelet" takes everything coarser than a
            twenty-fifth of the crop (a Gaussian's standard deviation; our choice) from the given face.
    """
    match how:
        case "none":
            return restored
        case "mean":
            difference = ((given - restored) * weights[..., None]).sum(axis=(0, 1)) / weights.sum()
        case "wavelet":
            sigma = len(given) / 25
            difference = cv2.GaussianBlur(given - restored, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
        case _:
            assert_never(how)
    return (restored + difference).clip(0, 1)


def match_contrast(restored: Crop, given: Crop, weights: Float32[np.ndarray, "s s"]) -> Crop:
    """Give the middle tones of a restored face the contrast of the given one, where it lost some.

    Networks that minimise an error flatten what they are unsure of. The band of lightness between a 128th and a
    twenty-fifth of the crop (standard deviations of Gaussians; what is coarser is :func:`match_colour`'s) is added
    as often as brings this band nearest to the given face's, in squared error. Noise in the given face does not raise
    the factor, and blur lowers it: it is at least 0, and at most 1 (our choices).
    """
    luma = restored @ _LUMA
    band = _middle_tones(luma)
    effect, wanted = _middle_tones(band), _middle_tones(given @ _LUMA - luma)
    factor = (weights * effect * wanted).sum() / max((weights * effect * effect).sum(), 1e-12)
    return (restored + (np.clip(factor, 0, 1) * band)[..., None]).clip(0, 1).astype(np.float32)


def _middle_tones(luma: Float32[np.ndarray, "s s"]) -> Float32[np.ndarray, "s s"]:
    fine, coarse = (
        cv2.GaussianBlur(luma, (0, 0), len(luma) / parts, borderType=cv2.BORDER_REFLECT_101) for parts in (128, 25)
    )
    return fine - coarse


def keep_chroma(restored: Crop, given: Crop) -> Crop:
    """The restored face's lightness with the given face's colours: what was grey or sepia stays exactly so."""
    return (given + ((restored - given) @ _LUMA)[..., None]).clip(0, 1)


def to_grey(picture: Integer[np.ndarray, "h w 3"]) -> None:
    """Replace each pixel of a uint8 or uint16 picture by its lightness, in place; grey pixels keep their levels."""
    for top in range(0, len(picture), 256):  # in parts, for the sake of memory
        part = picture[top : top + 256]
        part[...] = np.rint(part @ _LUMA)[..., None]
