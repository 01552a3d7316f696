"""A run resumes from its newest intact checkpoint, skips and counts what is not finite, and keeps its history."""

import errno
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file, save_file

from idm.data.pairs import Batch, FrozenPairs
from idm.data.sources import SyntheticFaces
from idm.degradation import GFPGAN
from idm.evaluation.pixels import psnr
from idm.io.atomic import CheckpointError
from idm.training import loop, validation
from idm.training.log import Window, read_log, record_settings
from idm.training.loop import MAX_SKIPPED, Run, RunSettings, TrainingError
from idm.training.protocol import Trainable
from idm.training.recovery import mark_best_anew, published_step
from idm.training.validation import ScoredFace, Validation


class Counter:
    """A learner with one weight, which counts the steps; some of them are skipped, and some spoil the weight."""

    def __init__(self, skips: tuple[int, ...] = (), spoils: tuple[int, ...] = ()) -> None:
        self.weight, self.skips, self.spoils = torch.zeros(1), skips, spoils
        self.optimizer = torch.optim.SGD([self.weight], lr=0.25)
        self.skipped = torch.zeros(())

    def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, torch.Tensor]:
        self.skipped = torch.tensor(float(step in self.skips))
        if step in self.skips:
            return {"loss": torch.tensor(math.nan)}
        self.weight += math.nan if step in self.spoils else 1
        return {"loss": self.weight[0].clone(), "level": torch.tensor([3.0, 2.0])}

    def tensors(self) -> list[torch.Tensor]:
        return [self.weight]

    def save(self, folder: Path) -> None:
        save_file({"weight": self.weight}, folder / "model.safetensors")

    def load(self, folder: Path) -> None:
        self.weight.copy_(load_file(folder / "model.safetensors")["weight"])


@pytest.fixture
def run(tmp_path):
    """Make a run of a learner in one folder, and fit it."""

    def run(learner: Counter, num_steps: int = 6, validation: Validation | None = None, **changes) -> Run:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        every = {"log_every": 3, "checkpoint_every": 2, "keep_checkpoints": 2, "validate_every": 100, "num_shown": 1}
        settings = {"folder": tmp_path, "num_steps": num_steps, "accumulation": 1, "batch_size": 4, **every}
        made = Run(
            learner,
            Accelerator(cpu=True, mixed_precision="no"),
            RunSettings(**{**settings, "recorded": {"train.num_steps": num_steps}, "remedy": "Do this", **changes}),
            batches_from=lambda first: iter(()),
            validation=validation,
        )
        made.fit()
        return made

    yield run
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").iterdir())


def test_the_counter_can_be_trained():
    assert isinstance(Counter(), Trainable)


def test_a_signal_that_comes_while_a_run_resumes_stops_it_after_one_step_which_is_saved(run, tmp_path):
    class Signalled(Counter):
        def load(self, folder: Path) -> None:
            super().load(folder)
            signal.raise_signal(signal.SIGTERM)

    run(Counter(), num_steps=2)
    with pytest.raises(SystemExit) as stopped:
        run(Signalled())
    assert stopped.value.code == 128 + signal.SIGTERM
    assert saved(tmp_path) == ["step_00000002", "step_00000003"]


def test_processor_seconds_leave_out_waiting_and_accumulate_over_a_resume(run, tmp_path):
    class Waiting(Counter):
        def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, torch.Tensor]:
            time.sleep(0.2)
            return super().train_step(step, batches)

    def clocks(num_steps: int) -> tuple[float, float]:
        run(Waiting(), num_steps=num_steps)
        row = read_log(tmp_path / "log.jsonl")[-1]
        return row["seconds"], row["processor_seconds"]

    seconds, computed = clocks(3)
    assert seconds > 0.6
    assert 0 < computed < seconds - 0.5
    progress = tmp_path / "checkpoints" / "step_00000003" / "progress.json"
    assert json.loads(progress.read_text())["processor_seconds"] > 0
    later, computed_later = clocks(6)
    assert later > seconds + 0.6
    assert computed < computed_later < later - 1.1


