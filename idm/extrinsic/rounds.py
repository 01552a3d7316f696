"""Rounds of the extrinsic iteration: train f_theta, clean the data with it, train f_theta* on them, and so on.

Every stage has a folder of its own, ``round_0``, ``clean_0``, ``round_1``, ..., and can be killed and resumed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from idm.io.atomic import write_json

TABLE = "rounds.json"


@dataclass(frozen=True)
class Stages:
    """The two stages of a round; a finished stage returns at once.

    Attributes:
        train: trains round k; returns the metrics of its last validation, see
            :func:`idm.evaluation.engine.summarise_scores`.
        clean: cleans the originals with the model of round k; returns the job's summary.
    """

    train: Callable[[int], dict[str, Any]]
    clean: Callable[[int], dict[str, Any]]


class Rounds:
    """Trainings 0 to num_rounds, with a cleaning between two trainings.

    Args:
        max_validation_loss: dB of PSNR by which a round may validate worse than the one before it.
    """

    def __init__(self, folder: Path, num_rounds: int, stages: Stages, max_validation_loss: float) -> None:
        self.folder, self.num_rounds, self.stages = folder, num_rounds, stages
        self.max_validation_loss = max_validation_loss
        self.rows: list[dict[str, Any]] = []
        self.stopped: str | None = None

    def fit(self) -> None:
        """Run all rounds, or stop at the first that validates worse than the one before it."""
        for number in range(self.num_rounds + 1):
            row: dict[str, Any] = {"round": number, **self.stages.train(number)}
            self.rows.append(row)
            self.stopped = self._worse()
            if self.stopped is None and number < self.num_rounds:
                row["cleaning"] = self.stages.clean(number)
            self._write()
            if self.stopped is not None:
                return

    def _worse(self) -> str | None:
        if len(self.rows) < 2:
            return None
        before, now = (row["metrics"]["psnr"]["restored"]["mean"] for row in self.rows[-2:])
        if now >= before - self.max_validation_loss:
            return None
        number = self.rows[-1]["round"]
        return (
            f"round {number} validates worse than round {number - 1} ({now:.3f} dB after {before:.3f}), so no further "
            f"round follows; the model of round_{number - 1} is the better one"
        )

    def _write(self) -> None:
        if PartialState().is_main_process:
            write_json(self.folder / TABLE, {"stopped": self.stopped, "rounds": self.rows})

    def report(self) -> None:
        """Print a line for each round, and where its files are."""
        if not PartialState().is_main_process:
            return
        print("\nround   PSNR    SSIM    replaced  identity  colour drift (R, G, B in 1/255)")
        for row in self.rows:
            psnr, ssim = (row["metrics"][name]["restored"]["mean"] for name in ("psnr", "ssim"))
            line = f"{row['round']:5}  {psnr:6.3f}  {ssim:6.4f}"
            if "cleaning" in row:
                drift = row["cleaning"]["drift"]
                identity = "       -" if drift["identity"] is None else f"{drift['identity']:8.4f}"
                colour = " ".join(f"{value:+.3f}" for value in drift["colour"])
                line += f"  {drift['share']:9.1%}  {identity}  {colour}"
            print(line)
        if self.stopped is not None:
            print(f"stopped: {self.stopped}")
        print(f"  table     {self.folder / TABLE}")
        print(f"  stages    {self.folder}/round_*, {self.folder}/clean_*")
