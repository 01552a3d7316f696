"""Optimisation, logging, checkpoints and validation."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from idm.config.schema.section import PositiveInt, Section, UnitInterval
from idm.evaluation.metrics import METRICS

TrackerName = Literal["tensorboard", "wandb", "comet_ml", "aim", "mlflow", "clearml", "dvclive", "swanlab", "trackio"]


class TrainConfig(Section):
    """Settings of every training."""

    num_steps: Annotated[int, Field(ge=0)]
    """Optimiser steps."""
    batch_size: PositiveInt
    """Faces per optimiser step over all processes and accumulated micro-batches."""
    accumulation: PositiveInt = 1
    """Micro-batches per optimiser step in each process."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Decay of the average of the weights, which is validated and published. It rises to this value as (1 +
    step) / (10 + step), with step counted from 0, and is 0 in the first step."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """"auto" is bf16 if the processor supports it, else no."""
    tf32: bool = True
    """Use TensorFloat-32 for float32 matrix products and convolutions, on a GPU that supports it."""
    cudnn_benchmark: bool = True
    """Let cuDNN benchmark its algorithms and use the fastest for each size. Two runs on a GPU may then differ a
    little."""
    log_every: PositiveInt = 20
    """Steps between lines of the log."""
    checkpoint_every: PositiveInt = 500
    """Steps between checkpoints."""
    keep_checkpoints: PositiveInt = 2
    """Number of newest checkpoints to keep, besides the best one."""
    trackers: list[TrackerName] = ["tensorboard"]
    """Trackers that receive the metrics besides the JSONL log, which is always written; each is a package of that
    name."""


class LoRAConfig(Section):
    """Low-rank adapters, see :mod:`idm.models.lora`."""

    rank: PositiveInt = 8
    """Rank of the matrix that is added to a layer's weights."""
    alpha: Annotated[float, Field(gt=0)] = 8.0
    """The added matrix is scaled by alpha / rank."""


class IDMTrainConfig(TrainConfig):
    """Optimisation, logging and checkpoints of IDM."""

    init_from: Path | None = None
    """Weights to start from: a run, a saved pipeline or a bundled model by its name, such as idm-faces-128. A model of
    half the patch size is converted to one that sees the faces at half the size
    (:func:`idm.models.unet.double_patches`)."""
    lora: LoRAConfig | None = None
    """Train low-rank adapters only, beside the weights of ``init_from``. The published model has them merged."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of AdamW."""
    warmup_steps: Annotated[int, Field(ge=0)] = 100
    """Steps over which the learning rate rises from zero."""
    decay: Literal["constant", "cosine"] = "cosine"
    """Learning rate after the warm-up: constant, or a half cosine down to zero at ``num_steps``."""
    betas: tuple[UnitInterval, UnitInterval] = (0.9, 0.99)
    """AdamW's betas."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients with a larger norm are scaled down to it."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    compile: bool = False
    """Compile the network, of a U-Net its residual blocks, with `torch.compile`: after about a minute, steps on a GPU
    take less time. Not with ``lora``."""


if TYPE_CHECKING:
    ValidationMetric = str
else:  # the metrics of the table that compare with the originals, which held-out faces have
    ValidationMetric = Literal[*(name for name, metric in METRICS.items() if metric.kind != "single")]


class ValidationConfig(Section):
    """The interval and the data of validation."""

    every: PositiveInt = 500
    """Steps between validations."""
    num_images: PositiveInt = 64
    """Faces to validate on."""
    num_shown: PositiveInt = 8
    """Faces in the before/after grid."""
    seed: int = 1234
    """Seed of the frozen degradations and of the sampler's noise."""
    metrics: Annotated[list[ValidationMetric], Field(min_length=1)] = ["psnr", "ssim"]
    """Metrics of the restored faces; `idm evaluate --list-metrics` describes them, and some need weights that the user
    provides."""
    best: ValidationMetric = "psnr"
    """The metric that decides which checkpoint is the best."""
