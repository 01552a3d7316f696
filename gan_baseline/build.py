"""Build networks, learners and runs from a :class:`~gan_baseline.schema.GANConfig`."""

from functools import partial
from pathlib import Path
from typing import assert_never

import torch
from accelerate import Accelerator

from gan_baseline.adversary import Adam, ComponentAdversary, FaceAdversary
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.learner import AdversarialIteration, Weights
from gan_baseline.prior import BUNDLED, PriorIteration, grow, load_prior
from gan_baseline.restorer import find_gfpgan
from gan_baseline.schema import BundledPriorConfig, CheckpointPriorConfig, GANConfig, TrainedPriorConfig
from gan_baseline.stylegan2 import StyleGAN2Generator
from gan_baseline.weights import load_gfpgan
from idm.config.assembly.run import build_run
from idm.config.load import ConfigError
from idm.config.schema import HuggingFaceConfig
from idm.data.huggingface import StreamedFaces
from idm.data.sources import FolderFaces
from idm.faces.components import ComponentDiscriminators
from idm.faces.features import (
    Embedding,
    FeatureMaps,
    MobileFaceNetEmbedding,
    MobileFaceNetMaps,
    load_arcface,
    load_mobilefacenet,
    load_vgg19,
)
from idm.io.weights import fill
from idm.models.critics import StyleGAN2Discriminator
from idm.training.loop import Run


def build_gan(config: GANConfig) -> Run:
    """Build a complete GFP-GAN training run. If stage zero is configured and not finished, it is trained first.

    Raises:
        ConfigError: a loss on eyes and mouths is configured and the faces have no landmarks; weights of a network or
            of the prior are missing or wrong; or :func:`~idm.config.assembly.run.build_run` rejects the settings.
    """
    check_landmarks(config)
    features, embedding = build_features(config), build_embedding(config)
    match config.prior:
        case None:
            path = None
        case TrainedPriorConfig():
            stage_zero = build_prior_run(config, config.prior)
            stage_zero.fit()
            stage_zero.accelerator.free_memory()
            path = stage_zero.settings.folder
        case CheckpointPriorConfig():
            path = config.prior.path
        case BundledPriorConfig():
            path = BUNDLED
        case _:
            assert_never(config.prior)
    torch.manual_seed(config.seed)  # the weights' initial values
    generator = build_generator(config)
    if path is not None:
        try:
            load_prior(generator.stylegan_decoder, path)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"prior: {error}") from None
    if config.train.init_from is not None:
        begin_from(config.train.init_from, generator)
    return build_run(config, partial(build_learner, config, generator, features, embedding))


def check_landmarks(config: GANConfig) -> None:
    """Raise ConfigError if a loss on eyes and mouths is configured and no face has landmarks."""
    losses, source = config.losses, config.data.source
    if not (losses.component_adversarial or losses.component_style):
        return
    if isinstance(source, HuggingFaceConfig):
        known, remedy = source.landmarks_column is not None, "name their column, data.source.landmarks_column"
    else:
        faces = source.build(config.data.image_size, config.seed)
        assert not isinstance(faces, StreamedFaces)
        known = faces.has_landmarks if isinstance(faces, FolderFaces) else faces[0].landmarks is not None
        folder = faces.folder if isinstance(faces, FolderFaces) else "their folder"
        remedy = f"put metadata.jsonl with landmarks, or FFHQ's ffhq-dataset-v2.json, into {folder}"
    if not known:
        raise ConfigError(
            "losses.component_adversarial, component_style: the faces of data.source have no landmarks, so eyes and "
            f"mouths cannot be found; {remedy}, or set both weights to 0"
        )


def begin_from(path: Path, generator: GFPGAN) -> None:
    """Load weights into a generator.

    Raises:
        ConfigError: the weights are missing, damaged or those of another network.
    """
    try:
        file = find_gfpgan(path)
        fill(generator, load_gfpgan(file).state_dict(), file)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"train.init_from: {error}") from None


def build_generator(config: GANConfig) -> GFPGAN:
    """Build the generator with new weights, drawn from torch's global generator."""
    net = config.generator
    return GFPGAN(
        image_size=config.data.image_size,
        num_style_feat=net.num_style_feat,
        channel_multiplier=net.channel_multiplier,
        num_mlp=net.num_mlp,
        narrow=net.narrow,
        sft_half=net.sft_half,
        smooth=net.smooth,
    )


def build_features(config: GANConfig) -> FeatureMaps | None:
    """Load the network of the perceptual and style losses; None if both have weight 0.

    Raises:
        ConfigError: its weights are missing or damaged.
    """
    losses = config.losses
    if not (losses.perceptual or losses.style):
        return None
    try:
        match losses.perceptual_network:
            case "vgg19":
                return load_vgg19()
            case "mobilefacenet":
                return MobileFaceNetMaps(load_mobilefacenet())
            case _:
                assert_never(losses.perceptual_network)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"losses.perceptual_network: {error}") from None


