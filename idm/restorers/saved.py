"""Finding, loading and saving a trained IDM: the bundled one, a run's best, or any saved pipeline.

The files are those of a diffusers pipeline. Commands, training and ``IDMPipeline`` read and write them here.
"""

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_args

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from idm.diffusion.chain import SCHEDULERS, Chain, sampler_of, scheduler_settings
from idm.diffusion.process import Prediction
from idm.diffusion.schedule import from_betas, to_betas
from idm.io.atomic import CheckpointError
from idm.io.errors import InvalidInput
from idm.io.run_folder import best_checkpoint, damage, list_checkpoints
from idm.io.weights import difference
from idm.models.architecture import Architecture
from idm.models.denoiser import Denoiser
from idm.restorers.card import model_card
from idm.restorers.idm import IDM, Origin
from idm.restorers.names import DEFAULT_NAME

BUNDLED = {
    "idm-faces-256": Path(__file__).parent / "pretrained" / "faces256",
    "idm-faces-128": Path(__file__).parent / "pretrained" / "faces128",
}
"""The models that come with the package, by name; the first is the default."""
DEFAULT = BUNDLED["idm-faces-256"]
WEIGHTS_FILE = "diffusion_pytorch_model.safetensors"


class ModelError(InvalidInput):
    """A model cannot be loaded; the message begins with its path."""


def is_idm(path: Path) -> bool:
    """Return whether a path is a saved IDM pipeline or a run that trains one."""
    if str(path) in (DEFAULT_NAME, *BUNDLED):
        return True
    pipelines = [path, *(checkpoint / "pipeline" for checkpoint in list_checkpoints(path / "checkpoints"))]
    return any((folder / "model_index.json").is_file() for folder in pipelines)


def find_model(path: Path | None) -> Path:
    """The pipeline folder of a path: the path itself, a run's best (or newest) checkpoint, or a bundled model by its
    name, such as ``idm-faces-128``; None and ``idm`` are the default model.

    Raises:
        ModelError: there is none, or its files differ from those that the run wrote.
    """
    path = DEFAULT if path is None or str(path) == DEFAULT_NAME else BUNDLED.get(str(path), path)
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
        raise ModelError(f"{path}: is not a saved IDM pipeline (model_index.json is missing)")
    return path


