"""Runs that ``accelerate launch`` starts and that are killed at random; ``make kills`` does it more often."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "kills.py"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the processes of a run are found in /proc")


def test_a_run_killed_at_random_moments_resumes_bit_for_bit_and_leaves_no_process() -> None:
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--processes", "1", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 process(es): 3 kills" in done.stdout
    assert "all equal to the undisturbed run" in done.stdout


def test_every_difference_between_two_runs_is_found(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("kills", SCRIPT)
    kills = importlib.util.module_from_spec(specification)
    sys.modules["kills"] = kills  # where its dataclass looks
    specification.loader.exec_module(kills)
    expected = tmp_path / "expected"
    last = Path("checkpoints", f"step_{kills.NUM_STEPS:08d}")
    for name in kills.EXACT:
        (expected / last / name).parent.mkdir(parents=True, exist_ok=True)
        (expected / last / name).write_bytes(b"0")
    (expected / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 0.5, "seconds": 1.0}) + "\n")
    (expected / "checkpoints" / "best.json").write_text("{}")
    changes = {
        **{name: (last / name, "1") for name in kills.EXACT},
        "log.jsonl": (Path("log.jsonl"), json.dumps({"step": 1, "loss": 0.25, "seconds": 1.0}) + "\n"),
        "best.json": (Path("checkpoints", "best.json"), '{"step": 1}'),
    }
    for number, (found, (name, content)) in enumerate(changes.items()):
        folder = tmp_path / str(number)
        shutil.copytree(expected, folder)
        assert kills.differences(folder, expected) == []
        (folder / name).write_text(content)
        assert kills.differences(folder, expected) == [found]
