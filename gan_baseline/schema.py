"""The checked settings of a GFP-GAN run. Where a setting is published, the published value is the default
(github.com/TencentARC/GFPGAN at 7552a77, ``options/train_gfpgan_v1.yml``)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from idm.config.schema import PositiveInt, RunConfig, Section, TrainConfig, UnitInterval

NonNegativeFloat = Annotated[float, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0)]


class GeneratorConfig(Section):
    """Arguments of :class:`gan_baseline.gfpgan.GFPGAN`, and settings of its training."""

    num_style_feat: PositiveInt = 512
    channel_multiplier: PositiveInt = 1
    num_mlp: PositiveInt = 8
    narrow: PositiveFloat = 1.0
    sft_half: bool = True
    smooth: bool = False
    equalised: bool = True
    """Train with equalised learning rates, as published: each weight learns at Adam's rate divided by about the square
    root of its fan-in (:mod:`gan_baseline.equalised`). If false, all weights learn at the same rate."""
    fix_decoder: bool = True
    """Keep the decoder's weights fixed; needs a ``prior`` or ``train.init_from``."""


class DiscriminatorConfig(Section):
    """Arguments of :class:`idm.models.critics.StyleGAN2Discriminator`."""

    channel_multiplier: PositiveInt = 1
    narrow: PositiveFloat = 1.0
    stddev_group: PositiveInt = 4


class LossesConfig(Section):
    """Weights of the losses. A loss with weight 0 is not computed, and a network that no loss needs is not built."""

    l1: NonNegativeFloat = 0.1
    """L1 between restored and clean face."""
    pyramid: NonNegativeFloat = 1.0
    """L1 between the U-Net's image of every scale and the clean face."""
    pyramid_until: Annotated[int, Field(ge=0)] = 50_000
    """Number of first steps in which the pyramid loss has the weight ``pyramid``."""
    pyramid_after: Annotated[float, Field(gt=0)] = 1e-12
    """Weight of the pyramid loss after these steps."""
    perceptual: NonNegativeFloat = 1.0
    """L1 between feature maps."""
    style: NonNegativeFloat = 50.0
    """L1 between Gram matrices of the same maps."""
    perceptual_network: Literal["vgg19", "mobilefacenet"] = "vgg19"
    """Network of the perceptual and style losses. "mobilefacenet", our alternative, sees only the aligned face."""
    adversarial: NonNegativeFloat = 0.1
    """Non-saturating logistic loss of the generator. 0 removes the discriminator of whole faces."""
    relativistic: bool = False
    """Let the discriminators of faces, eyes and mouths compare each restored face with its original, instead of judging
    it alone (arXiv 1807.00734). Our addition for short runs, in which discriminators that judge single faces ended at
    chance."""
    r1: NonNegativeFloat = 10.0
    """Weight of the gradient penalty on real faces, r1 / 2 |grad D|^2."""
    r1_every: PositiveInt = 16
    """Discriminator steps between two penalties; each penalty is multiplied by this number."""
    component_adversarial: NonNegativeFloat = 1.0
    """Logistic loss on the crops of left eye, right eye and mouth, summed over the three."""
    component_style: NonNegativeFloat = 200.0
    """L1 between Gram matrices of the component discriminators' features. If this and ``component_adversarial`` are 0,
    there are no component discriminators."""
    identity: NonNegativeFloat = 10.0
    """L1 between embeddings of the restored and the clean face."""
    identity_network: Literal["mobilefacenet", "arcface"] = "mobilefacenet"
    """Network of the identity loss; "arcface" is the published one."""


class TrainedPriorConfig(Section):
    """Stage zero: first train StyleGAN2 on the same faces, in the folder ``prior`` of the run."""

    name: Literal["train"] = "train"
    num_steps: PositiveInt = 800_000
    """Optimiser steps of stage zero."""
    learning_rate: PositiveFloat = 2e-3
    """Adam's learning rate for the prior; its network from z to w learns at a hundredth of this rate."""
    mixing: UnitInterval = 0.9
    """Share of images whose style codes come from two z."""
    init_from: Path | None = None
    """The folder ``prior`` of a run with faces of half the size, from whose generator and discriminator the new ones
    grow (progressive growing); null starts from new weights."""


class CheckpointPriorConfig(Section):
    """A trained StyleGAN2."""

    name: Literal["checkpoint"] = "checkpoint"
    path: Path
    """Its weights: a safetensors or ``torch.save`` file with the names of
    :class:`gan_baseline.stylegan2.StyleGAN2Generator`, or the folder ``prior`` of a run. A prior of larger faces gives
    its first levels. The authors' own file (StyleGAN2_512_Cmul1_FFHQ_B12G4_scratch_800k.pth) resamples smoothly, so it
    needs ``generator.smooth``."""


