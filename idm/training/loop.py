"""The run around a learner: steps, log, validation, checkpoints, and how it survives being killed.

A checkpoint is taken between optimiser steps and holds all that the next step depends on; data, noise and
degradation follow from (seed, position). So a run that was killed and started again gives the same weights and
losses, bit for bit, as one that was not.
"""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from tqdm import tqdm

from idm.data.pairs import Batch, FrozenPairs
from idm.evaluation.engine import Row, evaluate, summarise
from idm.evaluation.metric import PairMetric
from idm.io import run_folder
from idm.io.atomic import write_json, write_text
from idm.io.images import image_grid, write_image
from idm.io.machine import provenance
from idm.training.learner import Learner, Trainable

TERMINATED = 128 + signal.SIGTERM


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Settings:
    """When a run logs, validates and saves, and on what it validates."""

    folder: Path
    num_steps: int
    accumulation: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    validate_every: int
    num_shown: int
    validation_seed: int


class Run:
    """One training run in one folder; started again in the same folder it goes on where it was.

    Args:
        batches_from: gives the endless micro-batches of this process from a number on.
        validation: frozen pairs, shared out among the processes; None for what restores no faces and is only trained.
    """

    def __init__(
        self,
        learner: Trainable,
        accelerator: Accelerator,
        settings: Settings,
        *,
        batches_from: Callable[[int], Iterator[Batch]],
        validation: FrozenPairs | None,
        metrics: dict[str, PairMetric],
    ) -> None:
        self.learner, self.accelerator, self.settings = learner, accelerator, settings
        self.batches_from, self.validation, self.metrics = batches_from, validation, metrics
        self.checkpoints = settings.folder / "checkpoints"
        self.log_path = settings.folder / "log.jsonl"
        self.step = 0
        self.seconds = 0.0
        self.window: dict[str, torch.Tensor | float] = {}
        self.window_steps = 0
        self.window_seconds = 0.0
        self.stop_requested = False

    # ------------------------------------------------------------------------------------------ the run

    def fit(self) -> None:
        """Train to the end; exits with status 143 after saving when told to terminate.

        The processes stay connected, for another run may follow in them.

        Raises:
            TrainingError: the loss is no longer finite.
            CheckpointError: a checkpoint cannot be written or read.
        """
        self._resume()
        before = {number: signal.signal(number, self._request_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        settings = self.settings
        batches = self.batches_from(self.step * settings.accumulation)
        bar = tqdm(
            total=settings.num_steps,
            initial=self.step,
            unit="step",
            disable=not self.accelerator.is_local_main_process,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,  # a log file gets a line now and then
        )
        self._tick()
        while self.step < settings.num_steps:
            values = self.learner.train_step(self.step, batches)
            self.step += 1
            self._remember(values)
            bar.update()
            if self._due(settings.log_every):
                self._log_progress(bar)
            if self._due(settings.validate_every) or self._due(settings.checkpoint_every):
                self._save_and_validate()
            if self._stopping():
                self._stop(bar)
        bar.close()
        if settings.num_steps == 0:  # nothing to train: still show what the untrained model does
            self._save_and_validate()
        for number, handler in before.items():
            signal.signal(number, handler)
        for tracker in self.accelerator.trackers:
            tracker.finish()

    def _due(self, period: int) -> bool:
        return self.step % period == 0 or self.step == self.settings.num_steps

    def _save_and_validate(self) -> None:
        self._tock()
        if self._due(self.settings.checkpoint_every):
            self._save()
        if self._due(self.settings.validate_every):
            self._validate()
        if self.accelerator.is_main_process:
            run_folder.prune(self.checkpoints, self.settings.keep_checkpoints)
        self._tick()

    def _tick(self) -> None:
        self.clock = time.perf_counter()

    def _tock(self) -> None:
        """Add the time since the last tick to the run's training seconds."""
        now = time.perf_counter()
        self.seconds += now - self.clock
        self.window_seconds += now - self.clock
        self.clock = now

    # ------------------------------------------------------------------------------------------ the log

    def _remember(self, values: dict[str, torch.Tensor]) -> None:
        for name, value in values.items():
            self.window[name] = value + self.window.get(name, 0.0)
        self.window_steps += 1

    def _log_progress(self, bar: "tqdm[Any]") -> None:
        """Write the means since the last line."""
        names = sorted(self.window)
        sums = torch.stack([torch.as_tensor(self.window[name]).double().cpu() for name in names])
        means = self.accelerator.reduce(sums.to(self.accelerator.device), "mean") / self.window_steps
        values = dict(zip(names, means.tolist(), strict=True))
        self._tock()
        values["images_per_second"] = self.window_steps * self.settings.batch_size / self.window_seconds
        self.window, self.window_steps, self.window_seconds = {}, 0, 0.0
        if not math.isfinite(values["loss"]):
            raise TrainingError(
                f"the loss is {values['loss']} at step {self.step}. The last checkpoint in {self.checkpoints} is "
                "sound: lower train.learning_rate or set train.mixed_precision=no, in a new output_dir"
            )
        bar.set_postfix(loss=f"{values['loss']:.4f}", img_s=f"{values['images_per_second']:.1f}", refresh=False)
        self._log({"step": self.step, "seconds": round(self.seconds, 3), **values})

    def _log(self, row: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            with self.log_path.open("a") as file:
                file.write(json.dumps(row) + "\n")
        scalars = {name: value for name, value in row.items() if isinstance(value, float)}
        self.accelerator.log(scalars, step=self.step)

    # ------------------------------------------------------------------------------------------ validation

    def _validate(self) -> None:
        """Restore the frozen pairs on all processes; log, draw the grid, mark the best checkpoint."""
        if self.validation is None:
            return
        assert isinstance(self.learner, Learner)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        mine = range(rank, len(self.validation), world)
        rows = list(
            evaluate(
                self.learner.restorer(),
                self.validation,
                self.metrics,
                indices=mine,
                batch_size=16,
                seed=self.settings.validation_seed,
            )
        )
        rows = sorted(gather_object(rows), key=lambda row: row.pair.position)
        summary = summarise([(row.degraded_scores, row.restored_scores) for row in rows])
        values = {
            f"{name}_{column}": columns[column]["mean"]
            for name, columns in summary.items()
            for column in ("degraded", "restored", "gain")
        }
        self._log({"step": self.step, "validation": True, **values})
        if self.accelerator.is_main_process:
            self._publish(rows, summary)
        self.accelerator.wait_for_everyone()

    def _publish(self, rows: list[Row], summary: dict[str, Any]) -> None:
        folder = self.settings.folder
        shown = [(row.pair.lq, row.restored, row.pair.hq) for row in rows[: self.settings.num_shown]]
        grid = image_grid(shown, ["degraded", "restored", "original"])
        write_image(folder / "before_after.png", grid)
        self._track_image(grid)
        psnr = summary["psnr"]["restored"]["mean"]
        saved = self.checkpoints / f"{run_folder.PREFIX}{self.step:08d}"
        if saved.exists() and psnr > run_folder.best_score(self.checkpoints):
            run_folder.mark_best(self.checkpoints, self.step, psnr)
        result = {
            "step": self.step,
            "num_images": len(rows),
            "training_seconds": round(self.seconds, 1),
            "metrics": summary,
            **provenance(),
        }
        write_json(folder / "metrics.json", result)

    def _track_image(self, grid: np.ndarray) -> None:
        for tracker in self.accelerator.trackers:
            if tracker.name == "tensorboard":
                tracker.log_images({"validation": grid[None]}, step=self.step, dataformats="NHWC")
            elif tracker.name == "wandb":
                tracker.log_images({"validation": [grid]}, step=self.step)

    # ------------------------------------------------------------------------------------------ saving

    def _save(self) -> None:
        """Write a checkpoint on all processes; it appears when the main one has renamed it."""
        final = self.checkpoints / f"{run_folder.PREFIX}{self.step:08d}"
        if final.exists():
            return
        run_folder.write_draft(self.checkpoints, self.step, self._write)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            run_folder.finish(self.checkpoints, self.step)
        self.accelerator.wait_for_everyone()

    def _write(self, draft: Path) -> None:
        self.learner.save(draft)
        if self.accelerator.is_main_process:
            progress = {
                "step": self.step,
                "seconds": self.seconds,
                "window": {name: float(value) for name, value in self.window.items()},
                "window_steps": self.window_steps,
                "window_seconds": self.window_seconds,
                "num_processes": self.accelerator.num_processes,
            }
            write_json(draft / "progress.json", progress)

    def _resume(self) -> None:
        """Load the newest checkpoint, if there is one, and drop what the log says of later steps."""
        if self.accelerator.is_main_process:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            run_folder.prune(self.checkpoints, keep=10**9)
        self.accelerator.wait_for_everyone()
        found = run_folder.list_checkpoints(self.checkpoints)
        if found:
            progress = json.loads((found[-1] / "progress.json").read_text())
            self.learner.load(found[-1])
            self.step, self.seconds = progress["step"], progress["seconds"]
            self.window, self.window_steps = progress["window"], progress["window_steps"]
            self.window_seconds = progress["window_seconds"]
            self.accelerator.print(f"going on from {found[-1]}")
        result = self.settings.folder / "metrics.json"  # what a validation writes last
        published = json.loads(result.read_text())["step"] if result.exists() else -1
        rows = [row for row in read_log(self.log_path) if row["step"] <= self.step]
        if published < self.step:
            rows = [row for row in rows if row["step"] < self.step or not row.get("validation")]
        validated = any(row.get("validation") and row["step"] == self.step for row in rows)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_text(self.log_path, "".join(json.dumps(row) + "\n" for row in rows))
        if self.step > 0 and self._due(self.settings.validate_every) and not validated:
            self._validate()  # killed between the checkpoint and the end of its validation

    def report(self) -> None:
        """Print how the run ended and where its files are."""
        if not self.accelerator.is_main_process:
            return
        assert isinstance(self.learner, Learner)
        folder = self.settings.folder
        result = json.loads((folder / "metrics.json").read_text())
        print(f"\n{result['num_images']} held-out faces, frozen degradations, step {result['step']}:")
        for name, columns in result["metrics"].items():
            degraded, restored, gain = (columns[c]["mean"] for c in ("degraded", "restored", "gain"))
            print(f"  {name:5} {degraded:7.3f} degraded -> {restored:7.3f} restored  (gain {gain:+.3f})")
        best = run_folder.best_checkpoint(self.checkpoints)
        for title, path in (
            ("pictures", folder / "before_after.png"),
            ("metrics", folder / "metrics.json"),
            ("log", self.log_path),
            ("model", best / self.learner.model_name if best else self.checkpoints),
        ):
            print(f"  {title:9} {path}")

    # ------------------------------------------------------------------------------------------ stopping

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        self.stop_requested = True

    def _stopping(self) -> bool:
        """Whether any process was told to stop; all must agree, or they would wait for one another."""
        if self.accelerator.num_processes == 1:
            return self.stop_requested
        if self.stop_requested:
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def _stop(self, bar: "tqdm[Any]") -> None:
        self._tock()
        self._save()
        bar.close()
        self.accelerator.print(f"stopped and saved at step {self.step}; the same command goes on from there")
        self.accelerator.end_training()
        raise SystemExit(TERMINATED)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's log; a last line that was cut short by a kill is left out."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
