"""Compare two models by the paired differences of their restored faces, and decide which is better."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import stdtrit

from idm.data.pairs import FrozenPairs
from idm.data.sources import FaceSource, Part
from idm.degradation import Recipe
from idm.evaluation.engine import evaluate
from idm.evaluation.metric import PairMetric
from idm.io.errors import InvalidInput
from idm.restorers.protocol import Restorer

DRAWS = 4
"""Frozen degradations of each face; a face's score is the mean over them."""

Columns = dict[str, list[float]]


@dataclass(frozen=True)
class Verdict:
    """The result of the paired differences.

    Attributes:
        metrics: {name: {"degraded", "before", "after", "difference", "low", "high"}}, means over the faces; the ends of
            the 95 % interval of the difference are Student's.
        num_faces: number of measured faces.
        helped: some measure is significantly better, and none significantly worse.
    """

    metrics: dict[str, dict[str, float]]
    num_faces: int
    helped: bool

    def summary(self) -> dict[str, Any]:
        """The verdict as values for JSON, with the number of draws for each face."""
        return {"num_faces": self.num_faces, "draws": DRAWS, "helped": self.helped, "metrics": self.metrics}


def scores_by_face(
    restorer: Restorer, faces: FaceSource, recipe: Recipe, metrics: Mapping[str, PairMetric], seed: int
) -> tuple[Columns, Columns]:
    """Scores of the degraded and of the restored faces, by metric, each face degraded in ``DRAWS`` frozen ways."""
    repeated = Part(faces, [index for index in range(len(faces)) for _ in range(DRAWS)])
    pairs = FrozenPairs(repeated, recipe, seed)
    rows = list(evaluate(restorer, pairs, metrics, indices=range(len(pairs)), batch_size=8, seed=seed))

    def columns(scores: Sequence[dict[str, float]]) -> Columns:
        return {name: np.reshape([s[name] for s in scores], (-1, DRAWS)).mean(axis=1).tolist() for name in metrics}

    return columns([row.degraded_scores for row in rows]), columns([row.restored_scores for row in rows])


def compare_scores(degraded: Columns, before: Columns, after: Columns) -> Verdict:
    """Compare the scores of the same faces, by metrics for which higher is better.

    Raises:
        ValueError: fewer than two faces.
    """
    metrics = {}
    for name in before:
        mean, low, high = student_interval(np.subtract(after[name], before[name]).tolist())
        columns = {"degraded": degraded[name], "before": before[name], "after": after[name]}
        means = {column: float(np.mean(values)) for column, values in columns.items()}
        metrics[name] = {**means, "difference": mean, "low": low, "high": high}
    is_better = any(column["low"] > 0 for column in metrics.values())
    is_worse = any(column["high"] < 0 for column in metrics.values())
    return Verdict(metrics, len(next(iter(before.values()))), is_better and not is_worse)


def student_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """The mean and the ends of its 95 % interval by Student's t, for few values that are roughly normal, as
    differences of paired scores are: (mean, low, high).

    Raises:
        ValueError: fewer than two values.
    """
    if len(values) < 2:
        raise InvalidInput(f"an interval needs at least two values, got {len(values)}")
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = float(stdtrit(len(values) - 1, 0.975)) * deviation / sqrt(len(values))
    return mean, mean - half, mean + half
