"""Where configuration and code meet: each section becomes the object it describes. Nothing else imports both."""

import os
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration, parse_flag_from_env
from jaxtyping import Float
from torch import Tensor

from idm.config.load import ConfigError, dump_config
from idm.config.schema import (
    AssetsConfig,
    CosineConfig,
    DegradationConfig,
    FolderConfig,
    HuggingFaceConfig,
    LinearConfig,
    RunConfig,
    SamplerConfig,
    ScheduleConfig,
    SourceConfig,
    SyntheticConfig,
)
from idm.data.faces import (
    Cached,
    FaceSource,
    FolderFaces,
    HuggingFaceFaces,
    Part,
    StreamedFaces,
    SyntheticFaces,
)
from idm.data.pairs import FrozenPairs, Pairing, Share, training_batches
from idm.degradation import PRESETS, Recipe
from idm.diffusion import samplers, schedule
from idm.evaluation.metrics import build_metric
from idm.nn.denoiser import Denoiser
from idm.pipeline import IDMPipeline
from idm.runtime import computes_in_bf16, keep_freed_memory, share_cores
from idm.training.checkpoint import write_text
from idm.training.learner import IntrinsicIteration, Optimisation
from idm.training.loop import Run, Settings


def build_gammas(config: ScheduleConfig) -> Float[Tensor, " T1"]:
    match config:
        case LinearConfig():
            return schedule.linear(config.beta_start, config.beta_end, config.num_steps)
        case CosineConfig():
            return schedule.cosine(config.num_steps, config.offset)
        case _:
            assert_never(config)


def build_recipe(config: DegradationConfig) -> Recipe:
    """The preset with what the section, whose fields are the recipe's own, gives instead."""
    try:
        return replace(PRESETS[config.preset], **config.model_dump(exclude={"preset"}, exclude_none=True))
    except ValueError as error:
        raise ConfigError(f"degradation: {error}") from None


def build_denoiser(config: RunConfig) -> Denoiser:
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
    )


def build_pipeline(config: RunConfig, denoiser: Denoiser) -> IDMPipeline:
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


# ------------------------------------------------------------------------------------------------ data


def assets_folder() -> Path:
    """The folder named by IDM_ASSETS."""
    named = os.environ.get("IDM_ASSETS")
    if not named:
        raise ConfigError(
            "data.source.name=assets: the environment variable IDM_ASSETS is not set; it names a folder with "
            "faces256/train, faces256/val and faces256/test (aligned faces and metadata.jsonl)"
        )
    return Path(named)


def build_source(config: SourceConfig, size: int, seed: int) -> FaceSource | StreamedFaces:
    match config:
        case SyntheticConfig():
            return SyntheticFaces(config.num_faces, config.seed, size)
        case FolderConfig():
            return FolderFaces(config.path, size)
        case AssetsConfig():
            return FolderFaces(assets_folder() / "faces256" / config.split, size)
        case HuggingFaceConfig():
            return _build_hugging_face(config, size, seed)
        case _:
            assert_never(config)


def _build_hugging_face(config: HuggingFaceConfig, size: int, seed: int) -> FaceSource | StreamedFaces:
    import datasets

    dataset = datasets.load_dataset(
        config.path, data_files=config.data_files, split=config.split, streaming=config.streaming
    )
    if config.streaming:
        assert config.num_faces is not None  # checked with the configuration
        return StreamedFaces(dataset, config.num_faces, config.image_column, config.landmarks_column, size, seed)
    return HuggingFaceFaces(dataset, config.image_column, config.landmarks_column, size)


def build_data(config: RunConfig) -> tuple[FaceSource | StreamedFaces, FaceSource]:
    """(faces to train on, faces to validate on); without a source of their own the latter are held out."""
    data, num_val = config.data, config.validation.num_images
    train = build_source(data.source, data.image_size, config.seed)
    if data.val_source is not None:
        val = build_source(data.val_source, data.image_size, config.seed)
        assert not isinstance(val, StreamedFaces)
        if len(val) < num_val:
            raise ConfigError(f"validation.num_images: {num_val}, but data.val_source holds {len(val)}")
        val = Part(val, evenly(len(val), num_val))
    else:
        assert not isinstance(train, StreamedFaces)
        if len(train) <= num_val:
            raise ConfigError(
                f"validation.num_images: {num_val} would be held out of data.source, which holds only {len(train)}"
            )
        held_out = len(train) - num_val
        train, val = Part(train, range(held_out)), Part(train, range(held_out, len(train)))
    if data.cache:
        val = Cached(val)
        train = train if isinstance(train, StreamedFaces) else Cached(train)
    return train, val


