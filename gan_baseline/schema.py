"""The checked settings of a GFP-GAN run. Defaults are the published ones (github.com/TencentARC/GFPGAN at 7552a77,
``options/train_gfpgan_v1.yml``), where there are such."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from idm.config.schema import Count, RunConfig, Section, Share, TrainConfig

Weight = Annotated[float, Field(ge=0)]
Rate = Annotated[float, Field(gt=0)]
Factor = Annotated[float, Field(gt=0)]


class GeneratorConfig(Section):
    """Arguments of :class:`gan_baseline.gfpgan.GFPGAN`, where they are described, and how it is trained."""

    num_style_feat: Count = 512
    channel_multiplier: Count = 1
    num_mlp: Count = 8
    narrow: Factor = 1.0
    sft_half: bool = True
    smooth: bool = False
    equalised: bool = True
    """Train with equalised learning rates, as published: each weight learns at the rate of Adam divided by the square
    root of its fan-in, more or less (:mod:`gan_baseline.equalised`). False: all at the same rate, of which 2e-3 would
    be too much."""
    fix_decoder: bool = True
    """Keep the decoder as the prior left it; needs a ``prior``."""


class DiscriminatorConfig(Section):
    """Arguments of :class:`idm.models.critics.StyleGAN2Discriminator`, where they are described."""

    channel_multiplier: Count = 1
    narrow: Factor = 1.0
    stddev_group: Count = 4


class LossesConfig(Section):
    """Weights of the losses. A loss of weight 0 is not computed, and a network that no loss wants is not built."""

    l1: Weight = 0.1
    """L1 between restored and clean face."""
    pyramid: Weight = 1.0
    """L1 between the U-Net's image of every scale and the clean face."""
    pyramid_until: Annotated[int, Field(ge=0)] = 50_000
    """Steps for which ``pyramid`` holds."""
    pyramid_after: Annotated[float, Field(gt=0)] = 1e-12
    """Weight of the pyramid loss from then on."""
    perceptual: Weight = 1.0
    """L1 between feature maps."""
    style: Weight = 50.0
    """L1 between Gram matrices of the same maps."""
    perceptual_network: Literal["vgg19", "mobilefacenet"] = "vgg19"
    """Whose feature maps; "mobilefacenet", our alternative, sees the aligned face only."""
    adversarial: Weight = 0.1
    """Non-saturating logistic loss of the generator. With 0 there is no discriminator of whole faces."""
    r1: Weight = 10.0
    """gamma of the gradient penalty on real faces, r1 / 2 |grad D|^2."""
    r1_every: Count = 16
    """Discriminator steps from one penalty, which then counts this often, to the next."""
    component_adversarial: Weight = 1.0
    """Logistic loss on the crops of left eye, right eye and mouth, each."""
    component_style: Weight = 200.0
    """L1 between Gram matrices of the component discriminators' features. With both 0 there are none."""
    identity: Weight = 10.0
    """L1 between embeddings."""
    identity_network: Literal["mobilefacenet", "arcface"] = "mobilefacenet"
    """Whose embeddings; "arcface" is the published one."""


class TrainedPriorConfig(Section):
    """Stage zero: StyleGAN2 is trained on the same faces first, in the folder ``prior`` of the run."""

    name: Literal["train"] = "train"
    num_steps: Count = 800_000
    """Optimiser steps of stage zero."""
    learning_rate: Rate = 2e-3
    """Of Adam, for the prior; its network from z to w learns at a hundredth of it."""
    mixing: Share = 0.9
    """Share of images whose style codes come from two z."""


class CheckpointPriorConfig(Section):
    """A StyleGAN2 trained before."""

    name: Literal["checkpoint"] = "checkpoint"
    path: Path
    """Its weights, in safetensors or as ``torch.save`` wrote them, named as those of
    :class:`gan_baseline.stylegan2.StyleGAN2Generator`; or a run's folder ``prior``. The authors' own file
    (StyleGAN2_512_Cmul1_FFHQ_B12G4_scratch_800k.pth) resamples smoothly, so it needs ``generator.smooth``."""


