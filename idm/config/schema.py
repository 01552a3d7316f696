"""The checked settings of a run: frozen sections, and tagged unions where there is a choice.

A choice carries the tag field ``name`` and owns its own fields only, so that a setting that would have no
effect cannot be written. Which settings fit together is checked last.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from idm.degradation import AnyStep, PresetName
from idm.diffusion.chain import Chain, SamplerName, Spacing, Start

Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


def _rising(limits: tuple[float, float]) -> tuple[float, float]:
    if limits[0] > limits[1]:
        raise ValueError(f"the range [{limits[0]}, {limits[1]}] ends before it begins")
    return limits


Length = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]
Quality = tuple[Annotated[float, Field(ge=1, le=100)], Annotated[float, Field(ge=1, le=100)]]
Factor = tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


# ------------------------------------------------------------------------------------------------ data


class SyntheticConfig(Section):
    """Procedural faces: no files needed."""

    name: Literal["synthetic"] = "synthetic"
    num_faces: Count = 4096
    """How many faces there are."""
    seed: int = 0
    """Another seed gives other faces."""


class FolderConfig(Section):
    """A folder of aligned face images, searched recursively; ``metadata.jsonl`` or FFHQ's own
    ``ffhq-dataset-v2.json`` may give landmarks."""

    name: Literal["folder"] = "folder"
    path: Path
    """The folder."""


class HuggingFaceConfig(Section):
    """Anything ``datasets.load_dataset`` reads: a hub id, or "parquet", "arrow", "webdataset", "imagefolder"
    with ``data_files``."""

    name: Literal["huggingface"] = "huggingface"
    path: str
    """First argument of `load_dataset`."""
    data_files: str | list[str] | None = None
    """File or files, globs included, for a format name as `path`."""
    split: str = "train"
    """Split of the data set."""
    image_column: str = "image"
    """Column of images."""
    landmarks_column: str | None = None
    """Column of five (x, y) points in pixels of the image: left eye, right eye, nose, left and right mouth corner
    as seen in the image."""
    id_column: str | None = None
    """Names of the faces; without it their numbers stand for them."""
    streaming: bool = False
    """Read without storing; needs ``num_faces``, the faces that make an epoch."""
    num_faces: Count | None = None
    """Number of faces in an epoch; required with `streaming`, and only allowed there."""


class AssetsConfig(Section):
    """The aligned faces under the folder named by the environment variable IDM_ASSETS."""

    name: Literal["assets"] = "assets"
    split: Literal["train", "val", "test"] = "train"
    """Folder below `faces256`."""


SourceConfig = Annotated[SyntheticConfig | FolderConfig | HuggingFaceConfig | AssetsConfig, Field(discriminator="name")]


class DataConfig(Section):
    source: SourceConfig
    """P_X: the faces to train on. Without ``val_source`` the last ``validation.num_images`` are held out of it."""
    val_source: SourceConfig | None = None
    """The faces to validate on."""
    image_size: Annotated[int, Field(ge=16)]
    """Side in pixels to which the aligned faces are resized."""
    flip_probability: Share = 0.5
    """Share of training faces that are mirrored."""
    max_shift: Annotated[int, Field(ge=0)] = 0
    """Faces are moved by up to so many whole pixels each way, so that no pixel always has the same place in a patch."""
    grey_probability: Share = 0.0
    """Share of faces that are grey, degraded and clean: a black-and-white portrait must stay one."""
    balance_groups: bool = False
    """Faces of rare groups (``group`` in ``metadata.jsonl``) come up to three times in an epoch."""
    cache: bool = True
    """Keep decoded, resized faces in memory (image_size^2 * 3 bytes each)."""
    num_workers: Annotated[int, Field(ge=0)] = 0
    """Processes that prepare batches; 0 prepares them in the training process."""


class DegradationConfig(Section):
    """A published preset, and what to change in it. Lengths are in pixels of a 512 px face."""

    preset: PresetName = "gfpgan"
    """Published recipe; see `idm.degradation.presets`."""
    clean_probability: Share = 0.03
    """Share of faces that stay undegraded: a clean face must come back clean."""
    skip_probability: Share = 0.0
    """Blur, downscaling, noise and JPEG are left out, each with this probability."""
    bicubic_probability: Share = 0.0
    """Share of faces that are brought back to size by bicubic instead of bilinear interpolation."""
    mixture: dict[PresetName, Share] = {}
    """Shares of the training faces that are degraded by other presets; the rest is degraded by ``preset``."""
    steps: list[Annotated[AnyStep, Field(discriminator="name")]] | None = None
    """Steps in place of the preset's."""
    blur_sigma: Annotated[Length, AfterValidator(_rising)] | None = None
    """Range of the sigma of Gaussian blur, in place of the preset's; likewise below."""
    down: Annotated[Factor, AfterValidator(_rising)] | None = None
    """Range of the factor by which the face is shrunk; below 1 enlarges."""
    noise_sigma: Annotated[Length, AfterValidator(_rising)] | None = None
    """Gaussian noise, range of sigma, in units of 1/255."""
    jpeg_quality: Annotated[Quality, AfterValidator(_rising)] | None = None
    """Range of the JPEG quality, within 1 to 100."""


