"""The Frechet distance against closed forms and scipy."""

import numpy as np
import pytest
import scipy.linalg

from idm.evaluation.frechet import frechet_distance


def test_the_distance_of_a_set_to_itself_is_zero_and_to_a_shifted_one_the_shift_squared() -> None:
    a = np.random.default_rng(0).standard_normal((50, 8))
    shift = np.arange(8.0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + shift) == pytest.approx((shift**2).sum())


def test_the_distance_of_normal_samples_is_its_closed_form() -> None:
    """Independent axes: sum of (mu_a - mu_b)^2 + (sigma_a - sigma_b)^2."""
    rng = np.random.default_rng(0)
    sigma_a, sigma_b = np.array([1.0, 2.0, 0.5]), np.array([1.5, 1.0, 0.5])
    a, b = rng.standard_normal((200_000, 3)) * sigma_a, rng.standard_normal((200_000, 3)) * sigma_b + [1, 0, 0]
    assert frechet_distance(a, b) == pytest.approx(1 + ((sigma_a - sigma_b) ** 2).sum(), rel=0.02)


@pytest.mark.parametrize("num_rows", [5, 40])  # fewer than dimensions: singular covariances
def test_the_distance_is_that_of_scipys_matrix_root(num_rows: int) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((num_rows, 10)), rng.standard_normal((num_rows + 3, 10)) @ rng.standard_normal((10, 10))
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b + 1e-12 * np.eye(10)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("bad", [np.zeros((1, 3)), np.full((4, 3), np.nan)])
def test_too_few_or_infinite_features_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ValueError, match="two finite rows"):
        frechet_distance(bad, np.random.default_rng(0).standard_normal((4, 3)))
