"""The committed tables are what the committed results give."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("experiment", ["extrinsic", "benchmarks"])
def test_the_tables_of_an_experiment_are_up_to_date(experiment: str) -> None:
    command = [sys.executable, str(ROOT / "experiments" / experiment / "table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
