"""What may change within a run and what may not, and what trackers are told."""

from pathlib import Path

import pytest

from idm.config.assembly import run
from idm.config.assembly.run import build_accelerator, build_validation, claim_folder, for_trackers
from idm.config.load import ConfigError, load_config
from idm.config.schema import IDMConfig
from idm.data.pairs import FrozenPairs

TINY = Path(__file__).parents[1] / "e2e" / "tiny.yaml"


@pytest.fixture
def load(tmp_path):
    def load(*overrides: str) -> IDMConfig:
        return load_config(TINY, IDMConfig, [f"output_dir={tmp_path / 'run'}", *overrides])

    return load


FROM_HERE_ON = [
    "train.num_steps=20",
    "train.learning_rate=1e-5",
    "train.max_grad_norm=0.5",
    "train.warmup_steps=5",
    "train.decay=constant",
    "train.mixed_precision=no",
    "train.gradient_checkpointing=true",
    "train.accumulation=1",
    "train.tf32=false",
    "train.cudnn_benchmark=false",
]
NEVER = [
    "seed=1",
    "data.source.seed=1",
    "data.image_size=64",
    "data.flip_probability=0.0",
    "degradation.preset=mild",
    "denoiser.dropout=0.2",
    "schedule={name: linear, beta_end: 0.02}",
    "objective.p=2",
    "sampler.num_steps=3",
    "train.batch_size=8",
    "train.ema_decay=0.9",
    "train.betas=[0.5, 0.9]",
    "train.weight_decay=0.1",
    "validation.seed=1",
    "validation.num_images=5",
]
ROUNDS = "extrinsic={rounds: 1}"


@pytest.mark.parametrize("change", [*FROM_HERE_ON, "validation.metrics=[psnr]", "train.trackers=[tensorboard]"])
def test_what_leaves_data_and_noise_alone_may_change_within_a_run(load, change):
    claim_folder(load())
    claim_folder(load(change))
    assert load_config(load().output_dir / "config.yaml", IDMConfig) == load(change)


@pytest.mark.parametrize("change", NEVER)
def test_what_changes_data_or_model_is_refused(load, change):
    claim_folder(load())
    with pytest.raises(ConfigError, match=f"holds a run with another {change.split('=')[0].rsplit('.seed')[0]}"):
        claim_folder(load(change))
    assert load_config(load().output_dir / "config.yaml", IDMConfig) == load()


def test_the_critics_learning_rate_may_change_within_a_run_and_no_other_setting_of_the_critic(load):
    critic = ["objective.adversarial={learning_rate: 1e-3, channels: [8]}"]
    claim_folder(load(*critic))
    claim_folder(load(*critic, "objective.adversarial.learning_rate=1e-4"))
    with pytest.raises(ConfigError, match=r"holds a run with another objective\.adversarial\.weight; choose"):
        claim_folder(load(*critic, "objective.adversarial.weight=0.5"))


def test_the_guide_names_every_setting_that_may_change_within_a_run():
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "training.md").read_text()
    assert [key for key in (*run.MAY_CHANGE, *run.FROM_HERE_ON) if f"`{key}`" not in guide] == []


def test_a_section_that_is_new_is_named_and_not_each_of_its_settings(load):
    claim_folder(load())
    with pytest.raises(ConfigError, match=r"holds a run with another extrinsic; choose"):
        claim_folder(load(ROUNDS))


@pytest.mark.parametrize("change", FROM_HERE_ON)
def test_rounds_are_compared_and_so_are_all_trained_alike(load, change):
    claim_folder(load(ROUNDS))
    with pytest.raises(ConfigError, match=f"holds a run with another {change.split('=')[0]}"):
        claim_folder(load(ROUNDS, change))
    claim_folder(load("extrinsic={rounds: 2}"))


def test_a_folder_that_cannot_be_made_is_a_fault_of_the_configuration(load, tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match=r"output_dir: .* cannot be made"):
        claim_folder(load())


# Trackers


def test_a_misspelt_tracker_is_a_fault_of_the_configuration(load):
    with pytest.raises(ConfigError, match=r"train.trackers.0: Input should be 'tensorboard', .*got 'wanbd'"):
        load("train.trackers=[wanbd]")


def test_a_tracker_that_is_not_installed_names_the_package_to_install(load, monkeypatch):
    monkeypatch.setattr(run, "get_available_trackers", list)
    with pytest.raises(ConfigError, match=r"train.trackers: comet_ml is not installed; pip install comet-ml"):
        build_accelerator(load("train.trackers=[comet_ml]"))


def test_trackers_receive_the_settings_as_flat_pairs(load):
    recorded = for_trackers(load())
    assert recorded["train.learning_rate"] == 1e-3
    assert recorded["data.source.name"] == "synthetic"
    assert recorded["denoiser.channels"] == "[16, 32]"
    assert recorded["objective.min_snr_clamp"] == "null"
    assert recorded["degradation.mixture"] == "{}"
    assert all(isinstance(value, str | int | float) for value in recorded.values())


# Metrics


def test_the_metric_that_decides_must_be_among_those_that_are_measured(load):
    with pytest.raises(ConfigError, match=r"validation.best: ssim is not among validation.metrics"):
        load("validation.metrics=[psnr]", "validation.best=ssim")


def test_rounds_need_the_metrics_by_which_they_are_compared(load):
    with pytest.raises(ConfigError, match=r"validation.metrics: rounds are compared by psnr and ssim"):
        load(ROUNDS, "validation.metrics=[psnr]")


def test_a_metric_without_its_weights_is_a_fault_of_the_configuration(load, monkeypatch, tmp_path):
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    for name in ("identity", "frechet"):
        with pytest.raises(ConfigError, match=r"^validation.metrics: "):
            build_validation(load(f"validation.metrics=[psnr, {name}]"), FrozenPairs.__new__(FrozenPairs))


def test_metrics_of_faces_and_of_sets_are_kept_apart(load, assets, monkeypatch):
    monkeypatch.setenv("IDM_ASSETS", str(assets))
    config = load("validation.metrics=[ssim, identity, frechet]", "validation.best=frechet")
    built = build_validation(config, FrozenPairs.__new__(FrozenPairs))
    assert (sorted(built.metrics), sorted(built.set_metrics), built.best) == (
        ["identity", "ssim"],
        ["frechet"],
        "frechet",
    )
