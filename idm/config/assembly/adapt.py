"""Adapting a trained model to a set of faces: the same training, from the model's weights, at the model's noise
levels."""

import time
from functools import partial
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from accelerate import Accelerator

from idm.config.assembly.intrinsic import build_features, build_optimisation
from idm.config.assembly.run import build_run
from idm.config.load import load_config
from idm.config.schema import (
    DataConfig,
    DegradationConfig,
    FeatureLossConfig,
    FolderConfig,
    IDMTrainConfig,
    LoRAConfig,
    RunConfig,
    UnitInterval,
    ValidationConfig,
)
from idm.faces.recognition import MOBILEFACENET_WEIGHTS
from idm.io.weights import find_weights
from idm.models.lora import add_adapters
from idm.restorers.idm import IDM
from idm.restorers.saved import load_idm
from idm.training.learner import IntrinsicIteration, NoiseLevels
from idm.training.loop import Run

DEGRADATION = DegradationConfig(
    clean_probability=0.06,
    skip_probability=0.15,
    bicubic_probability=0.3,
    mixture={"mild": 0.25, "difface": 0.2},
)
"""Of adaptations: that of the bundled model's first run at 256 px, configs/faces256.yaml."""

_TIMED_STEPS = 3
_CHECKPOINT_SECONDS = 60


class AdaptConfig(RunConfig):
    """All settings of an adaptation. Network, schedule, prediction and chain are the model's own."""

    train: IDMTrainConfig
    model_sha256: str
    """Of the weights that are adapted."""
    faces_sha256: str
    """Of the record of the faces that they are adapted to."""
    start_share: UnitInterval
    """Share of the samples at the level where the model's chain starts; the rest is log-uniform in sigma below it."""
    features: FeatureLossConfig | None
    """A loss beyond pixels."""


def adapt_config(
    output: Path,
    model: IDM,
    faces: tuple[Path, Path],
    faces_sha256: str,
    *,
    num_held_out: int,
    learning_rate: float,
    batch_size: int,
    degradation: DegradationConfig,
    lora_rank: int | None,
    seed: int,
) -> AdaptConfig:
    """The settings of an adaptation, still without its number of steps.

    The feature loss prevents restored faces from becoming soft. It needs MobileFaceNet's weights; without them the loss
    compares pixels only.

    Args:
        faces: folders of aligned faces: to train on, and held out.
        lora_rank: train adapters of this rank instead of all weights.
    """
    assert model.origin is not None
    train, held_out = (FolderConfig(path=folder) for folder in faces)
    return AdaptConfig(
        output_dir=output,
        seed=seed,
        data=DataConfig(
            source=train, val_source=held_out, image_size=model.image_size, max_shift=3, grey_probability=0.05
        ),
        degradation=degradation,
        train=IDMTrainConfig(
            init_from=model.origin.folder,
            lora=None if lora_rank is None else LoRAConfig(rank=lora_rank, alpha=float(lora_rank)),
            num_steps=1,
            batch_size=batch_size,
            learning_rate=learning_rate,
            ema_decay=0.98,
            keep_checkpoints=1,
            trackers=[],
        ),
        validation=ValidationConfig(num_images=num_held_out, num_shown=min(8, num_held_out)),
        model_sha256=model.origin.weights_sha256,
        faces_sha256=faces_sha256,
        start_share=max(0.5, 1 / model.chain.num_steps),
        features=FeatureLossConfig() if _has_identity() else None,
    )


def _has_identity() -> bool:
    try:
        find_weights(MOBILEFACENET_WEIGHTS)
    except FileNotFoundError:
        return False
    return True


def with_steps(config: AdaptConfig, num_steps: int | None, minutes: float) -> AdaptConfig:
    """The settings with their number of steps: the given one, that of the run which the folder holds, or as many as
    fit into ``minutes``, after a few that are timed."""
    held = config.output_dir / "config.yaml"
    if held.exists():
        before = load_config(held, AdaptConfig).train
        return _with_train(config, num_steps or before.num_steps, before.checkpoint_every)
    if num_steps is not None:
        return _with_train(config, num_steps, ceil(num_steps / 10))
    seconds = seconds_per_step(config)
    return _with_train(config, max(1, int(60 * minutes / seconds)), ceil(_CHECKPOINT_SECONDS / seconds))


def _with_train(config: AdaptConfig, num_steps: int, checkpoint_every: int) -> AdaptConfig:
    changes = {
        "num_steps": num_steps,
        "checkpoint_every": checkpoint_every,
        "warmup_steps": ceil(num_steps / 10),
        "log_every": max(1, min(20, num_steps // 10)),
    }
    validation = config.validation.model_copy(update={"every": num_steps})  # at the end: no checkpoint is chosen by it
    return config.model_copy(
        update={"train": config.train.model_copy(update=changes), "validation": validation},
    )


def seconds_per_step(config: AdaptConfig) -> float:
    """Measure the seconds of an optimiser step on this machine, with its data."""
    with TemporaryDirectory() as folder:
        run = build_adaptation(config.model_copy(update={"output_dir": Path(folder)}))
        batches = run.batches_from(0)
        run.learner.train_step(0, batches)  # the first one is slow
        begun = time.perf_counter()
        for step in range(1, 1 + _TIMED_STEPS):
            run.learner.train_step(step, batches)["loss"].item()
        return (time.perf_counter() - begun) / _TIMED_STEPS


def build_adaptation(config: AdaptConfig) -> Run:
    """The run, ready to fit; it resumes from the checkpoint in its folder.

    Raises:
        ConfigError: as :func:`~idm.config.assembly.run.build_run`.
        ModelError: the model cannot be loaded.
    """
    return build_run(config, partial(_build_learner, config))


def _build_learner(config: AdaptConfig, accelerator: Accelerator) -> IntrinsicIteration:
    model = load_idm(config.train.init_from, torch.device("cpu"), torch.float32)
    if (lora := config.train.lora) is not None:
        add_adapters(model.denoiser, lora.rank, lora.alpha, config.seed)
    features = None if config.features is None else build_features(config.features).to(accelerator.device)
    return IntrinsicIteration(
        model.denoiser,
        accelerator,
        gammas=model.gammas,
        prediction=model.prediction,
        p=1,
        min_snr_clamp=None,
        optimisation=build_optimisation(config.train),
        seed=config.seed,
        noise_levels=NoiseLevels(config.start_share),
        features=features,
        feature_weight=0.0 if config.features is None else config.features.weight,
        make_pipeline=lambda published: IDM(published, model.gammas, prediction=model.prediction, chain=model.chain),
    )
