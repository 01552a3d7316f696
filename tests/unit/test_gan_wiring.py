"""Every field of GFP-GAN's own sections has an effect: changing it changes what is built, or the first steps of the
training. ``test_wiring.py`` does the same for IDM and for the sections that both share.

``CHANGES`` must name each field of each section, so that a new one cannot be forgotten.
"""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import save_file
from torch import nn

from gan_baseline import build
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.prior import CRITIC as CRITIC_FILE
from gan_baseline.prior import PRIOR as PRIOR_FILE
from gan_baseline.schema import (
    CheckpointPriorConfig,
    DiscriminatorConfig,
    GANConfig,
    GANTrainConfig,
    GeneratorConfig,
    LossesConfig,
    TrainedPriorConfig,
)
from gan_baseline.stylegan2 import StyleGAN2Generator
from gan_baseline.weights import save_gfpgan
from idm.config.load import load_config
from idm.faces import components
from idm.faces.features import MobileFaceNetEmbedding, MobileFaceNetMaps
from idm.models.critics import StyleGAN2Discriminator

pytestmark = pytest.mark.usefixtures("drawn_once")

BASE = """
output_dir: OUT
data: {source: {name: synthetic, num_faces: 12}, image_size: 32}
generator: {narrow: 0.015625, num_style_feat: 8, num_mlp: 2, fix_decoder: false}
discriminator: {narrow: 0.015625}
train: {num_steps: 8, batch_size: 4, mixed_precision: "no", trackers: []}
validation: {num_images: 2, num_shown: 1}
"""
PRIOR, TRAINED = ["prior={name: checkpoint, path: PRIOR}"], ["prior={name: train, num_steps: 2}"]
EARLY, R1 = ["losses.pyramid_until=1"], ["losses.r1_every=1"]
MILESTONE = ["train.milestones=[1]"]

Case = tuple[list[str], list[str]]  # overrides of both configurations, and of the second one alone


def alone(*changes: str) -> Case:
    return [], list(changes)


CHANGES: dict[str, Case] = {
    "GANConfig.prior": alone(*PRIOR),
    "GeneratorConfig.num_style_feat": alone("generator.num_style_feat=16"),
    "GeneratorConfig.channel_multiplier": (["data.image_size=64"], ["generator.channel_multiplier=2"]),
    "GeneratorConfig.num_mlp": alone("generator.num_mlp=3"),
    "GeneratorConfig.narrow": alone("generator.narrow=0.03125"),
    "GeneratorConfig.sft_half": alone("generator.sft_half=false"),
    "GeneratorConfig.smooth": alone("generator.smooth=true"),
    "GeneratorConfig.equalised": alone("generator.equalised=false"),
    "GeneratorConfig.fix_decoder": (PRIOR, ["generator.fix_decoder=true"]),
    "DiscriminatorConfig.channel_multiplier": (["data.image_size=64"], ["discriminator.channel_multiplier=2"]),
    "DiscriminatorConfig.narrow": alone("discriminator.narrow=0.03125"),
    "DiscriminatorConfig.stddev_group": alone("discriminator.stddev_group=2"),
    "LossesConfig.l1": alone("losses.l1=9"),
    "LossesConfig.pyramid": alone("losses.pyramid=9"),
    "LossesConfig.pyramid_until": alone(*EARLY),
    "LossesConfig.pyramid_after": (EARLY, ["losses.pyramid_after=0.5"]),
    "LossesConfig.perceptual": alone("losses.perceptual=9"),
    "LossesConfig.style": alone("losses.style=9"),
    "LossesConfig.perceptual_network": alone("losses.perceptual_network=mobilefacenet"),
    "LossesConfig.adversarial": alone("losses.adversarial=9"),
    "LossesConfig.relativistic": alone("losses.relativistic=true"),
    "LossesConfig.r1": (R1, ["losses.r1=9"]),
    "LossesConfig.r1_every": alone(*R1),
    "LossesConfig.component_adversarial": alone("losses.component_adversarial=9"),
    "LossesConfig.component_style": alone("losses.component_style=9"),
    "LossesConfig.identity": alone("losses.identity=9"),
    "LossesConfig.identity_network": alone("losses.identity_network=arcface"),
    "TrainedPriorConfig.num_steps": (TRAINED, ["prior.num_steps=3"]),
    "TrainedPriorConfig.learning_rate": (TRAINED, ["prior.learning_rate=0.01"]),
    "TrainedPriorConfig.mixing": (TRAINED, ["prior.mixing=0.0"]),
    "TrainedPriorConfig.init_from": (TRAINED, ["prior.init_from=SMALLER"]),
    "CheckpointPriorConfig.path": (PRIOR, ["prior.path=OTHER"]),
    "GANTrainConfig.ema_decay": alone("train.ema_decay=0.05"),
    "GANTrainConfig.mixed_precision": alone("train.mixed_precision=bf16"),
    "GANTrainConfig.init_from": alone("train.init_from=MODEL"),
    "GANTrainConfig.learning_rate": alone("train.learning_rate=0.01"),
    "GANTrainConfig.discriminator_learning_rate": alone("train.discriminator_learning_rate=0.01"),
    "GANTrainConfig.component_learning_rate": alone("train.component_learning_rate=0.01"),
    "GANTrainConfig.betas": alone("train.betas=[0.5, 0.9]"),
    "GANTrainConfig.discriminator_betas": alone("train.discriminator_betas=[0.5, 0.9]"),
    "GANTrainConfig.component_betas": alone("train.component_betas=[0.5, 0.999]"),
    "GANTrainConfig.milestones": alone(*MILESTONE),
    "GANTrainConfig.decay_factor": (MILESTONE, ["train.decay_factor=0.9"]),
    "GANTrainConfig.max_grad_norm": alone("train.max_grad_norm=1e-9"),
    "GANConfig.seed": alone("seed=1"),
}

