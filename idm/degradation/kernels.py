"""Gaussian blur kernels, truncated to a square and normalised to sum 1.

Source: BasicSR, basicsr/data/degradations.py, `bivariate_isotropic_Gaussian` and
`bivariate_anisotropic_Gaussian`.
"""

import numpy as np
from jaxtyping import Float32

# A narrower Gaussian is the unit impulse on the pixel grid: exp(-1 / (2 * 0.02^2)) is below any float.
_MIN_SIGMA = 0.02


def gaussian_taps(sigma: float, radius: int) -> Float32[np.ndarray, " k"]:
    """Isotropic Gaussian as k = 2 * radius + 1 taps, their outer product being the square kernel.

    `sigma` is in pixels; 0 gives the unit impulse. Raises ValueError for a negative sigma or radius.
    """
    _require_size(sigma, sigma, radius)
    x = np.arange(-radius, radius + 1, dtype=np.float64)
    taps = np.exp(-0.5 * (x / max(sigma, _MIN_SIGMA)) ** 2)
    return np.asarray(taps / taps.sum(), dtype=np.float32)


def gaussian_kernel(sigma_x: float, sigma_y: float, rotation: float, radius: int) -> Float32[np.ndarray, "k k"]:
    """Anisotropic Gaussian exp(-v' S^-1 v / 2), S = U diag(sigma_x^2, sigma_y^2) U', with k = 2 * radius + 1.

    U rotates by `rotation` radians from the x axis (columns, to the right) towards the y axis (rows,
    downwards); the sigmas are in pixels. Raises ValueError for a negative sigma or radius.
    """
    _require_size(sigma_x, sigma_y, radius)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    # v' S^-1 v, written in the rotated frame where S is diagonal
    along = (np.cos(rotation) * x + np.sin(rotation) * y) / max(sigma_x, _MIN_SIGMA)
    across = (np.cos(rotation) * y - np.sin(rotation) * x) / max(sigma_y, _MIN_SIGMA)
    kernel = np.exp(-0.5 * (along**2 + across**2))
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _require_size(sigma_x: float, sigma_y: float, radius: int) -> None:
    if not (sigma_x >= 0 and sigma_y >= 0 and radius >= 0):
        raise ValueError(f"sigma and radius must not be negative, got {sigma_x}, {sigma_y}; {radius}")