def build_embedding(config: GANConfig) -> Embedding | None:
    """Load the network of the identity loss; None if its weight is 0.

    Raises:
        ConfigError: its weights are missing or damaged.
    """
    if not config.losses.identity:
        return None
    try:
        match config.losses.identity_network:
            case "mobilefacenet":
                return MobileFaceNetEmbedding(load_mobilefacenet())
            case "arcface":
                return load_arcface()
            case _:
                assert_never(config.losses.identity_network)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(f"losses.identity_network: {error}") from None


def build_adversary(config: GANConfig, accelerator: Accelerator) -> FaceAdversary | None:
    """Build the discriminator of whole faces; None if the adversarial loss has weight 0."""
    net, train, losses = config.discriminator, config.train, config.losses
    if not losses.adversarial:
        return None
    return FaceAdversary(
        StyleGAN2Discriminator(config.data.image_size, net.channel_multiplier, net.narrow, net.stddev_group),
        accelerator,
        adam=build_adam(config, train.discriminator_learning_rate, train.discriminator_betas),
        gamma=losses.r1,
        r1_every=losses.r1_every,
        relativistic=losses.relativistic,
    )


def build_components(config: GANConfig, accelerator: Accelerator) -> ComponentAdversary | None:
    """Build the discriminators of eyes and mouth; None if both of their losses have weight 0."""
    train, losses = config.train, config.losses
    if not (losses.component_adversarial or losses.component_style):
        return None
    return ComponentAdversary(
        ComponentDiscriminators(),
        accelerator,
        adam=build_adam(config, train.component_learning_rate, train.component_betas),
        adversarial=losses.component_adversarial,
        style=losses.component_style,
        relativistic=losses.relativistic,
    )


def build_adam(config: GANConfig, learning_rate: float, betas: tuple[float, float]) -> Adam:
    """Build Adam with the learning-rate schedule and the clipping of the training settings."""
    train = config.train
    return Adam(learning_rate, betas, train.milestones, train.decay_factor, train.max_grad_norm)


def build_learner(
    config: GANConfig,
    generator: GFPGAN,
    features: FeatureMaps | None,
    embedding: Embedding | None,
    accelerator: Accelerator,
) -> AdversarialIteration:
    """Build the learner from its networks and settings."""
    train, losses = config.train, config.losses
    for network in (features, embedding):
        if network is not None:
            network.to(accelerator.device)
    return AdversarialIteration(
        generator,
        accelerator,
        adversary=build_adversary(config, accelerator),
        components=build_components(config, accelerator),
        features=features,
        embedding=embedding,
        weights=Weights(
            l1=losses.l1,
            pyramid=losses.pyramid,
            pyramid_until=losses.pyramid_until,
            pyramid_after=losses.pyramid_after,
            perceptual=losses.perceptual,
            style=losses.style,
            identity=losses.identity,
            adversarial=losses.adversarial,
        ),
        adam=build_adam(config, train.learning_rate, train.betas),
        ema_decay=train.ema_decay,
        fix_decoder=config.generator.fix_decoder,
        seed=config.seed,
        equalised=config.generator.equalised,
    )


def build_prior_run(config: GANConfig, prior: TrainedPriorConfig) -> Run:
    """Build stage zero, which runs in the folder ``prior`` of the run."""
    stage = config.model_copy(
        update={
            "output_dir": config.output_dir / "prior",
            "train": config.train.model_copy(update={"num_steps": prior.num_steps}),
            "degradation": config.degradation.model_copy(update={"clean_probability": 1.0}),  # it uses only clean faces
        }
    )
    return build_run(stage, partial(build_prior_learner, stage, prior), validates=False)


def build_prior_learner(config: GANConfig, prior: TrainedPriorConfig, accelerator: Accelerator) -> PriorIteration:
    """Build the learner of stage zero.

    Raises:
        ConfigError: the smaller networks to start from are missing or wrong.
    """
    net, train = config.generator, config.train
    torch.manual_seed(config.seed)
    generator = StyleGAN2Generator(
        config.data.image_size, net.num_style_feat, net.channel_multiplier, net.num_mlp, net.narrow, net.smooth
    )
    adversary = build_adversary(config, accelerator)
    assert adversary is not None  # the schema requires losses.adversarial for a trained prior
    if prior.init_from is not None:
        try:
            grow(generator, accelerator.unwrap_model(adversary.model), prior.init_from)
        except (FileNotFoundError, ValueError) as error:
            raise ConfigError(f"prior.init_from: {error}") from None
    return PriorIteration(
        generator,
        accelerator,
        adversary=adversary,
        adam=build_adam(config, prior.learning_rate, train.betas),
        ema_decay=train.ema_decay,
        mixing=prior.mixing,
        seed=config.seed,
        equalised=net.equalised,
    )
