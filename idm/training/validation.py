"""What a run validates on, by which metrics, and which of them decides the best checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from idm.data.pairs import FrozenPairs
from idm.evaluation.engine import Row, evaluate, summarise
from idm.evaluation.metric import PairMetric, SetMetric
from idm.evaluation.metrics import METRICS
from idm.io import run_folder
from idm.restorers.protocol import Restorer


@dataclass(frozen=True)
class Validation:
    """Frozen pairs and metrics.

    Attributes:
        pairs: shared out among the processes.
        metrics: of single faces; of whole sets of faces are ``set_metrics``.
        best: the metric whose mean over the restored faces decides the best checkpoint.
        seed: of the sampler's noise.
    """

    pairs: FrozenPairs
    metrics: dict[str, PairMetric]
    set_metrics: dict[str, SetMetric]
    best: str
    seed: int

    def run(self, restorer: Restorer, accelerator: Accelerator) -> tuple[list[Row], dict[str, Any]]:
        """Restore the pairs on all processes: (all faces in their order, the summary of their scores)."""
        mine = range(accelerator.process_index, len(self.pairs), accelerator.num_processes)
        rows = list(evaluate(restorer, self.pairs, self.metrics, indices=mine, batch_size=16, seed=self.seed))
        rows = sorted(gather_object(rows), key=lambda row: row.pair.position)
        summary = summarise([(row.degraded_scores, row.restored_scores) for row in rows])
        return rows, summary | {name: compare_sets(metric, rows) for name, metric in self.set_metrics.items()}

    def mark_if_best(self, checkpoints: Path, step: int, score: float | None) -> None:
        """Mark a step's checkpoint if it is there and no other one has scored better."""
        saved = run_folder.checkpoint_of(checkpoints, step)
        if score is None or not saved.exists():
            return
        sign = 1 if METRICS[self.best].better == "higher" else -1
        if sign * score > sign * run_folder.best_score(checkpoints, self.best, worst=-sign * float("inf")):
            run_folder.mark_best(checkpoints, step, score, self.best)


def compare_sets(metric: SetMetric, rows: list[Row]) -> dict[str, Any]:
    """Columns as those of :func:`idm.evaluation.engine.summarise`, without intervals."""
    originals, degraded, restored = (
        [metric.describe(image) for image in images]
        for images in ([row.pair.hq for row in rows], [row.pair.lq for row in rows], [row.restored for row in rows])
    )
    before, after = metric.compare(degraded, originals), metric.compare(restored, originals)
    columns = {"degraded": before, "restored": after, "gain": after - before}
    return {name: {"mean": value, "low": None, "high": None} for name, value in columns.items()}