# --------------------------------------------------------------------------------------------- network


class DenoiserConfig(Section):
    """Arguments of :class:`idm.models.unet.Denoiser`, where they are described."""

    patch_size: Literal[1, 2, 4, 8] = 2
    channels: Annotated[list[Count], Field(min_length=1)] = [64, 128, 256]
    num_blocks: Annotated[list[Count], Field(min_length=1)] = [2, 2, 2]
    attention_resolutions: list[Count] = [32, 16, 8]
    head_dim: Count = 64
    inject_degraded: bool = False
    add_degraded: bool = True
    refine_channels: Annotated[int, Field(ge=0)] = 0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    conditional: bool = True


# ------------------------------------------------------------------------------------------- diffusion


class LinearConfig(Section):
    """SR3: beta from ``beta_start`` to ``beta_end`` in T = ``num_steps``."""

    name: Literal["linear"] = "linear"
    beta_start: Annotated[float, Field(gt=0, lt=1)] = 1e-6
    """The first beta."""
    beta_end: Annotated[float, Field(gt=0, lt=1)] = 1e-2
    """The last beta."""
    num_steps: Count = 2000
    """T, the number of noise levels."""


class CosineConfig(Section):
    """Nichol & Dhariwal's cosine schedule."""

    name: Literal["cosine"] = "cosine"
    num_steps: Count = 1000
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
    """Where every chain starts."""
    num_steps: Annotated[int, Field(ge=3)] = 64
    """Number of levels, the start among them."""


ScheduleConfig = Annotated[LinearConfig | CosineConfig | LogSigmaConfig, Field(discriminator="name")]


class PiecewiseUniformConfig(Section):
    """SR3: t uniform over the schedule, gamma uniform between neighbours."""

    name: Literal["piecewise_uniform"] = "piecewise_uniform"


class StartAndLogUniformConfig(Section):
    """A share at the schedule's last level, where a chain starts; the rest log-uniform in sigma below it."""

    name: Literal["start_and_log_uniform"] = "start_and_log_uniform"
    start_share: Share = 0.5
    """Share of the samples at the chain's start."""
    own_estimates: Share = 0.0
    """Share of the samples below the start whose x_t is made of the model's own estimate instead of x_0."""


NoiseLevelsConfig = Annotated[PiecewiseUniformConfig | StartAndLogUniformConfig, Field(discriminator="name")]


class FeatureLossConfig(Section):
    """L1 between feature maps of the estimate of x_0 and of x_0, in a frozen network."""

    network: Literal["mobilefacenet", "vgg19"] = "mobilefacenet"
    """Frozen network whose maps are compared; its weights are files that the user provides."""
    weight: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the sum over the maps beside the pixels' loss."""


class AdversarialConfig(Section):
    """A critic of patches, trained beside the denoiser."""

    weight: Annotated[float, Field(gt=0)] = 0.006
    """Weight of the hinge loss of the estimate of x_0."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    """Learning rate of the critic."""
    r1_gamma: Annotated[float, Field(ge=0)] = 1.0
    """Weight of R1, the penalty of the critic's gradient at x_0."""
    channels: Annotated[list[Count], Field(min_length=1)] = [96, 128, 192]
    """Widths of the critic's levels."""
    augment: bool = False
    """DiffAugment before the critic, for small training sets and long runs."""
    init_from: Path | None = None
    """A run whose critic, in its newest checkpoint, is trained further; a new one is at chance for long."""


