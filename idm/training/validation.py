"""The validation of a run: its faces, its metrics, and the metric that decides the best checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from idm.data.pairs import FrozenPairs
from idm.evaluation.engine import Row, Scores, evaluate, summarise_scores
from idm.evaluation.metric import PairMetric, SetMetric
from idm.evaluation.metrics import METRICS
from idm.io import run_folder
from idm.restorers.protocol import Restorer


@dataclass(frozen=True)
class ScoredFace:
    """The scores of a restored face, and the other data that processes exchange about it.

    Attributes:
        position: in the frozen pairs.
        described: degraded, restored and original face as each set metric describes them.
        pictures: the same, of a face that is shown; otherwise None, since pictures are large.
    """

    position: int
    degraded_scores: Scores
    restored_scores: Scores
    described: dict[str, tuple[Any, Any, Any]]
    pictures: tuple[np.ndarray, np.ndarray, np.ndarray] | None


@dataclass(frozen=True)
class Validation:
    """Frozen pairs and metrics.

    Attributes:
        pairs: shared out among the processes.
        metrics: metrics of single faces; ``set_metrics`` are those of whole sets of faces.
        best: the metric whose mean over the restored faces decides the best checkpoint.
        seed: of the sampler's noise.
    """

    pairs: FrozenPairs
    metrics: dict[str, PairMetric]
    set_metrics: dict[str, SetMetric]
    best: str
    seed: int

    def run(
        self, restorer: Restorer, accelerator: Accelerator, num_shown: int
    ) -> tuple[list[ScoredFace], dict[str, Any]]:
        """Restore the pairs on all processes: (all faces in their order, the summary of their scores).

        Args:
            num_shown: how many of the first faces keep their pictures.
        """
        mine = range(accelerator.process_index, len(self.pairs), accelerator.num_processes)
        rows = evaluate(restorer, self.pairs, self.metrics, indices=mine, batch_size=16, seed=self.seed)
        judged = [self._score(row, shown=row.pair.position < num_shown) for row in rows]
        judged = sorted(gather_object(judged), key=lambda each: each.position)
        summary = summarise_scores([(each.degraded_scores, each.restored_scores) for each in judged])
        described = {name: [each.described[name] for each in judged] for name in self.set_metrics}
        sets = {name: compare_sets(metric, described[name]) for name, metric in self.set_metrics.items()}
        return judged, summary | sets

    def _score(self, row: Row, shown: bool) -> ScoredFace:
        pictures = (row.pair.lq, row.restored, row.pair.hq)
        described: dict[str, tuple[Any, Any, Any]] = {}
        for name, metric in self.set_metrics.items():
            degraded, restored, original = map(metric.features, pictures)
            described[name] = (degraded, restored, original)
        scores = row.degraded_scores, row.restored_scores
        return ScoredFace(row.pair.position, *scores, described, pictures if shown else None)

    def mark_if_best(self, checkpoints: Path, step: int, score: float | None) -> None:
        """Mark a step's checkpoint as the best if it exists and no other one has scored better."""
        saved = run_folder.checkpoint_of(checkpoints, step)
        if score is None or not saved.exists():
            return
        sign = 1 if METRICS[self.best].better == "higher" else -1
        if sign * score > sign * run_folder.best_score(checkpoints, self.best, worst=-sign * float("inf")):
            run_folder.mark_best(checkpoints, step, score, self.best)


def compare_sets(metric: SetMetric, described: list[tuple[Any, Any, Any]]) -> dict[str, Any]:
    """Return columns as :func:`idm.evaluation.engine.summarise_scores` does, without intervals.

    Args:
        described: (degraded, restored, original) faces as the metric describes them.
    """
    degraded, restored, originals = map(list, zip(*described, strict=True))
    before, after = metric.compare(degraded, originals), metric.compare(restored, originals)
    columns = {"degraded": before, "restored": after, "gain": after - before}
    return {name: {"mean": value, "low": None, "high": None} for name, value in columns.items()}
