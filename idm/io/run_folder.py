"""Checkpoints that are complete or not there, whenever the machine dies, and that show it when a file is damaged."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from idm.io.atomic import CheckpointError, sha256, sync, write_json

PREFIX = "step_"
BEST = "best.json"
HASHES = "hashes.json"
"""The sha256 of every file of a checkpoint, by its path within."""


def step_of(checkpoint: Path) -> int:
    """The number of steps after which a checkpoint was written, from its name."""
    return int(checkpoint.name.removeprefix(PREFIX))


def checkpoint_of(folder: Path, step: int) -> Path:
    """The path of the checkpoint after ``step`` steps."""
    return folder / f"{PREFIX}{step:08d}"


def list_checkpoints(folder: Path) -> list[Path]:
    """All complete checkpoints, oldest first."""
    complete = (path for path in folder.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit())
    return sorted(complete, key=step_of)


def unfinished(folder: Path, step: int) -> Path:
    """The folder in which the checkpoint of a step is written before it counts."""
    return folder / f".unfinished-{PREFIX}{step:08d}"


def finish_checkpoint(folder: Path, step: int) -> Path:
    """Make a fully written checkpoint appear under its name, with the hashes of its files, in one rename.

    Raises:
        CheckpointError: it could not be forced to the disk; it then does not count.
    """
    draft, final = unfinished(folder, step), checkpoint_of(folder, step)
    try:
        files = sorted(path for path in draft.rglob("*") if path.is_file())
        hashes = {path.relative_to(draft).as_posix(): sha256(path) for path in files}
        (draft / HASHES).write_text(json.dumps(hashes, indent=2) + "\n")
        for path in [*draft.rglob("*"), draft]:
            sync(path)
        draft.replace(final)
        sync(folder)
    except OSError as error:
        raise CheckpointError(f"{final}: checkpoint not written: {error}") from error
    return final


def damage(checkpoint: Path, within: str = "") -> str | None:
    """Describe the damage of a checkpoint's files; None if each is as it was written.

    Checkpoints that were written before there were hashes cannot be checked and count as intact;
    :func:`newest_intact` tells them from those that have lost theirs.

    Args:
        within: look only at this file or folder of the checkpoint.
    """
    try:
        hashes = json.loads((checkpoint / HASHES).read_bytes())
        for name, digest in hashes.items():
            if name.startswith(within) and sha256(checkpoint / name) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        missing = Path(error.filename)
        return None if missing.name == HASHES else f"{missing.relative_to(checkpoint)} is missing"
    except (OSError, ValueError, AttributeError) as error:  # unreadable, or no table of hashes
        return f"cannot be checked ({error})"
    return None


def newest_intact(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The newest checkpoint without damage, or None if there is none; and the damage of the newer ones.

    A checkpoint without hashes is damaged if an older one has them.
    """
    damaged: dict[Path, str] = {}
    checkpoints = list_checkpoints(folder)
    for number, checkpoint in reversed(list(enumerate(checkpoints))):
        hashed = any((path / HASHES).exists() for path in checkpoints[:number])
        lost = f"{HASHES} is missing" if hashed and not (checkpoint / HASHES).exists() else None
        found = lost or damage(checkpoint) or _unreadable_progress(checkpoint)
        if found is None:
            return checkpoint, damaged
        damaged[checkpoint] = found
    return None, damaged


def _unreadable_progress(checkpoint: Path) -> str | None:
    try:
        return (
            None if "step" in json.loads((checkpoint / "progress.json").read_bytes()) else "progress.json has no step"
        )
    except (OSError, ValueError, TypeError) as error:
        return f"progress.json cannot be read ({error})"


def set_aside(checkpoint: Path) -> Path:
    """Rename a damaged checkpoint, so that it no longer counts and a new one can take its name."""
    aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
    shutil.rmtree(aside, ignore_errors=True)
    return checkpoint.rename(aside)


def prune(folder: Path, keep: int) -> None:
    """Delete unfinished drafts and all but the ``keep`` newest and the best checkpoint."""
    for draft in folder.glob(".unfinished-*"):
        shutil.rmtree(draft)
    best = best_checkpoint(folder)
    for checkpoint in list_checkpoints(folder)[:-keep]:
        if checkpoint != best:
            shutil.rmtree(checkpoint)


def best_checkpoint(folder: Path) -> Path | None:
    """The checkpoint that validated best, if one was marked.

    Raises:
        CheckpointError: the mark cannot be read.
    """
    held = _read_best(folder)
    return None if held is None else checkpoint_of(folder, held["step"])


def best_score(folder: Path, metric: str = "psnr", worst: float = -math.inf) -> float:
    """Return the score of the best checkpoint; ``worst`` if none was marked by this metric."""
    held = _read_best(folder) or {}
    score: float = held.get(metric, worst)
    return score


def mark_best(folder: Path, step: int, score: float, metric: str = "psnr") -> None:
    """Record which step's checkpoint in a folder of checkpoints is the best, and its score in a metric."""
    write_json(folder / BEST, {"step": step, metric: score})


def unmark_best(folder: Path) -> None:
    """Forget which checkpoint is the best."""
    (folder / BEST).unlink(missing_ok=True)


def _read_best(folder: Path) -> dict[str, Any] | None:
    path = folder / BEST
    if not path.exists():
        return None
    try:
        held: dict[str, Any] = json.loads(path.read_bytes())
        return {**held, "step": int(held["step"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); start the run again to find its best checkpoint, or delete the file to "
            "use the newest checkpoint"
        ) from None


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