class ObjectiveConfig(Section):
    prediction: Literal["epsilon", "sample", "v"] = "sample"
    """What f_theta gives: the noise, the clean face, or v."""
    p: Literal[1, 2] = 1
    """Exponent of the loss: 1 absolute, 2 squared difference."""
    min_snr_clamp: Annotated[float, Field(gt=0)] | None = None
    """Clamp of min-SNR weights (arXiv 2303.09556); null for equal weights."""
    noise_levels: NoiseLevelsConfig = PiecewiseUniformConfig()
    """The distribution of gamma in training."""
    features: FeatureLossConfig | None = None
    """A loss beyond pixels."""
    adversarial: AdversarialConfig | None = None
    """An adversarial loss, for the finish of a trained model."""


class ChainConfig(Section):
    """How faces are sampled, see :class:`idm.diffusion.chain.Chain`."""

    name: SamplerName
    """The sampler."""
    num_steps: Count = 10
    start_from: Start = "noise"
    strength: Annotated[float, Field(gt=0, le=1)] = 1.0
    eta: Share = 0.0
    """Share of fresh noise, for ddim only."""
    spacing: Spacing = "even"
    levels: tuple[Annotated[float, Field(gt=0)], ...] = ()

    def build(self) -> Chain:
        """The chain, which checks itself: ValueError."""
        return Chain(sampler=self.name, **self.model_dump(exclude={"name"}))


# -------------------------------------------------------------------------------------------- training


Tracker = Literal["tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab", "trackio"]


class TrainConfig(Section):
    """What every training has, whatever it trains."""

    num_steps: Annotated[int, Field(ge=0)]
    """Optimiser steps."""
    batch_size: Count
    """Faces per optimiser step over all processes and accumulated micro-batches."""
    accumulation: Count = 1
    """Micro-batches per optimiser step in each process."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the average of the weights, which is what is validated and published. It rises to this value as (1 +
    step) / (10 + step), with step counted from 0, and is 0 in the first step."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """"auto" is bf16 where the processor computes in it, else no."""
    log_every: Count = 20
    """Steps between lines of the log."""
    checkpoint_every: Count = 500
    """Steps between checkpoints."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints stay, besides the best one."""
    trackers: list[Tracker] = ["tensorboard"]
    """Where metrics go besides the JSONL log, which is always written; each is a package of that name."""


class IDMTrainConfig(TrainConfig):
    init_from: Path | None = None
    """Weights to start from: a run, a saved pipeline or a bundled model by its name, such as idm-faces-128. A model of
    half the patch size becomes one that sees the faces shrunk to half (:func:`idm.models.unet.double_patches`)."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises from zero."""
    decay: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, or a half cosine down to zero at ``num_steps``."""
    betas: tuple[Share, Share] = (0.9, 0.99)
    """AdamW's betas."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger norm are scaled down to it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile the network with `torch.compile`."""


ValidationMetric = Literal["psnr", "ssim", "lpips", "identity", "frechet"]


class ValidationConfig(Section):
    every: Count = 500
    """Steps between validations."""
    num_images: Count = 64
    """Faces to validate on."""
    num_shown: Count = 8
    """Faces in the before/after grid."""
    seed: int = 1234
    """Seed of the frozen degradations and of the sampler's noise."""
    metrics: Annotated[list[ValidationMetric], Field(min_length=1)] = ["psnr", "ssim"]
    """What the restored faces are measured by; identity, frechet and lpips need weights that the user provides."""
    best: ValidationMetric = "psnr"
    """The metric that decides which checkpoint is the best."""


# ------------------------------------------------------------------------------------- extrinsic iteration


