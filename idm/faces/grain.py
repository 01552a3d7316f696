"""Grain and structure apart: what is finer than the restorer's pixels, with its noise taken out."""

import cv2
import numpy as np
from jaxtyping import Float32

Crop = Float32[np.ndarray, "s s 3"]

_WINDOW = 7  # pixels per side, in which variances are taken
_FLATTEST = 0.2  # quantile of the local variances that is taken for the noise's
_MARGIN = 1.5  # how much the variance of pure noise may exceed that (our choices)


def without_grain(fine: Crop) -> Crop:
    """The structure of a layer of fine detail: its local Wiener estimate, which removes what is no stronger than noise
    and keeps edges.

    Source: J. S. Lee, Digital Image Enhancement and Noise Filtering by Use of Local Statistics, IEEE TPAMI 2(2), 1980.
    The noise's variance is that of the flattest fifth of the layer, so that a layer of noise alone vanishes.

    Args:
        fine: a picture less its smoothed self: of mean zero nearly everywhere.
    """
    energy = np.square(fine).mean(axis=2)
    variance = cv2.boxFilter(energy, -1, (_WINDOW, _WINDOW), borderType=cv2.BORDER_REFLECT_101)
    noise = _MARGIN * np.quantile(variance, _FLATTEST).astype(np.float32)
    share = np.divide(variance - noise, variance, out=np.zeros_like(variance), where=variance > noise)
    return fine * share[..., None]
