"""The intrinsic iteration: network, noise levels, sampler and learner of IDM."""

from functools import partial
from pathlib import Path
from typing import assert_never

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from idm.config.assembly.run import build_run
from idm.config.load import ConfigError
from idm.config.schema import (
    AdversarialConfig,
    CosineConfig,
    FeatureLossConfig,
    IDMConfig,
    IDMTrainConfig,
    LinearConfig,
    LogSigmaConfig,
    NoiseLevelsConfig,
    PiecewiseUniformConfig,
    ScheduleConfig,
    StartAndLogUniformConfig,
)
from idm.diffusion import schedule
from idm.faces.features import FeatureMaps, MobileFaceNetMaps, load_mobilefacenet, load_vgg19
from idm.io.run_folder import list_checkpoints
from idm.io.weights import WeightsError, difference, read_weights
from idm.models.architecture import Architecture
from idm.models.critics import PatchCritic
from idm.models.denoiser import Denoiser
from idm.models.lora import add_adapters
from idm.models.unet import added_layers, double_patches, make_room
from idm.restorers.idm import IDM
from idm.restorers.saved import ModelError, find_model, read_architecture, read_denoiser_weights
from idm.training.adversarial import CRITIC_FILE, Adversary
from idm.training.learner import IntrinsicIteration, NoiseLevels, Optimisation
from idm.training.loop import Run


def build_intrinsic(config: IDMConfig) -> Run:
    """A complete training of f_theta, ready to fit; raises what :func:`~idm.config.assembly.run.build_run` raises."""
    return build_run(config, partial(build_learner, config))


def build_gammas(config: ScheduleConfig) -> Float[Tensor, " T1"]:
    """The levels of a schedule; ConfigError where its numbers contradict each other."""
    try:
        match config:
            case LinearConfig():
                return schedule.linear(config.beta_start, config.beta_end, config.num_steps)
            case CosineConfig():
                return schedule.cosine(config.num_steps, config.offset)
            case LogSigmaConfig():
                return schedule.log_sigma(config.sigma_min, config.sigma_max, config.start_sigma, config.num_steps)
            case _:
                assert_never(config)
    except ValueError as error:
        raise ConfigError(f"schedule: {error}") from None


def build_noise_levels(config: NoiseLevelsConfig) -> NoiseLevels:
    """Build the distribution from which training draws gamma."""
    match config:
        case PiecewiseUniformConfig():
            return NoiseLevels()
        case StartAndLogUniformConfig():
            return NoiseLevels(config.start_share, config.own_estimates, config.end_to_end)
        case _:
            assert_never(config)


def build_adversary(config: AdversarialConfig, patch_size: int) -> Adversary:
    """The critic and its losses; ``patch_size`` is that of the denoiser, for a critic that has none of its own.
    ConfigError where initial weights of the critic cannot be used.
    """
    critic = PatchCritic(patch_size=config.patch_size or patch_size, channels=config.channels)
    if config.init_from is not None:
        critic.load_state_dict(critic_weights(config.init_from, critic))
    names = {"weight", "learning_rate", "r1_gamma", "augment", "only_refinement"}
    return Adversary(critic, **config.model_dump(include=names))


def critic_weights(run: Path, critic: PatchCritic) -> dict[str, Tensor]:
    """The weights of the critic in a run's newest checkpoint.

    Raises:
        ConfigError: the run has no checkpoint or no critic, or its critic has another architecture.
    """
    try:
        checkpoints = list_checkpoints(run / "checkpoints")
        if not checkpoints:
            raise ConfigError(f"objective.adversarial.init_from: {run}: this run has no checkpoint yet")
        path = checkpoints[-1] / CRITIC_FILE
        weights = dict(read_weights(path))
    except WeightsError as error:
        raise ConfigError(f"objective.adversarial.init_from: {error}") from None
    if found := difference(critic, weights):
        raise ConfigError(f"objective.adversarial.init_from: {path} is another network than the critic: {found}")
    return weights


