"""Finding and loading a trained IDM: the one in the box, a run's best, or any saved pipeline."""

import json
from pathlib import Path

import torch
from diffusers.utils.logging import disable_progress_bar
from safetensors import SafetensorError, safe_open

from idm.io.atomic import CheckpointError
from idm.io.run_folder import best_checkpoint, damage, list_checkpoints
from idm.models.unet import Denoiser
from idm.restorers.pipeline import IDMPipeline

BOXED = Path(__file__).parent / "pretrained" / "faces128"
WEIGHTS = "diffusion_pytorch_model.safetensors"


class ModelError(ValueError):
    """A model cannot be loaded; the message begins with its path."""


def is_idm(path: Path) -> bool:
    """Whether a path is a saved IDM pipeline or a run that trains one."""
    pipelines = [path, *(checkpoint / "pipeline" for checkpoint in list_checkpoints(path / "checkpoints"))]
    return any((folder / "model_index.json").is_file() for folder in pipelines)


def find_model(path: Path | None) -> Path:
    """The pipeline folder that a path stands for: itself, a run's best (or newest) checkpoint; None: the box.

    Raises:
        ModelError: there is none, or its files are not as the run wrote them.
    """
    if path is None:
        path = BOXED
    if not path.is_dir():
        raise ModelError(f"{path}: no such folder; name a training run or a folder that IDMPipeline saved")
    checkpoints = path / "checkpoints"
    if checkpoints.is_dir():
        complete = list_checkpoints(checkpoints)
        if not complete:
            raise ModelError(f"{path}: this run has no checkpoint yet")
        try:
            path = (best_checkpoint(checkpoints) or complete[-1]) / "pipeline"
        except CheckpointError as error:
            raise ModelError(str(error)) from None
    if fault := damage(path.parent, f"{path.name}/"):
        raise ModelError(f"{path}: is damaged: {fault}; name the pipeline folder of another checkpoint")
    if not (path / "model_index.json").is_file():
        raise ModelError(f"{path}: is no saved IDM pipeline (model_index.json is missing)")
    return path


def load_pipeline(path: Path | None, device: torch.device, dtype: torch.dtype) -> IDMPipeline:
    """Load a pipeline for restoring.

    Raises:
        ModelError: missing, damaged, or weights that are not those of the architecture in its config.
    """
    folder = find_model(path)
    disable_progress_bar()  # a bar over two components is noise on a command line
    try:
        _check_weights(folder / "denoiser")
        _require(folder / "model_index.json", "prediction")
        _require(folder / "scheduler" / "scheduler_config.json", "trained_betas")
        pipeline = IDMPipeline.from_pretrained(folder, local_files_only=True)
    except ModelError:
        raise
    except Exception as error:  # diffusers raises OSError, ValueError, KeyError and others on broken files
        raise ModelError(f"{folder}: cannot be loaded as an IDM pipeline ({error})") from error
    pipeline.set_progress_bar_config(disable=True)
    pipeline.denoiser.type(dtype)
    return pipeline.to(device)


def _require(path: Path, key: str) -> None:
    """Refuse a description that lacks what diffusers would fill with a default of its own."""
    if key not in json.loads(path.read_text()):
        raise ModelError(f"{path}: is damaged: {key!r} is missing")


def _check_weights(folder: Path) -> None:
    """Compare names and shapes in the file with the architecture: diffusers would fill gaps with random numbers."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise ModelError(f"{path}: is missing")
    with torch.device("meta"):
        wanted = {k: tuple(v.shape) for k, v in Denoiser.from_config(Denoiser.load_config(folder)).state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelError(f"{path}: is no whole safetensors file ({error})") from error
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if wrong:
        raise ModelError(
            f"{path}: holds another architecture than config.json beside it "
            f"({len(wrong)} of {len(wanted)} weights differ, first {wrong[0]})"
        )
