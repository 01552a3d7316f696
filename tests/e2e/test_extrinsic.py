"""Rounds by one command, killed in every stage; and ``idm clean`` by one process and by two."""

import json
from pathlib import Path

import pytest
import yaml
from forked import kill_when, run

ROOT = Path(__file__).parents[2]
ROUNDS = ["extrinsic.rounds=1", "extrinsic.shard_size=4", "extrinsic.batch_size=2", "extrinsic.gate.min_identity=null"]
EVERYTHING = ["min_sharpness_gain=0", "min_noise_loss=0", "max_sharpness_loss=1", "max_noise_gain=1e3"]
EVERYTHING += ["max_blockiness_gain=1e3"]  # twelve steps make no good restorer
WEIGHTS = "checkpoints/step_00000012/model.safetensors"


def command(folder: Path) -> list[str]:
    config = ROOT / "tests" / "e2e" / "tiny.yaml"
    gate = [f"extrinsic.gate.{setting}" for setting in EVERYTHING]
    return [str(ROOT / "train_idm.py"), f"--config={config}", f"output_dir={folder}", *ROUNDS, *gate]


def shards(folder: Path) -> dict[str, bytes]:
    """Everything a cleaning job wrote."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert "replaced" in done.stdout
    return folder


def test_one_command_trains_cleans_and_trains_on_the_cleaned_faces(uninterrupted: Path) -> None:
    table = json.loads((uninterrupted / "rounds.json").read_text())
    assert [row["round"] for row in table["rounds"]] == [0, 1]
    summary = json.loads((uninterrupted / "clean_0" / "summary.json").read_text())
    assert summary["num_faces"] == 16  # the held-out faces are no part of the pool
    assert summary["accepted"] > 0
    first, second = ((uninterrupted / f"round_{k}" / WEIGHTS).read_bytes() for k in (0, 1))
    assert first != second
    assert yaml.safe_load((uninterrupted / "round_0" / "config.yaml").read_text())["extrinsic"] is None


def test_the_same_command_resumes_bit_for_bit_after_a_kill_in_every_stage(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(command(folder), folder, "round_0/checkpoints/step_00000006")
    kill_when(command(folder), folder, "clean_0/data/train-00001-of-00004.parquet")
    kill_when(command(folder), folder, "round_1/checkpoints/step_00000003")
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert shards(folder / "clean_0") == shards(uninterrupted / "clean_0")
    for k in (0, 1):
        name = f"round_{k}/{WEIGHTS}"
        assert (folder / name).read_bytes() == (uninterrupted / name).read_bytes(), name
    assert (folder / "rounds.json").read_bytes() == (uninterrupted / "rounds.json").read_bytes()


def test_another_setting_in_the_folder_of_rounds_is_refused(uninterrupted: Path) -> None:
    done = run([*command(uninterrupted), "train.learning_rate=1e-5"])
    assert done.returncode == 1
    assert "train.learning_rate" in done.stderr
    assert "Traceback" not in done.stderr


def clean(uninterrupted: Path, output: Path) -> list[str]:
    model = ["--model", str(uninterrupted / "round_0"), "--data", "synthetic:9", "--output", str(output)]
    settings = ["shard_size=2", "batch_size=2", "gate.min_identity=null", *(f"gate.{s}" for s in EVERYTHING)]
    return ["-m", "idm", "clean", *model, *settings]


def test_two_processes_clean_as_one_does(uninterrupted: Path, tmp_path: Path) -> None:
    two = run(clean(uninterrupted, tmp_path / "two"), num_processes=2)
    assert two.returncode == 0, two.stderr
    one = run(clean(uninterrupted, tmp_path / "one"))
    assert one.returncode == 0, one.stderr
    assert shards(tmp_path / "two") == shards(tmp_path / "one")
    assert one.stdout.splitlines()[-1].startswith("0 unreadable")