CRITIC, COMPONENTS = {"critic"}, {"components"}
REACHES: dict[str, set[str]] = {
    "GANConfig.prior": {"initial weights"},
    "GANConfig.seed": {"initial weights", "noise", "losses"},
    "GANTrainConfig.ema_decay": {"averages"},
    "GANTrainConfig.init_from": {"initial weights"},
    "GANTrainConfig.discriminator_learning_rate": CRITIC,
    "GANTrainConfig.component_learning_rate": COMPONENTS,
    "GANTrainConfig.discriminator_betas": CRITIC,
    "GANTrainConfig.component_betas": COMPONENTS,
    "GANTrainConfig.milestones": {"weights", "critic", "components"},
    "GANTrainConfig.max_grad_norm": {"weights", "critic", "components"},
    "DiscriminatorConfig.narrow": CRITIC,
    "LossesConfig.relativistic": {"weights", "critic"},
    "LossesConfig.r1": CRITIC,
    **{
        f"TrainedPriorConfig.{name}": {"initial weights"}
        for name in ("num_steps", "learning_rate", "mixing", "init_from")
    },
    "CheckpointPriorConfig.path": {"initial weights"},
}
"""What some of the fields must change."""

SECTIONS = (
    *(GANConfig, GeneratorConfig, DiscriminatorConfig, LossesConfig),
    *(TrainedPriorConfig, CheckpointPriorConfig, GANTrainConfig),
)


def test_every_field_of_the_schema_is_here():
    own = {
        f"{section.__name__}.{field}" for section in SECTIONS for field in section.__annotations__ if field != "name"
    }
    sections = {f"GANConfig.{name}" for name in ("generator", "discriminator", "losses", "train")}
    assert own - sections == CHANGES.keys() - {"GANConfig.seed"}  # the seed is a field of the base class


class Maps(MobileFaceNetMaps):
    """One map, of a convolution that a seed draws."""

    layer_weights = (1.0,)

    def __init__(self, seed: int) -> None:
        nn.Module.__init__(self)
        self.network = drawn_convolution(seed)

    def forward(self, images: torch.Tensor, landmarks: torch.Tensor) -> list[torch.Tensor]:
        return [self.network(images)]


