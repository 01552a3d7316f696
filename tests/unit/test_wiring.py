"""Every field of the schema has an effect: changing it changes what is built, or the first steps of the training.

``CHANGES`` must name each field of each section, so that a new one cannot be forgotten.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from pydantic import BaseModel
from safetensors.torch import save_file

from idm.config.assembly import extrinsic as rounds
from idm.config.assembly import intrinsic
from idm.config.assembly.intrinsic import build_denoiser, build_idm, build_intrinsic, build_learner
from idm.config.load import load_config
from idm.config.schema import ChainConfig, IDMConfig
from idm.data.sources import SyntheticFaces
from idm.diffusion.chain import SAMPLER_NAMES
from idm.extrinsic.clean import Cleaning
from idm.extrinsic.gate import decide
from idm.extrinsic.quality import Quality
from idm.faces.features import MobileFaceNetMaps, load_mobilefacenet
from idm.io.image_writer import write_image
from idm.models.critics import PatchCritic
from idm.models.unet import UNet
from idm.restorers.saved import WEIGHTS_FILE, load_idm, save_idm
from idm.training.adversarial import CRITIC_FILE

pytestmark = pytest.mark.usefixtures("drawn_once")

BASE = """
output_dir: OUT
data: {source: {name: synthetic, num_faces: 12}, image_size: 16}
degradation: {clean_probability: 0.0}
denoiser:
  {patch_size: 1, channels: [8, 16], num_blocks: [1, 1], attention_resolutions: [8], head_dim: 8, add_degraded: false}
schedule: {name: linear, num_steps: 100}
sampler: {name: ddim, num_steps: 4}
train:
  {num_steps: 8, batch_size: 4, learning_rate: 0.01, warmup_steps: 4, mixed_precision: "no", trackers: [],
   max_grad_norm: 0.001}
