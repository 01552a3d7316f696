"""Blur kernels, truncated to a square and normalised to sum 1.

Source: BasicSR, basicsr/data/degradations.py, `bivariate_isotropic_Gaussian`, `bivariate_anisotropic_Gaussian`,
`bivariate_generalized_Gaussian`, `bivariate_plateau` and `circular_lowpass_kernel`; the motion kernel is our own.
"""

import numpy as np
from jaxtyping import Float32, Float64

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


def gaussian_kernel(
    sigma_x: float, sigma_y: float, rotation: float, radius: int, beta: float = 1.0
) -> Float32[np.ndarray, "k k"]:
    """Anisotropic Gaussian exp(-(v' S^-1 v)^beta / 2), S = U diag(sigma_x^2, sigma_y^2) U', with k = 2 * radius + 1.

    U rotates by `rotation` radians from the x axis (columns, to the right) towards the y axis (rows,
    downwards); the sigmas are in pixels; `beta` above 1 flattens the top. Raises ValueError for a negative sigma or
    radius.
    """
    form = _quadratic_form(sigma_x, sigma_y, rotation, radius)
    kernel = np.exp(-0.5 * form**beta)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def plateau_kernel(
    sigma_x: float, sigma_y: float, rotation: float, radius: int, beta: float
) -> Float32[np.ndarray, "k k"]:
    """The plateau 1 / (1 + (v' S^-1 v)^beta) with S of :func:`gaussian_kernel`: the top is flat, the tails are long."""
    kernel = 1 / (1 + _quadratic_form(sigma_x, sigma_y, rotation, radius) ** beta)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def sinc_kernel(cutoff: float, radius: int) -> Float32[np.ndarray, "k k"]:
    """Ideal circular low-pass filter: cutoff * J1(cutoff * r) / (2 pi r), which rings; `cutoff` in radians per pixel.

    Real-ESRGAN, arXiv 2107.10833. Raises ValueError unless 0 < cutoff <= pi.
    """
    if not 0 < cutoff <= np.pi:
        raise ValueError(f"a cutoff frequency must lie in (0, pi], got {cutoff}")
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    distance = np.hypot(x, y)
    distance[radius, radius] = 1  # the centre has its own value, the limit for r -> 0
    kernel = cutoff * _bessel_j1(cutoff * distance) / (2 * np.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * np.pi)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def motion_kernel(length: float, rotation: float, radius: int) -> Float32[np.ndarray, "k k"]:
    """Linear motion by `length` pixels at `rotation` radians from the x axis: points on a line, each shared bilinearly
    among its four pixels.

    0 gives the unit impulse. Raises ValueError for a negative length or radius.
    """
    _require_size(length, length, radius)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1][..., None].astype(np.float64)
    along = np.linspace(-length / 2, length / 2, 1 + 4 * int(np.ceil(length)))
    share_x = np.clip(1 - np.abs(x - along * np.cos(rotation)), 0, 1)
    share_y = np.clip(1 - np.abs(y - along * np.sin(rotation)), 0, 1)
    kernel = (share_x * share_y).sum(axis=-1)
    return np.asarray(kernel / kernel.sum(), dtype=np.float32)


def _quadratic_form(sigma_x: float, sigma_y: float, rotation: float, radius: int) -> Float64[np.ndarray, "k k"]:
    """v' S^-1 v on the pixel grid, written in the rotated frame where S is diagonal."""
    _require_size(sigma_x, sigma_y, radius)
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    along = (np.cos(rotation) * x + np.sin(rotation) * y) / max(sigma_x, _MIN_SIGMA)
    across = (np.cos(rotation) * y - np.sin(rotation) * x) / max(sigma_y, _MIN_SIGMA)
    return along**2 + across**2


def _bessel_j1(x: Float64[np.ndarray, "k k"]) -> Float64[np.ndarray, "k k"]:
    """J1(x) = mean of cos(tau - x sin(tau)) over a period: exact to 1e-12 with 128 points for |x| < 64."""
    tau = np.linspace(0, 2 * np.pi, 128, endpoint=False)
    return np.cos(tau - x[..., None] * np.sin(tau)).mean(axis=-1)


def _require_size(sigma_x: float, sigma_y: float, radius: int) -> None:
    if not (sigma_x >= 0 and sigma_y >= 0 and radius >= 0):
        raise ValueError(f"sigma and radius must not be negative, got {sigma_x}, {sigma_y}; {radius}")
