"""Any restorer from its path: an IDM, one that another installed package provides, or a weights file for spandrel."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import torch

from idm.io.run_folder import sha256
from idm.restorers.pipeline import IDMPipeline
from idm.restorers.protocol import Restorer
from idm.restorers.saved import BOXED, WEIGHTS, ModelError, find_model, is_idm, load_pipeline
from idm.restorers.third_party import load_outside

ENTRY_POINTS = "idm.restorers"

Setting = str | int | float


@dataclass(frozen=True)
class Loaded:
    """A restorer, and what a table says of it: its name, parameters, weights and settings."""

    restorer: Restorer
    about: dict[str, Setting]


class Opener(Protocol):
    """What an entry point in the group "idm.restorers" names: opens a path of its own kind, None for others."""

    def __call__(self, path: Path, device: torch.device, dtype: torch.dtype) -> Loaded | None: ...


def load_restorer(path: Path | None, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Load the restorer that a path stands for.

    Args:
        path: a training run, a saved model, or a weights file; None is the model in the box.

    Raises:
        ModelError, OutsideModelError: it cannot be loaded; the message begins with the path.
    """
    if path is None or is_idm(path):
        pipeline = load_pipeline(path, device, dtype)
        return Loaded(pipeline, describe_pipeline(pipeline, find_model(path)))
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder; name a training run, a saved model or a weights file")
    for entry in entry_points(group=ENTRY_POINTS):
        opener: Opener = entry.load()
        loaded = opener(path, device, dtype)
        if loaded is not None:
            return loaded
    if path.is_dir():
        raise ModelError(f"{path}: holds no model: neither a training run with a checkpoint nor a saved pipeline")
    outside = load_outside(path, device)
    network = outside.descriptor
    return Loaded(
        outside,
        {
            "name": f"{network.architecture.name} ({path.name})",
            "weights_sha256": sha256(path),
            "image_size": outside.image_size,
            "parameters": sum(p.numel() for p in network.model.parameters()),
        },
    )


def describe_pipeline(pipeline: IDMPipeline, folder: Path) -> dict[str, Setting]:
    """What a table says of an IDM pipeline that was loaded from ``folder``."""
    config, exported = pipeline.config, pipeline.exported
    return {
        "name": "the model in the box" if folder == BOXED else folder.as_posix(),
        "weights_sha256": sha256(folder / "denoiser" / WEIGHTS),
        "image_size": pipeline.image_size,
        "parameters": sum(p.numel() for p in pipeline.denoiser.parameters()),
        "backend": exported.backend if exported else "torch",
        "precision": str(exported.dtype if exported else pipeline.denoiser.dtype).removeprefix("torch."),
        "sampler": type(pipeline.scheduler).__name__,
        "num_steps": config.num_inference_steps,
        "start_from": config.start_from,
        "strength": config.strength,
    }