validation: {num_images: 2, num_shown: 1}
"""
COSINE = ["schedule.name=cosine"]
LOG_SIGMA = ["schedule.name=log_sigma"]
START = ["objective.noise_levels.name=start_and_log_uniform"]
FEATURES = ["objective.features={network: mobilefacenet, weight: 0.1}", "data.image_size=64"]
ADVERSARIAL = "objective.adversarial={weight: 0.1, channels: [8, 8]}"
LORA = ["train.lora={rank: 2}"]
DEGRADED = ["sampler.start_from=degraded"]

Case = tuple[list[str], list[str]]  # overrides of both configurations, and of the second one alone


def alone(*changes: str) -> Case:
    return [], list(changes)


CHANGES: dict[str, Case] = {
    "RunConfig.seed": alone("seed=1"),
    "SyntheticConfig.num_faces": alone("data.source.num_faces=13"),
    "SyntheticConfig.seed": alone("data.source.seed=1"),
    "DataConfig.val_source": alone("data.val_source={name: synthetic, num_faces: 5, seed: 9}"),
    "DataConfig.image_size": alone("data.image_size=32"),
    "DataConfig.flip_probability": (["data.flip_probability=0.0"], ["data.flip_probability=1.0"]),
    "DataConfig.max_shift": alone("data.max_shift=3"),
    "DataConfig.grey_probability": alone("data.grey_probability=1.0"),
    "DataConfig.balance_groups": (
        ["data.source={name: folder, path: FACES}", "validation.num_images=1"],
        ["data.balance_groups=true"],
    ),
    "DegradationConfig.preset": alone("degradation.preset=mild"),
    "DegradationConfig.clean_probability": alone("degradation.clean_probability=1.0"),
    "DegradationConfig.skip_probability": alone("degradation.skip_probability=1.0"),
    "DegradationConfig.bicubic_probability": alone("degradation.bicubic_probability=1.0"),
    "DegradationConfig.half_size_probability": alone("degradation.half_size_probability=1.0"),
    "DegradationConfig.mixture": alone("degradation.mixture={mild: 1.0}"),
    "DegradationConfig.blur_sigma": alone("degradation.blur_sigma=[90, 90]"),
    "DegradationConfig.down": alone("degradation.down=[20, 20]"),
    "DegradationConfig.noise_sigma": alone("degradation.noise_sigma=[80, 80]"),
    "DegradationConfig.jpeg_quality": alone("degradation.jpeg_quality=[1, 1]"),
    "DenoiserConfig.patch_size": alone("denoiser.patch_size=2"),
    "DenoiserConfig.channels": alone("denoiser.channels=[8, 8]"),
    "DenoiserConfig.num_blocks": alone("denoiser.num_blocks=[1, 2]"),
    "DenoiserConfig.attention_resolutions": alone("denoiser.attention_resolutions=[]"),
    "DenoiserConfig.head_dim": alone("denoiser.head_dim=16"),
    "DenoiserConfig.inject_degraded": alone("denoiser.inject_degraded=true"),
    "DenoiserConfig.add_degraded": alone("denoiser.add_degraded=true"),
    "DenoiserConfig.refine_channels": alone("denoiser.refine_channels=8"),
    "DenoiserConfig.refine_blocks": (
        ["denoiser.patch_size=2", "denoiser.refine_channels=8"],
        ["denoiser.refine_blocks=1"],
    ),
    "DenoiserConfig.dropout": alone("denoiser.dropout=0.9"),
    "DenoiserConfig.conditional": alone("denoiser.conditional=false"),
    "IDMConfig.schedule": alone("schedule.name=cosine"),
    "LinearConfig.beta_start": alone("schedule.beta_start=1e-3"),
    "LinearConfig.beta_end": alone("schedule.beta_end=0.1"),
    "LinearConfig.num_steps": alone("schedule.num_steps=101"),
    "CosineConfig.num_steps": (COSINE, ["schedule.num_steps=50"]),
    "CosineConfig.offset": (COSINE, ["schedule.offset=0.1"]),
    "LogSigmaConfig.sigma_min": (LOG_SIGMA, ["schedule.sigma_min=0.1"]),
    "LogSigmaConfig.sigma_max": (LOG_SIGMA, ["schedule.sigma_max=2.5"]),
    "LogSigmaConfig.start_sigma": (LOG_SIGMA, ["schedule.start_sigma=50"]),
    "LogSigmaConfig.num_steps": (LOG_SIGMA, ["schedule.num_steps=32"]),
    "ObjectiveConfig.prediction": alone("objective.prediction=v"),
    "ObjectiveConfig.p": alone("objective.p=2"),
    "ObjectiveConfig.min_snr_clamp": alone("objective.min_snr_clamp=0.5"),
    "ObjectiveConfig.noise_levels": (LOG_SIGMA, START),
    "StartAndLogUniformConfig.start_share": ([*LOG_SIGMA, *START], ["objective.noise_levels.start_share=1.0"]),
    "StartAndLogUniformConfig.own_estimates": (
        [*LOG_SIGMA, *START, "objective.noise_levels.start_share=0.0"],
        ["objective.noise_levels.own_estimates=1.0"],
    ),
    "StartAndLogUniformConfig.end_to_end": (
        [*LOG_SIGMA, *START, "objective.noise_levels.start_share=0.0", "objective.noise_levels.own_estimates=1.0"],
        ["objective.noise_levels.end_to_end=true"],
    ),
    "ObjectiveConfig.clean_weight": (["degradation.clean_probability=1"], ["objective.clean_weight=2"]),
    "ObjectiveConfig.ssim_weight": alone("objective.ssim_weight=0.5"),
    "ObjectiveConfig.features": (["data.image_size=64"], FEATURES),
    "FeatureLossConfig.network": (FEATURES, ["objective.features.network=vgg19"]),
    "FeatureLossConfig.weight": (FEATURES, ["objective.features.weight=5"]),
    "ChainConfig.name": alone("sampler.name=langevin"),
    "ChainConfig.num_steps": alone("sampler.num_steps=5"),
    "ChainConfig.start_from": alone(*DEGRADED),
    "ChainConfig.strength": (DEGRADED, ["sampler.strength=0.5"]),
    "ChainConfig.eta": alone("sampler.eta=1.0"),
    "ChainConfig.spacing": alone("sampler.spacing=quadratic"),
    "ChainConfig.levels": (
        ["sampler={name: ddim, num_steps: 2, spacing: levels, levels: [0.5, 0.2]}"],
        ["sampler.levels=[0.5, 0.1]"],
    ),
    "ObjectiveConfig.adversarial": alone(ADVERSARIAL),
    "AdversarialConfig.weight": ([ADVERSARIAL], ["objective.adversarial.weight=0.5"]),
    "AdversarialConfig.learning_rate": ([ADVERSARIAL], ["objective.adversarial.learning_rate=0.01"]),
    "AdversarialConfig.r1_gamma": ([ADVERSARIAL], ["objective.adversarial.r1_gamma=9.0"]),
    "AdversarialConfig.patch_size": ([ADVERSARIAL], ["objective.adversarial.patch_size=2"]),
    "AdversarialConfig.channels": ([ADVERSARIAL], ["objective.adversarial.channels=[8, 16]"]),
    "AdversarialConfig.augment": ([ADVERSARIAL], ["objective.adversarial.augment=true"]),
    "AdversarialConfig.only_refinement": (
        [ADVERSARIAL, "denoiser.refine_channels=8"],
        ["objective.adversarial.only_refinement=true"],
    ),
    "AdversarialConfig.init_from": ([ADVERSARIAL], ["objective.adversarial.init_from=CRITIC"]),
    "DegradationConfig.steps": alone("degradation.steps=[]"),
    "IDMTrainConfig.batch_size": alone("train.batch_size=8"),
    "IDMTrainConfig.accumulation": alone("train.accumulation=2"),
    "IDMTrainConfig.num_steps": alone("train.num_steps=9"),
    "IDMTrainConfig.ema_decay": alone("train.ema_decay=0.05"),
    "IDMTrainConfig.mixed_precision": alone("train.mixed_precision=bf16"),
    "IDMTrainConfig.tf32": alone("train.tf32=false"),
    "IDMTrainConfig.cudnn_benchmark": alone("train.cudnn_benchmark=false"),
    "IDMTrainConfig.init_from": alone("train.init_from=MODEL"),
    "IDMTrainConfig.lora": (["train.init_from=MODEL"], LORA),
    "LoRAConfig.rank": (["train.init_from=MODEL", *LORA], ["train.lora.rank=3"]),
    "LoRAConfig.alpha": (["train.init_from=MODEL", *LORA], ["train.lora.alpha=16.0"]),
    "IDMTrainConfig.learning_rate": alone("train.learning_rate=0.02"),
    "IDMTrainConfig.warmup_steps": alone("train.warmup_steps=0"),
    "IDMTrainConfig.decay": (["train.warmup_steps=1"], ["train.decay=constant"]),
    "IDMTrainConfig.betas": alone("train.betas=[0.5, 0.9]"),
    "IDMTrainConfig.weight_decay": alone("train.weight_decay=0.5"),
    "IDMTrainConfig.max_grad_norm": alone("train.max_grad_norm=1e-9"),
    "IDMTrainConfig.gradient_checkpointing": alone("train.gradient_checkpointing=true"),
    "IDMTrainConfig.compile": alone("train.compile=true"),
    "IDMTrainConfig.log_every": alone("train.log_every=3"),
    "IDMTrainConfig.checkpoint_every": alone("train.checkpoint_every=3"),
    "IDMTrainConfig.keep_checkpoints": alone("train.keep_checkpoints=3"),
    "IDMTrainConfig.trackers": alone("train.trackers=[tensorboard]"),
    "ValidationConfig.every": alone("validation.every=3"),
    "ValidationConfig.num_images": alone("validation.num_images=3"),
    "ValidationConfig.num_shown": alone("validation.num_shown=2"),
    "ValidationConfig.seed": alone("validation.seed=5"),
    "ValidationConfig.metrics": alone("validation.metrics=[psnr]"),
    "ValidationConfig.best": alone("validation.best=ssim"),
}

BOTH_SCHEDULES = {"gammas", "published gammas"}
REACHES: dict[str, set[str]] = {
    "RunConfig.seed": {"batches", "initial weights", "noise"},
    "DataConfig.image_size": {"batches", "network", "held-out"},
    "DataConfig.val_source": {"held-out"},
    "DegradationConfig.preset": {"batches", "held-out"},
    "DegradationConfig.blur_sigma": {"batches", "held-out"},
    "IDMConfig.schedule": BOTH_SCHEDULES,
    "LinearConfig.beta_start": BOTH_SCHEDULES,
    "LinearConfig.beta_end": BOTH_SCHEDULES,
    "LinearConfig.num_steps": BOTH_SCHEDULES,
    "CosineConfig.num_steps": BOTH_SCHEDULES,
    "CosineConfig.offset": BOTH_SCHEDULES,
    "LogSigmaConfig.sigma_min": BOTH_SCHEDULES,
    "LogSigmaConfig.num_steps": BOTH_SCHEDULES,
    "ObjectiveConfig.prediction": {"losses", "pipeline"},
    "ObjectiveConfig.adversarial": {"losses", "weights", "critic"},
    "AdversarialConfig.weight": {"losses", "weights"},
    "IDMTrainConfig.tf32": {"GPU"},
    "IDMTrainConfig.cudnn_benchmark": {"GPU"},
    "IDMTrainConfig.lora": {"weights", "averages"},
    "LoRAConfig.alpha": {"weights", "averages"},
    "AdversarialConfig.learning_rate": {"critic"},
    "AdversarialConfig.r1_gamma": {"critic"},
    "AdversarialConfig.patch_size": {"losses", "critic"},
    "AdversarialConfig.channels": {"critic"},
    "AdversarialConfig.augment": {"losses", "critic"},
    "AdversarialConfig.only_refinement": {"weights"},
    "AdversarialConfig.init_from": {"losses", "critic"},
    **{f"ChainConfig.{name}": {"pipeline"} for name in ChainConfig.model_fields},
    "IDMTrainConfig.num_steps": {"rates", "settings"},
    "IDMTrainConfig.ema_decay": {"averages"},
    "IDMTrainConfig.accumulation": {"how", "settings"},
    "ValidationConfig.seed": {"held-out", "validation seed"},
    "RunConfig.seed (mixed)": {"job", "first face"},
}
"""What the fields that more than one part depends on must change."""

CLEANING = ["extrinsic={gate: {min_identity: null}}"]
GRADUAL, MIXED = "extrinsic.replacement.name=gradual", "extrinsic.replacement={name: mixed, shares: [0.5]}"
CHAIN = "extrinsic.sampler.name"
ROUNDS: dict[str, Case] = {
    "ExtrinsicConfig.sampler": alone("extrinsic.sampler={name: langevin, num_steps: 3}"),
    "ExtrinsicConfig.samples": alone("extrinsic.samples=2"),
    "ExtrinsicConfig.batch_size": alone("extrinsic.batch_size=2"),
    "ExtrinsicConfig.shard_size": alone("extrinsic.shard_size=2"),
    "ExtrinsicConfig.image_format": alone("extrinsic.image_format=jpg"),
    "ExtrinsicConfig.rounds": alone("extrinsic.rounds=2"),
    "ExtrinsicConfig.init": alone("extrinsic.init=previous"),
    "ExtrinsicConfig.replacement": alone(MIXED),
    "ExtrinsicConfig.gate": alone("extrinsic.gate=null"),
    "ExtrinsicConfig.condition_on": alone("extrinsic.condition_on=cleaned"),
    "ExtrinsicConfig.max_validation_loss": alone("extrinsic.max_validation_loss=0.5"),
    "GateConfig.min_identity": alone("extrinsic.gate.min_identity=0.3"),
    "GateConfig.max_sharpness_loss": alone("extrinsic.gate.max_sharpness_loss=0.5"),
    "GateConfig.max_noise_gain": alone("extrinsic.gate.max_noise_gain=0.5"),
    "GateConfig.max_blockiness_gain": alone("extrinsic.gate.max_blockiness_gain=0.5"),
    "GateConfig.min_sharpness_gain": alone("extrinsic.gate.min_sharpness_gain=0.5"),
    "GateConfig.min_noise_loss": alone("extrinsic.gate.min_noise_loss=0.7"),
    "GateConfig.min_blockiness_loss": alone("extrinsic.gate.min_blockiness_loss=0.7"),
    "GradualConfig.over": ([GRADUAL], ["extrinsic.replacement.over=1.0"]),
    "MixedConfig.shares": ([MIXED], ["extrinsic.replacement.shares=[0.9]"]),
    "RunConfig.seed (mixed)": ([MIXED], ["seed=1"]),
    **{
        f"extrinsic.sampler {name} {key}": (
            [f"extrinsic.sampler={{name: {name}, num_steps: 4, start_from: degraded}}"],
            [f"extrinsic.sampler.{change}"],
        )
        for name in SAMPLER_NAMES
        for key, change in (
            ("num_steps", "num_steps=3"),
            ("start_from", "start_from=noise"),
            ("strength", "strength=0.5"),
            *([("eta", "eta=0.5")] if name == "ddim" else []),
        )
    },
}

HUB = ["data.source={name: huggingface, path: a, streaming: true, num_faces: 5}", "data.val_source={name: synthetic}"]
PLAIN_HUB = ["data.source={name: huggingface, path: a}"]
SOURCES: dict[str, Case] = {
    "FolderConfig.path": (["data.source={name: folder, path: FACES}"], ["data.source.path=OTHERS"]),
    "AssetsConfig.split": (["data.source={name: assets}"], ["data.source.split=val"]),
    "HuggingFaceConfig.path": (PLAIN_HUB, ["data.source.path=b"]),
    "HuggingFaceConfig.data_files": (PLAIN_HUB, ["data.source.data_files=x.parquet"]),
    "HuggingFaceConfig.split": (PLAIN_HUB, ["data.source.split=test"]),
    "HuggingFaceConfig.image_column": (PLAIN_HUB, ["data.source.image_column=face"]),
    "HuggingFaceConfig.landmarks_column": (PLAIN_HUB, ["data.source.landmarks_column=points"]),
    "HuggingFaceConfig.id_column": (PLAIN_HUB, ["data.source.id_column=key"]),
    "HuggingFaceConfig.streaming": (HUB[1:], [HUB[0]]),
    "HuggingFaceConfig.num_faces": (HUB, ["data.source.num_faces=6"]),
    "HuggingFaceConfig.parts": (HUB, ["data.source.parts=2"]),
    "HuggingFaceConfig.image_column (streamed)": (HUB, ["data.source.image_column=face"]),
    "HuggingFaceConfig.landmarks_column (streamed)": (HUB, ["data.source.landmarks_column=points"]),
    "RunConfig.seed (streamed)": (HUB, ["seed=1"]),
}

ONLY_HOW = {
    "RunConfig.output_dir": "says where the files are, not what is in them",
    "DataConfig.cache": "keeps decoded faces in memory: the same faces",
    "DataConfig.num_workers": "prepares the same batches in other processes",
}


def fields_of(section: type[BaseModel]) -> Iterator[str]:
    """``Section.field`` of all sections that a schema reaches; choices by their sections, not by their tags."""
    for name, field in section.model_fields.items():
        inner = list(sections_in(field.annotation))
        for choice in inner:
            yield from fields_of(choice)
        optional = type(None) in get_args(field.annotation)
        if (name != "name" or section is ChainConfig) and (not inner or optional or len(inner) > 1):
            yield f"{owner_of(section)}.{name}"


def owner_of(section: type[BaseModel]) -> str:
    return "RunConfig" if section is IDMConfig else section.__name__


def sections_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from sections_in(argument)


def test_every_field_of_the_schema_is_here():
    here = {key.split(" (")[0].replace("IDMConfig.", "RunConfig.") for key in (*CHANGES, *ROUNDS, *SOURCES, *ONLY_HOW)}
    here = {key for key in here if not key.startswith("extrinsic.sampler ")} | {"RunConfig.extrinsic"}
    here |= {"DataConfig.source", "ExtrinsicConfig.replacement"}  # the choice itself is that of its sections
    here |= {"DenoiserConfig.network"}  # one value so far
    assert set(fields_of(IDMConfig)) == here


# What is built


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """Faces in two groups, other faces, a saved model, and a run with a critic."""
    faces, others, model, run = (tmp_path_factory.mktemp(name) for name in ("faces", "others", "model", "run"))
    for folder, number in ((faces, 8), (others, 3)):
        source = SyntheticFaces(number, 5, 16)
        for index in range(number):
            write_image(folder / f"{index}.png", np.asarray(source[index].image))
    groups = [{"file_name": f"{index}.png", "group": "rare" if index == 0 else "common"} for index in range(8)]
    (faces / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in groups))
    config = load(faces / "run.yaml", [], {})
    torch.manual_seed(77)
    net = config.denoiser.model_dump()
    save_idm(build_idm(config, UNet(image_size=16, **net)), model)
    checkpoint = run / "checkpoints" / "step_00000001"
    checkpoint.mkdir(parents=True)
    critic = PatchCritic(patch_size=config.denoiser.patch_size, channels=[8, 8])
    save_file(critic.state_dict(), checkpoint / CRITIC_FILE)
    return {"FACES": str(faces), "OTHERS": str(others), "MODEL": str(model), "CRITIC": str(run)}


def load(path: Path, overrides: list[str], folders: dict[str, str]) -> IDMConfig:
    path.write_text(BASE.replace("OUT", str(path.with_suffix(""))))
    for name, folder in folders.items():
        overrides = [override.replace(name, folder) for override in overrides]
    return load_config(path, IDMConfig, overrides)


@pytest.fixture
def both(tmp_path, folders):
    """The two configurations of a case."""

    def both(case: Case, base: list[str] = []) -> tuple[IDMConfig, IDMConfig]:  # noqa: B006
        common, change = case
        return tuple(
            load(tmp_path / f"{name}.yaml", [*base, *common, *more], folders)
            for name, more in (("before", []), ("after", change))
        )

    yield both
    reset()


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def digest(value: Any) -> str:
    """Of tensors bit for bit, and of what JSON can say."""
    whole = hashlib.sha256()
    for part in value if isinstance(value, list) else [value]:
        bits = isinstance(part, torch.Tensor | np.ndarray)
        whole.update(np.ascontiguousarray(part).tobytes() if bits else json.dumps(part, default=str).encode())
    return whole.hexdigest()


def built(config: IDMConfig, steps: int = 2) -> dict[str, Any]:
    """Everything of a run but where its files are, after its first steps."""
    reset()
    torch.rand(3)  # no result may depend on the global generator
    run = build_intrinsic(config)
    learner, validation, settings = run.learner, run.validation, run.settings
    batches = run.batches_from(0)
    seen = [[batch.hq, batch.lq, batch.positions] for batch, _ in zip(run.batches_from(0), range(3), strict=False)]
    denoiser = learner.accelerator.unwrap_model(learner.model)
    begun = digest(trained(denoiser))
    values = [learner.train_step(step, batches) for step in range(steps)]
    pair = validation.pairs[0]
    return {
        "batches": [digest(each) for each in seen],
        "network": denoiser.config,
        "initial weights": begun,
        "noise": learner.seed,
        "gammas": digest(learner.gammas),
        "losses": [value["loss"].item() for value in values],
        "weights": digest(trained(denoiser)),
        "averages": digest([shadow.clone() for shadow in learner.ema.shadow_params]),
        "rates": [learner.optimisation.learning_rate_at(step) for step in range(12)],
        "how": (learner.accelerator.gradient_accumulation_steps, denoiser.gradient_checkpointing, compiled(denoiser)),
        "GPU": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark),
        "pipeline": (learner.pipeline.prediction, learner.pipeline.chain),
        "published gammas": digest(learner.pipeline.gammas),
        "features": type(learner.features).__name__,
        "critic": None if learner.adversary is None else digest(trained(learner.adversary.critic)),
        "held-out": (len(validation.pairs), digest([pair.hq, pair.lq])),
        "validation seed": validation.seed,
        "metrics": (sorted(validation.metrics), sorted(validation.set_metrics)),
        "best": validation.best,
        "settings": {k: v for k, v in asdict(settings).items() if k not in ("folder", "recorded")},
        "trackers": [tracker.name for tracker in learner.accelerator.trackers],
    }


def trained(network: torch.nn.Module) -> list[torch.Tensor]:
    return [weight.detach() for weight in network.state_dict().values()]


class OtherMaps(MobileFaceNetMaps):
    """Stands for the maps of another network."""


_known: dict[tuple[str, int], dict[str, Any]] = {}


def built_once(config: IDMConfig, steps: int) -> dict[str, Any]:
    """:func:`built`, kept for the many cases that change the same configuration."""
    key = (config.model_dump_json(exclude={"output_dir"}), steps)
    if key not in _known:
        _known[key] = built(config, steps)
    return _known[key]


def compiled(denoiser: torch.nn.Module) -> bool:
    return any(module._compiled_call_impl is not None for module in denoiser.modules())


NO_STEPS = (
    "IDMTrainConfig.compile",
    "IDMTrainConfig.tf32",
    "IDMTrainConfig.cudnn_benchmark",
    "IDMTrainConfig.log_every",
    "IDMTrainConfig.trackers",
    "ValidationConfig",
)


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_changes_what_is_built_or_the_first_steps(field, both, request, monkeypatch):
    if "feature" in field.lower():
        monkeypatch.setenv("IDM_ASSETS", str(request.getfixturevalue("assets")))
        monkeypatch.setattr(intrinsic, "load_vgg19", lambda: OtherMaps(load_mobilefacenet()))
    steps = 0 if field.startswith(NO_STEPS) else 2  # to compile takes a minute
    unchanged, changed_config = both(CHANGES[field])
    before, after = built_once(unchanged, steps), built(changed_config, steps)
    changed = {name for name, value in before.items() if after[name] != value}
    assert changed
    assert REACHES.get(field, set()) <= changed


def test_nothing_changes_where_nothing_is_changed(both):
    before, after = both(([], []))
    assert built(before) == built(after)


@pytest.mark.parametrize("key", ["data.cache=false", "data.num_workers=1", "output_dir=ELSEWHERE"])
def test_settings_of_the_execution_change_no_number(both, tmp_path, key):
    before, after = both(([], [key.replace("ELSEWHERE", str(tmp_path / "elsewhere"))]))
    assert built(before) == built(after)
    assert key.split("=")[0].split(".")[-1] in " ".join(ONLY_HOW)


@pytest.mark.parametrize("field", SOURCES)
def test_a_field_of_a_source_changes_the_source(field, both, monkeypatch, folders, request):
    import datasets

    if field.startswith("Assets"):
        monkeypatch.setenv("IDM_ASSETS", str(request.getfixturevalue("assets")))
    asked = []
    columns = {name: ["x", "y"] for name in ("image", "face", "points", "key")}
    monkeypatch.setattr(
        datasets, "load_dataset", lambda *a, streaming, **k: asked.append((a, k)) or stored(columns, streaming)
    )
    before, after = (described(config.data.source.build(16, config.seed)) for config in both(SOURCES[field]))
    assert before != after or (len(asked) == 2 and asked[0] != asked[1])


def stored(columns: dict[str, list[str]], streaming: bool) -> Any:
    import datasets

    features = datasets.Features(
        {n: datasets.Image() if n in ("image", "face") else datasets.Value("string") for n in columns}
    )
    dataset = datasets.Dataset.from_dict(columns, features)
    return dataset.to_iterable_dataset(num_shards=2) if streaming else dataset


def described(source: Any) -> dict[str, str]:
    hidden = {"dataset", "in_order"}
    shown = {name: repr(value) for name, value in vars(source).items() if name not in hidden}
    return {"kind": type(source).__name__, **shown}


# Rounds

BEFORE = Quality(sharpness=0.5, noise=3.0, blockiness=1.5)
JUDGED = [
    (Quality(0.55, 3.0, 1.5), 0.9),  # a tenth sharper
    (Quality(0.5, 2.4, 1.5), 0.9),  # less noisy
    (Quality(0.5, 3.0, 1.4), 0.9),  # less blocky
    (Quality(0.45, 1.0, 1.5), 0.9),  # less noisy, and a tenth softer
    (Quality(0.75, 3.4, 1.5), 0.9),  # sharper, and noisier
    (Quality(0.75, 3.0, 1.8), 0.9),  # sharper, and blockier
    (Quality(0.75, 3.0, 1.5), 0.1),  # sharper, and another person
]
"""x* with their identities, such that each field of the gate decides about one of them."""


def shown(pool: Any) -> list[np.ndarray]:
    """The picture of a pool's first face, and the one that is degraded to x_d."""
    face = pool.at(0, 0) if hasattr(pool, "at") else pool[0]
    return [face.image, face.image if face.original is None else face.original]