class Features(MobileFaceNetEmbedding):
    def __init__(self, seed: int) -> None:
        nn.Module.__init__(self)
        self.network = drawn_convolution(seed)

    def forward(self, images: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        return self.network(images).flatten(1)[:, :128]


def drawn_convolution(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Conv2d(3, 8, 4, stride=4).requires_grad_(False)


class ComponentCritic(nn.Module):
    """Logits and two feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(n, 4, 3, stride=2, padding=1) for n in (3, 4))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        half = self.convs[0](x)
        quarter = self.convs[1](half)
        return quarter[:, :1], (half, quarter)


@pytest.fixture(autouse=True)
def networks(monkeypatch):
    """Small random networks in place of those that are large or whose weights are not here."""
    monkeypatch.setattr(build, "load_mobilefacenet", lambda: None)
    monkeypatch.setattr(build, "MobileFaceNetMaps", lambda network: Maps(1))
    monkeypatch.setattr(build, "MobileFaceNetEmbedding", lambda network: Features(2))
    monkeypatch.setattr(build, "load_vgg19", lambda: Maps(3))
    monkeypatch.setattr(build, "load_arcface", lambda: Features(4))
    monkeypatch.setattr(components, "FacialComponentDiscriminator", ComponentCritic)
    yield
    reset()


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, str]:
    """A generator, the decoders of two as priors, and the networks of a stage zero of smaller faces."""
    folder = tmp_path_factory.mktemp("files")
    paths = {name: folder / f"{name}.safetensors" for name in ("MODEL", "PRIOR", "OTHER")}
    for seed, (name, path) in enumerate(paths.items(), start=10):
        torch.manual_seed(seed)
        model = GFPGAN(32, num_style_feat=8, num_mlp=2, narrow=1 / 64)
        if name == "MODEL":
            save_gfpgan(model, path)
        else:
            save_file(model.stylegan_decoder.state_dict(), path)
    checkpoint = folder / "SMALLER" / "checkpoints" / "step_00000001"
    checkpoint.mkdir(parents=True)
    save_file(StyleGAN2Generator(16, 8, 1, 2, 1 / 64).state_dict(), checkpoint / PRIOR_FILE)
    save_file(StyleGAN2Discriminator(16, 1, 1 / 64).state_dict(), checkpoint / CRITIC_FILE)
    return {name: str(path) for name, path in paths.items()} | {"SMALLER": str(folder / "SMALLER")}


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def digest(module: torch.nn.Module) -> str:
    return hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in module.state_dict().values())).hexdigest()


def built(path: Path, overrides: list[str], files: dict[str, str]) -> dict[str, Any]:
    """Everything of a run but where its files are, after its first two steps."""
    path.write_text(BASE.replace("OUT", str(path.with_suffix(""))))
    for name, file in files.items():
        overrides = [override.replace(name, file) for override in overrides]
    config = load_config(path, GANConfig, overrides)
    reset()
    run = build.build_gan(config)
    learner, batches = run.learner, run.batches_from(0)
    generator = learner.accelerator.unwrap_model(learner.model)
    begun = digest(generator)
    values = [learner.train_step(step, batches) for step in range(2)]
    return {
        "initial weights": begun,
        "noise": learner.seed,
        "losses": [{name: value.tolist() for name, value in step.items()} for step in values],
        "weights": digest(generator),
        "averages": hashlib.sha256(b"".join(w.numpy().tobytes() for w in learner.ema.shadow_params)).hexdigest(),
        "critic": digest(learner.adversary.model),
        "components": digest(learner.components.model),
    }


_known: dict[str, dict[str, Any]] = {}


@pytest.mark.parametrize("field", CHANGES)
def test_a_field_changes_what_is_built_or_the_first_steps(field, files, tmp_path):
    common, change = CHANGES[field]
    if str(common) not in _known:
        _known[str(common)] = built(tmp_path / "before.yaml", common, files)
    before, after = _known[str(common)], built(tmp_path / "after.yaml", [*common, *change], files)
    changed = {name for name, value in before.items() if after[name] != value}
    assert changed
    assert REACHES.get(field, set()) <= changed


def test_nothing_changes_where_nothing_is_changed(files, tmp_path):
    assert built(tmp_path / "before.yaml", [], files) == built(tmp_path / "after.yaml", [], files)