def build_features(config: FeatureLossConfig) -> FeatureMaps:
    """The frozen network of a feature loss; ConfigError where its weights are missing or broken."""
    try:
        match config.network:
            case "mobilefacenet":
                return MobileFaceNetMaps(load_mobilefacenet()).to(memory_format=torch.channels_last)
            case "vgg19":
                return load_vgg19().to(memory_format=torch.channels_last)
            case _:
                assert_never(config.network)
    except (FileNotFoundError, WeightsError) as error:
        raise ConfigError(f"objective.features.network: {error}") from None


def initial_weights(path: Path, denoiser: Denoiser) -> dict[str, Tensor]:
    """The weights of a saved model for a denoiser; the patches are doubled if the denoiser's are twice as large.

    A refinement of pixels, its dilated level, and residual blocks that only the denoiser has keep their initial
    weights, which change nothing.

    Raises:
        ConfigError: the model cannot be loaded, or has another architecture.
    """
    try:
        folder = find_model(path) / "denoiser"
        saved = read_architecture(folder)
        weights, _ = read_denoiser_weights(folder)
    except ModelError as error:
        raise ConfigError(f"train.init_from: {error}") from None
    if denoiser.config.patch_size == 2 * saved.patch_size:
        weights = double_patches(weights)
    weights = make_room(weights, saved, denoiser.config)
    added = tuple(added_layers(saved, denoiser.config))
    weights |= {name: weight for name, weight in denoiser.state_dict().items() if name.startswith(added)}
    if found := difference(denoiser, weights):
        raise ConfigError(f"train.init_from: {path} has another architecture than denoiser: {found}")
    return weights


def build_denoiser(config: IDMConfig) -> Denoiser:
    """A denoiser with new weights, for the faces' size."""
    return Architecture(image_size=config.data.image_size, **config.denoiser.model_dump()).build()


def build_idm(config: IDMConfig, denoiser: Denoiser) -> IDM:
    """The denoiser with its schedule and its chain; ConfigError if the schedule does not have the chain's levels."""
    gammas = build_gammas(config.schedule)
    try:
        return IDM(denoiser, gammas, prediction=config.objective.prediction, chain=config.sampler.build())
    except ValueError as error:
        raise ConfigError(f"sampler: {error}") from None


def build_optimisation(train: IDMTrainConfig) -> Optimisation:
    """The settings of AdamW, of its learning rate and of the averaged weights."""
    return Optimisation(
        num_steps=train.num_steps,
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        decay=train.decay,
        betas=train.betas,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        ema_decay=train.ema_decay,
    )


def build_learner(
    config: IDMConfig, accelerator: Accelerator, initial: dict[str, Tensor] | None = None
) -> IntrinsicIteration:
    """The learner; ``initial`` are weights to start from instead of random ones."""
    train, features_config = config.train, config.objective.features
    features = None if features_config is None else build_features(features_config).to(accelerator.device)
    torch.manual_seed(config.seed)  # the weights' initial values
    denoiser = build_denoiser(config)
    if initial is None and train.init_from is not None:
        initial = initial_weights(train.init_from, denoiser)
    if initial is not None:
        denoiser.load_state_dict(initial)
    if train.lora is not None:
        add_adapters(denoiser, train.lora.rank, train.lora.alpha, config.seed)
    adversarial = config.objective.adversarial
    if adversarial is not None and adversarial.only_refinement and not denoiser.config.refine_channels:
        raise ConfigError("objective.adversarial.only_refinement needs a refinement; set denoiser.refine_channels")
    adversary = None if adversarial is None else build_adversary(adversarial, config.denoiser.patch_size)
    denoiser.gradient_checkpointing = train.gradient_checkpointing
    if train.compile:
        torch._dynamo.config.recompile_limit = 64  # one for each width, batch size and pass
        denoiser.compile_parts()
    return IntrinsicIteration(
        denoiser,
        accelerator,
        gammas=build_gammas(config.schedule),
        prediction=config.objective.prediction,
        p=config.objective.p,
        min_snr_clamp=config.objective.min_snr_clamp,
        optimisation=build_optimisation(train),
        seed=config.seed,
        noise_levels=build_noise_levels(config.objective.noise_levels),
        clean_weight=config.objective.clean_weight,
        ssim_weight=config.objective.ssim_weight,
        features=features,
        adversary=adversary,
        feature_weight=0.0 if features_config is None else features_config.weight,
        make_pipeline=lambda published: build_idm(config, published),
    )
