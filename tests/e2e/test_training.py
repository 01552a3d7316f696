"""The real command, killed, stopped, resumed and spread over processes."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from forked import kill_when, run, started
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
TIMES = {"seconds", "processor_seconds", "images_per_second"}


def command(folder: Path, *overrides: str) -> list[str]:
    config = ROOT / "tests" / "e2e" / "tiny.yaml"
    return [str(ROOT / "train_idm.py"), "--config", str(config), f"output_dir={folder}", *overrides]


def launched(recipe: str, folder: Path, *overrides: str) -> list[str]:
    """The command with ``accelerate launch``, whose trainers are processes of its own."""
    config = str(ROOT / "configs" / "accelerate" / f"{recipe}.yaml")
    return ["-m", "accelerate.commands.launch", "--config_file", config, *command(folder, *overrides)]


def log_of(folder: Path) -> list[dict]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def assert_same_run(folder: Path, expected: Path) -> None:
    """Weights, EMA, optimiser, losses and metrics are equal bit for bit."""
    last, wanted = (path / "checkpoints" / "step_00000012" for path in (folder, expected))
    weights = "pipeline/denoiser/diffusion_pytorch_model.safetensors"
    for name in ("model.safetensors", weights):
        assert (last / name).read_bytes() == (wanted / name).read_bytes(), name
    optimizers = [torch.load(path / "optimizer.bin", weights_only=True)["state"] for path in (last, wanted)]
    for index, state in optimizers[1].items():
        for name, value in state.items():
            assert torch.equal(optimizers[0][index][name], value), (index, name)
    assert log_of(folder) == log_of(expected)
    best = [(path / "checkpoints" / "best.json").read_text() for path in (folder, expected)]
    assert best[0] == best[1]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted") / "run"
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert "gain" in done.stdout
    return folder


def test_a_run_writes_what_it_promises(uninterrupted: Path) -> None:
    for name in ("config.yaml", "log.jsonl", "metrics.json", "before_after.png"):
        assert (uninterrupted / name).stat().st_size > 0, name
    rows = log_of(uninterrupted)
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))
    assert [row["step"] for row in rows if row.get("validation")] == [6, 12]
    metrics = json.loads((uninterrupted / "metrics.json").read_text())["metrics"]
    gain = metrics["psnr"]["restored"]["mean"] - metrics["psnr"]["degraded"]["mean"]
    assert gain == pytest.approx(metrics["psnr"]["gain"]["mean"])


def test_only_the_newest_checkpoints_and_the_best_are_kept(uninterrupted: Path) -> None:
    kept = sorted(path.name for path in (uninterrupted / "checkpoints").glob("step_*"))
    best = json.loads((uninterrupted / "checkpoints" / "best.json").read_text())["step"]
    assert kept == sorted({"step_00000009", "step_00000012", f"step_{best:08d}"})


def test_a_run_killed_at_any_moment_resumes_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(command(folder), folder, "checkpoints/step_00000003")  # after a checkpoint, in mid-epoch
    kill_when(command(folder), folder, "checkpoints/.unfinished-step_00000006/*")  # while writing one
    kill_when(command(folder), folder, "checkpoints/step_00000009")
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert_same_run(folder, uninterrupted)
    assert not list((folder / "checkpoints").glob(".unfinished*"))


def test_a_run_killed_between_its_last_log_line_and_its_metrics_still_gets_them(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    published = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**published, "step": 6, "metrics": {}}))  # the validation before
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert log_of(folder) == log_of(uninterrupted)
    again = json.loads((folder / "metrics.json").read_text())
    assert (again["step"], again["metrics"]) == (12, published["metrics"])


def test_a_run_that_receives_sigterm_saves_first_and_resumes_bit_for_bit(uninterrupted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(command(folder), folder, "log.jsonl", signal.SIGTERM)
    steps = [int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_*")]
    assert max(steps) == log_of(folder)[-1]["step"]
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert_same_run(folder, uninterrupted)


def test_a_finished_run_started_again_changes_nothing(uninterrupted: Path) -> None:
    before = (uninterrupted / "log.jsonl").read_bytes()
    done = run(command(uninterrupted))
    assert done.returncode == 0, done.stderr
    assert (uninterrupted / "log.jsonl").read_bytes() == before


EXACT = ["train.mixed_precision=no", "denoiser.dropout=0.0"]


@pytest.fixture(scope="module")
def on_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two") / "run"
    done = run(launched("cpu2", folder, *EXACT, "train.accumulation=1"))
    assert done.returncode == 0, done.stderr
    assert json.loads((folder / "checkpoints/step_00000012/progress.json").read_text())["num_processes"] == 2
    return folder


def weights_of(folder: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(folder / f"checkpoints/step_{step:08d}/model.safetensors")


def test_two_processes_train_as_one_does_with_the_same_global_batch(on_two_processes: Path, tmp_path: Path) -> None:
    done = run(command(tmp_path / "one", *EXACT, "train.accumulation=1"))
    assert done.returncode == 0, done.stderr
    weights = weights_of(on_two_processes, 12)
    for name, wanted in weights_of(tmp_path / "one", 12).items():
        torch.testing.assert_close(weights[name], wanted, rtol=1e-3, atol=1e-4)
    for row, wanted in zip(log_of(on_two_processes), log_of(tmp_path / "one"), strict=True):
        assert row.keys() == wanted.keys()
        for name in {"loss", "psnr_restored", "ssim_degraded"} & row.keys():
            assert row[name] == pytest.approx(wanted[name], rel=1e-4), (row["step"], name)


def test_half_the_processes_with_twice_the_accumulation_continue_like_all(
    on_two_processes: Path, tmp_path: Path
) -> None:
    for number, accumulation in ((2, 1), (1, 2)):
        folder = tmp_path / str(number)
        shutil.copytree(on_two_processes, folder)
        longer = ["train.num_steps=13", "train.decay=constant", f"train.accumulation={accumulation}"]
        done = run(command(folder, *EXACT, *longer), num_processes=number)
        assert done.returncode == 0, done.stderr
        assert "resuming from" in done.stdout
    two, one = tmp_path / "2", tmp_path / "1"
    wanted, found = ([row for row in log_of(folder) if "loss" in row][12] for folder in (two, one))
    for name in ("loss", "grad_norm"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-5), name
    before, after = weights_of(on_two_processes, 12), weights_of(one, 13)
    for name, weight in weights_of(two, 13).items():
        torch.testing.assert_close(after[name], weight, rtol=1e-4, atol=1e-5)
    assert max((after[name] - weight).abs().max() for name, weight in before.items()) > 1e-4
    changed = [json.loads(line)["settings"] for line in (one / "history.jsonl").read_text().splitlines()][1]
    assert (changed["num_processes"], changed["train.accumulation"]) == (1, 2)


def test_two_processes_train_a_critic_though_only_one_of_them_has_a_sample_for_it(tmp_path: Path) -> None:
    """In most steps: each has one face, and the critic judges those below the chain's start only, here every second."""
    folder = tmp_path / "run"
    critic = "objective.adversarial={channels: [8]}"
    levels = ["schedule.name=log_sigma", "objective.noise_levels.name=start_and_log_uniform"]
    done = run(command(folder, critic, *levels, "train.accumulation=1", "train.batch_size=2"), num_processes=2)
    assert done.returncode == 0, done.stderr
    judged = ["critic_loss" in row for row in log_of(folder) if "loss" in row]
    assert len(judged) == 12
    assert any(judged)
    assert not all(judged)


