"""Ablations: every arm is a sound configuration, trainings are shared, and differences are paired."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

FOLDER = Path(__file__).parents[2] / "experiments" / "ablations"


@pytest.fixture(scope="module")
def modules() -> dict[str, ModuleType]:
    """The scripts, which are in no package and import one another."""
    loaded = {}
    sys.path.insert(0, str(FOLDER))
    try:
        for name in ("jobs", "run", "table"):
            spec = importlib.util.spec_from_file_location(f"ablations_{name}", FOLDER / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            loaded[name] = importlib.util.module_from_spec(spec)
            sys.modules[spec.name] = loaded[name]
            spec.loader.exec_module(loaded[name])
    finally:
        sys.path.remove(str(FOLDER))
    return loaded


def test_every_arm_is_a_sound_configuration_and_its_options_are_known(modules) -> None:
    from idm.apps.cli.main import build_parser

    found = modules["jobs"].jobs(modules["jobs"].ablations(), None, [])
    assert {entry[0] for job in found for entry in job.measured} == {a.name for a in modules["jobs"].ablations()}
    for job in found:
        for *_, options in job.measured:
            build_parser().parse_args(["evaluate", "-o", "out", *options])


def test_the_base_is_trained_once_for_all_and_each_arm_with_two_seeds(modules) -> None:
    jobs, all_of_them = modules["jobs"].jobs, modules["jobs"].ablations()
    found = jobs(all_of_them, None, [])
    base = {"denoiser.channels=[64,128,192]"}  # where an arm states it
    distinct = {frozenset(overrides) - base for ablation in all_of_them for overrides in ablation.arms.values()}
    assert len(found) == 2 * len(distinct)
    base = [job for job in found if len(job.measured) > 7]
    assert [job.seed for job in base] == [0, 1]
    assert f"--array=0-{len(found) - 1}" in (FOLDER / "README.md").read_text()
    alone = jobs(modules["jobs"].ablations(["loss"]), None, [])
    assert {job.key for job in alone} <= {job.key for job in found}


def test_a_result_has_one_file_whichever_ablations_are_asked_for(modules) -> None:
    numbers = modules["run"].enumerate_tests
    jobs, ablations = modules["jobs"].jobs, modules["jobs"].ablations
    together = {(job.key, *entry[:3]): number for job in jobs(ablations(), None, []) for number, entry in numbers(job)}
    for name in ("sampling", "degradation"):
        for job in jobs(ablations([name]), None, []):
            assert all(together[job.key, *entry[:3]] == number for number, entry in numbers(job))


@pytest.mark.parametrize(
    ("budget", "steps", "channels"),
    [
        (None, 600, (64, 128, 192)),
        (6, 600, (64, 128, 192)),
        (0.75, 150, (32, 64, 96)),
        (12, 800, (96, 192, 288)),
        (48, 2400, (128, 256, 384)),
        (0.001, 2, (32, 64, 96)),
    ],
)
def test_the_budget_scales_the_size_and_the_steps(modules, budget, steps, channels) -> None:
    jobs, ablations = modules["jobs"].jobs, modules["jobs"].ablations
    assert {(job.num_steps, job.channels) for job in jobs(ablations(["loss"]), budget, [])} == {(steps, channels)}
    if budget in (None, 6):
        keys = [{job.key for job in jobs(ablations(["loss"]), minutes, [])} for minutes in (None, budget)]
        assert keys[0] == keys[1]
    widths = {job.channels for job in jobs(ablations(["size"]), budget, [])}
    assert widths == {(64, 128, 192), (32, 64, 96), (128, 192, 256)}  # the question, whatever the budget


def test_ablations_are_read_once_in_the_order_of_their_names(modules) -> None:
    ablations = modules["jobs"].ablations
    assert [ablation.name for ablation in ablations(["size", "loss", "size"])] == ["size", "loss"]
    with pytest.raises(ValueError, match="no ablation beauty; known: attention"):
        ablations(["beauty"])


def result(arm: str, seed: int, psnr: np.ndarray) -> dict:
    metadata = {"ablation": "prediction", "arm": arm, "test": "", "seed": seed, "steps": 5}
    metadata |= {"training_seconds": 2.0, "training_processor_seconds": 1.0}
    metadata |= {"config": f"{arm}{seed}", "budget": 1.0, "settings": ["train.batch_size=8"], "preset": "gfpgan"}
    machine = {"machine": {"processor": "p"}, "num_images": len(psnr), "data": "faces", "commit": "0" * 40}
    return {**metadata, **machine, "scores": {"psnr": psnr.tolist()}}


def test_a_row_is_compared_with_the_first_face_by_face_and_seed_by_seed(modules, tmp_path: Path) -> None:
    table, rng = modules["table"], np.random.default_rng(0)
    faces = rng.normal(20, 5, 40)
    rows = {
        ("prediction", "x_0, x_d added", ""): [result("x_0, x_d added", seed, faces + seed) for seed in (0, 1)],
        ("prediction", "v", ""): [result("v", seed, faces + seed + 1 + rng.normal(0, 0.1, 40)) for seed in (0, 1)],
    }
    (mean, low, high), seeds = table.difference(
        rows["prediction", "v", ""], rows["prediction", "x_0, x_d added", ""], "psnr"
    )
    assert 0.9 < low < mean < high < 1.1
    assert np.mean(seeds) == pytest.approx(mean)
    base, other = entries = table.summary(rows)
    text = table.render(entries)
    assert "| v | 2 |" in text
    assert "Differences are from *x_0, x_d added*, with `--preset gfpgan`." in text
    assert "5 steps, 1 processor seconds a training on p, `train.batch_size=8`; 40 faces" in text
    assert f"{mean:+.3g} [{low:+.3g}, {high:+.3g}]" in text
    assert base["metrics"]["psnr"]["difference"] == 0
    assert (other["arm"], other["metrics"]["psnr"]["low"], other["metrics"]["psnr"]["differences"]) == ("v", low, seeds)
    assert [training["config"] for training in other["trainings"]] == ["v0", "v1"]
    table.plot(entries, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    rows["prediction", "v", ""].pop()
    unfinished = table.render(table.summary(rows))
    assert "| v | 2 |" not in unfinished
    assert "Not finished: x_0; epsilon; v." in unfinished


def test_the_committed_table_is_that_of_its_numbers_and_holds_every_arm(modules) -> None:
    table, results = modules["table"], FOLDER / "results"
    text = (results / "ablations.md").read_text()
    rendered = table.render(json.loads((results / "ablations.json").read_text()))
    assert text == rendered, "run: python experiments/ablations/table.py"
    assert "Not finished" not in text
