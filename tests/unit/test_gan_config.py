"""Settings of a GFP-GAN run: the shipped files, the published defaults, and what is refused."""

import inspect
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from gan_baseline.adversary import Adam
from gan_baseline.build import (
    build_adam,
    build_embedding,
    build_features,
    build_gan,
    build_generator,
    build_learner,
    check_landmarks,
)
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.learner import Weights
from gan_baseline.schema import DiscriminatorConfig, GANConfig, GANTrainConfig, GeneratorConfig, LossesConfig
from idm.config.assembly.data import build_recipe
from idm.config.assembly.run import claim_folder
from idm.config.load import ConfigError, dump_config, load_config
from idm.config.schema import IDMConfig
from idm.io.image_writer import write_image
from idm.models.critics import StyleGAN2Discriminator

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted([*FOLDER.glob("gan_*.yaml"), *FOLDER.glob("gan_prior/*.yaml")])
SMALLEST = """
output_dir: runs/test
data:
  source: {name: synthetic}
  image_size: 64
generator: {fix_decoder: false}
train: {num_steps: 10, batch_size: 4}
"""


@pytest.fixture
def load(tmp_path):
    def load(*overrides: str) -> GANConfig:
        path = tmp_path / "run.yaml"
        path.write_text(SMALLEST)
        return load_config(path, GANConfig, overrides)

    return load


