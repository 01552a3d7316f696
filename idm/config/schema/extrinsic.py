"""The extrinsic iteration: cleaning, its gate, and rounds."""

from typing import Annotated, Literal

from pydantic import Field

from idm.config.schema.method import ChainConfig
from idm.config.schema.section import PositiveInt, Section, UnitInterval


class GateConfig(Section):
    """Arguments of :class:`idm.extrinsic.gate.Gate`, where they are described."""

    min_identity: Annotated[float, Field(ge=-1, le=1)] | None = 0.6
    max_sharpness_loss: UnitInterval = 0.01
    max_noise_gain: Annotated[float, Field(ge=0)] = 0.3
    max_blockiness_gain: Annotated[float, Field(ge=0)] = 0.15
    min_sharpness_gain: Annotated[float, Field(ge=0)] = 0.02
    min_noise_loss: Annotated[float, Field(ge=0)] = 0.5
    min_blockiness_loss: Annotated[float, Field(ge=0)] = 0.05


class AtOnceConfig(Section):
    """P_X* replaces P_X."""

    name: Literal["at_once"] = "at_once"


class GradualConfig(Section):
    """The pool of the round before is gradually replaced: the share of P_X* rises linearly from 0 to 1."""

    name: Literal["gradual"] = "gradual"
    over: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the training after which the old pool is fully replaced."""


class MixedConfig(Section):
    """P_X* beside the originals."""

    name: Literal["mixed"] = "mixed"
    shares: Annotated[list[UnitInterval], Field(min_length=1)] = [0.5]
    """Share of P_X* in rounds 1, 2, ...; the last one holds for all further rounds."""


ReplacementConfig = Annotated[AtOnceConfig | GradualConfig | MixedConfig, Field(discriminator="name")]


class CleaningConfig(Section):
    """Settings for drawing, judging and storing x* = f_theta(x)."""

    sampler: ChainConfig | None = None
    """The chain that draws x*; by default the model's own."""
    samples: PositiveInt = 1
    """Number of x* drawn for each face; the accepted one with the best identity is used."""
    batch_size: PositiveInt = 16
    """Number of faces restored at once."""
    shard_size: PositiveInt = 256
    """Number of faces in a file of the result; each process may have to restore this many again after a kill."""
    image_format: Literal["png", "jpg"] = "png"
    """Lossless PNG, or JPEG of quality 95 without chroma subsampling."""
    gate: GateConfig | None = GateConfig()
    """Decides which x* replace x; null: all of them, as in document A."""


class ExtrinsicConfig(CleaningConfig):
    """Train, clean the originals with the trained model, and train again on the result: ``rounds`` times."""

    rounds: PositiveInt = 1
    """Number of cleanings, each followed by a training on the cleaned faces."""
    init: Literal["scratch", "previous"] = "scratch"
    """Where f_theta* starts: new weights, or those of the round before."""
    condition_on: Literal["original", "cleaned"] = "original"
    """What a later round degrades to get x_d: the originals x, so that only the targets differ ("the only difference
    between learning f_theta and f_theta* is the target distribution", document A), or the cleaned faces x*."""
    replacement: ReplacementConfig = AtOnceConfig()
    """How P_X* replaces P_X."""
    max_validation_loss: Annotated[float, Field(ge=0)] = 0.1
    """Largest drop of the validation PSNR from one round to the next, in dB; a larger drop ends the rounds."""
