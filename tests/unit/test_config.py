"""Every shipped configuration loads, and every fault has a message of its own that names its place."""

import typing
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
import yaml

from idm.config import schema
from idm.config.assembly.data import build_mixture, build_recipe
from idm.config.assembly.intrinsic import build_denoiser, build_gammas, build_idm
from idm.config.load import ConfigError, dump_config, load_config
from idm.config.schema import DegradationConfig
from idm.degradation import PRESETS
from idm.degradation.further_steps import MotionBlur
from idm.degradation.steps import Blur, Downscale, Jpeg, Resize
from idm.diffusion.chain import SAMPLER_NAMES, Chain
from idm.evaluation.metrics import METRICS
from idm.models.architecture import Architecture
from idm.training.learner import Optimisation

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = [
    path
    for path in sorted([*FOLDER.glob("*.yaml"), *(FOLDER / "faces256").glob("*.yaml")])
    if not path.name.startswith("gan_")
]
SMALLEST = """
output_dir: runs/test
data:
  source: {name: synthetic}
  image_size: 64
train: {num_steps: 10, batch_size: 4}
"""


@pytest.fixture
def load(tmp_path):
    """Load the smallest configuration, or another text, with overrides."""

    def load(*overrides: str, text: str = SMALLEST) -> schema.IDMConfig:
        path = tmp_path / "run.yaml"
        path.write_text(text)
        return load_config(path, schema.IDMConfig, overrides)

    return load


@pytest.fixture
def faults(load, tmp_path):
    """The lines of the error that a configuration ends in, without the file's name."""

    def faults(*overrides: str, text: str = SMALLEST) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            load(*overrides, text=text)
        return [line.removeprefix(f"{tmp_path / 'run.yaml'}: ") for line in str(caught.value).splitlines()]

    return faults