PriorConfig = Annotated[TrainedPriorConfig | CheckpointPriorConfig, Field(discriminator="name")]


class GANTrainConfig(TrainConfig):
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.5 ** (32 / 10_000)
    """As for IDM. The published decay is constant."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """"auto" is bf16 where the processor computes in it, else no. There is no fp16: one loss scale cannot serve
    several optimisers."""
    init_from: Path | None = None
    """Weights for the whole generator to start from, instead of untrained ones and the prior: a run of this trainer,
    one of its checkpoints, or a file of GFP-GAN's weights."""
    learning_rate: Rate = 2e-3
    """Of Adam, for the generator."""
    discriminator_learning_rate: Rate = 2e-3
    """Of Adam, for the discriminator."""
    component_learning_rate: Rate = 2e-3
    """Of Adam, for the component discriminators."""
    betas: tuple[Share, Share] = (0.0, 0.99)
    """Adam's betas for the generator."""
    discriminator_betas: tuple[Share, Share] = (0.0, 0.99 ** (16 / 17))
    """Adam's betas for the discriminator: (0, .99), each to the power r1_every / (r1_every + 1)."""
    component_betas: tuple[Share, Share] = (0.9, 0.99)
    """Adam's betas for the component discriminators."""
    milestones: tuple[Count, ...] = (600_000, 700_000)
    """Steps after which every learning rate is multiplied by ``decay_factor``."""
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """See ``milestones``."""
    max_grad_norm: Rate | None = None
    """Gradients of a larger norm, of the generator and of each discriminator, are scaled down to it; null: never, as
    published. Ours, for short runs: it bounds what one outlier among the batches can do."""


class GANConfig(RunConfig):
    """Everything that ``gan_baseline.train`` needs."""

    generator: GeneratorConfig = GeneratorConfig()
    """The network that restores."""
    discriminator: DiscriminatorConfig = DiscriminatorConfig()
    """The network that judges whole faces; those of eyes and mouth have no settings."""
    losses: LossesConfig = LossesConfig()
    """The losses and their weights."""
    prior: PriorConfig | None = None
    """Where the decoder's weights come from; null: it begins untrained."""
    train: GANTrainConfig
    """Optimisation, logging and checkpoints."""

    def impossible_combinations(self) -> list[str]:
        return [*self._impossible_networks(), *self._impossible_training(), *super().impossible_combinations()]

    def _impossible_networks(self) -> list[str]:
        from idm.models.critics import widths  # here, because a mistyped key need not wait for torch

        faults = []
        size, losses = self.data.image_size, self.losses
        for name, net in (("generator", self.generator), ("discriminator", self.discriminator)):
            try:
                widths(size, net.channel_multiplier, net.narrow)
            except ValueError as error:
                faults.append(f"{name}, data.image_size: {error}")
        if self.generator.fix_decoder and self.prior is None and self.train.init_from is None:
            faults.append("generator.fix_decoder: an untrained decoder must be trained; set a prior, or false")
        if self.prior is not None and self.train.init_from is not None:
            faults.append("train.init_from: the prior would have no effect; leave out one of them")
        if self.prior is not None and self.prior.name == "train" and not losses.adversarial:
            faults.append("prior.name: train needs losses.adversarial, whose discriminator and r1 it uses")
        if (losses.component_adversarial or losses.component_style) and size < 32:
            faults.append("losses.component_adversarial, component_style: eyes are too small below data.image_size 32")
        if not any((losses.l1, losses.perceptual, losses.style, losses.adversarial, losses.identity)):
            faults.append("losses: none of l1, perceptual, style, adversarial and identity looks at the restored face")
        return faults

    def _impossible_training(self) -> list[str]:
        milestones = self.train.milestones
        if list(milestones) != sorted(set(milestones)):
            return [f"train.milestones: must rise, got {list(milestones)}"]
        return []