def load_idm(path: Path | None, device: torch.device, dtype: torch.dtype) -> IDM:
    """Load the model of a path, see :func:`find_model`.

    Raises:
        ModelError: the model is missing or damaged, or its weights do not match the architecture in its config, are not
            finite, or are all zero.

    Example:
        >>> model = idm.load_idm(None, torch.device("cpu"), torch.float32)
        >>> model.image_size
        256
    """
    folder = find_model(path)
    try:
        denoiser, sha256 = _read_denoiser(folder / "denoiser")
        chain, prediction = _read_chain(folder)
        betas = torch.tensor(_read_scheduler(folder)["trained_betas"], dtype=torch.float64)
        denoiser.to(device, dtype)
        return IDM(denoiser, from_betas(betas), prediction=prediction, chain=chain, origin=Origin(folder, sha256))
    except ModelError:
        raise
    # of values that make no sense
    except (OSError, ValueError, TypeError, KeyError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{folder}: cannot be loaded as an IDM pipeline ({error})") from error


def save_idm(model: IDM, folder: Path) -> None:
    """Save a model as a diffusers pipeline, with a model card if there is none yet."""
    for part in ("denoiser", "scheduler"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.denoiser.state_dict().items()}
    safetensors.torch.save_file(weights, folder / "denoiser" / WEIGHTS_FILE, metadata={"format": "pt"})
    network = type(model.denoiser)
    _write_json(folder / "denoiser" / "config.json", {"_class_name": network.__name__, **asdict(model.denoiser.config)})
    chain = asdict(model.chain)
    library, scheduler, _ = SCHEDULERS[model.chain.sampler]
    settings = scheduler_settings(chain.pop("sampler"), to_betas(model.gammas).tolist())
    _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": scheduler, **settings})
    index = {
        "_class_name": "IDMPipeline",
        "denoiser": [network.__module__, network.__name__],
        "scheduler": [library, scheduler],
        "prediction": model.prediction,
        "num_inference_steps": chain.pop("num_steps"),
        **chain,
    }
    _write_json(folder / "model_index.json", index)
    card = folder / "README.md"
    if not card.exists():
        card.write_text(model_card(model))


ADDED_LATER = {"network", "conditional", "refine_channels", "refine_blocks"}
"""Sizes that older files lack; their models have the default."""


def read_architecture(folder: Path) -> Architecture:
    """The architecture in a denoiser's folder.

    Raises:
        ModelError: the file is missing or broken, lacks a size, or has an unknown one.
    """
    path = folder / "config.json"
    sizes = {name: value for name, value in _read_json(path).items() if not name.startswith("_")}
    known = {field.name for field in fields(Architecture)}
    wrong = (sizes.keys() - known) | (known - ADDED_LATER - sizes.keys())
    if wrong:
        raise ModelError(f"{path}: is damaged: unknown or missing: {', '.join(sorted(wrong))}")
    try:
        return Architecture(**sizes)
    except Exception as error:  # also of values of a wrong type
        raise ModelError(f"{path}: is damaged: {error}") from error


def read_denoiser_weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a denoiser's folder, in float32, and the sha256 of their file.

    Raises:
        ModelError: the file is missing or broken, or its weights are integers, not finite or all zero.
    """
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{path}: is missing")
    content = path.read_bytes()
    try:
        stored = safetensors.torch.load(content)
    except SafetensorError as error:
        raise ModelError(f"{path}: is not a complete safetensors file ({error})") from error
    if integers := [name for name, weight in stored.items() if not weight.is_floating_point()]:
        raise ModelError(f"{path}: is damaged: {len(integers)} weights are integers, first {min(integers)}")
    weights = {name: weight.float() for name, weight in stored.items()}
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        raise ModelError(f"{path}: is damaged: {len(broken)} weights are not finite, first {min(broken)}")
    if not any(weight.any() for weight in weights.values()):
        raise ModelError(f"{path}: is damaged: all weights are zero")
    return weights, hashlib.sha256(content).hexdigest()


def _read_denoiser(folder: Path) -> tuple[Denoiser, str]:
    weights, sha256 = read_denoiser_weights(folder)
    with torch.device("meta"):  # no random numbers are drawn for what the file replaces
        denoiser = read_architecture(folder).build()
    if found := difference(denoiser, weights):
        raise ModelError(f"{folder / WEIGHTS_FILE}: holds another architecture than config.json beside it: {found}")
    denoiser.load_state_dict(weights, assign=True)
    return denoiser, sha256


def _read_chain(folder: Path) -> tuple[Chain, Prediction]:
    path = folder / "model_index.json"
    index = _read_json(path)
    try:
        if type(steps := index["num_inference_steps"]) is not int:
            raise ModelError(f"{path}: num_inference_steps must be a whole number, got {steps!r}")
        chain = Chain(
            sampler=sampler_of(_read_scheduler(folder)["_class_name"]),
            num_steps=steps,
            start_from=index["start_from"],
            strength=index["strength"],
            eta=index["eta"],
            spacing=index.get("spacing", "even"),  # older files have neither
            levels=tuple(index.get("levels", ())),
        )
        prediction = index["prediction"]
    except KeyError as error:
        raise ModelError(f"{path}: is damaged: {error} is missing") from None
    except TypeError as error:
        raise ModelError(f"{path}: is damaged: a setting has the wrong type ({error})") from None
    if prediction not in get_args(Prediction):
        raise ModelError(f"{path}: prediction must be one of {', '.join(get_args(Prediction))}, got {prediction!r}")
    return chain, prediction


def _read_scheduler(folder: Path) -> dict[str, Any]:
    path = folder / "scheduler" / "scheduler_config.json"
    settings = _read_json(path)
    if missing := {"_class_name", "trained_betas"} - settings.keys():
        raise ModelError(f"{path}: is damaged: {', '.join(sorted(missing))} is missing")
    if settings.get("prediction_type") != "sample":
        raise ModelError(f"{path}: prediction_type must be 'sample', got {settings.get('prediction_type')!r}")
    return settings


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: does not hold named settings")
    return content


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
