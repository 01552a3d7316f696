"""The five landmarks of an aligned face, and the similarity transform between two sets of points."""

import numpy as np
from jaxtyping import Float, Float64

from idm.io.errors import InvalidInput

# FFHQ's five-point template at 512 x 512 as used by facexlib and GFP-GAN, in pixel indices (x, y):
# left eye, right eye, nose, left and right mouth corner, left and right as seen in the image.
_FFHQ_512 = (
    (192.98138, 239.94708),
    (318.90277, 240.1936),
    (256.63416, 314.01935),
    (201.26117, 371.41043),
    (313.08905, 371.15118),
)


def ffhq_landmarks(size: int) -> Float64[np.ndarray, "5 2"]:
    """The template (x, y) of an aligned face of ``size`` x ``size`` pixels.

    The centre of the first pixel is (0, 0), so that resizing by s maps x to (x + 0.5) * s - 0.5.

    Raises:
        ValueError: ``size`` is below 1.
    """
    if size < 1:
        raise InvalidInput(f"size must be at least 1 pixel, got {size}")
    return (np.array(_FFHQ_512) + 0.5) * (size / 512) - 0.5


def five_of_68(points: Float[np.ndarray, "68 2"]) -> Float[np.ndarray, "5 2"]:
    """Left eye, right eye, nose tip, left and right mouth corner of the 68 points of iBUG (dlib, FFHQ).

    Left and right are meant as seen in the image; an eye is the mean of its six points.
    """
    return np.stack([points[36:42].mean(axis=0), points[42:48].mean(axis=0), points[30], points[48], points[54]])


def umeyama(src: Float[np.ndarray, "n 2"], dst: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, "2 3"]:
    """The similarity ``[c R | t]`` that maps ``src`` onto ``dst`` with least squared error; R never mirrors.

    Source: S. Umeyama, Least-Squares Estimation of Transformation Parameters Between Two Point Patterns,
    IEEE TPAMI 13(4), 1991.

    Raises:
        ValueError: points are not finite, or no similarity fits them better than a single point does (all
            ``src`` or all ``dst`` points coincide, or the one set is the other mirrored).
    """
    src, dst = src.astype(np.float64), dst.astype(np.float64)
    if not (np.isfinite(src).all() and np.isfinite(dst).all()):
        raise InvalidInput("landmarks must be finite numbers")
    mu_src, mu_dst = src.mean(axis=0), dst.mean(axis=0)  # eq. 34, 35
    x, y = src - mu_src, dst - mu_dst
    covariance = y.T @ x / len(src)  # eq. 38
    u, d, vt = np.linalg.svd(covariance)
    s = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(vt))])  # eq. 43
    if (d * s).sum() < 1e-12:
        raise InvalidInput("landmarks coincide or are mirrored: no similarity maps them onto each other")
    rotation = u @ np.diag(s) @ vt  # eq. 40
    scale = (d * s).sum() / (x**2).sum(axis=1).mean()  # eq. 42, with the variance of eq. 36
    translation = mu_dst - scale * rotation @ mu_src  # eq. 41
    return np.column_stack([scale * rotation, translation])
