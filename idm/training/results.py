"""The results of a run: the files of its newest validation, and the summary that is printed at its end."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.tracking import GeneralTracker
from jaxtyping import UInt8

from idm.io import run_folder
from idm.io.atomic import write_json
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.machine import provenance
from idm.training.validation import ScoredFace

PICTURES, METRICS = "before_after.png", "metrics.json"


def write_results(folder: Path, faces: Sequence[ScoredFace], result: dict[str, Any]) -> UInt8[np.ndarray, "h w 3"]:
    """Write the pictures and the metrics of a validation, with commit, machine and versions; returns the pictures."""
    shown = [face.pictures for face in faces if face.pictures is not None]
    grid = image_grid(shown, ["degraded", "restored", "original"])
    write_image(folder / PICTURES, grid)
    write_json(folder / METRICS, {**result, **provenance()})
    return grid


def track_pictures(trackers: Sequence[GeneralTracker], grid: UInt8[np.ndarray, "h w 3"], step: int) -> None:
    """Send the pictures to the trackers that take pictures."""
    for tracker in trackers:
        if tracker.name == "tensorboard":
            tracker.log_images({"validation": grid[None]}, step=step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({"validation": [grid]}, step=step)


def print_results(folder: Path, model_name: str) -> None:
    """Print the newest metrics of a run, and where its files are."""
    result = json.loads((folder / METRICS).read_text())
    print(f"\n{result['num_images']} held-out faces, frozen degradations, step {result['step']}:")
    for name, columns in result["metrics"].items():
        degraded, restored, gain = (columns[c]["mean"] for c in ("degraded", "restored", "gain"))
        print(f"  {name:5} {degraded:7.3f} degraded -> {restored:7.3f} restored  (gain {gain:+.3f})")
    checkpoints = folder / "checkpoints"
    best = run_folder.best_checkpoint(checkpoints)
    for title, path in (
        ("pictures", folder / PICTURES),
        ("metrics", folder / METRICS),
        ("log", folder / "log.jsonl"),
        ("model", best / model_name if best else checkpoints),
    ):
        print(f"  {title:9} {path}")