class BundledPriorConfig(Section):
    """The StyleGAN2 of faces at 128 px that is part of the package (``gan_baseline/pretrained/README.md``), for
    generators of up to this size with its widths: ``narrow`` 0.125, ``num_style_feat`` 128 and ``num_mlp`` 2."""

    name: Literal["bundled"] = "bundled"


PriorConfig = Annotated[TrainedPriorConfig | CheckpointPriorConfig | BundledPriorConfig, Field(discriminator="name")]


class GANTrainConfig(TrainConfig):
    """Optimisation, logging and checkpoints of GFP-GAN."""

    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.5 ** (32 / 10_000)
    """As for IDM, with a warm-up of the decay. The published decay is constant."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """"auto" uses bf16 if the processor computes in it, otherwise float32. fp16 is not available, because one loss
    scale cannot serve several optimisers."""
    init_from: Path | None = None
    """Initial weights of the whole generator, in place of new weights and a prior: a run of this trainer, one of its
    checkpoints, or a weights file of GFP-GAN."""
    learning_rate: PositiveFloat = 2e-3
    """Adam's learning rate for the generator."""
    discriminator_learning_rate: PositiveFloat = 2e-3
    """Adam's learning rate for the discriminator."""
    component_learning_rate: PositiveFloat = 2e-3
    """Adam's learning rate for the component discriminators."""
    betas: tuple[UnitInterval, UnitInterval] = (0.0, 0.99)
    """Adam's betas for the generator."""
    discriminator_betas: tuple[UnitInterval, UnitInterval] = (0.0, 0.99 ** (16 / 17))
    """Adam's betas for the discriminator: (0, .99), each to the power r1_every / (r1_every + 1)."""
    component_betas: tuple[UnitInterval, UnitInterval] = (0.9, 0.99)
    """Adam's betas for the component discriminators."""
    milestones: tuple[PositiveInt, ...] = (600_000, 700_000)
    """Steps after which every learning rate is multiplied by ``decay_factor``."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """See ``milestones``."""
    max_grad_norm: PositiveFloat | None = None
    """Largest gradient norm of the generator and of each discriminator; larger gradients are scaled down to it. null
    disables clipping, as published. Clipping is our addition for short runs: it limits the effect of a single
    outlier batch."""


class GANConfig(RunConfig):
    """All settings of ``gan_baseline.train``."""

    generator: GeneratorConfig = GeneratorConfig()
    """The network that restores."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The discriminator of whole faces; those of eyes and mouth have no settings."""
    losses: LossesConfig = LossesConfig()
    """The losses and their weights."""
    prior: PriorConfig | None = None
    """Source of the decoder's weights; null starts from new weights."""
    train: GANTrainConfig
    """Optimisation, logging and checkpoints."""

    def impossible_combinations(self) -> list[str]:
        return [*self._impossible_networks(), *self._impossible_training(), *super().impossible_combinations()]

    def _impossible_networks(self) -> list[str]:
        from idm.models.critics import widths  # imported here, so that a mistyped key is reported without loading torch

        faults = []
        size, losses = self.data.image_size, self.losses
        for name, net in (("generator", self.generator), ("discriminator", self.discriminator)):
            try:
                widths(size, net.channel_multiplier, net.narrow)
            except ValueError as error:
                faults.append(f"{name}, data.image_size: {error}")
        if self.generator.fix_decoder and self.prior is None and self.train.init_from is None:
            faults.append(
                "generator.fix_decoder: a new decoder must be trained; set prior or train.init_from, or set "
                "fix_decoder to false"
            )
        if self.prior is not None and self.train.init_from is not None:
            faults.append("train.init_from: replaces the prior, which would have no effect; remove one of the two")
        if self.prior is not None and self.prior.name == "train" and not losses.adversarial:
            faults.append("prior.name: train needs losses.adversarial, because it uses its discriminator and r1")
        if (losses.component_adversarial or losses.component_style) and size < 32:
            faults.append("losses.component_adversarial, component_style: eyes are too small below data.image_size 32")
        if not any((losses.l1, losses.perceptual, losses.style, losses.adversarial, losses.identity)):
            faults.append("losses: none of l1, perceptual, style, adversarial and identity is above 0; set one of them")
        return faults

    def _impossible_training(self) -> list[str]:
        milestones = self.train.milestones
        if list(milestones) != sorted(set(milestones)):
            return [f"train.milestones: must increase, got {list(milestones)}"]
        return []
