"""The model that a command line asks for, and the errors that are the user's to mend."""

import argparse

import torch

from idm.config.load import ConfigError
from idm.data.images import ImageError
from idm.diffusion.samplers import build_scheduler, check_chain
from idm.diffusion.schedule import from_betas
from idm.pipeline import IDMPipeline
from idm.pretrained import ModelError, load_pipeline
from idm.runtime import best_device, inference_dtype, keep_freed_memory, share_cores
from idm.training.checkpoint import CheckpointError

USER_ERRORS = (ConfigError, ModelError, ImageError, CheckpointError, FileNotFoundError, ValueError)


def load(arguments: argparse.Namespace) -> IDMPipeline:
    """The pipeline that the command line asks for, with its sampler settings."""
    keep_freed_memory()
    device = choose_device(arguments.device)
    if device.type == "cpu":
        share_cores(1)
    if arguments.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1, got {arguments.batch_size}")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "auto": inference_dtype(device)}[arguments.precision]
    pipeline = load_pipeline(arguments.model, device, dtype)
    if arguments.sampler:
        gammas = from_betas(torch.tensor(pipeline.scheduler.config.trained_betas, dtype=torch.float64))
        pipeline.scheduler = build_scheduler(arguments.sampler, gammas)
    asked = {"num_inference_steps": arguments.steps, **_start(arguments, pipeline)}
    pipeline.register_to_config(**{name: value for name, value in asked.items() if value is not None})
    config = pipeline.config
    check_chain(
        pipeline.scheduler,
        num_steps=config.num_inference_steps,
        start_from=config.start_from,
        strength=config.strength,
        eta=config.eta,
    )
    return pipeline


def _start(arguments: argparse.Namespace, pipeline: IDMPipeline) -> dict[str, str | float | None]:
    """Where the chain starts. Fidelity F runs the last 1 - F of a chain that starts from the degraded face, and at
    least one step: 0 is the whole chain, 1 one step at the lowest noise level."""
    fidelity = getattr(arguments, "fidelity", None)
    if fidelity is None:
        return {"start_from": arguments.start_from, "strength": arguments.strength}
    if arguments.start_from is not None or arguments.strength is not None:
        raise ValueError("--fidelity sets --start-from and --strength; give it or them")
    if not 0 <= fidelity <= 1:
        raise ValueError(f"--fidelity must lie in [0, 1], got {fidelity}")
    num_steps = arguments.steps or pipeline.config.num_inference_steps
    return {"start_from": "degraded", "strength": max(1 - fidelity, 1 / num_steps)}


def choose_device(name: str | None) -> torch.device:
    if name is None:
        return best_device()
    try:
        return torch.empty(0, device=name).device
    except RuntimeError as error:
        raise ValueError(f"--device: {name!r} cannot be used here ({str(error).splitlines()[0]})") from None