# The shipped files


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_shipped_configuration_loads_and_builds(path):
    config = load_config(path, schema.IDMConfig)
    assert len(build_gammas(config.schedule)) == config.schedule.num_steps + 1
    assert build_recipe(config.degradation).clean_probability == config.degradation.clean_probability
    with torch.device("meta"):
        denoiser = build_denoiser(config)
    idm = build_idm(config, denoiser)
    assert idm.image_size == config.data.image_size
    assert idm.chain == config.sampler.build()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_every_shipped_configuration_begins_with_the_command_that_runs_it(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith("# ")
    assert "accelerate launch" in first
    assert f" train_idm.py --config configs/{path.relative_to(FOLDER)}" in first


def test_there_are_configurations():
    assert "quickstart" in [path.stem for path in CONFIGS]


# Schema and code name the same things


def test_every_preset_can_be_chosen_and_no_other():
    annotation = schema.DegradationConfig.model_fields["preset"].annotation
    assert set(typing.get_args(annotation)) == set(PRESETS)


def test_a_recipe_is_the_preset_with_the_sections_changes(load):
    config = load("degradation={preset: mild, down: [2, 3], jpeg_quality: [30, 90], skip_probability: 0.1}").degradation
    changed = PRESETS["mild"].change(Downscale, factor=(2.0, 3.0)).change(Jpeg, quality=(30.0, 90.0))
    assert build_recipe(config) == replace(changed, clean_probability=0.03, skip_probability=0.1)


def test_every_recipe_of_a_mixture_skips_steps_and_halves_faces_alike():
    shared = {"skip_probability": 0.1, "bicubic_probability": 0.2, "half_size_probability": 0.3}
    config = DegradationConfig(mixture={"mild": 0.5}, **shared)
    assert build_mixture(config).recipes == (
        replace(PRESETS["gfpgan"], clean_probability=0.03, **shared),
        replace(PRESETS["mild"], **shared),
    )


def test_steps_of_a_list_take_the_place_of_the_presets(load):
    steps = "[{name: blur, sigma: [1, 2]}, {name: motion_blur, probability: 0.5}, {name: resize}]"
    recipe = build_recipe(load(f"degradation.steps={steps}", "degradation.blur_sigma=[3, 4]").degradation)
    assert recipe.steps == (Blur((3.0, 4.0)), MotionBlur(0.5), Resize())
    with pytest.raises(ConfigError, match=r"degradation\.down: the recipe has no step Downscale"):
        build_recipe(load(f"degradation.steps={steps}", "degradation.down=[3, 4]").degradation)


@pytest.mark.parametrize(
    ("steps", "fault"),
    [
        (
            "[{name: blur, sigma: [2, 1]}]",
            "degradation.steps.0: Value error, impossible Blur: sigma must be an ordered",
        ),
        (
            "[{name: resize}, {name: blur, sigmo: [1, 2]}]",
            "degradation.steps.1.sigmo: unknown key; did you mean 'sigma'?",
        ),
        ("[{name: blurr}]", "degradation.steps.0.name: must be one of 'blur', 'downscale', "),
        ("[{sigma: [1, 2]}]", "degradation.steps.0.name: must be one of 'blur', 'downscale', "),
        ("[{name: jpeg, quality: [x, 2]}]", "degradation.steps.0.quality.0: Input should be a valid number"),
    ],
)
def test_a_fault_in_a_list_of_steps_is_named_with_its_place(faults, steps, fault):
    assert any(found.startswith(fault) for found in faults(f"degradation.steps={steps}"))


def test_the_denoiser_section_holds_the_denoisers_arguments():
    arguments = {field.name for field in fields(Architecture)} - {"image_size", "image_channels"}
    assert set(schema.DenoiserConfig.model_fields) == arguments


def test_a_sampler_section_holds_the_fields_of_a_chain_with_their_defaults():
    chain = {field.name: field for field in fields(Chain)}
    section = {"sampler" if name == "name" else name: field for name, field in schema.ChainConfig.model_fields.items()}
    assert list(section) == list(chain)
    for name, field in section.items():
        if name != "sampler":  # which a section has to state
            assert field.default == chain[name].default
        if typing.get_origin(field.annotation) is typing.Literal:
            assert field.annotation == chain[name].type


@pytest.mark.parametrize(("name", "value"), [("num_steps", 0), ("strength", 0.0), ("strength", 1.1), ("eta", 1.1)])
def test_a_sampler_section_has_the_bounds_of_a_chain(faults, name, value):
    with pytest.raises(ValueError, match=str(value)):
        Chain(**{"start_from": "degraded", name: value})
    assert faults(f"sampler={{name: ddim, {name}: {value}}}")[0].startswith(f"sampler.{name}: Input should be ")


def test_every_metric_that_compares_with_originals_can_validate_and_no_other(load, faults):
    known = [name for name, metric in METRICS.items() if metric.kind != "single"]
    large = "data.image_size=256"
    assert load(f"validation.metrics=[{', '.join(known)}]", large).validation.metrics == known
    for name in METRICS.keys() - known:
        (fault,) = faults(f"validation.metrics=[psnr, {name}]", large)
        assert fault.startswith("validation.metrics.1: Input should be 'psnr', 'psnr_y', ")


def test_the_train_section_holds_the_fields_of_the_optimisation():
    assert {field.name for field in fields(Optimisation)} <= set(schema.IDMTrainConfig.model_fields)


# Values


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.0e-4", "1.e-4", ".1e-3", "+1e-4", "0.0001"])
def test_a_power_of_ten_is_a_number(load, text):
    assert load(f"train.learning_rate={text}").train.learning_rate == pytest.approx(1e-4, rel=1e-12)
    in_file = SMALLEST.replace("batch_size: 4", f"batch_size: 4, learning_rate: {text}")
    assert load(text=in_file).train.learning_rate == pytest.approx(1e-4, rel=1e-12)


def test_a_quoted_power_of_ten_is_text_and_refused(faults):
    assert faults("train.learning_rate='1e-4'") == ["train.learning_rate: Input should be a valid number, got '1e-4'"]


def test_a_name_that_looks_like_a_number_stays_a_name(load):
    config = load("data.source.name=folder", "data.source.path=faces/1e4x")
    assert config.data.source.path == Path("faces/1e4x")


def test_an_override_may_be_any_yaml(load):
    config = load(
        "denoiser.channels=[8, 16]",
        "denoiser.num_blocks=[1,1]",
        "denoiser.head_dim=8",
        "degradation.jpeg_quality=[30, 60]",
        "train.compile=true",
        "data.val_source={name: folder, path: val}",
        "objective.min_snr_clamp=5",
    )
    assert config.denoiser.channels == [8, 16]
    assert config.degradation.jpeg_quality == (30, 60)
    assert config.train.compile is True
    assert config.data.val_source == schema.FolderConfig(path=Path("val"))
    assert config.objective.min_snr_clamp == 5


def test_a_later_override_wins(load):
    assert load("train.batch_size=8", "train.batch_size=12").train.batch_size == 12


def test_a_configuration_is_frozen(load):
    with pytest.raises(Exception, match="frozen"):
        load().train.batch_size = 3


# Choices


def test_switching_a_choice_drops_the_fields_of_the_old_one(load):
    text = SMALLEST + "sampler: {name: ddim, num_steps: 4, eta: 0.5}\n"
    config = load("sampler.name=langevin", text=text)
    assert config.sampler == schema.ChainConfig(name="langevin")
    assert load("sampler.name=ddim", text=text).sampler == schema.ChainConfig(name="ddim", num_steps=4, eta=0.5)


def test_after_a_switch_the_new_fields_can_be_set(load):
    text = SMALLEST + "schedule: {name: linear, beta_end: 0.02}\n"
    config = load("schedule.name=cosine", "schedule.offset=0.01", "schedule.num_steps=500", text=text)
    assert config.schedule == schema.CosineConfig(num_steps=500, offset=0.01)


def test_a_nested_choice_is_switched_too(load):
    config = load("data.source.name=huggingface", "data.source.path=imagefolder")
    assert config.data.source == schema.HuggingFaceConfig(path="imagefolder")


def test_a_choice_owns_its_own_fields_only(faults):
    assert faults("schedule={name: linear, offset: 0.3}") == [
        "schedule.offset: unknown key; known here: beta_end, beta_start, name, num_steps"
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("schedule.name=quadratic", "schedule.name: must be one of 'linear', 'cosine', 'log_sigma'"),
        (
            "data.source.name=zip",
            "data.source.name: must be one of 'synthetic', 'folder', 'huggingface', 'assets'",
        ),
        (
            "data.val_source.name=zip",
            "data.val_source.name: must be one of 'synthetic', 'folder', 'huggingface', 'assets'",
        ),
    ],
)
def test_an_unknown_choice_is_answered_with_the_known_ones(faults, override, message):
    assert faults(override) == [message]


