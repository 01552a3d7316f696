"""What a training run sets before its first step."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from accelerate.tracking import GeneralTracker

from idm.config.assembly import run as assembly
from idm.config.assembly.data import build_data
from idm.config.assembly.run import build_run, for_trackers
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.data.sources import SyntheticFaces
from idm.io import machine
from idm.training.results import track_pictures

TINY = Path(__file__).parents[1] / "e2e" / "tiny.yaml"
NO_MODEL = SimpleNamespace(optimizer=None, skipped=None, train_step=id, tensors=id, save=id, load=id)


@pytest.fixture
def load(tmp_path):
    def load(*overrides: str) -> IDMConfig:
        return load_config(TINY, IDMConfig, [f"output_dir={tmp_path / 'run'}", *overrides])

    return load


@pytest.fixture
def build(monkeypatch):
    """Build a run of no model; gives it and what it has set, by name."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(assembly, "keep_freed_memory", lambda: found.update(memory="kept"))
    monkeypatch.setattr(assembly, "share_cores", lambda num_processes: found.update(shares=num_processes))
    monkeypatch.setattr(Accelerator, "init_trackers", lambda self, project, config: found.update(tracked=config))
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")

    def build(config: IDMConfig) -> dict[str, Any]:
        reset()
        return {"run": build_run(config, lambda accelerator: NO_MODEL), **found}

    yield build
    reset()


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_freed_memory_is_kept_and_the_cores_are_shared_with_the_processes_of_this_machine(load, build, monkeypatch):
    assert build(load())["memory"] == "kept"
    assert build(load())["shares"] == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert build(load())["shares"] == 4


@pytest.mark.parametrize(("num_processes", "threads"), [(1, 6), (2, 3), (4, 1), (9, 1)])
def test_a_process_has_its_part_of_the_cores_and_at_least_one(monkeypatch, num_processes, threads):
    monkeypatch.setattr(machine, "num_usable_cores", lambda: 6)
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    machine.share_cores(num_processes)
    assert asked == [threads]


def test_trackers_receive_the_settings_at_the_start(load, build):
    config = load("train.learning_rate=2e-4")
    assert build(config)["tracked"] == for_trackers(config)
    assert build(config)["tracked"]["train.learning_rate"] == 2e-4


def test_tensorboard_and_wandb_receive_the_pictures_and_other_trackers_none():
    class Tracker(GeneralTracker):
        def __init__(self, name: str) -> None:
            self.name, self.sent = name, []

        def log_images(self, values: dict[str, Any], step: int, **settings: Any) -> None:
            self.sent.append((np.asarray(values["validation"]), step, settings))

    grid, trackers = (
        np.arange(24, dtype=np.uint8).reshape(2, 4, 3),
        [Tracker(n) for n in ("tensorboard", "wandb", "aim")],
    )
    track_pictures(trackers, grid, 7)
    for tracker, settings in zip(trackers[:2], ({"dataformats": "NHWC"}, {}), strict=True):
        [(pictures, step, given)] = tracker.sent
        np.testing.assert_array_equal(pictures, grid[None])
        assert (step, given) == (7, settings)
    assert trackers[2].sent == []


def test_all_held_out_faces_are_degraded(load, build):
    pairs = build(load("degradation.clean_probability=1.0"))["run"].validation.pairs
    assert len(pairs) == 4
    for index in range(4):
        assert not np.array_equal(pairs[index].lq, pairs[index].hq)


def test_faces_of_a_validation_source_are_spread_over_it(load):
    _, val = build_data(load("data.val_source={name: synthetic, num_faces: 8, seed: 5}", "validation.num_images=3"))
    expected = SyntheticFaces(8, 5, 32)
    assert [val[i].key for i in range(3)] == [expected[i].key for i in (0, 2, 5)]
