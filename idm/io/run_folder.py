"""Checkpoints that are complete or not there, whenever the machine dies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from idm.io.atomic import CheckpointError, sync, write_json

PREFIX = "step_"
BEST = "best.json"


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def list_checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, oldest first."""
    complete = (path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit())
    return sorted(complete, key=step_of)


def unfinished(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is written before it counts."""
    return folder / f".unfinished-{PREFIX}{step:08d}"


def finish(folder: Path, step: int) -> Path:
    """Make a fully written checkpoint appear under its name, in one rename.

    Raises:
        CheckpointError: it could not be forced to the disk; it then does not count.
    """
    draft, final = unfinished(folder, step), folder / f"{PREFIX}{step:08d}"
    try:
        for path in [*draft.rglob("*"), draft]:
            sync(path)
        draft.replace(final)
        sync(folder)
    except OSError as error:
        raise CheckpointError(f"{final}: checkpoint not written: {error}") from error
    return final


def prune(folder: Path, keep: int) -> None:
    """Delete unfinished drafts and all but the ``keep`` newest and the best checkpoint."""
    for draft in folder.glob(".unfinished-*"):
        shutil.rmtree(draft)
    best = best_checkpoint(folder)
    for checkpoint in list_checkpoints(folder)[:-keep]:
        if checkpoint != best:
            shutil.rmtree(checkpoint)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that validated best, if one was marked."""
    path = folder / BEST
    if not path.exists():
        return None
    return folder / f"{PREFIX}{json.loads(path.read_text())['step']:08d}"


def best_score(folder: Path) -> float:
    path = folder / BEST
    return json.loads(path.read_text())["psnr"] if path.exists() else float("-inf")


def mark_best(folder: Path, step: int, psnr: float) -> None:
    write_json(folder / BEST, {"step": step, "psnr": psnr})


def write_draft(folder: Path, step: int, write: Callable[[Path], None]) -> None:
    """Write a checkpoint's draft; on an error nothing of it stays.

    Raises:
        CheckpointError: naming the folder and the cause, a full disk for one.
    """
    draft = unfinished(folder, step)
    try:
        draft.mkdir(parents=True, exist_ok=True)
        write(draft)
    except Exception as error:  # safetensors and torch report a full disk by errors of their own
        shutil.rmtree(draft, ignore_errors=True)
        raise CheckpointError(f"{draft}: checkpoint not written: {error}") from error