def test_another_setting_in_the_same_folder_is_refused(uninterrupted: Path) -> None:
    done = run(command(uninterrupted, "seed=1", "objective.p=2"))
    assert done.returncode == 1
    assert "another objective.p, seed" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_run_resumes_with_more_steps_and_another_learning_rate_and_its_history_records_both(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    done = run(command(folder, "train.num_steps=15", "train.learning_rate=1e-4", "train.decay=constant"))
    assert done.returncode == 0, done.stderr
    rows = [row for row in log_of(folder) if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 16))
    assert [row["learning_rate"] for row in rows[12:]] == [1e-4] * 3
    first, second = (json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines())
    assert (first["step"], first["settings"]["train.num_steps"], first["settings"]["seed"]) == (0, 12, 0)
    changed = {"train.num_steps": 15, "train.learning_rate": 1e-4, "train.decay": "constant"}
    assert second == {"step": 12, "settings": changed}


def test_a_run_resumes_bit_for_bit_from_the_checkpoint_before_a_damaged_one(
    uninterrupted: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(uninterrupted, folder)
    weights = folder / "checkpoints" / "step_00000012" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-7] ^= 64
    weights.write_bytes(data)
    done = run(command(folder))
    assert done.returncode == 0, done.stderr
    assert "step_00000012 is damaged: model.safetensors is not as it was written" in done.stderr
    assert_same_run(folder, uninterrupted)


