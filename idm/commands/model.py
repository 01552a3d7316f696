"""The restorer that a command line asks for, and the errors that are the user's to mend."""

import argparse
from typing import Any

import torch

from idm.config.load import ConfigError
from idm.data.images import ImageError
from idm.diffusion.samplers import build_scheduler, check_chain
from idm.diffusion.schedule import from_betas
from idm.pipeline import IDMPipeline
from idm.pretrained import ModelError, find_model
from idm.restorers import Loaded, describe_pipeline, load_restorer
from idm.runtime import best_device, inference_dtype, keep_freed_memory, share_cores
from idm.training.checkpoint import CheckpointError

USER_ERRORS = (ConfigError, ModelError, ImageError, CheckpointError, FileNotFoundError, ValueError)


def load(arguments: argparse.Namespace) -> Loaded:
    """The restorer named by ``--model``, with the settings of its chain and its backend if it is an IDM."""
    backend = arguments.backend
    device, dtype = prepare_machine(arguments) if backend == "torch" else _prepare_cpu(arguments)
    loaded = load_restorer(arguments.model, device, dtype if backend == "torch" else torch.float32)
    asked = {
        "scheduler": arguments.sampler,
        "num_inference_steps": arguments.steps,
        "start_from": arguments.start_from,
        "strength": arguments.strength,
    }
    asked = {name: value for name, value in asked.items() if value is not None}
    if not isinstance(loaded.restorer, IDMPipeline):
        if asked:
            raise ValueError(f"{arguments.model}: has no sampling chain; --sampler, --steps and the like are for IDM")
        if backend != "torch":
            raise ValueError(f"{arguments.model}: runs with torch only; --backend {backend} is for IDM")
        return loaded
    set_chain(loaded.restorer, asked)
    loaded.restorer.use_backend(backend, dtype)
    return Loaded(loaded.restorer, describe_pipeline(loaded.restorer, find_model(arguments.model)))


def set_chain(pipeline: IDMPipeline, asked: dict[str, Any]) -> None:
    """Change what was asked of a pipeline's sampler; ``scheduler`` is its name, the rest the pipeline's own settings.

    Raises:
        ValueError: the chain is impossible.
    """
    if "scheduler" in asked:
        gammas = from_betas(torch.tensor(pipeline.scheduler.config.trained_betas, dtype=torch.float64))
        pipeline.scheduler = build_scheduler(asked["scheduler"], gammas)
    pipeline.register_to_config(**{name: value for name, value in asked.items() if name != "scheduler"})
    config = pipeline.config
    check_chain(
        pipeline.scheduler,
        num_steps=config.num_inference_steps,
        start_from=config.start_from,
        strength=config.strength,
        eta=config.eta,
    )


def prepare_machine(arguments: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """The device and precision that the command line asks for; memory and cores set up for them."""
    keep_freed_memory()
    device = _device(arguments.device)
    if device.type == "cpu":
        share_cores(1)
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {arguments.batch_size}")
    return device, {"fp32": torch.float32, "bf16": torch.bfloat16, "auto": inference_dtype(device)}[arguments.precision]


def _prepare_cpu(arguments: argparse.Namespace) -> tuple[torch.device, torch.dtype]:
    """The same for a backend that computes on the CPU only, ONNX Runtime there in float32 only."""
    if arguments.device not in (None, "cpu"):
        raise ValueError(f"--backend {arguments.backend} computes on the CPU, not on --device {arguments.device}")
    device, dtype = prepare_machine(argparse.Namespace(**{**vars(arguments), "device": "cpu"}))
    automatic = arguments.precision == "auto" and arguments.backend == "onnxruntime"
    return device, torch.float32 if automatic else dtype


def _device(name: str | None) -> torch.device:
    if name is None:
        return best_device()
    try:
        return torch.empty(0, device=name).device
    except RuntimeError as error:
        raise ValueError(f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
