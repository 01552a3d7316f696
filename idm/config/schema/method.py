"""The network, the noise levels, the loss and the sampler."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from idm.config.schema.section import PositiveInt, Section, UnitInterval
from idm.diffusion.chain import Chain, SamplerName, Spacing, Start
from idm.models.architecture import NetworkName


class DenoiserConfig(Section):
    """Fields of :class:`idm.models.architecture.Architecture`, where they are described."""

    network: NetworkName = "unet"
    patch_size: Literal[1, 2, 4, 8] = 2
    channels: Annotated[list[PositiveInt], Field(min_length=1)] = [64, 128, 256]
    num_blocks: Annotated[list[PositiveInt], Field(min_length=1)] = [2, 2, 2]
    attention_resolutions: list[PositiveInt] = [32, 16, 8]
    head_dim: PositiveInt = 64
    inject_degraded: bool = False
    add_degraded: bool = True
    refine_channels: Annotated[int, Field(ge=0)] = 0
    refine_blocks: Annotated[int, Field(ge=0)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    conditional: bool = True


class LinearConfig(Section):
    """SR3: beta from ``beta_start`` to ``beta_end`` in T = ``num_steps``."""

    name: Literal["linear"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """The first beta."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    """The last beta."""
    num_steps: PositiveInt = 2000
    """T, the number of noise levels."""


class CosineConfig(Section):
    """Nichol & Dhariwal's cosine schedule."""

    name: Literal["cosine"] = "cosine"
    num_steps: PositiveInt = 1000
    """T, the number of noise levels."""
    offset: Annotated[float, Field(gt=0)] = 0.008
    """The offset s of their eq. 17."""


class LogSigmaConfig(Section):
    """Levels for chains of few steps, see :func:`idm.diffusion.schedule.log_sigma`."""

    name: Literal["log_sigma"] = "log_sigma"
    sigma_min: Annotated[float, Field(gt=0)] = 0.02
    """Lowest noise level, as sigma = sqrt((1 - gamma) / gamma)."""
    sigma_max: Annotated[float, Field(gt=0)] = 1.5
    """Highest noise level below the start."""
    start_sigma: Annotated[float, Field(gt=0)] = 100.0
    """Noise level at which every chain starts."""
    num_steps: Annotated[int, Field(ge=3)] = 64
    """Number of levels, the start among them."""


ScheduleConfig = Annotated[LinearConfig | CosineConfig | LogSigmaConfig, Field(discriminator="name")]


class PiecewiseUniformConfig(Section):
    """SR3: t uniform over the schedule, gamma uniform between neighbours."""

    name: Literal["piecewise_uniform"] = "piecewise_uniform"


class StartAndLogUniformConfig(Section):
    """A share at the schedule's last level, where a chain starts; the rest log-uniform in sigma below it."""

    name: Literal["start_and_log_uniform"] = "start_and_log_uniform"
    start_share: UnitInterval = 0.5
    """Share of the samples at the chain's start."""
    own_estimates: UnitInterval = 0.0
    """Share of the samples below the start whose x_t is made from the model's own estimate instead of x_0."""
    end_to_end: bool = False
    """Let gradients flow through these estimates, so that the two steps of a chain are trained together."""


NoiseLevelsConfig = Annotated[PiecewiseUniformConfig | StartAndLogUniformConfig, Field(discriminator="name")]


class FeatureLossConfig(Section):
    """L1 between feature maps of the estimate of x_0 and of x_0, in a frozen network."""

    network: Literal["mobilefacenet", "vgg19"] = "mobilefacenet"
    """Frozen network whose maps are compared; its weights are files that the user provides."""
    weight: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the loss, summed over the maps, relative to the pixel loss."""


class AdversarialConfig(Section):
    """A critic of patches, trained beside the denoiser."""

    weight: Annotated[float, Field(gt=0)] = 0.006
    """Weight of the hinge loss of the estimate of x_0."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Learning rate of the critic."""
    r1_gamma: Annotated[float, Field(ge=0)] = 1.0
    """Weight of R1, the penalty of the critic's gradient at x_0."""
    patch_size: Literal[1, 2, 4, 8] | None = None
    """Pixels of a patch that become one position of the critic's first level; null is the denoiser's patch size."""
    channels: Annotated[list[PositiveInt], Field(min_length=1)] = [96, 128, 192]
    """Widths of the critic's levels."""
    augment: bool = False
    """DiffAugment before the critic, for small training sets and long runs."""
    only_refinement: bool = False
    """Whether the loss trains the refinement of the pixels alone, and the patches not at all."""
    init_from: Path | None = None
    """A run whose critic, in its newest checkpoint, is trained further; a new critic needs many steps to beat
    chance."""


class ObjectiveConfig(Section):
    """The prediction of f_theta, and the losses that train it."""

    prediction: Literal["epsilon", "sample", "v"] = "sample"
    """What f_theta predicts: the noise, the clean face, or v."""
    p: Literal[1, 2] = 1
    """Exponent of the loss: 1 absolute, 2 squared difference."""
    min_snr_clamp: Annotated[float, Field(gt=0)] | None = None
    """Clamp of min-SNR weights (arXiv 2303.09556); null for equal weights."""
    noise_levels: NoiseLevelsConfig = PiecewiseUniformConfig()
    """The distribution of gamma in training."""
    clean_weight: Annotated[float, Field(gt=0)] = 1.0
    """Weight of the pixel loss of faces that are not degraded; that of the others is 1."""
    ssim_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of 1 - SSIM of the estimate of x_0 (arXiv 1511.08861)."""
    features: FeatureLossConfig | None = None
    """A feature loss in addition to the pixel loss."""
    adversarial: AdversarialConfig | None = None
    """An adversarial loss, for finishing a trained model."""


class ChainConfig(Section):
    """Settings of the sampling chain, see :class:`idm.diffusion.chain.Chain`."""

    # A section beside Chain, which the mathematics keeps free of pydantic: `name` drops the settings of another
    # sampler, as in every choice, and a number out of range is named with its path. A test holds the fields equal.
    name: SamplerName
    """The sampler."""
    num_steps: PositiveInt = Chain.num_steps
    start_from: Start = Chain.start_from
    strength: Annotated[float, Field(gt=0, le=1)] = Chain.strength
    eta: UnitInterval = Chain.eta
    """Share of fresh noise, for ddim only."""
    spacing: Spacing = Chain.spacing
    levels: tuple[Annotated[float, Field(gt=0)], ...] = Chain.levels

    def build(self) -> Chain:
        """The chain, which checks itself: ValueError."""
        return Chain(sampler=self.name, **self.model_dump(exclude={"name"}))