def test_a_choice_without_a_name_is_answered_with_the_known_ones(faults):
    assert faults("schedule.num_steps=8") == ["schedule.name: must be one of 'linear', 'cosine', 'log_sigma'"]


def test_an_unknown_sampler_or_none_is_answered_with_the_known_ones(faults):
    *most, last = map(repr, SAMPLER_NAMES)
    known = f"{', '.join(most)} or {last}"
    assert faults("sampler.name=ddpm") == [f"sampler.name: Input should be {known}, got 'ddpm'"]
    assert faults("sampler.num_steps=8") == ["sampler.name: is required"]


def test_a_chain_is_configured_with_levels_of_its_own(load):
    config = load("sampler={name: ddim, num_steps: 3, spacing: levels, levels: [100, 1.5, 0.2]}")
    assert config.sampler.build() == Chain("ddim", 3, spacing="levels", levels=(100.0, 1.5, 0.2))


# Faults


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trian.batch_size=8", "trian: unknown key; did you mean 'train'?"),
        ("train.batchsize=8", "train.batchsize: unknown key; did you mean 'batch_size'?"),
        ("denoiser.head_dims=8", "denoiser.head_dims: unknown key; did you mean 'head_dim'?"),
        ("schedule={name: cosine, ofset: 0.1}", "schedule.ofset: unknown key; did you mean 'offset'?"),
        ("data.source.num_face=8", "data.source.num_face: unknown key; did you mean 'num_faces'?"),
        (
            "data.val_source={name: folder, path: x, paht: y}",
            "data.val_source.paht: unknown key; did you mean 'path'?",
        ),
        (
            "objective.zzz=8",
            "objective.zzz: unknown key; known here: "
            "adversarial, clean_weight, features, min_snr_clamp, noise_levels, p, prediction, ssim_weight",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_what_was_meant(faults, override, message):
    assert faults(override) == [message]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size=0", "train.batch_size: Input should be greater than or equal to 1, got 0"),
        ("train.batch_size=4.0", "train.batch_size: Input should be a valid integer, got 4.0"),
        ("train.batch_size=many", "train.batch_size: Input should be a valid integer, got 'many'"),
        ("train.batch_size=true", "train.batch_size: Input should be a valid integer, got True"),
        ("train.learning_rate=0", "train.learning_rate: Input should be greater than 0, got 0"),
        ("train.compile=1", "train.compile: Input should be a valid boolean, got 1"),
        ("train.betas=[0.9]", "train.betas.1: is required"),
        ("train=3", "train: Input should be an object, got 3"),
        (
            "denoiser.channels=[64, wide, 64]",
            "denoiser.channels.1: Input should be a valid integer, got 'wide'",
        ),
        ("denoiser.patch_size=3", "denoiser.patch_size: Input should be 1, 2, 4 or 8, got 3"),
        (
            "objective.prediction=noise",
            "objective.prediction: Input should be 'epsilon', 'sample' or 'v', got 'noise'",
        ),
        ("objective.p=3", "objective.p: Input should be 1 or 2, got 3"),
        ("data.source={name: folder}", "data.source.path: is required"),
        ("data.source={name: folder, path: 3}", "data.source.path: Input should be a valid string, got 3"),
        ("data.image_size=8", "data.image_size: Input should be greater than or equal to 16, got 8"),
        ("sampler={name: ddim, eta: 2}", "sampler.eta: Input should be less than or equal to 1, got 2"),
        ("sampler={name: unipc, strength: 0}", "sampler.strength: Input should be greater than 0, got 0"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(faults, override, message):
    assert faults(override) == [message]


def test_all_faults_come_at_once(faults):
    found = faults(
        "train.batchsize=4",
        "train.learning_rate=fast",
        "denoiser.channels=[64, a]",
        "sampler.name=foo",
        "data.source.nam=3",
        "zzz=1",
    )
    assert sorted(fault.partition(":")[0] for fault in found) == [
        "data.source.nam",
        "denoiser.channels.1",
        "sampler.name",
        "train.batchsize",
        "train.learning_rate",
        "zzz",
    ]


def test_a_missing_section_is_named(faults):
    assert faults(text="output_dir: runs/test\n") == ["data: is required", "train: is required"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batch_size", "override 'train.batch_size': expected section.key=value"),
        ("=3", "override '=3': expected section.key=value"),
        ("train.batch_size=[1", "override 'train.batch_size=[1': the value is not YAML"),
        ("output_dir.x=3", "override 'output_dir.x=3': output_dir is a value, not a section"),
    ],
)
def test_an_override_that_is_none_is_refused(faults, override, message):
    assert faults(override) == [message]


@pytest.mark.parametrize("text", ["", "- 1\n", "faces\n"])
def test_a_file_without_sections_is_refused(faults, text):
    assert faults(text=text) == ["must hold sections such as 'data:' and 'train:'"]


def test_a_file_that_is_not_yaml_is_refused(faults):
    assert faults(text="data: [\n")[0].startswith("is not YAML: ")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read \(No such file"):
        load_config(tmp_path / "absent.yaml", schema.IDMConfig)


# Combinations

IMPOSSIBLE = {
    "compiled adapters": (
        ["train.lora={}", "train.init_from=somewhere", "train.compile=true"],
        "train.compile: not available with train.lora, whose layers cannot share what is compiled",
    ),
    "adapters alone": (
        ["train.lora={}"],
        "train.lora: needs train.init_from, since adapters alone cannot train a new network",
    ),
    "a critic in fp16": (
        ["objective.adversarial={}", "train.mixed_precision=fp16"],
        "train.mixed_precision: fp16 is not available with objective.adversarial, because one loss scale cannot "
        "serve two optimisers; use bf16",
    ),
    "levels": (
        ["denoiser.num_blocks=[1, 1]"],
        "denoiser.num_blocks: 2 levels, but denoiser.channels has 3",
    ),
    "stride": (
        ["data.image_size=60"],
        "data.image_size: 60 does not divide by patch_size * 2^(levels - 1) = 8",
    ),
    "heads": (
        ["denoiser.head_dim=48"],
        "denoiser.head_dim: 48 does not divide the 64 channels at 32x32",
        "denoiser.head_dim: 48 does not divide the 128 channels at 16x16",
        "denoiser.head_dim: 48 does not divide the 256 channels at 8x8",
    ),
    "added x_d": (
        ["objective.prediction=epsilon"],
        "denoiser.add_degraded: needs objective.prediction=sample, not epsilon"
        " (x_d is an estimate of x_0, not of noise)",
    ),
    "betas": (
        ["schedule={name: linear, beta_start: 0.1, beta_end: 0.01}"],
        "schedule.beta_start: is above schedule.beta_end",
    ),
    "steps": (
        ["sampler={name: ddim, num_steps: 2001}"],
        "sampler.num_steps: 2001 exceeds the schedule's 2000",
    ),
    "strength": (
        ["sampler={name: ddim, strength: 0.5}"],
        "sampler: strength below 1 needs start_from='degraded': pure noise belongs to the whole chain only",
    ),
    "eta": (["sampler={name: langevin, eta: 0.3}"], "sampler: eta is for the sampler ddim, not for langevin"),
    "chain of other levels": (
        ["sampler={name: ddim, num_steps: 3, spacing: levels, levels: [9, 1]}"],
        "sampler: the chain has 2 levels but 3 steps; give one level per step, or choose another spacing",
    ),
    "accumulation": (
        ["train.accumulation=3"],
        "train.batch_size: 4 does not divide into train.accumulation=3 micro-batches",
    ),
    "shown": (
        ["validation.num_shown=9", "validation.num_images=8"],
        "validation.num_shown: exceeds validation.num_images",
    ),
    "metric of larger faces": (
        ["validation.metrics=[psnr, ms_ssim]"],
        "validation.metrics: ms_ssim needs faces of 176 px or more",
    ),
    "metric that ranks nothing": (
        ["validation.metrics=[sharpness]", "validation.best=sharpness"],
        "validation.best: sharpness is best at 1 and ranks no checkpoints",
    ),
    "stream without a length": (
        [
            "data.source={name: huggingface, path: x, streaming: true}",
            "data.val_source={name: folder, path: y}",
        ],
        "data.source.num_faces: is needed with streaming, where no length is known, and only there",
    ),
    "length without a stream": (
        ["data.source={name: huggingface, path: x, num_faces: 9}"],
        "data.source.num_faces: is needed with streaming, where no length is known, and only there",
    ),
    "length of a validation without a stream": (
        ["data.val_source={name: huggingface, path: x, num_faces: 9}"],
        "data.val_source.num_faces: is needed with streaming, where no length is known, and only there",
    ),
    "parts without a stream": (
        ["data.source={name: huggingface, path: x, parts: 2}"],
        "data.source.parts: is for streaming only",
    ),
    "more parts than faces": (
        [
            "data.source={name: huggingface, path: x, streaming: true, num_faces: 3, parts: 4}",
            "data.val_source={name: folder, path: y}",
        ],
        "data.source.parts: 4, but num_faces is 3",
    ),
    "stream without validation": (
        ["data.source={name: huggingface, path: x, streaming: true, num_faces: 9}"],
        "data.val_source: is required with a streaming source, whose end is not known",
    ),
    "streamed validation": (
        ["data.val_source={name: huggingface, path: x, streaming: true, num_faces: 9}"],
        "data.val_source.streaming: validation needs a source that can be indexed",
    ),
    "nothing to train on": (
        ["data.source.num_faces=64"],
        "data.source.num_faces: nothing is left to train on after the held-out faces",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_an_impossible_combination_is_refused(faults, name):
    overrides, *messages = IMPOSSIBLE[name]
    assert faults(*overrides) == messages


def test_all_impossible_combinations_come_at_once(faults):
    found = faults(
        "train.accumulation=3",
        "data.image_size=60",
        "denoiser.head_dim=16",
        "sampler={name: ddim, strength: 0.5}",
    )
    assert [fault.partition(":")[0] for fault in found] == [
        "data.image_size",
        "sampler",
        "train.batch_size",
    ]


@pytest.mark.parametrize("override", ["degradation.blur_sigma=[9, 1]", "degradation.jpeg_quality=[-5, 300]"])
def test_an_impossible_range_is_refused(faults, override):
    assert faults(override)[0].startswith(override.partition("=")[0])


def test_an_infinite_learning_rate_is_refused(faults):
    assert faults("train.learning_rate=.inf")[0].startswith("train.learning_rate")


# Round trip


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: str(path.relative_to(FOLDER)))
def test_a_dumped_configuration_loads_as_itself(path, tmp_path):
    config = load_config(path, schema.IDMConfig)
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml", schema.IDMConfig) == config


@pytest.mark.parametrize(
    "overrides",
    [
        ["train.learning_rate=1e-7", "train.betas=[0.5, 0.75]", "output_dir=/a b/ü"],
        ["data.source={name: huggingface, path: x, data_files: [a, b]}", "sampler={name: ddim, eta: 1}"],
        [
            "schedule.name=cosine",
            "objective={prediction: v, p: 2, min_snr_clamp: 5}",
            "denoiser.add_degraded=false",
        ],
        ["degradation={preset: mild, blur_sigma: [0.5, 2], jpeg_quality: [30, 90]}"],
        ["degradation.steps=[{name: sinc}, {name: shaped_blur, shape: plateau, sigma: [1, 2], beta: [1, 2]}]"],
        ["data.val_source={name: folder, path: '007'}", "data.source={name: folder, path: 'no'}"],
        (["data.source={name: folder, path: '1e5'}"]),
    ],
)
def test_an_unusual_configuration_loads_as_itself_too(load, overrides):
    config = load(*overrides)
    assert load(text=dump_config(config)) == config


def test_the_dump_names_every_setting(load):
    dumped = yaml.safe_load(dump_config(load()))
    assert set(dumped) == set(schema.IDMConfig.model_fields)
    assert dumped["sampler"] == {
        "name": "ddim",
        "num_steps": 10,
        "start_from": "noise",
        "strength": 1.0,
        "eta": 0.0,
        "spacing": "even",
        "levels": [],
    }
