"""A training run of any model: processes, precision, share of the batch, folder, data and loop."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.tracking import get_available_trackers
from accelerate.utils import GradientAccumulationPlugin, ProjectConfiguration, parse_flag_from_env

from idm.config.assembly.data import build_data, build_mixture, build_recipe
from idm.config.load import ConfigError, dump_config, load_config
from idm.config.schema import RunConfig
from idm.data.huggingface import StreamedFaces
from idm.data.mixing import Pool
from idm.data.pairs import FrozenPairs, Pairing, Partition, training_batches
from idm.data.sources import FaceSource
from idm.evaluation.metric import PairMetric, SetMetric
from idm.evaluation.metrics import MissingPackage, build_metric
from idm.io.atomic import write_text
from idm.io.lock import FolderInUse, lock_folder
from idm.io.machine import computes_in_bf16, keep_freed_memory, set_gpu_arithmetic, share_cores
from idm.training.loop import Run, RunSettings
from idm.training.protocol import Trainable
from idm.training.validation import Validation


def build_accelerator(config: RunConfig) -> Accelerator:
    """The accelerator with the precision and the trackers of the settings; it sets the global switches of GPUs, too.
    ConfigError where a tracker is not installed.
    """
    installed = {tracker.value for tracker in get_available_trackers()}
    for name in config.train.trackers:
        if name not in installed:  # accelerate would train on without it
            raise ConfigError(f"train.trackers: {name} is not installed; pip install {name.replace('_', '-')}")
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    precision = config.train.mixed_precision
    if precision == "auto":
        precision = "bf16" if computes_in_bf16(PartialState(cpu=on_cpu).device) else "no"
    set_gpu_arithmetic(tf32=config.train.tf32, cudnn_benchmark=config.train.cudnn_benchmark)
    return Accelerator(
        cpu=on_cpu,  # said aloud, or two processes on a CPU would not find one another
        mixed_precision=precision,
        gradient_accumulation_plugin=GradientAccumulationPlugin(
            num_steps=config.train.accumulation, sync_with_dataloader=False
        ),
        log_with=list(config.train.trackers) or None,
        project_config=ProjectConfiguration(project_dir=str(config.output_dir)),
    )


TrainingFaces = FaceSource | StreamedFaces | Pool
MILDER = "a lower learning rate, a lower train.max_grad_norm or train.mixed_precision=no"
"""Settings that help against gradients and weights that are not finite."""


def build_run(
    config: RunConfig,
    build_learner: Callable[[Accelerator], Trainable],
    data: tuple[TrainingFaces, FaceSource] | None = None,
    *,
    validates: bool = True,
    remedy: str = f"Start the same command with {MILDER}, which may change within a run",
) -> Run:
    """A complete training run, ready to fit.

    Args:
        build_learner: builds the model in training, once processes and precision are known.
        data: faces to train on and to validate on, instead of those that ``config.data`` names.
        validates: whether it is a :class:`~idm.training.protocol.Learner`, which restores the held-out faces.
        remedy: see :class:`~idm.training.loop.RunSettings`.

    Raises:
        ConfigError: a fault that only shows with the data and the processes.
    """
    keep_freed_memory()
    train, val = data or build_data(config)
    validation = None
    if validates:
        recipe = replace(build_recipe(config.degradation), clean_probability=0.0)
        validation = build_validation(config, FrozenPairs(val, recipe, config.validation.seed))
    accelerator = build_accelerator(config)
    if accelerator.device.type == "cpu":
        share_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    partition = build_partition(config, accelerator.num_processes, accelerator.process_index)
    if accelerator.is_main_process:
        claim_folder(config)
    accelerator.wait_for_everyone()
    accelerator.init_trackers("idm", config=for_trackers(config))
    pairing = Pairing(
        build_mixture(config.degradation),
        config.seed,
        config.data.flip_probability,
        max_shift=config.data.max_shift,
        grey_probability=config.data.grey_probability,
    )
    return Run(
        build_learner(accelerator),
        accelerator,
        build_settings(config, remedy),
        batches_from=lambda first: training_batches(
            train,
            pairing,
            partition,
            first=first,
            num_workers=config.data.num_workers,
            pin=accelerator.device.type == "cuda",
        ),
        validation=validation,
    )


def build_validation(config: RunConfig, pairs: FrozenPairs) -> Validation:
    """The metrics on the held-out pairs. ConfigError where the weights or the package of a metric are missing."""
    wanted = config.validation
    single: dict[str, PairMetric] = {}
    whole: dict[str, SetMetric] = {}
    try:
        for name in wanted.metrics:
            metric = build_metric(name)
            if isinstance(metric, SetMetric):
                whole[name] = metric
            else:
                single[name] = metric
    except (FileNotFoundError, MissingPackage) as error:
        raise ConfigError(f"validation.metrics: {error}") from None
    return Validation(pairs, single, whole, wanted.best, wanted.seed)


def for_trackers(config: RunConfig) -> dict[str, str | int | float]:
    """The settings as flat pairs, which a tracker can sort and compare runs by."""
    return {
        key: value if isinstance(value, str | int | float) else json.dumps(value) for key, value in flat(config).items()
    }


def flat(config: RunConfig) -> dict[str, Any]:
    """All settings by dotted key; lists are values."""
    found: dict[str, Any] = {}

    def walk(prefix: str, section: dict[str, Any]) -> None:
        for key, value in section.items():
            if isinstance(value, dict) and value:
                walk(f"{prefix}{key}.", value)
            else:
                found[prefix + key] = value

    walk("", config.model_dump(mode="json"))
    return found


def build_settings(config: RunConfig, remedy: str) -> RunSettings:
    """Build the settings of a run: its folder, its lengths and intervals, and the values for its history."""
    train, validation = config.train, config.validation
    return RunSettings(
        folder=config.output_dir,
        num_steps=train.num_steps,
        accumulation=train.accumulation,
        batch_size=train.batch_size,
        log_every=train.log_every,
        checkpoint_every=train.checkpoint_every,
        keep_checkpoints=train.keep_checkpoints,
        validate_every=validation.every,
        num_shown=validation.num_shown,
        recorded={key: value for key, value in flat(config).items() if key != "output_dir"},
        remedy=remedy,
    )


def build_partition(config: RunConfig, world: int, rank: int) -> Partition:
    """Each process's part of the global batch."""
    train = config.train
    if train.batch_size % (world * train.accumulation):
        raise ConfigError(
            f"train.batch_size: {train.batch_size} does not divide among {world} processes x "
            f"train.accumulation={train.accumulation}"
        )
    return Partition(train.batch_size // (world * train.accumulation), rank, world)


MAY_CHANGE = (
    *("output_dir", "data.cache", "data.num_workers"),
    *("train.log_every", "train.checkpoint_every", "train.keep_checkpoints", "train.trackers", "train.compile"),
    *("validation.every", "validation.num_shown", "validation.metrics", "validation.best", "extrinsic.rounds"),
)
"""Settings that do not change any step of a run."""

FROM_HERE_ON = (
    *("train.num_steps", "train.accumulation", "train.mixed_precision", "train.gradient_checkpointing"),
    *("train.tf32", "train.cudnn_benchmark"),
    *("train.learning_rate", "train.discriminator_learning_rate", "train.component_learning_rate"),
    *("train.max_grad_norm", "train.warmup_steps", "train.decay", "train.milestones", "train.decay_factor"),
    *("objective.adversarial.learning_rate", "prior.learning_rate"),
)
"""What may change within a single training: the steps to come are others, and the run's history says from which one on.
Which faces and which noise they see stays. Rounds are compared with one another, so there nothing may."""


def claim_folder(config: RunConfig) -> None:
    """Lock the run's folder and write the resolved configuration into it, or reject a folder that holds another run.

    Raises:
        ConfigError: it holds another run, cannot be created, or another process trains in it.
    """
    try:
        lock_folder(config.output_dir)
    except FolderInUse as error:
        raise ConfigError(f"output_dir: {error}; stop that run, or choose another output_dir") from None
    except OSError as error:
        raise ConfigError(f"output_dir: {config.output_dir} cannot be made or locked ({error.strerror})") from None
    path = config.output_dir / "config.yaml"
    if path.exists():
        try:
            held = load_config(path, type(config))
        except ConfigError as error:
            raise ConfigError(
                f"output_dir: {config.output_dir} holds a run of another kind or version; choose another output_dir\n"
                f"{error}"
            ) from None
        changed = _changed(held, config)
        if changed:
            raise ConfigError(
                f"output_dir: {config.output_dir} holds a run with another {', '.join(changed)}; "
                "choose another output_dir, or delete this one to start again"
            )
    write_text(path, dump_config(config))


def _changed(held: RunConfig, config: RunConfig) -> list[str]:
    """The settings that differ and may not, by dotted key; a section that only one of the two has, by its name."""
    before, now, absent = flat(held), flat(config), object()
    rounds = "extrinsic.rounds" in before.keys() | now.keys()
    free = {*MAY_CHANGE, *(() if rounds else FROM_HERE_ON)}
    keys = {key for key in before.keys() | now.keys() if before.get(key, absent) != now.get(key, absent)} - free
    return sorted(key for key in keys if not any(key.startswith(f"{section}.") for section in keys))
