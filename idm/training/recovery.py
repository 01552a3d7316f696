"""The recovery of a run from damaged files before it resumes."""

import json
import math
import sys
from pathlib import Path
from typing import Any

from idm.io import run_folder
from idm.io.atomic import CheckpointError
from idm.training.validation import Validation


def set_damaged_aside(checkpoints: Path) -> None:
    """Rename damaged checkpoints that are newer than the newest intact one, and report them.

    Raises:
        CheckpointError: there are checkpoints, and none is intact.
    """
    intact, damaged = run_folder.newest_intact(checkpoints)
    for checkpoint, fault in damaged.items():
        print(f"{checkpoint} is damaged: {fault}", file=sys.stderr)
    if damaged and intact is None:
        raise CheckpointError(
            f"{checkpoints}: none of the {len(damaged)} checkpoints is intact; delete the folder to start again"
        )
    for checkpoint in damaged:
        print(f"{checkpoint} is kept as {run_folder.set_aside(checkpoint).name}", file=sys.stderr)


def mark_best_anew(checkpoints: Path, validation: Validation, log: list[dict[str, Any]]) -> None:
    """Find the best checkpoint from the rows of the log, unless a readable mark for this metric names an existing
    one."""
    try:
        best, score = run_folder.best_checkpoint(checkpoints), run_folder.best_score(checkpoints, validation.best)
    except CheckpointError:  # the mark cannot be read
        best, score = checkpoints, -math.inf
    if best is None or (best.exists() and math.isfinite(score)):
        return
    run_folder.unmark_best(checkpoints)
    for row in log:
        if row.get("validation"):
            validation.mark_if_best(checkpoints, row["step"], row.get(f"{validation.best}_restored"))


def published_step(result: Path) -> int:
    """The step of the validation that wrote this file last of all its files; -1 if none did, or it is damaged."""
    try:
        return int(json.loads(result.read_bytes())["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return -1
