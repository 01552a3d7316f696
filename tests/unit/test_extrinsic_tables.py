"""The committed tables are what the committed results give."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_tables_of_the_extrinsic_experiment_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "experiments" / "extrinsic" / "table.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
