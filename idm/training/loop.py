"""The run around a learner: steps, log, validation, checkpoints, and how it survives being killed.

A checkpoint is taken between optimiser steps and holds everything that the next step depends on; data, noise and
degradation are functions of (seed, position). A run that was killed and resumed therefore gives the same weights and
losses, bit for bit, as an uninterrupted run.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from idm.data.pairs import Batch
from idm.io import run_folder
from idm.io.atomic import CheckpointError, write_json
from idm.io.errors import UserError
from idm.training.log import Window, append_row, read_log, record_settings, write_rows
from idm.training.protocol import Learner, Trainable
from idm.training.recovery import mark_best_anew, published_step, set_damaged_aside
from idm.training.results import METRICS, print_results, track_pictures, write_results
from idm.training.stop import StopSignals
from idm.training.updates import all_finite
from idm.training.validation import ScoredFace, Validation

MAX_SKIPPED = 10
"""The largest number of consecutive updates that may be skipped for gradients that are not finite; more end the run."""
STOP_EVERY = 8
"""Interval in steps at which several processes agree on whether to stop."""


class TrainingError(UserError, RuntimeError):
    """Training cannot continue; the message says why and what to do."""


@dataclass(frozen=True)
class RunSettings:
    """The intervals at which a run logs, validates and saves.

    Attributes:
        recorded: the settings that the run's history keeps, by dotted key.
        remedy: what to do when gradients or weights are no longer finite: the last sentence of the error.
    """

    folder: Path
    num_steps: int
    accumulation: int
    batch_size: int
    log_every: int
    checkpoint_every: int
    keep_checkpoints: int
    validate_every: int
    num_shown: int
    recorded: dict[str, Any]
    remedy: str


class Run:
    """One training run in one folder; started again in the same folder it resumes.

    Args:
        batches_from: yields this process's endless micro-batches, starting with the given number.
        validation: None for a model that does not restore faces and is only trained.
    """

    def __init__(
        self,
        learner: Trainable,
        accelerator: Accelerator,
        settings: RunSettings,
        *,
        batches_from: Callable[[int], Iterator[Batch]],
        validation: Validation | None,
    ) -> None:
        self.learner, self.accelerator, self.settings = learner, accelerator, settings
        self.batches_from, self.validation = batches_from, validation
        self.checkpoints = settings.folder / "checkpoints"
        self.log_path = settings.folder / "log.jsonl"
        self.step = 0
        self.seconds = self.processor_seconds = 0.0
        self.window = Window(accelerator.device)

    # ------------------------------------------------------------------------------------------ the run

    def fit(self) -> None:
        """Train to the end; when told to stop, exit after saving with status 128 + the signal's number.

        The processes stay connected, since another run may follow.

        Raises:
            TrainingError: gradients or weights are no longer finite.
            CheckpointError: a checkpoint cannot be written or read.
        """
        settings = self.settings
        with StopSignals() as signals:  # also while resuming: a stopped run always saves
            self._resume()
            batches = self.batches_from(self.step * settings.accumulation)
            self.bar = tqdm(
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
                self.window.add(values, self.learner.skipped)
                self.bar.update()
                if self._due(settings.log_every):
                    self._log_progress()
                if self._due(settings.validate_every) or self._due(settings.checkpoint_every):
                    self._save_and_validate()
                if self._stopping(signals):
                    self._stop(signals)
            self.bar.close()
            if settings.num_steps == 0:  # nothing to train: still show what the untrained model does
                self._save_and_validate()
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
        self.clock, self.processor_clock = time.perf_counter(), time.process_time()

    def _tock(self) -> None:
        """Add the time since the last tick to the run's training seconds, and what all threads of this process computed
        in it to its processor seconds, which a busy machine does not stretch."""
        seconds = time.perf_counter() - self.clock
        self.processor_seconds += time.process_time() - self.processor_clock
        self._tick()
        self.seconds += seconds
        self.window.seconds += seconds

    # ------------------------------------------------------------------------------------------ the log

    def _log_progress(self) -> None:
        """Write the means since the last line."""
        values, skipped = self.window.means(self.accelerator), int(self.window.skipped.item())
        self._tock()
        self._require_updates()
        values["images_per_second"] = self.window.steps * self.settings.batch_size / self.window.seconds
        values["learning_rate"] = float(self.learner.optimizer.param_groups[0]["lr"])
        self.window.clear()
        loss = f"{values['loss']:.4f}" if "loss" in values else "not finite"
        self.bar.set_postfix(loss=loss, img_s=f"{values['images_per_second']:.1f}", refresh=False)
        counts = {"skipped_updates": float(skipped)} if skipped else {}
        clocks = {"seconds": round(self.seconds, 3), "processor_seconds": round(self.processor_seconds, 3)}
        self._log({"step": self.step, **clocks, **counts, **values})

    def _require_updates(self) -> None:
        longest = int(self.window.longest.item())
        if longest > MAX_SKIPPED:
            raise TrainingError(
                f"the gradients were not finite in {longest} steps in a row before step {self.step}, so these steps "
                f"were skipped. The newest checkpoint in {self.checkpoints} is sound. {self.settings.remedy}"
            )

    def _log(self, row: dict[str, Any]) -> None:
        if self.accelerator.is_main_process:
            append_row(self.log_path, row)
        scalars = {name: value for name, value in row.items() if isinstance(value, float)}
        self.accelerator.log(scalars, step=self.step)

    # ------------------------------------------------------------------------------------------ validation

    def _validate(self) -> None:
        """Restore the frozen pairs on all processes; log, draw the grid, mark the best checkpoint."""
        if self.validation is None:
            return
        assert isinstance(self.learner, Learner)
        rows, summary = self.validation.run(self.learner.restorer(), self.accelerator, self.settings.num_shown)
        values = {
            f"{name}_{column}": columns[column]["mean"]
            for name, columns in summary.items()
            for column in ("degraded", "restored", "gain")
        }
        self._log({"step": self.step, "validation": True, **values})
        if self.accelerator.is_main_process:
            self._publish(self.validation, rows, summary)
        self.accelerator.wait_for_everyone()

    def _publish(self, validation: Validation, faces: list[ScoredFace], summary: dict[str, Any]) -> None:
        result = {
            "step": self.step,
            "num_images": len(faces),
            "training_seconds": round(self.seconds, 1),
            "training_processor_seconds": round(self.processor_seconds, 1),
            "metrics": summary,
        }
        validation.mark_if_best(self.checkpoints, self.step, summary[validation.best]["restored"]["mean"])
        grid = write_results(self.settings.folder, faces, result)
        track_pictures(self.accelerator.trackers, grid, self.step)

    # ------------------------------------------------------------------------------------------ saving

    def _save(self) -> None:
        """Write a checkpoint on all processes; it appears when the main one has renamed it."""
        if run_folder.checkpoint_of(self.checkpoints, self.step).exists():
            return
        if not all_finite(self.learner.tensors()):
            raise TrainingError(
                f"weights or their averages are not finite at step {self.step}, and are not saved. The newest "
                f"checkpoint in {self.checkpoints} is sound. {self.settings.remedy}"
            )
        run_folder.write_draft(self.checkpoints, self.step, self._write)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            run_folder.finish_checkpoint(self.checkpoints, self.step)
        self.accelerator.wait_for_everyone()

    def _write(self, draft: Path) -> None:
        self.learner.save(draft)
        if self.accelerator.is_main_process:
            progress = {
                "step": self.step,
                "seconds": self.seconds,
                "processor_seconds": self.processor_seconds,
                "num_processes": self.accelerator.num_processes,
                **self.window.state(),
            }
            write_json(draft / "progress.json", progress)

    # ------------------------------------------------------------------------------------------ resuming

    def _resume(self) -> None:
        """Load the newest intact checkpoint, if there is one, and drop the log's rows of later steps."""
        if self.accelerator.is_main_process:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            set_damaged_aside(self.checkpoints)
            if self.validation is not None:
                mark_best_anew(self.checkpoints, self.validation, read_log(self.log_path))
            run_folder.prune(self.checkpoints, keep=10**9)
        self.accelerator.wait_for_everyone()
        found = run_folder.list_checkpoints(self.checkpoints)
        if found:
            self._load(found[-1])
        published = published_step(self.settings.folder / METRICS)
        rows = [row for row in read_log(self.log_path) if row["step"] <= self.step]
        if published < self.step:
            rows = [row for row in rows if row["step"] < self.step or not row.get("validation")]
        validated = any(row.get("validation") and row["step"] == self.step for row in rows)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            write_rows(self.log_path, rows)
            processes = {"num_processes": self.accelerator.num_processes}
            record_settings(self.settings.folder / "history.jsonl", self.step, self.settings.recorded | processes)
        if self.step > 0 and self._due(self.settings.validate_every) and not validated:
            self._validate()  # killed between the checkpoint and the end of its validation

    def _load(self, checkpoint: Path) -> None:
        progress = json.loads((checkpoint / "progress.json").read_text())
        try:
            self.learner.load(checkpoint)
        except Exception as error:  # of a checkpoint without hashes; torch and safetensors have errors of their own
            raise CheckpointError(
                f"{checkpoint}: cannot be loaded ({error}); delete it, and the same command resumes from the "
                "checkpoint before it"
            ) from error
        self.step = progress["step"]
        self.seconds, self.processor_seconds = progress["seconds"], progress["processor_seconds"]
        self.window.load(progress)
        self.accelerator.print(f"resuming from {checkpoint}")

    # ------------------------------------------------------------------------------------------ the end

    def report(self) -> None:
        """Print how the run ended and where its files are."""
        if not self.accelerator.is_main_process:
            return
        assert isinstance(self.learner, Learner)
        print_results(self.settings.folder, self.learner.model_name)

    def _stopping(self, signals: StopSignals) -> bool:
        """Return whether any process was told to stop; all must agree, or they would wait for one another."""
        if self.accelerator.num_processes == 1:
            return signals.requested()
        if self.step % STOP_EVERY and self.step < self.settings.num_steps:
            return False
        if signals.requested():
            self.accelerator.set_trigger()
        return self.accelerator.check_trigger()

    def _stop(self, signals: StopSignals) -> None:
        self._tock()
        self._save()
        self.bar.close()
        self.accelerator.print(f"stopped and saved at step {self.step}; start the same command again to resume")
        self.accelerator.end_training()
        raise SystemExit(128 + (signals.received or 15))