def cleaned(config: IDMConfig, folders: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What of a configuration reaches the cleaning, the pool of round 1 and its training."""
    reset()
    source, model = SyntheticFaces(5, 0, 16), Path(folders["MODEL"])
    jobs: list[Cleaning] = []
    monkeypatch.setattr(rounds, "load_identity", lambda *a, **k: None)
    monkeypatch.setattr(rounds, "find_weights", lambda *a: None)
    monkeypatch.setattr(rounds, "load_cleaner", lambda path: load_idm(model, torch.device("cpu"), torch.float32))
    monkeypatch.setattr(rounds, "run_job", lambda job, state: jobs.append(job) or {})
    rounds._clean(config, source, 0)
    [job] = jobs
    monkeypatch.setattr(rounds, "cleaned_faces", lambda *a: SyntheticFaces(5, 1, 16))
    readable = [SimpleNamespace(index=index, seed=0) for index in range(5)]
    monkeypatch.setattr(rounds, "read_manifest", lambda folder: readable)
    monkeypatch.setattr(rounds, "_readable", lambda originals, folder: originals)
    pool = rounds.build_pool(config, source, 1)
    begun = []

    class Built:
        def fit(self) -> None:
            folder = config.output_dir / "round_1"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "metrics.json").write_text('{"metrics": {}, "step": -1}')

    monkeypatch.setattr(rounds, "find_model", lambda path: model)
    monkeypatch.setattr(
        rounds, "build_run", lambda here, make, data, **_: begun.append(make.keywords["initial"]) or Built()
    )
    rounds._train(config, source, source, source, 1)
    whole = rounds.build_rounds(config)
    return {
        "job": json.dumps(job.metadata, sort_keys=True),
        "decisions": [decide(job.gate, BEFORE, after, identity) for after, identity in JUDGED],
        "pipeline": (job.restorer.prediction, job.restorer.chain),
        "pool": type(pool).__name__,
        "first face": [digest(part) for part in shown(pool)],
        "shares": [pool.share(step) for step in range(9)] if hasattr(pool, "share") else None,
        "initial": None if begun[0] is None else sorted(begun[0]),
        "rounds": (whole.num_rounds, whole.max_validation_loss),
    }


@pytest.mark.parametrize("field", ROUNDS)
def test_a_field_changes_the_rounds(field, both, folders, monkeypatch):
    before, after = (cleaned(config, folders, monkeypatch) for config in both(ROUNDS[field], CLEANING))
    changed = {name for name, value in before.items() if after[name] != value}
    assert changed
    assert REACHES.get(field, set()) <= changed
    section, _, name = field.partition(".")
    if section == "GateConfig" or name == "gate":
        assert "decisions" in changed
    if name == "gate":
        assert all(decision.accepted for decision in after["decisions"])
    if name == "condition_on":
        assert {"pool", "first face"} <= changed


def test_nothing_changes_in_the_rounds_where_nothing_is_changed(both, folders, monkeypatch):
    before, after = both(([], []), CLEANING)
    assert cleaned(before, folders, monkeypatch) == cleaned(after, folders, monkeypatch)
    assert (Path(folders["MODEL"]) / "denoiser" / WEIGHTS_FILE).is_file()


@pytest.mark.parametrize("number", [0, 1])
def test_a_round_that_diverges_advises_another_folder_because_rounds_are_trained_alike(number, both, monkeypatch):
    class Diverged(Exception): ...

    def build_run(*_: Any, remedy: str) -> None:
        raise Diverged(remedy)

    config, _ = both(([], []), CLEANING)
    monkeypatch.setattr(rounds, "build_run", build_run)
    monkeypatch.setattr(rounds, "build_pool", lambda *_: None)
    source = SyntheticFaces(5, 0, 16)
    with pytest.raises(Diverged, match="trained alike: start them again in another output_dir with a lower learning"):
        rounds._train(config, source, source, source, number)


def test_the_weights_of_a_round_come_before_those_of_init_from(both):
    config, _ = both((["train.init_from=MODEL"], []))
    initial = {name: torch.full_like(weight, 0.5) for name, weight in build_denoiser(config).state_dict().items()}
    reset()
    learner = build_learner(config, Accelerator(cpu=True), initial=initial)
    assert all((weight == 0.5).all() for weight in trained(learner.model))


# End to end


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample"])
def test_every_prediction_is_trained_validated_and_published_as_what_it_is(both, prediction):
    settings = [
        f"objective.prediction={prediction}",
        "train.num_steps=3",
        "validation.every=3",
        "train.checkpoint_every=3",
    ]
    config, _ = both((settings, []))
    reset()
    run = build_intrinsic(config)
    run.fit()
    published = config.output_dir / "checkpoints" / "step_00000003" / "pipeline"
    index = json.loads((published / "model_index.json").read_text())
    assert index["prediction"] == run.learner.prediction == prediction
    assert json.loads((config.output_dir / "metrics.json").read_text())["step"] == 3
