"""The intrinsic iteration: network, noise levels, sampler and learner of IDM."""

from functools import partial
from typing import assert_never

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from idm.config.assembly.run import build_run
from idm.config.schema import CosineConfig, IDMConfig, LinearConfig, SamplerConfig, ScheduleConfig
from idm.diffusion import samplers, schedule
from idm.models.unet import Denoiser
from idm.restorers.pipeline import IDMPipeline
from idm.training.learner import IntrinsicIteration, Optimisation
from idm.training.loop import Run


def build_intrinsic(config: IDMConfig) -> Run:
    """One whole training of f_theta, ready to fit; raises what :func:`~idm.config.assembly.run.build_run` raises."""
    return build_run(config, partial(build_learner, config))


def build_gammas(config: ScheduleConfig) -> Float[Tensor, " T1"]:
    match config:
        case LinearConfig():
            return schedule.linear(config.beta_start, config.beta_end, config.num_steps)
        case CosineConfig():
            return schedule.cosine(config.num_steps, config.offset)
        case _:
            assert_never(config)


def build_denoiser(config: IDMConfig) -> Denoiser:
    net = config.denoiser
    return Denoiser(
        image_size=config.data.image_size,
        patch_size=net.patch_size,
        channels=net.channels,
        num_blocks=net.num_blocks,
        attention_resolutions=net.attention_resolutions,
        head_dim=net.head_dim,
        inject_degraded=net.inject_degraded,
        add_degraded=net.add_degraded,
        dropout=net.dropout,
        conditional=net.conditional,
    )


def build_pipeline(config: IDMConfig, denoiser: Denoiser) -> IDMPipeline:
    chain: SamplerConfig = config.sampler
    pipeline = IDMPipeline(
        denoiser,
        samplers.build_scheduler(chain.name, build_gammas(config.schedule)),
        prediction=config.objective.prediction,
        num_inference_steps=chain.num_steps,
        start_from=chain.start_from,
        strength=chain.strength,
        eta=chain.eta if chain.name == "ddim" else 0.0,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def build_learner(
    config: IDMConfig, accelerator: Accelerator, initial: dict[str, Tensor] | None = None
) -> IntrinsicIteration:
    """The learner; ``initial`` are weights to start from instead of random ones."""
    train = config.train
    torch.manual_seed(config.seed)  # the weights' initial values
    denoiser = build_denoiser(config)
    if initial is not None:
        denoiser.load_state_dict(initial)
    if train.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    if train.compile:
        denoiser.compile()
    return IntrinsicIteration(
        denoiser,
        accelerator,
        gammas=build_gammas(config.schedule),
        prediction=config.objective.prediction,
        p=config.objective.p,
        min_snr_clamp=config.objective.min_snr_clamp,
        optimisation=Optimisation(
            num_steps=train.num_steps,
            learning_rate=train.learning_rate,
            warmup_steps=train.warmup_steps,
            decay=train.decay,
            betas=train.betas,
            weight_decay=train.weight_decay,
            max_grad_norm=train.max_grad_norm,
            ema_decay=train.ema_decay,
        ),
        seed=config.seed,
        make_pipeline=lambda published: build_pipeline(config, published),
    )