def trainer_of(folder: Path) -> int:
    """The process that holds a run's folder."""
    return int((folder / ".lock").read_text().split()[1])


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
@pytest.mark.parametrize("recipe", ["cpu", "cpu2"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_launcher_stops_the_trainer_which_saves_first(tmp_path: Path, number: int, recipe: str) -> None:
    folder = tmp_path / "run"
    endless = ["train.num_steps=1000000", "train.checkpoint_every=1000000", "validation.every=1000000"]
    with started(launched(recipe, folder, *endless)) as ([launcher], _):
        deadline = time.monotonic() + 600
        while not (folder / "log.jsonl").exists() or not log_of(folder):
            assert launcher.is_alive()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        trainer = trainer_of(folder)
        if number == signal.SIGTERM:
            second = run(command(folder, *endless))
            assert second.returncode == 1
            assert f"is in use by process {trainer} on " in second.stderr
            assert "Traceback" not in second.stderr
        os.kill(launcher.pid, number)
        launcher.join(120)
        assert not launcher.is_alive()
        while is_alive(trainer):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    [checkpoint] = (folder / "checkpoints").glob("step_*")
    assert int(checkpoint.name.removeprefix("step_")) == log_of(folder)[-1]["step"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc names the processes")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_processes_of_a_run_stops_it_after_saving(tmp_path: Path, number: int) -> None:
    """``timeout``, Slurm and a terminal send it to the data loader's workers, too."""
    folder = tmp_path / "run"
    endless = ["train.num_steps=1000000", "train.checkpoint_every=1000000", "validation.every=1000000"]
    with started(command(folder, *endless, "data.num_workers=2")) as ([trainer], streams):
        deadline = time.monotonic() + 600
        while not (folder / "log.jsonl").exists() or not log_of(folder):
            assert trainer.is_alive(), (streams / "stderr").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        workers = [int(pid) for pid in Path(f"/proc/{trainer.pid}/task/{trainer.pid}/children").read_text().split()]
        assert len(workers) >= 2
        for process in (*workers, trainer.pid):
            os.kill(process, number)
        trainer.join(120)
        assert trainer.exitcode == 128 + number, (streams / "stderr").read_text()
    assert not any(is_alive(worker) for worker in workers)
    [checkpoint] = (folder / "checkpoints").glob("step_*")
    assert int(checkpoint.name.removeprefix("step_")) == log_of(folder)[-1]["step"]


def test_all_faults_of_a_configuration_are_shown_at_once(tmp_path: Path) -> None:
    done = run(command(tmp_path, "train.batch_sise=8", "data.source.num_face=3", "objective.p=3"))
    assert done.returncode == 1
    for text in ("did you mean 'batch_size'", "did you mean 'num_faces'", "objective.p"):
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_face_that_cannot_be_read_is_one_line(tmp_path: Path, num_workers: int) -> None:
    faces = tmp_path / "faces"
    faces.mkdir()
    for index in range(8):
        assert cv2.imwrite(str(faces / f"{index}.png"), np.full((32, 32, 3), 30 * index, np.uint8))
    broken = faces / "3.png"
    broken.write_bytes(broken.read_bytes()[:60])
    source = ["data.source.name=folder", f"data.source.path={faces}", f"data.num_workers={num_workers}"]
    done = run(command(tmp_path / "run", *source))
    assert done.returncode == 1
    assert f"error: {broken}: is broken or cut short" in done.stderr
    assert "Traceback" not in done.stderr
