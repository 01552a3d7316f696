"""Distances between two sets of features: the Frechet distance of fitted normal distributions, and the kernel distance.

In MobileFaceNet's features the Frechet distance is not FID, whose features are Inception's, and its numbers cannot be
compared with FID's.
"""

import numpy as np
from jaxtyping import Float

from idm.io.errors import InvalidInput

NAME = "Frechet distance of MobileFaceNet features"


def frechet_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """||mu_a - mu_b||^2 + Tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of normal distributions fitted to two sets of features.

    It is biased by the sizes of the sets, most of all where they are smaller than d: compare equal sizes only.

    Source: D. C. Dowson and B. V. Landau, The Frechet distance between multivariate normal distributions, 1982.

    Raises:
        ValueError: fewer than two rows, or values that are not finite.
    """
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InvalidInput("a Frechet distance needs at least two finite rows on each side")
    a, b = a.astype(np.float64), b.astype(np.float64)
    root = _square_root(np.cov(a, rowvar=False))
    # Tr (S_a S_b)^(1/2) = Tr (R S_b R)^(1/2) with R = S_a^(1/2), which is symmetric
    both = root @ np.cov(b, rowvar=False) @ root
    cross = np.sqrt(np.clip(np.linalg.eigvalsh((both + both.T) / 2), 0, None)).sum()
    spread = np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False)) - 2 * cross
    return float(((a.mean(axis=0) - b.mean(axis=0)) ** 2).sum() + spread)


def kernel_distance(a: Float[np.ndarray, "n d"], b: Float[np.ndarray, "m d"]) -> float:
    """The squared maximum mean discrepancy with the kernel (x.y / d + 1)^3, unbiased at any size of the sets.

    Near 0 for two samples of one distribution, where it may be negative.

    Source: M. Binkowski et al., Demystifying MMD GANs, 2018 (KID); over all rows, not averaged over subsets.

    Raises:
        ValueError: fewer than two rows, or values that are not finite.
    """
    if min(len(a), len(b)) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InvalidInput("a kernel distance needs at least two finite rows on each side")
    a, b = a.astype(np.float64), b.astype(np.float64)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: np.ndarray) -> float:
        values = kernel(x, x)
        return float((values.sum() - np.trace(values)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(kernel(a, b).mean())


def _square_root(matrix: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """Return the root of a symmetric matrix without negative eigenvalues but for rounding."""
    values, vectors = np.linalg.eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