# The shipped files


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_builds(path):
    config = load_config(path, GANConfig)
    build_recipe(config.degradation)
    with torch.device("meta"):
        assert build_generator(config).image_size == config.data.image_size
        StyleGAN2Discriminator(config.data.image_size, config.discriminator.channel_multiplier)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_configuration_begins_with_the_command_that_runs_it(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "accelerate launch" in first
    assert f" -m gan_baseline.train --config configs/{path.relative_to(FOLDER)}" in first


def test_the_512_px_file_has_the_published_losses_and_optimisation():
    config = load_config(next(path for path in CONFIGS if path.stem == "gan_ffhq512"), GANConfig)
    assert config.losses == LossesConfig(identity_network="arcface")
    published = GANTrainConfig(num_steps=800_000, batch_size=12)
    for name in ("learning_rate", "discriminator_learning_rate", "betas", "milestones", "num_steps", "batch_size"):
        assert getattr(config.train, name) == getattr(published, name)
    assert config.generator == GeneratorConfig()
    assert config.discriminator == DiscriminatorConfig()


# Defaults


def test_the_defaults_are_the_published_ones():
    losses, train = LossesConfig(), GANTrainConfig(num_steps=1, batch_size=1)
    assert (losses.l1, losses.perceptual, losses.style, losses.adversarial, losses.identity) == (0.1, 1, 50, 0.1, 10)
    assert (losses.pyramid, losses.pyramid_until, losses.pyramid_after) == (1, 50_000, 1e-12)
    assert (losses.r1, losses.r1_every, losses.relativistic) == (10, 16, False)
    assert (losses.component_adversarial, losses.component_style) == (1, 200)
    rates = (train.learning_rate, train.discriminator_learning_rate, train.component_learning_rate)
    assert rates == (2e-3, 2e-3, 2e-3)
    assert train.betas == (0, 0.99)
    assert train.discriminator_betas == pytest.approx((0, 0.99 ** (16 / 17)))
    assert train.component_betas == (0.9, 0.99)
    assert train.milestones == (600_000, 700_000)
    assert train.decay_factor == 0.5
    assert train.ema_decay == pytest.approx(0.99778, abs=1e-5)


def test_learning_rates_are_halved_at_each_milestone(load):
    config = load("train.milestones=[3, 5]", "train.num_steps=9")
    adam = build_adam(config, 0.8, (0.0, 0.99))
    assert [adam.learning_rate_at(step) for step in range(7)] == pytest.approx([0.8] * 3 + [0.4] * 2 + [0.2] * 2)


def test_each_network_is_trained_with_its_own_settings(load):
    config = load(
        "losses={perceptual: 0, style: 0, identity: 0, r1: 3, r1_every: 4}",
        "train.learning_rate=0.1",
        "train.discriminator_learning_rate=0.2",
        "train.component_learning_rate=0.3",
        "train.betas=[0.1, 0.2]",
        "train.discriminator_betas=[0.3, 0.4]",
        "train.component_betas=[0.5, 0.6]",
        "generator.narrow=0.015625",
        "discriminator.narrow=0.015625",
        "generator.num_style_feat=8",
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    learner = build_learner(config, build_generator(config), None, None, Accelerator(cpu=True, mixed_precision="no"))
    AcceleratorState._reset_state(reset_partial_state=True)
    found = [player.optimizer.param_groups[0] for player in (learner, learner.adversary, learner.components)]
    wanted = [(0.1, (0.1, 0.2)), (0.2, (0.3, 0.4)), (0.3, (0.5, 0.6))]
    assert [(group["lr"], group["betas"]) for group in found] == wanted
    assert (learner.adversary.gamma, learner.adversary.r1_every) == (3, 4)
    assert (learner.components.adversarial, learner.components.style) == (1, 200)


# Schema and code name the same things


def test_the_sections_hold_the_networks_arguments():
    generator = set(inspect.signature(GFPGAN.__init__).parameters) - {"self", "image_size"}
    assert generator == set(GeneratorConfig.model_fields) - {"fix_decoder", "equalised"}
    critic = set(inspect.signature(StyleGAN2Discriminator.__init__).parameters) - {"self", "image_size"}
    assert critic == set(DiscriminatorConfig.model_fields)


def test_the_learners_weights_are_those_of_the_section():
    named = {field.name for field in fields(Weights)}
    rest = {"perceptual_network", "identity_network", "component_adversarial", "component_style"}
    rest |= {"relativistic", "r1", "r1_every"}  # of the discriminator
    assert named | rest == set(LossesConfig.model_fields)
    assert {field.name for field in fields(Adam)} == {"learning_rate", "betas", "milestones", "factor", "max_grad_norm"}


# What cannot work


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generator.fix_decoder=true", "generator.fix_decoder: a new decoder must be trained"),
        ("data.image_size=96", "image_size 96 is not a power of two"),
        ("generator.narrow=0.001", "generator, data.image_size: narrow 0.001"),
        ("discriminator.narrow=0.001", "discriminator, data.image_size: narrow 0.001"),
        ("data.image_size=16", "eyes are too small below data.image_size 32"),
        ("train.milestones=[5, 5]", "train.milestones: must increase"),
        ("train.mixed_precision=fp16", "train.mixed_precision"),
        ("losses.l1=-1", "losses.l1"),
        ("losses.identity_network=vgg19", "losses.identity_network"),
        ("losses.pyramids=1", "did you mean 'pyramid'"),
        ("prior.name=download", "prior.name: must be one of 'train', 'checkpoint', 'bundled'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_work(load, override, message):
    with pytest.raises(ConfigError) as caught:
        load(override)
    assert message in str(caught.value)


def test_a_run_whose_losses_never_use_the_restored_face_is_refused(load):
    zeros = [f"losses.{name}=0" for name in ("l1", "perceptual", "style", "adversarial", "identity")]
    with pytest.raises(ConfigError, match="none of l1"):
        load(*zeros)


def test_stage_zero_needs_a_discriminator(load):
    with pytest.raises(ConfigError, match=r"train needs losses.adversarial"):
        load("prior.name=train", "losses.adversarial=0")


def test_a_folder_that_holds_a_run_of_another_kind_is_refused(load, tmp_path):
    idm = load_config(CONFIGS[0].with_name("faces64.yaml"), IDMConfig)
    (tmp_path / "config.yaml").write_text(dump_config(idm))
    with pytest.raises(ConfigError, match=f"^output_dir: {tmp_path} holds a run of another kind or version"):
        claim_folder(load(f"output_dir={tmp_path}"))
    assert (tmp_path / "config.yaml").read_text() == dump_config(idm)


def test_the_learning_rate_of_stage_zero_may_change_within_a_run(load, tmp_path):
    def stage_zero(learning_rate: float) -> GANConfig:
        return load(f"output_dir={tmp_path}", f"prior={{name: train, learning_rate: {learning_rate}}}")

    claim_folder(stage_zero(2e-3))
    claim_folder(stage_zero(1e-3))
    with pytest.raises(ConfigError, match=r"holds a run with another prior.mixing"):
        claim_folder(load(f"output_dir={tmp_path}", "prior={name: train, mixing: 0.5}"))


# Eyes and mouths


@pytest.mark.parametrize("loss", ["component_adversarial", "component_style"])
def test_a_loss_on_eyes_without_landmarks_is_refused_before_training(load, tmp_path, loss):
    (tmp_path / "faces").mkdir()
    write_image(tmp_path / "faces" / "a.png", np.zeros((64, 64, 3), np.uint8))
    other = {"component_adversarial": "component_style", "component_style": "component_adversarial"}[loss]
    for source in (
        f"{{name: folder, path: {tmp_path / 'faces'}}}",
        "{name: huggingface, path: x, landmarks_column: null}",
    ):
        config = load(f"data.source={source}", f"losses.{other}=0", f"output_dir={tmp_path / 'run'}")
        with pytest.raises(ConfigError, match=r"^losses.component_adversarial, component_style: .* no landmarks"):
            build_gan(config)
    assert not (tmp_path / "run").exists()


def test_landmarks_of_any_face_will_do_and_no_loss_needs_none(load, tmp_path):
    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    source = f"data.source={{name: folder, path: {tmp_path}}}"
    check_landmarks(load(source, "losses.component_adversarial=0", "losses.component_style=0"))
    check_landmarks(load())  # synthetic faces
    check_landmarks(load("data.source={name: huggingface, path: x, landmarks_column: points}"))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "landmarks": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]}\n')
    check_landmarks(load(source))


# Networks that no loss wants


def test_networks_that_no_loss_wants_are_not_looked_for(load, monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    config = load("losses.perceptual=0", "losses.style=0", "losses.identity=0")
    assert build_features(config) is None
    assert build_embedding(config) is None


@pytest.mark.parametrize("network", ["vgg19", "mobilefacenet"])
@pytest.mark.parametrize("wanted", ["perceptual", "style"])
def test_a_wanted_network_that_is_missing_is_named_with_its_setting(load, monkeypatch, tmp_path, network, wanted):
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    other = {"perceptual": "style", "style": "perceptual"}[wanted]
    config = load(f"losses.perceptual_network={network}", f"losses.{other}=0")
    with pytest.raises(ConfigError, match=rf"losses.perceptual_network: {network}.*: weights file not found"):
        build_features(config)


@pytest.mark.parametrize("file", ["vgg19-dcbb9e9d.pth", "mobilefacenet_casia.safetensors"])
def test_a_broken_network_is_named_with_its_setting(load, monkeypatch, tmp_path, file):
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / file).write_bytes(b"cut short")
    network = file.partition("-")[0].partition("_")[0]
    with pytest.raises(ConfigError, match=rf"losses.perceptual_network: .*{file}"):
        build_features(load(f"losses.perceptual_network={network}"))
    if network == "mobilefacenet":
        with pytest.raises(ConfigError, match=rf"losses.identity_network: .*{file}"):
            build_embedding(load())


def test_a_prior_that_cannot_be_used_is_named_with_its_setting(load, tmp_path):
    none = [f"losses.{name}=0" for name in ("perceptual", "style", "identity")]
    (tmp_path / "prior.pth").write_bytes(b"cut short")
    for path in (tmp_path / "prior.pth", tmp_path / "absent.pth"):
        config = load(*none, f"prior={{name: checkpoint, path: {path}}}", f"output_dir={tmp_path / 'run'}")
        with pytest.raises(ConfigError, match=f"prior: {path}: is n"):
            build_gan(config)
    config = load(*none, "prior={name: bundled}", f"output_dir={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=r"prior: .*does not hold the weights of this StyleGAN2Generator"):
        build_gan(config)  # its generator is wider
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("network", ["arcface", "mobilefacenet"])
def test_a_missing_identity_network_is_named_with_its_setting(load, monkeypatch, tmp_path, network):
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    with pytest.raises(ConfigError, match=rf"losses.identity_network: {network}.*: weights file not found"):
        build_embedding(load(f"losses.identity_network={network}"))