def evenly(total: int, wanted: int) -> list[int]:
    """``wanted`` indices spread evenly over ``total``."""
    return [i * total // wanted for i in range(wanted)]


# ------------------------------------------------------------------------------------------- training


def build_accelerator(config: RunConfig) -> Accelerator:
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    precision = config.train.mixed_precision
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(PartialState(cpu=on_cpu).device) else "no"
    return Accelerator(
        cpu=on_cpu,  # said aloud, or two processes on a CPU would not find one another
        mixed_precision=precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.train.accumulation, sync_with_dataloader=False
        ),
        log_with=list(config.train.trackers),
        project_config=ProjectConfiguration(project_dir=str(config.output_dir)),
    )


def build_run(config: RunConfig) -> Run:
    """All of a training run, ready to fit.

    Raises:
        ConfigError: what can only be known with the data and the processes at hand.
    """
    keep_freed_memory()
    recipe = build_recipe(config.degradation)
    train, val = build_data(config)
    accelerator = build_accelerator(config)
    if accelerator.device.type == "cpu":
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    share = build_share(config, accelerator.num_processes, accelerator.process_index)
    if accelerator.is_main_process:
        claim_folder(config)
    accelerator.wait_for_everyone()
    accelerator.init_trackers("idm", config={"config": dump_config(config)})

    torch.manual_seed(config.seed)  # the weights' initial values
    denoiser = build_denoiser(config)
    if config.train.gradient_checkpointing:
        denoiser.enable_gradient_checkpointing()
    if config.train.compile:
        denoiser.compile()
    pairing = Pairing(recipe, config.seed, config.data.flip_probability)
    return Run(
        build_learner(config, denoiser, accelerator),
        accelerator,
        build_settings(config),
        batches_from=lambda first: training_batches(
            train,
            pairing,
            share,
            first=first,
            num_workers=config.data.num_workers,
            pin=accelerator.device.type == "cuda",
        ),
        validation=FrozenPairs(val, replace(recipe, clean_probability=0.0), config.validation.seed),
        metrics={"psnr": build_metric("psnr"), "ssim": build_metric("ssim")},
    )


def build_learner(config: RunConfig, denoiser: Denoiser, accelerator: Accelerator) -> IntrinsicIteration:
    train = config.train
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


def build_settings(config: RunConfig) -> Settings:
    train, validation = config.train, config.validation
    return Settings(
        folder=config.output_dir,
        num_steps=train.num_steps,
        accumulation=train.accumulation,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
        validate_every=validation.every,
        num_shown=validation.num_shown,
        validation_seed=validation.seed,
    )


def build_share(config: RunConfig, world: int, rank: int) -> Share:
    """Each process's part of the global batch."""
    train = config.train
    if train.batch_size % (world * train.accumulation):
        raise ConfigError(
            f"train.batch_size: {train.batch_size} does not divide among {world} processes x "
            f"train.accumulation={train.accumulation}"
        )
    return Share(train.batch_size // (world * train.accumulation), rank, world)


MAY_CHANGE = {
    "data": ("cache", "num_workers"),
    "train": ("log_every", "checkpoint_every", "keep_checkpoints", "trackers", "compile"),
    "validation": ("every", "num_shown"),
}


def claim_folder(config: RunConfig) -> None:
    """Write the resolved configuration into the run's folder, or refuse a folder that holds another run."""
    path = config.output_dir / "config.yaml"
    if path.exists():
        from idm.config.load import load_config

        before, now = (_essence(c) for c in (load_config(path), config))
        changed = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
        if changed:
            raise ConfigError(
                f"output_dir: {config.output_dir} holds a run with another {', '.join(changed)}; "
                "choose another output_dir, or delete that one to start anew"
            )
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"output_dir: {config.output_dir} cannot be made ({error.strerror})") from None
    write_text(path, dump_config(config))


def _essence(config: RunConfig) -> dict[str, object]:
    """What may not change within a run, by dotted key."""
    sections = config.model_dump(mode="json", exclude={"output_dir"})
    for section, keys in MAY_CHANGE.items():
        for key in keys:
            del sections[section][key]
    return {
        f"{name}.{key}" if isinstance(section, dict) else name: value
        for name, section in sections.items()
        for key, value in (section.items() if isinstance(section, dict) else [("", section)])
    }
