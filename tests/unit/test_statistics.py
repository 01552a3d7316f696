"""Intervals: do they contain the truth as often as they say?"""

import math

import numpy as np
import pytest

from idm.evaluation.statistics import mean_and_interval, paired_differences, summarise_column


def coverage(draw, truth: float, num_sets: int = 1000, num_resamples: int = 1000) -> float:
    """The share of simulated data sets whose interval contains the truth."""
    inside = 0
    for seed in range(num_sets):
        _, low, high = mean_and_interval(draw(np.random.default_rng([7, seed])), seed, num_resamples)
        inside += low <= truth <= high
    return inside / num_sets


@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        pytest.param(lambda rng: rng.normal(size=130), 0.0, id="normal-130"),
        pytest.param(lambda rng: rng.lognormal(0, 1, size=24), math.exp(0.5), id="log-normal-24"),
        pytest.param(lambda rng: rng.exponential(size=24) - rng.exponential(size=24), 0.0, id="paired-24"),
    ],
)
def test_the_interval_contains_the_truth_in_93_to_97_of_100_data_sets(draw, truth: float) -> None:
    assert 0.93 <= coverage(draw, truth) <= 0.97


def test_the_interval_is_that_of_a_normal_mean_for_many_values() -> None:
    values = np.random.default_rng(1).normal(30, 4, 2000)
    mean, low, high = mean_and_interval(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert low == pytest.approx(mean - half, abs=half / 8)
    assert high == pytest.approx(mean + half, abs=half / 8)


def test_the_interval_moves_with_its_values_and_mirrors() -> None:
    values = np.random.default_rng(2).lognormal(size=30)
    mean, low, high = mean_and_interval(values)
    assert high - mean > mean - low  # the tail is above
    moved = mean_and_interval(10 + 3 * values)
    assert moved == pytest.approx((10 + 3 * mean, 10 + 3 * low, 10 + 3 * high))


def test_the_interval_depends_on_values_and_seed_only() -> None:
    values = list(np.random.default_rng(3).random(30))
    np.random.seed(1)  # noqa: NPY002
    first = mean_and_interval(values)
    np.random.seed(2)  # noqa: NPY002
    assert mean_and_interval(values) == first
    assert mean_and_interval(values, seed=1)[1:] != first[1:]
    assert mean_and_interval(values, seed=1)[0] == first[0]


def test_what_gives_no_interval_has_none() -> None:
    assert mean_and_interval([0.25]) == (0.25, None, None)
    assert mean_and_interval([float(value) for value in range(9)])[1:] == (None, None)
    assert None not in mean_and_interval([float(value) for value in range(10)])
    assert mean_and_interval([0.1] * 20) == (pytest.approx(0.1), pytest.approx(0.1), pytest.approx(0.1))
    assert mean_and_interval([0.1] * 19 + [0.2])[1:] == (None, None)
    for bad in ([], [1.0, math.nan], [1.0, math.inf]):
        with pytest.raises(ValueError, match="at least one value, all of them finite"):
            mean_and_interval(bad)


def test_differences_are_paired_and_cover_every_two_labels() -> None:
    rng = np.random.default_rng(4)
    hard = rng.normal(0, 10, 50)  # what the faces share
    columns = {
        label: {"psnr": list(hard + gain + rng.normal(0, 0.1, 50))} for label, gain in (("a", 1), ("b", 0), ("c", 0))
    }
    rows = paired_differences(columns, ["a", "b", "c"])
    assert [(row["a"], row["b"]) for row in rows] == [("a", "b"), ("a", "c"), ("b", "c")]
    first, _, last = (row["metrics"]["psnr"] for row in rows)
    each = zip(columns["a"]["psnr"], columns["b"]["psnr"], strict=True)
    assert first == pytest.approx(summarise_column([a - b for a, b in each]))
    assert first["n"] == 50
    assert 0.9 < first["low"] < first["mean"] < first["high"] < 1.1
    assert last["low"] < 0 < last["high"]
