"""Throughput of the training command, according to its log."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median

REPOSITORY = Path(__file__).parents[2]
ROWS, ROW_STEPS = 5, 4
SHORT = (
    *("data.source={name: synthetic, num_faces: 33}", "data.val_source=null", "data.balance_groups=false"),
    *(f"train.num_steps={ROWS * ROW_STEPS}", f"train.log_every={ROW_STEPS}", "train.trackers=[]"),
    *("train.checkpoint_every=1000000", "validation={every: 1000000, num_images: 1, num_shown: 1}"),
)


def throughput(
    code: Path,
    config: str,
    overrides: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> float:
    """Return the images per second of a short training on procedural faces.

    This is the median over the rows of the log, without the first one.

    Args:
        code: the checkout whose ``train_idm.py`` and configurations are used.
        config: path of the configuration in the checkout.
        overrides: settings of the run, as ``section.key=value``.
        environment: additional environment variables.
        before: function to call in the new process, before the command.

    Raises:
        RuntimeError: the command failed; the message holds the end of its error output.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "train_idm.py", "--config", config, f"output_dir={folder}/run", *SHORT, *overrides]
        variables = {**os.environ, "PYTHONPATH": str(code), **(environment or {})}
        done = subprocess.run(command, cwd=code, env=variables, capture_output=True, text=True, preexec_fn=before)
        if done.returncode:
            raise RuntimeError(f"{code}: {done.stderr[-2000:]}")
        rows = [json.loads(line) for line in Path(folder, "run", "log.jsonl").read_text().splitlines()]
    return median(row["images_per_second"] for row in rows[1:] if "images_per_second" in row)
