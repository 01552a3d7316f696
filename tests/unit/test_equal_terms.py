"""The comparison on equal terms: what both arms share, how their time is counted, and what its table says."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from gan_baseline.schema import GANConfig
from idm.config.load import load_config
from idm.config.schema import IDMConfig

FOLDER = Path(__file__).parents[2] / "experiments" / "equal_terms"


def load(name: str) -> ModuleType:
    """A script, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"equal_terms_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def equal_terms() -> ModuleType:
    return load("run")


@pytest.mark.parametrize("size", [64, 128])
def test_both_arms_see_the_same_faces_degradations_and_features(equal_terms, size: int) -> None:
    arms = equal_terms.ARMS
    configs = []
    for label, schema in (("idm", IDMConfig), ("gfpgan", GANConfig)):
        path = arms[label].folder / arms[label].config.format(size=size)
        configs.append(load_config(path, schema, arms[label].settings(210)))
    idm, gfpgan = configs
    for section in ("data", "degradation"):
        assert getattr(idm, section) == getattr(gfpgan, section)
    for name in ("num_steps", "batch_size", "checkpoint_every", "keep_checkpoints", "log_every"):
        assert getattr(idm.train, name) == getattr(gfpgan.train, name), name
    assert (idm.train.num_steps, idm.train.checkpoint_every) == (210, 26)
    assert idm.validation == gfpgan.validation
    assert idm.objective.features is not None
    assert idm.objective.features.network == gfpgan.losses.perceptual_network
    assert idm.objective.features.weight == gfpgan.losses.perceptual
    assert gfpgan.losses.style == gfpgan.losses.identity == 0  # IDM has no such loss


def write_log(folder: Path, *rows: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_core_minutes_are_processor_time_with_stage_zero(equal_terms, tmp_path: Path) -> None:
    write_log(
        tmp_path,
        {"step": 1, "seconds": 600.0, "processor_seconds": 30.0},
        {"step": 2, "seconds": 900.0, "processor_seconds": 90.0},
        {"step": 2, "validation": True, "psnr_restored": 20.0},
    )
    assert equal_terms.core_minutes(tmp_path) == 1.5
    write_log(tmp_path / "prior", {"step": 1, "seconds": 60.0, "processor_seconds": 60.0})
    assert equal_terms.core_minutes(tmp_path) == 2.5


def test_a_calibration_is_measured_once_and_holds_for_its_minutes_only(equal_terms, tmp_path, monkeypatch) -> None:
    cost = {"idm": 0.5, "gfpgan": 2.0}

    def train(arm, output: Path, size: int, seed: int, num_steps: int, overrides: list[str]) -> None:
        steps = range(1, num_steps + 1)
        each = cost[output.name]
        rows = [{"step": step, "seconds": 9.0 * step, "processor_seconds": 7 + each * step} for step in steps]
        write_log(output, *rows, {"step": num_steps, "validation": True})

    monkeypatch.setattr(equal_terms, "train", train)
    overrides: dict[str, list[str]] = {"idm": [], "gfpgan": []}
    assert equal_terms.calibrate(tmp_path, 64, 2, overrides) == {"idm": 240, "gfpgan": 60}
    monkeypatch.setattr(equal_terms, "train", None)  # would fail if it were called again
    assert equal_terms.calibrate(tmp_path, 64, 2, overrides) == {"idm": 240, "gfpgan": 60}
    with pytest.raises(SystemExit, match="is for 2 core-minutes, not 3"):
        equal_terms.calibrate(tmp_path, 64, 3, overrides)


def write_comparison(folder: Path, psnr_idm: np.ndarray, psnr_gfpgan: np.ndarray, names: tuple[str, ...]) -> None:
    """What ``idm compare`` leaves of faces whose other scores are a tenth of their PSNR."""
    folder.mkdir(parents=True)
    scores = {"idm": psnr_idm, "gfpgan": psnr_gfpgan}
    header = ["name", *(f"{name}_{label}" for label in scores for name in names)]
    columns = [scores[label] / (1 if name == "psnr" else 10) for label in scores for name in names]
    lines = [",".join(["face", *map(str, values)]) for values in zip(*columns, strict=True)]
    (folder / "scores.csv").write_text("\n".join([",".join(header), *lines]) + "\n")
    rows = [{"label": label, "metrics": {"frechet": {"mean": values.mean() / 20}}} for label, values in scores.items()]
    (folder / "comparison.json").write_text(json.dumps({"rows": rows, "commit": "abc"}))


@pytest.mark.parametrize("name", ["results", "results128"])
def test_the_committed_table_is_that_of_its_numbers(equal_terms, name: str) -> None:
    results = FOLDER / name
    comparison = json.loads((results / "comparison.json").read_text())
    assert (results / "table.md").read_text() == equal_terms.render(comparison)


def test_the_table_pairs_the_same_faces_and_shows_each_seed(equal_terms, tmp_path: Path, monkeypatch) -> None:
    rng = np.random.default_rng(0)
    faces = rng.normal(20, 5, 40)
    for seed, ahead in ((0, 1.0), (1, 2.0)):
        noise = rng.normal(0, 0.1, 40)
        write_comparison(tmp_path / f"seed_{seed}" / "compare", faces + ahead + noise, faces, equal_terms.METRICS)
        for label in equal_terms.ARMS:
            write_log(tmp_path / f"seed_{seed}" / label, {"step": 9, "processor_seconds": 60.0})
    costs = {"evaluations": 1, "gflop": 1.5, "processor_seconds": 0.01, "parameters": 10}
    monkeypatch.setattr(equal_terms, "cost", lambda arm, model: costs)
    result = equal_terms.summarise(tmp_path, [0, 1], 64, "assets:test")
    found = result["differences"]["psnr"]
    assert found["num_faces"] == 40
    assert found["by_seed"] == pytest.approx([1, 2], abs=0.1)
    assert found["mean"] == pytest.approx(np.mean(found["by_seed"]))
    assert 1.4 < found["low"] < found["mean"] < found["high"] < 1.6
    table = equal_terms.render(result)
    difference = f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"
    assert f"{difference} ({found['by_seed'][0]:+.3f}, {found['by_seed'][1]:+.3f})" in table
    assert "| core-minutes of training | 1.000 (1.000 to 1.000) | 1.000 (1.000 to 1.000) |" in table
    assert "40 faces of `assets:test`, seeds 0, 1." in table
    assert "Commit abc;" in table


def test_the_critics_curve_is_drawn(tmp_path: Path) -> None:
    critic = load("critic")
    row = dict.fromkeys(critic.LOGGED, 0.7)
    log = [row | {"step": 10}, row | {"step": 20}]
    checkpoints = [{"step": 10, "psnr": 20.0, "sharpness": 0.3, "frechet": 1.0}]
    result = {"log": log, "chance": 0.69, "checkpoints": checkpoints, "without": []}
    critic.plot(result, tmp_path / "critic.png")
    assert (tmp_path / "critic.png").stat().st_size > 1000
