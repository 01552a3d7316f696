"""Means with intervals, and differences of paired scores."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy.special import ndtr, stdtrit

from idm.io.errors import InvalidInput

INTERVAL = "Mean and studentised bootstrap 95 % interval, from ten faces on"
MIN_VALUES = 10  # values that give an interval: of fewer the spread of a resample is too often near 0


def mean_and_interval(
    values: Sequence[float] | Float64[np.ndarray, " n"], seed: int = 0, num_resamples: int = 2000
) -> tuple[float, float | None, float | None]:
    """The mean, and the ends of its 95 % studentised bootstrap interval: (mean, low, high).

    The ends are None if there are fewer than ten values or nearly all of them are equal. If all are equal, both ends
    are the mean. Equal arguments give equal results.

    The interval inverts the distribution of t* = (m* - m) / s* over resamples, where a percentile or BCa interval uses
    that of m* alone and is too short for few, skewed values: of 24 log-normal ones those contain the mean in 85 and
    89 of 100 cases, this one in 93. Its tails are those that make a normal interval with 1 / n as wide as Student's.

    Source: P. Hall, Theoretical comparison of bootstrap confidence intervals, 1988; the tails are those of
    T. Hesterberg, What teachers should know about the bootstrap, 2015, section 5.

    Raises:
        ValueError: no values, or one that is not finite.
    """
    x = np.asarray(values, np.float64)
    if x.size == 0 or not np.isfinite(x).all():
        raise InvalidInput(f"need at least one value, all of them finite, got {x.size} values")
    mean, spread = float(x.mean()), float(x.std())
    if x.size > 1 and np.ptp(x) == 0:
        return mean, mean, mean
    if x.size < MIN_VALUES:
        return mean, None, None
    # an observed quantile, not one interpolated: infinity minus infinity is NaN
    tail = float(ndtr(np.sqrt(x.size / (x.size - 1)) * stdtrit(x.size - 1, 0.025)))
    low, high = np.quantile(_studentised(x, seed, num_resamples), [tail, 1 - tail], method="inverted_cdf")
    if not (np.isfinite(low) and np.isfinite(high)):
        return mean, None, None
    return mean, mean - float(high) * spread, mean - float(low) * spread


def _studentised(x: Float64[np.ndarray, " n"], seed: int, num_resamples: int) -> Float64[np.ndarray, " r"]:
    """(m* - m) / s* of resamples; of one whose values are all equal infinite, 0 if they equal the mean."""
    rng = np.random.default_rng(seed)
    chunk = max(1, 2**20 // x.size)  # resamples at once, in 8 MB
    found = []
    for start in range(0, num_resamples, chunk):
        resamples = x[rng.integers(x.size, size=(min(chunk, num_resamples - start), x.size))]
        shift, spread = resamples.mean(axis=1) - x.mean(), resamples.std(axis=1)
        spread[np.ptp(resamples, axis=1) == 0] = 0  # not what rounding leaves of it
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(np.nan_to_num(shift / spread, nan=0.0, posinf=np.inf, neginf=-np.inf))
    return np.concatenate(found)


def summarise_column(values: Sequence[float]) -> dict[str, float | None]:
    """Mean and 95 % interval of some scores, as :func:`mean_and_interval`, and their number: "mean", "low", "high",
    "n"."""
    mean, low, high = mean_and_interval(values)
    return {"mean": mean, "low": low, "high": high, "n": len(values)}


def paired_differences(
    columns: Mapping[str, Mapping[str, Sequence[float]]], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """The mean difference a - b of the scores of the same faces, with its interval, for every two labels.

    Args:
        columns: scores by label and metric, of the same faces in the same order.

    Returns:
        One {"a", "b", "metrics": {metric: as of :func:`summarise_column`}} for each pair.
    """
    rows = []
    for i, a in enumerate(labels):
        for b in labels[i + 1 :]:
            differences = {
                name: summarise_column(np.subtract(columns[a][name], columns[b][name]).tolist()) for name in columns[a]
            }
            rows.append({"a": a, "b": b, "metrics": differences})
    return rows
