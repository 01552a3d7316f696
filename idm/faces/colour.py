"""Match a restored face to the colours of its photograph. All crops are RGB in [0, 1]."""

from typing import assert_never

import cv2
import numpy as np
from jaxtyping import Float32, Integer

from idm.faces.names import ColorFix

Crop = Float32[np.ndarray, "s s 3"]

# Colours of a scan follow from its lightness. On JPEG scans with speckle and tints that grow along the picture they lie
# within 8.6 / 255 of what lightness and place say; in 33 faces and 12 colour photographs not within 19.
_TINT_TOLERANCE = 12 / 255
_TINT_SIDE = 192  # pixels of the copy in which a tint is looked for: speckle is averaged out
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


def match_colour(restored: Crop, given: Crop, weights: Float32[np.ndarray, "s s"], how: ColorFix) -> Crop:
    """Give a restored face the colours of the given one; an unchanged face stays as it is.

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
    """Restore contrast in the middle band that a restored face lost against the given one.

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
    """The restored face's lightness with the given face's colours: grey or sepia faces stay exactly so."""
    return (given + ((restored - given) @ _LUMA)[..., None]).clip(0, 1)


def make_grey(picture: Integer[np.ndarray, "h w 3"]) -> None:
    """Replace each pixel of a uint8 or uint16 picture by its lightness, in place; grey pixels keep their levels."""
    for top in range(0, len(picture), 256):  # in parts, for the sake of memory
        part = picture[top : top + 256]
        part[...] = np.rint(part @ _LUMA)[..., None]


def has_one_tint(pixels: Integer[np.ndarray, "h w 3"]) -> bool:
    """Whether a picture is grey or tinted as a whole, as a toned or yellowed print is: its colour is a function of its
    lightness, which may change evenly along the picture.

    Colour differences of a small copy are fitted by a cubic in lightness whose first two terms grow linearly along x
    and y; 99 % of the pixels must lie near the fit. Pictures with colours of their own do not, however dull they are.
    """
    small = _small_copy(pixels)
    height, width = small.shape[:2]
    luma = (small @ _LUMA).reshape(-1)
    differences = small.reshape(-1, 3)[:, ::2] - luma[:, None]  # red and blue; green follows
    y, x = (np.mgrid[:height, :width].reshape(2, -1, 1) / max(height, width)).astype(np.float32)
    powers = luma[:, None] ** np.arange(4)
    terms = np.hstack([powers, x * powers[:, :2], y * powers[:, :2]])
    fit = terms @ np.linalg.lstsq(terms, differences)[0]
    return bool(np.quantile(np.abs(differences - fit).max(axis=1), 0.99) <= _TINT_TOLERANCE)


def _small_copy(pixels: Integer[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h2 w2 3"]:
    """Reduce a picture by area, in [0, 1]."""
    factor = min(1.0, _TINT_SIDE / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * factor)), max(1, round(pixels.shape[0] * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.float32) / np.iinfo(pixels.dtype).max