def test_the_seconds_of_training_leave_out_saving_and_validation(run, tmp_path, monkeypatch):
    now = [0.0]

    class Clocked(Counter):
        def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, torch.Tensor]:
            now[0] += 1
            return super().train_step(step, batches)

        def save(self, folder: Path) -> None:
            now[0] += 100
            super().save(folder)

    def validate(self: Run) -> None:
        now[0] += 1000

    clock = SimpleNamespace(perf_counter=lambda: now[0], process_time=lambda: now[0])
    monkeypatch.setattr(loop, "time", clock)
    monkeypatch.setattr(Run, "_validate", validate)
    run(Clocked(), log_every=1, validate_every=3)
    assert [row["seconds"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2, 3, 4, 5, 6]
    run(Clocked(), num_steps=8, log_every=1, validate_every=3)
    rows = read_log(tmp_path / "log.jsonl")
    assert [row["seconds"] for row in rows] == [row["processor_seconds"] for row in rows] == list(range(1, 9))
    assert {row["images_per_second"] for row in rows} == {4}


# Damage


@pytest.mark.parametrize("name", ["model.safetensors", "progress.json", "hashes.json"])
@pytest.mark.parametrize("hurt", [lambda p: p.write_bytes(p.read_bytes()[:-3]), lambda p: p.write_bytes(b"")])
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(run, tmp_path, capsys, name, hurt):
    run(Counter())
    hurt(tmp_path / "checkpoints" / "step_00000006" / name)
    learner = Counter()
    run(learner)
    printed = capsys.readouterr()
    assert "step_00000006 is damaged" in printed.err
    assert "resuming from" in printed.out
    assert "step_00000004" in printed.out
    assert learner.weight.item() == 6
    assert saved(tmp_path) == ["damaged-step_00000006", "step_00000004", "step_00000006"]
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [3, 6]
    run(Counter())  # and the new one is intact
    assert "damaged:" not in capsys.readouterr().err


def test_a_run_resumes_from_the_only_intact_checkpoint_of_three(run, tmp_path, capsys):
    run(Counter(), keep_checkpoints=3)
    for step, name in ((6, "hashes.json"), (4, "model.safetensors")):
        (tmp_path / "checkpoints" / f"step_{step:08d}" / name).unlink()
    learner = Counter()
    run(learner, keep_checkpoints=3)
    printed = capsys.readouterr()
    assert "resuming from" in printed.out
    assert "step_00000002" in printed.out
    assert "step_00000006 is damaged: hashes.json is missing" in printed.err
    assert learner.weight.item() == 6


def test_a_run_without_an_intact_checkpoint_is_an_error_and_changes_nothing(run, tmp_path):
    run(Counter())
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        (checkpoint / "model.safetensors").write_bytes(b"")
    before = saved(tmp_path)
    with pytest.raises(CheckpointError, match="none of the 2 checkpoints is intact"):
        run(Counter())
    assert saved(tmp_path) == before


def test_a_broken_checkpoint_from_before_there_were_hashes_is_one_clear_error(run, tmp_path):
    run(Counter())
    for hashes in (tmp_path / "checkpoints").glob("*/hashes.json"):
        hashes.unlink()
    (tmp_path / "checkpoints" / "step_00000006" / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"step_00000006: cannot be loaded .*delete it"):
        run(Counter())


def test_a_disk_that_is_full_while_logging_is_one_clear_error_and_the_run_resumes_later(run, tmp_path, monkeypatch):
    opened = Path.open

    def full(self: Path, mode: str = "r", *arguments, **settings):
        if (self.name, mode) == ("log.jsonl", "a"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(self, mode, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(CheckpointError, match=r"log\.jsonl: cannot be written \(No space left on device\)"):
            run(Counter())
    learner = Counter()
    run(learner)
    assert learner.weight.item() == 6
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [3, 6]


BROKEN_LINES = [b"{", b"[]", b"{}", b"\xff", b'{"step": "3"}']


@pytest.mark.parametrize(
    ("name", "line"),
    [
        *(("log.jsonl", line) for line in BROKEN_LINES),
        *(("history.jsonl", line) for line in [*BROKEN_LINES, b'{"step": 3}']),
    ],
)
def test_a_damaged_line_of_log_or_history_is_named_with_its_number(run, tmp_path, name, line):
    run(Counter())
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() + line + b"\n")
    number = len((tmp_path / name).read_bytes().splitlines())
    with pytest.raises(CheckpointError, match=rf"{name}: line {number} is damaged; delete this line"):
        run(Counter(), num_steps=8)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"step": "x"}', '{"step": null}'])
def test_a_damaged_result_counts_as_none(tmp_path, text):
    (tmp_path / "metrics.json").write_text('{"step": 6}')
    assert published_step(tmp_path / "metrics.json") == 6
    (tmp_path / "metrics.json").write_text(text)
    assert published_step(tmp_path / "metrics.json") == published_step(tmp_path / "absent.json") == -1


# What is not finite


def test_skipped_updates_are_counted_and_are_in_no_mean(run, tmp_path):
    run(Counter(skips=(1, 4, 5)))
    first, second = read_log(tmp_path / "log.jsonl")
    assert (first["skipped_updates"], first["loss"], first["level"]) == (1, 1.5, 1.5)
    assert (second["skipped_updates"], second["loss"]) == (2, 3)


def test_steps_that_were_all_skipped_have_no_loss(run, tmp_path):
    run(Counter(skips=(0, 1, 2)))
    first, second = read_log(tmp_path / "log.jsonl")
    assert first["skipped_updates"] == 3
    assert "loss" not in first
    assert "skipped_updates" not in second


def test_many_skipped_updates_in_a_row_end_the_run_with_advice(run, tmp_path):
    run(Counter(skips=tuple(range(2, 2 + MAX_SKIPPED))), num_steps=20)
    with pytest.raises(TrainingError, match=r"in 11 steps in a row before step 33.* is sound\. Do this$"):
        run(Counter(skips=tuple(range(20, 31))), num_steps=40)


def test_weights_that_are_not_finite_are_never_saved_and_the_run_can_resume(run, tmp_path):
    with pytest.raises(TrainingError, match=r"not finite at step 4, and are not saved.* is sound\. Do this$"):
        run(Counter(spoils=(2,)))
    assert saved(tmp_path) == ["step_00000002"]
    learner = Counter()
    run(learner)
    assert learner.weight.item() == 6


def test_a_window_survives_its_writing_and_reading():
    window, cpu = Window(torch.device("cpu")), torch.device("cpu")
    for loss, skipped in ((0.1, 0.0), (math.nan, 1.0), (0.3, 0.0), (math.nan, 1.0)):
        window.add({"loss": torch.tensor(loss)}, torch.tensor(skipped))
    again = Window(cpu)
    again.load(json.loads(json.dumps(window.state())))
    for each in (window, again):
        assert (each.steps, each.skipped.item(), each.longest.item(), each.row.item()) == (4, 2, 1, 1)
    assert torch.equal(again.totals["loss"], window.totals["loss"])


def test_a_window_of_a_checkpoint_that_kept_sums_alone_is_read():
    window = Window(torch.device("cpu"))
    window.load({"window": {"loss": 6.0}, "window_steps": 3, "window_seconds": 1.5})
    assert window.totals["loss"].tolist() == [6, 3]


# The log and the history


def test_the_learning_rate_is_logged(run, tmp_path):
    run(Counter())
    assert [row["learning_rate"] for row in read_log(tmp_path / "log.jsonl")] == [0.25, 0.25]


def test_trackers_receive_the_numbers_of_every_line_of_the_log(run, tmp_path, monkeypatch):
    sent = []
    monkeypatch.setattr(Accelerator, "log", lambda self, values, step: sent.append({"step": step, **values}))
    run(Counter(skips=(1,)))
    assert sent == read_log(tmp_path / "log.jsonl")
    assert {"loss", "level", "learning_rate", "images_per_second", "skipped_updates"} <= sent[0].keys()


def test_a_run_can_be_extended_and_its_history_records_the_step(run, tmp_path):
    run(Counter())
    run(Counter())
    learner = Counter()
    run(learner, num_steps=8)
    assert learner.weight.item() == 8
    first, second = read_log(tmp_path / "history.jsonl")
    assert first == {"step": 0, "settings": {"train.num_steps": 6, "num_processes": 1}}
    assert second == {"step": 6, "settings": {"train.num_steps": 8}}


def test_a_history_records_changed_and_removed_settings(tmp_path):
    path = tmp_path / "history.jsonl"
    for step, settings in enumerate([{"a": 1, "b": (2, 3)}, {"a": 1, "b": [2, 3]}, {"b": [2, 4]}, {"b": [2, 4]}]):
        record_settings(path, step, settings)
    rows = [{"step": 0, "settings": {"a": 1, "b": [2, 3]}}, {"step": 2, "settings": {"a": None, "b": [2, 4]}}]
    assert read_log(path) == rows


def test_a_history_keeps_no_settings_of_steps_that_were_lost(run, tmp_path):
    changed = {"keep_checkpoints": 3, "recorded": {"train.num_steps": 6, "train.learning_rate": 0.5}}
    run(Counter(), num_steps=4)
    run(Counter(), num_steps=6, **changed)
    (tmp_path / "checkpoints" / "step_00000004" / "model.safetensors").unlink()
    (tmp_path / "checkpoints" / "step_00000006" / "model.safetensors").unlink()
    run(Counter(), num_steps=6, **changed)
    first, second = read_log(tmp_path / "history.jsonl")
    assert first["settings"]["train.num_steps"] == 4
    assert second == {"step": 2, "settings": {"train.num_steps": 6, "train.learning_rate": 0.5}}


# Validation


class Brighter:
    """Makes faces brighter."""

    image_size = 16

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return (lq + 0.1).clamp(0, 1)


class OneOf(Accelerator):
    """What a validation asks of one process of several."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world

    @property
    def process_index(self) -> int:
        return self.rank

    @property
    def num_processes(self) -> int:
        return self.world


class Brightness:
    """The difference of two sets' mean brightness."""

    num_features = None

    def features(self, image: np.ndarray) -> float:
        return float(image.mean())

    def compare(self, restored: Sequence[float], originals: Sequence[float]) -> float:
        return float(np.mean(restored) - np.mean(originals))


def test_processes_exchange_scores_and_only_the_pictures_that_are_shown(monkeypatch):
    pairs = FrozenPairs(SyntheticFaces(5, 0, 16), GFPGAN, 1)
    check = Validation(pairs, {"psnr": psnr}, {"frechet": Brightness()}, "psnr", 0)
    sent = {}

    def of(rank: int, world: int) -> tuple[list[ScoredFace], dict]:
        return check.run(Brighter(), OneOf(rank, world), num_shown=2)

    monkeypatch.setattr(validation, "gather_object", lambda judged: judged)
    alone, summary = of(0, 1)
    assert [each.position for each in alone] == [0, 1, 2, 3, 4]
    assert [each.pictures is not None for each in alone] == [True, True, False, False, False]
    for each, pair in zip(alone[:2], pairs, strict=False):
        np.testing.assert_array_equal(each.pictures[0], pair.lq)
        np.testing.assert_array_equal(each.pictures[2], pair.hq)
    means = [[pair.lq.mean(), pair.hq.mean()] for pair in (pairs[i] for i in range(5))]
    assert summary["frechet"]["degraded"]["mean"] == pytest.approx(np.subtract(*np.mean(means, axis=0)))
    assert summary["frechet"]["gain"]["mean"] > 10
    monkeypatch.setattr(validation, "gather_object", lambda judged: sent.setdefault(len(sent), judged))
    of(1, 2)
    of(0, 2)
    monkeypatch.setattr(validation, "gather_object", lambda judged: [*sent[0], *sent[1]])
    together, equal = of(0, 2)
    assert [each.position for each in together] == [0, 1, 2, 3, 4]
    assert equal == summary


def test_the_seed_of_a_validation_is_that_of_its_noise(monkeypatch):
    class Seeded(Brighter):
        def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
            asked.extend(seeds)
            return lq

    monkeypatch.setattr(validation, "gather_object", lambda judged: judged)
    pairs, asked = FrozenPairs(SyntheticFaces(3, 0, 16), GFPGAN, 1), []
    for seed in (7, 40):
        Validation(pairs, {"psnr": psnr}, {}, "psnr", seed).run(Seeded(), OneOf(0, 1), num_shown=0)
    assert asked == [7, 8, 9, 40, 41, 42]


# The best


BEST = Validation(FrozenPairs.__new__(FrozenPairs), {}, {}, "psnr", 0)
LOG = [{"step": step, "validation": True, "psnr_restored": score} for step, score in ((2, 20.0), (4, 25.0), (6, 22.0))]


@pytest.mark.parametrize(
    ("mark", "wanted"),
    [
        (None, None),  # nothing has validated yet, or nothing that was saved
        ('{"step": 2, "psnr": 30.0}', {"step": 2, "psnr": 30.0}),
        ('{"step": 3, "psnr": 30.0}', {"step": 4, "psnr": 25.0}),  # a checkpoint that was set aside
        ('{"step": 2, "ssim": 0.9}', {"step": 4, "psnr": 25.0}),  # by another metric
        ("{", {"step": 4, "psnr": 25.0}),
    ],
)
def test_a_mark_of_the_best_that_cannot_be_used_is_replaced_from_the_log(tmp_path, mark, wanted):
    for step in (2, 4, 6):
        (tmp_path / f"step_{step:08d}").mkdir()
    best = tmp_path / "best.json"
    if mark is not None:
        best.write_text(mark)
    mark_best_anew(tmp_path, BEST, [{"step": 1, "loss": 1.0}, *LOG])
    assert (json.loads(best.read_text()) if best.exists() else None) == wanted


def test_a_run_with_a_broken_mark_of_the_best_resumes_and_finds_it_anew(run, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "_validate", lambda self: None)
    run(Counter(), num_steps=4, validation=BEST)
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LOG[:2]))
    (tmp_path / "metrics.json").write_text('{"step": 4}')
    (tmp_path / "checkpoints" / "best.json").write_text("")
    run(Counter(), num_steps=6, validation=BEST)
    assert json.loads((tmp_path / "checkpoints" / "best.json").read_text()) == {"step": 4, "psnr": 25.0}


@pytest.mark.parametrize(("metric", "scores", "best"), [("psnr", (20, 25, 22), 4), ("frechet", (9, 4, 7), 4)])
def test_the_best_checkpoint_is_the_best_by_the_chosen_metric(tmp_path, metric, scores, best):
    validation = Validation(FrozenPairs.__new__(FrozenPairs), {}, {}, metric, 0)  # only the metric matters here
    for step, score in zip((2, 4, 6), scores, strict=True):
        (tmp_path / f"step_{step:08d}").mkdir()
        validation.mark_if_best(tmp_path, step, float(score))
    validation.mark_if_best(tmp_path, 8, {"psnr": 99.0, "frechet": 0.0}[metric])  # was not saved
    validation.mark_if_best(tmp_path, 6, None)  # no finite score
    assert json.loads((tmp_path / "best.json").read_text()) == {"step": best, metric: scores[1]}
