"""Run a restorer over frozen pairs, measure every face before and after, and summarise the scores."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from idm.data.given import Pairs
from idm.data.pairs import Pair, collate
from idm.evaluation.metric import PairMetric
from idm.evaluation.statistics import summarise_column
from idm.io.ranges import chw_to_hwc, from_uint8, to_uint8
from idm.restorers.protocol import Restorer

Scores = dict[str, float]


@dataclass(frozen=True)
class Row:
    """One face: its pair, the restored face as 8-bit RGB, and the scores of both against the original."""

    pair: Pair
    restored: np.ndarray
    degraded_scores: Scores
    restored_scores: Scores
    seconds: float


def evaluate(
    restorer: Restorer,
    pairs: Pairs,
    metrics: Mapping[str, PairMetric],
    *,
    indices: Sequence[int],
    batch_size: int,
    seed: int,
) -> Iterator[Row]:
    """Restore and measure the pairs at ``indices``; face i is drawn with seed ``seed + i``.

    Everything is measured on images rounded to 8 bits, as they would be saved. Rows come in the order of ``indices``.

    Args:
        metrics: functions (image, hq) -> score by name, from :func:`idm.evaluation.metrics.build_metric`.
    """
    for start in range(0, len(indices), batch_size):
        chosen = indices[start : start + batch_size]
        batch_pairs = [pairs[i] for i in chosen]
        faces, seconds = restore_timed(restorer, from_uint8(collate(batch_pairs).lq), [seed + i for i in chosen])
        for pair, face in zip(batch_pairs, faces, strict=True):
            yield Row(pair, face, score(pair.lq, pair.hq, metrics), score(face, pair.hq, metrics), seconds)


def restore_timed(
    restorer: Restorer, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]
) -> tuple[list[UInt8[np.ndarray, "s s 3"]], float]:
    """Restored faces as 8-bit RGB, and the seconds per face.

    The clock stops when the faces are on the CPU: before that, a GPU may not have computed them yet.
    """
    begun = perf_counter()
    restored = restorer.restore(lq, seeds).cpu()
    seconds = (perf_counter() - begun) / len(seeds)
    return [chw_to_hwc(face) for face in to_uint8(restored)], seconds


def score(image: np.ndarray, hq: np.ndarray, metrics: Mapping[str, PairMetric]) -> Scores:
    """All metrics of one 8-bit RGB image against its original. ValueError where a metric is not defined for them."""
    image01, hq01 = from_uint8(image), from_uint8(hq)
    return {name: metric(image01, hq01) for name, metric in metrics.items()}


def summarise_scores(scores: Sequence[tuple[Scores, Scores]]) -> dict[str, Any]:
    """Means of (degraded, restored) scores and of their difference, with 95 % intervals.

    Returns:
        {metric: {"degraded": {"mean", "low", "high", "n"}, "restored": ..., "gain": ...}}, as
        :func:`idm.evaluation.statistics.summarise_column`.
    """
    summary: dict[str, Any] = {}
    for name in scores[0][0]:
        columns = {
            "degraded": [before[name] for before, _ in scores],
            "restored": [after[name] for _, after in scores],
            "gain": [after[name] - before[name] for before, after in scores],
        }
        summary[name] = {column: summarise_column(values) for column, values in columns.items()}
    return summary
