"""The baseline's real command: stage zero and training, killed and resumed, and spread over two processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forked import kill_when, run
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "processor_seconds", "images_per_second"}
LAST = "checkpoints/step_00000006"


def command(folder: Path, *overrides: str) -> list[str]:
    config = str(ROOT / "tests" / "e2e" / "gan_tiny.yaml")
    return ["-m", "gan_baseline.train", "--config", config, f"output_dir={folder}", *overrides]


def log_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert f"{LAST}/gfpgan.safetensors" in done.stdout or "step_00000004/gfpgan.safetensors" in done.stdout
    return folder


def test_a_run_writes_what_it_promises(uninterrupted: Path) -> None:
    for name in ("config.yaml", "log.jsonl", "metrics.json", "before_after.png", f"{LAST}/gfpgan.safetensors"):
        assert (uninterrupted / name).stat().st_size > 0, name
    rows = log_of(uninterrupted)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 7))
    assert [row["step"] for row in rows if row.get("validation")] == [3, 6]
    terms = {"l1", "pyramid", "adversarial", "component_adversarial", "component_style"}
    accuracies = {f"{critic}{side}_accuracy" for critic in ("", "component_") for side in ("real", "fake", "pair")}
    critics = {"discriminator", "r1", "component_discriminator", *accuracies}
    assert rows[0].keys() == {"step", "loss", "learning_rate", *critics, *terms}
    assert all(0 <= row[name] <= 1 for row in rows if "loss" in row for name in accuracies)
    assert rows[0]["loss"] == pytest.approx(sum(rows[0][name] for name in terms), rel=1e-5)


def test_the_decoder_begins_as_stage_zero_left_it(uninterrupted: Path, tmp_path: Path) -> None:
    prior = load_file(uninterrupted / "prior" / "checkpoints" / "step_00000004" / "prior.safetensors")
    assert [row["step"] for row in log_of(uninterrupted / "prior")] == [1, 2, 3, 4]
    assert not (uninterrupted / "prior" / "metrics.json").exists()  # it restores nothing
    prior_of = f"prior={{name: checkpoint, path: {uninterrupted / 'prior'}}}"
    done = run(command(tmp_path / "run", prior_of, "train.num_steps=0"))
    assert done.returncode == 0, done.stderr
    begun = load_file(tmp_path / "run" / "checkpoints" / "step_00000000" / "gfpgan.safetensors")
    for name, weight in prior.items():
        assert torch.equal(begun[f"stylegan_decoder.{name}"], weight), name


def test_a_run_killed_at_any_moment_resumes_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(command(folder), folder, "prior/checkpoints/step_00000002")  # in stage zero
    kill_when(command(folder), folder, "checkpoints/.unfinished-step_00000002/*")  # while writing a checkpoint
    kill_when(command(folder), folder, "checkpoints/step_00000004")
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    weights = ["gfpgan.safetensors", "model.safetensors", "model_1.safetensors", "model_2.safetensors"]
    assert sorted(path.name for path in (uninterrupted / LAST).glob("*.safetensors")) == sorted(weights)
    for name in weights:  # published, generator, discriminator, components
        ours, theirs = (load_file(path / LAST / name) for path in (folder, uninterrupted))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name
    for name in ("optimizer.bin", "optimizer_1.bin", "optimizer_2.bin"):
        ours, theirs = (torch.load(path / LAST / name, weights_only=True)["state"] for path in (folder, uninterrupted))
        for index, state in theirs.items():
            for key, value in state.items():
                assert torch.equal(ours[index][key], value), (name, index, key)
    assert log_of(folder) == log_of(uninterrupted)
    assert log_of(folder / "prior") == log_of(uninterrupted / "prior")


def test_two_processes_train_as_one_does_with_the_same_global_batch(tmp_path: Path) -> None:
    """With the minibatch standard deviation in groups of one: its groups lie within a process's share of the batch, so
    with greater ones the discriminator's logits, and nothing else, depend on how the batch is shared out."""
    same = ["train.accumulation=1", "discriminator.stddev_group=1", "validation.every=6"]
    one, two = tmp_path / "one", tmp_path / "two"
    done = run(command(one, *same))
    assert done.returncode == 0, done.stderr
    done = run(command(two, *same), num_processes=2)
    assert done.returncode == 0, done.stderr
    assert json.loads((two / LAST / "progress.json").read_text())["num_processes"] == 2
    for name in ("model.safetensors", "model_1.safetensors", "model_2.safetensors"):
        ours, theirs = (load_file(path / LAST / name) for path in (two, one))
        differences = torch.cat([(ours[key] - weight).abs().flatten() for key, weight in theirs.items()])
        assert differences.mean() < 2e-5, name  # Adam's step is of a gradient's sign: where it is 0, of its rounding
    for row, wanted in zip(log_of(two), log_of(one), strict=True):
        assert row.keys() == wanted.keys()
        for name in row.keys() - {"validation", "step"}:
            assert row[name] == pytest.approx(wanted[name], rel=1e-2, abs=1e-6), (row["step"], name)


def test_a_missing_network_stops_the_command_with_one_message(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, *command(tmp_path / "run", "losses.perceptual=1")],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
        env={"PATH": "", "IDM_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    for text in ("error: losses.perceptual_network: vgg19-dcbb9e9d.pth", str(tmp_path), "ImageNet"):
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