class GateConfig(Section):
    """Arguments of :class:`idm.extrinsic.gate.Gate`, where they are described."""

    min_identity: Annotated[float, Field(ge=-1, le=1)] | None = 0.6
    max_sharpness_loss: Share = 0.01
    max_noise_gain: Annotated[float, Field(ge=0)] = 0.3
    max_blockiness_gain: Annotated[float, Field(ge=0)] = 0.15
    min_sharpness_gain: Annotated[float, Field(ge=0)] = 0.02
    min_noise_loss: Annotated[float, Field(ge=0)] = 0.5
    min_blockiness_loss: Annotated[float, Field(ge=0)] = 0.05


class AtOnceConfig(Section):
    """P_X* takes the place of P_X."""

    name: Literal["at_once"] = "at_once"


class GradualConfig(Section):
    """The pool of the round before is gradually replaced: the share of P_X* rises linearly from 0 to 1."""

    name: Literal["gradual"] = "gradual"
    over: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the training after which nothing of the old pool is left."""


class MixedConfig(Section):
    """P_X* beside the originals."""

    name: Literal["mixed"] = "mixed"
    shares: Annotated[list[Share], Field(min_length=1)] = [0.5]
    """Share of P_X* in rounds 1, 2, ...; the last one holds for all further rounds."""


ReplacementConfig = Annotated[AtOnceConfig | GradualConfig | MixedConfig, Field(discriminator="name")]


class CleaningConfig(Section):
    """How x* = f_theta(x) is drawn, judged and stored."""

    sampler: ChainConfig | None = None
    """How x* is drawn; without it as the model samples."""
    samples: Count = 1
    """How many x* are drawn for each face; the accepted one with the best identity counts."""
    batch_size: Count = 16
    """Faces restored at once."""
    shard_size: Count = 256
    """Faces of a file of the result; so many each process may have to restore again after a kill."""
    image_format: Literal["png", "jpg"] = "png"
    """Lossless PNG, or JPEG of quality 95 without chroma subsampling."""
    gate: GateConfig | None = GateConfig()
    """Which x* take the place of x; null: all of them, as document A writes it."""


class ExtrinsicConfig(CleaningConfig):
    """Train, clean the originals with what was trained, train on them anew: ``rounds`` times."""

    rounds: Count = 1
    """Number of cleanings, each followed by a training on the cleaned faces."""
    init: Literal["scratch", "previous"] = "scratch"
    """Where f_theta* starts: new weights, or those of the round before."""
    condition_on: Literal["original", "cleaned"] = "original"
    """What a later round degrades to get x_d: the originals x, so that only the targets differ ("the only difference
    between learning f_theta and f_theta* is the target distribution", document A), or the cleaned faces x*."""
    replacement: ReplacementConfig = AtOnceConfig()
    """How P_X* replaces P_X."""
    max_validation_loss: Annotated[float, Field(ge=0)] = 0.1
    """How much worse a round may validate than the one before, in dB of PSNR; more ends the rounds."""


# ------------------------------------------------------------------------------------------------ runs


class RunConfig(Section):
    """What every run has, whatever it trains."""

    output_dir: Path
    """The run's folder. A run that is started again in the same folder resumes."""
    seed: int = 0
    """Seed of the initial weights, the order of the faces, the degradations and the noise."""
    data: DataConfig
    """Faces."""
    degradation: DegradationConfig = DegradationConfig()
    """How a clean face becomes a degraded one."""
    train: TrainConfig
    validation: ValidationConfig = ValidationConfig()
    """Held-out faces with frozen degradations."""

    def impossible_combinations(self) -> list[str]:
        """What is well formed field by field and cannot work together."""
        faults = []
        if self.train.batch_size % self.train.accumulation:
            faults.append(
                f"train.batch_size: {self.train.batch_size} does not divide into train.accumulation="
                f"{self.train.accumulation} micro-batches"
            )
        if self.validation.num_shown > self.validation.num_images:
            faults.append("validation.num_shown: exceeds validation.num_images")
        if self.validation.best not in self.validation.metrics:
            faults.append(f"validation.best: {self.validation.best} is not among validation.metrics")
        source, val_source = self.data.source, self.data.val_source
        if source.name == "huggingface" and source.streaming != (source.num_faces is not None):
            faults.append("data.source.num_faces: is needed with streaming, where no length is known, and only there")
        if val_source is None:
            if source.name == "huggingface" and source.streaming:
                faults.append("data.val_source: is required with a streaming source, whose end is not known")
            if source.name == "synthetic" and source.num_faces <= self.validation.num_images:
                faults.append("data.source.num_faces: nothing is left to train on after the held-out faces")
        elif val_source.name == "huggingface" and val_source.streaming:
            faults.append("data.val_source.streaming: validation needs a source that can be indexed")
        return faults


class IDMConfig(RunConfig):
    """Everything that train_idm.py needs."""

    denoiser: DenoiserConfig = DenoiserConfig()
    """The network."""
    schedule: ScheduleConfig = LinearConfig()
    """Noise levels."""
    objective: ObjectiveConfig = ObjectiveConfig()
    """The loss."""
    sampler: ChainConfig = ChainConfig(name="ddim")
    """The chain that restores a face, in validation and in the published model."""
    train: IDMTrainConfig
    """Optimisation, logging and checkpoints."""
    extrinsic: ExtrinsicConfig | None = None
    """Rounds of the extrinsic iteration; without them one training is all."""

    def impossible_combinations(self) -> list[str]:
        faults = self._impossible_denoiser() + self._impossible_chain("sampler", self.sampler)
        return faults + self._impossible_rounds() + super().impossible_combinations()

    def _impossible_denoiser(self) -> list[str]:
        faults = []
        net, size = self.denoiser, self.data.image_size
        if len(net.channels) != len(net.num_blocks):
            faults.append(
                f"denoiser.num_blocks: {len(net.num_blocks)} levels, but denoiser.channels has {len(net.channels)}"
            )
        if size % (net.patch_size * 2 ** (len(net.channels) - 1)):
            faults.append(
                f"data.image_size: {size} does not divide by patch_size * 2^(levels - 1) = "
                f"{net.patch_size * 2 ** (len(net.channels) - 1)}"
            )
        for level, width in enumerate(net.channels):
            side = size // (net.patch_size * 2**level)
            if side in net.attention_resolutions and width % net.head_dim:
                faults.append(
                    f"denoiser.head_dim: {net.head_dim} does not divide the {width} channels at {side}x{side}"
                )
        levels = self.objective.noise_levels
        if levels.name == "start_and_log_uniform" and levels.own_estimates and self.objective.prediction != "sample":
            faults.append("objective.noise_levels.own_estimates: needs objective.prediction=sample")
        if net.add_degraded and self.objective.prediction != "sample":
            faults.append(
                f"denoiser.add_degraded: needs objective.prediction=sample, not {self.objective.prediction}"
                " (x_d is an estimate of x_0, not of noise)"
            )
        for name in ("add_degraded", "inject_degraded"):
            if not net.conditional and getattr(net, name):
                faults.append(f"denoiser.{name}: must be false without denoiser.conditional: there is no x_d")
        if self.schedule.name == "linear" and self.schedule.beta_start > self.schedule.beta_end:
            faults.append("schedule.beta_start: is above schedule.beta_end")
        return faults

    def _impossible_chain(self, where: str, chain: ChainConfig) -> list[str]:
        faults = []
        if chain.num_steps > self.schedule.num_steps:
            faults.append(f"{where}.num_steps: {chain.num_steps} exceeds the schedule's {self.schedule.num_steps}")
        try:
            chain.build()
        except ValueError as error:
            faults.append(f"{where}: {error}")
        return faults

    def _impossible_rounds(self) -> list[str]:
        if self.extrinsic is None:
            return []
        chain, source, replacement = self.extrinsic.sampler, self.data.source, self.extrinsic.replacement.name
        faults = [] if chain is None else self._impossible_chain("extrinsic.sampler", chain)
        if not {"psnr", "ssim"} <= set(self.validation.metrics):
            faults.append("validation.metrics: rounds are compared by psnr and ssim, which must be among them")
        if source.name == "huggingface" and source.streaming and replacement != "at_once":
            faults.append(f"extrinsic.replacement.name: {replacement} needs a data.source that can be indexed")
        if source.name == "huggingface" and source.streaming and self.extrinsic.condition_on == "original":
            faults.append("extrinsic.condition_on: original needs a data.source that can be indexed; set it to cleaned")
        return faults
