"""A model is found and loaded, or one clear error says what is wrong with which file."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file, save_file

from idm.diffusion.chain import Chain
from idm.diffusion.schedule import linear
from idm.io import run_folder
from idm.io.run_folder import mark_best
from idm.models.architecture import Architecture, NetworkName
from idm.models.unet import UNet
from idm.restorers import saved as saved_module
from idm.restorers.idm import IDM
from idm.restorers.pipeline import IDMPipeline
from idm.restorers.saved import WEIGHTS_FILE, ModelError, find_model, load_idm, save_idm

TINY = {
    "image_size": 16,
    "channels": (8, 16),
    "num_blocks": (1, 1),
    "attention_resolutions": (4,),
    "head_dim": 8,
    "add_degraded": True,
}
WEIGHTS = Path("denoiser") / WEIGHTS_FILE


def load(path: Path | None, dtype: torch.dtype = torch.float32) -> IDM:
    return load_idm(path, torch.device("cpu"), dtype)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    save_idm(IDM(UNet(**TINY), linear(num_steps=50)), folder)
    return folder


@pytest.fixture
def model(saved, tmp_path) -> Path:
    """A saved pipeline to break."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change_config(model: Path, **change) -> None:
    path = model / "denoiser" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))


# Networks


@pytest.mark.parametrize("name", get_args(NetworkName))
def test_every_network_is_saved_and_loaded_as_itself(name, tmp_path):
    network = Architecture(**TINY, network=name).build()
    with torch.no_grad():
        for weight in network.parameters():
            weight.normal_(std=0.1)
    save_idm(IDM(network, linear(num_steps=50)), tmp_path)
    again = load(tmp_path).denoiser
    assert (type(again), again.config) == (type(network), Architecture(**again_as_json(network.config)))
    assert json.loads((tmp_path / "model_index.json").read_text())["denoiser"] == [
        type(network).__module__,
        type(network).__name__,
    ]
    x_d, x_t = torch.rand(2, 2, 3, 16, 16)
    inputs = {"x_d": x_d, "x_t": x_t, "gamma": torch.tensor([0.1, 0.9])}
    assert torch.equal(again(**inputs), network(**inputs))


def again_as_json(architecture: Architecture) -> dict:
    """The sizes as a file gives them, with lists for tuples."""
    return json.loads(json.dumps(asdict(architecture)))


def test_an_unknown_network_is_refused(model):
    change_config(model, network="transformer")
    with pytest.raises(ModelError, match=r"config\.json: is damaged: [^~]*'transformer'"):
        load(model)


# Finding


def test_a_saved_pipeline_is_itself(model):
    assert find_model(model) == model


@pytest.mark.parametrize(("best", "expected"), [(10, 10), (None, 30)])
def test_a_run_is_its_best_checkpoint_or_the_newest(saved, tmp_path, best, expected):
    for step in (10, 20, 30):
        shutil.copytree(saved, tmp_path / "checkpoints" / f"step_{step:08d}" / "pipeline")
    if best:
        mark_best(tmp_path / "checkpoints", best, 25.0)
    assert find_model(tmp_path) == tmp_path / "checkpoints" / f"step_{expected:08d}" / "pipeline"


def test_a_damaged_checkpoint_of_a_run_is_refused_with_the_file_and_what_to_do(saved, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    run_folder.write_draft(checkpoints, 10, lambda draft: shutil.copytree(saved, draft / "pipeline"))
    final = run_folder.finish_checkpoint(checkpoints, 10)
    assert find_model(tmp_path) == find_model(final / "pipeline") == final / "pipeline"
    weights = bytearray((final / "pipeline" / WEIGHTS).read_bytes())
    weights[-3] ^= 1  # still a whole file of the right shapes
    (final / "pipeline" / WEIGHTS).write_bytes(weights)
    for path in (tmp_path, final / "pipeline"):
        with pytest.raises(ModelError, match=r"pipeline: is damaged: pipeline/denoiser/diff.* is not as .* another"):
            load(path)
    (checkpoints / "best.json").write_text("{")
    with pytest.raises(ModelError, match=r"best\.json: cannot be read"):
        find_model(tmp_path)


def test_no_path_is_the_default_model_and_a_name_a_bundled_one(model, monkeypatch, tmp_path):
    monkeypatch.setattr(saved_module, "DEFAULT", model)
    monkeypatch.setattr(saved_module, "BUNDLED", {"idm-small": model})
    assert find_model(None) == find_model(Path("idm-small")) == model
    assert saved_module.is_idm(Path("idm-small"))
    monkeypatch.setattr(saved_module, "DEFAULT", tmp_path / "absent")
    with pytest.raises(ModelError, match="no such folder"):
        find_model(None)


# Loading


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_whole_model_loads_with_its_weights_in_the_wanted_precision(model, dtype):
    loaded = load(model, dtype).denoiser
    assert loaded.dtype == dtype
    wanted = load_file(model / WEIGHTS)
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, wanted[name].to(dtype))


def refused(model: Path, *parts: str) -> None:
    """By the commands, and by ``IDMPipeline`` where it is given a folder."""
    for load_one in (load, IDMPipeline.from_pretrained) if model.is_dir() else (load,):
        with pytest.raises(ModelError) as caught:
            load_one(model)
        message = str(caught.value)
        assert message.startswith(str(model))
        for part in parts:
            assert part in message


def test_a_missing_folder_is_refused(tmp_path):
    refused(tmp_path / "absent", "no such folder")


def test_a_file_is_refused(model):
    refused(model / WEIGHTS, "no such folder")


def test_a_folder_of_something_else_is_refused(tmp_path):
    refused(tmp_path, "is not a saved IDM pipeline (model_index.json is missing)")


def test_a_run_without_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "checkpoints" / ".unfinished-step_00000010").mkdir(parents=True)
    refused(tmp_path, "this run has no checkpoint yet")


def test_missing_weights_are_refused(model):
    (model / WEIGHTS).unlink()
    refused(model, str(WEIGHTS), "is missing")


@pytest.mark.parametrize("length", [0, 4, 100, -1])
def test_truncated_weights_are_refused(model, length):
    whole = (model / WEIGHTS).read_bytes()
    (model / WEIGHTS).write_bytes(whole[:length])
    refused(model, str(WEIGHTS), "is not a complete safetensors file")


@pytest.mark.parametrize(
    "change",
    [
        {"channels": [8, 24]},
        {"num_blocks": [1, 2]},
        {"num_blocks": [1, 0]},
        {"attention_resolutions": []},
        {"inject_degraded": True},
        {"patch_size": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_weights_of_another_architecture_are_refused(model, change):
    change_config(model, **change)
    refused(model, str(WEIGHTS), "holds another architecture than config.json")


@pytest.mark.parametrize("gone", ["norm_out.weight", "encoder.0.0.film.bias"])
def test_weights_with_a_gap_are_refused_and_not_filled_with_random_numbers(model, gone):
    weights = load_file(model / WEIGHTS)
    del weights[gone]
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "1 of ", f"first {gone}")


def test_weights_that_the_architecture_does_not_have_are_refused(model):
    weights = load_file(model / WEIGHTS)
    save_file({**weights, "stray": torch.ones(1)}, model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "1 of ", "first stray")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(model, value):
    weights = load_file(model / WEIGHTS)
    weights["norm_out.weight"][0] = value
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "1 weights are not finite, first norm_out.weight")


def test_weights_that_are_all_zero_are_refused(model):
    weights = {name: torch.zeros_like(weight) for name, weight in load_file(model / WEIGHTS).items()}
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "all weights are zero")


def test_integers_instead_of_weights_are_refused(model):
    weights = load_file(model / WEIGHTS)
    weights["norm_out.weight"] = weights["norm_out.weight"].to(torch.int8)
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    refused(model, "1 weights are integers, first norm_out.weight")


def test_the_origin_of_a_loaded_model_is_its_folder_and_the_hash_of_its_weights(model):
    origin = load(model).origin
    assert origin.folder == model
    assert origin.weights_sha256 == hashlib.sha256((model / WEIGHTS).read_bytes()).hexdigest()


def test_a_model_that_diffusers_saved_before_is_read(model):
    """Without spacing, levels and ``conditional``, and with what diffusers writes beside them."""
    for path, gone in (("model_index.json", {"spacing", "levels"}), ("denoiser/config.json", {"conditional"})):
        settings = json.loads((model / path).read_text())
        settings = {name: value for name, value in settings.items() if name not in gone}
        (model / path).write_text(json.dumps({**settings, "_diffusers_version": "0.42.1", "_name_or_path": "x"}))
    assert load(model).chain == Chain()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("model_index.json", {"prediction": "w"}, "prediction must be one of epsilon, sample, v, got 'w'"),
        ("model_index.json", {"num_inference_steps": 51}, "number of steps must lie in 1..50"),
        ("model_index.json", {"num_inference_steps": "9"}, "num_inference_steps must be a whole number, got '9'"),
        ("model_index.json", {"num_inference_steps": [9]}, "num_inference_steps must be a whole number, got [9]"),
        ("model_index.json", {"eta": None}, "a setting has the wrong type"),
        ("model_index.json", {"num_inference_steps": 9.5}, "must be a whole number, got 9.5"),
        ("model_index.json", {"spacing": "uneven"}, "spacing"),
        ("denoiser/config.json", {"chanels": [8, 16]}, "unknown or missing: chanels"),
        ("scheduler/scheduler_config.json", {"_class_name": "EulerDiscreteScheduler"}, "no sampler is saved as"),
        ("scheduler/scheduler_config.json", {"prediction_type": "epsilon"}, "prediction_type must be 'sample'"),
        ("model_index.json", {"num_inference_steps": True}, "num_inference_steps must be a whole number, got True"),
        ("scheduler/scheduler_config.json", {"trained_betas": []}, "at least one step"),
        ("scheduler/scheduler_config.json", {"trained_betas": [[0.1]]}, "cannot be loaded"),
        *(
            ("scheduler/scheduler_config.json", {"trained_betas": betas}, "betas must lie between 0 and 1")
            for betas in ([0.0, 0.0], [0.1, float("nan")], [0.1, -0.1])
        ),
        *(
            ("denoiser/config.json", change, "sizes lie in 1..99999")
            for change in (
                {"channels": [-8, 16]},
                {"channels": [10**12, 16]},
                {"image_size": -64},
                {"image_size": 2**70},
                {"num_blocks": [10**12, 1]},
            )
        ),
    ],
)
def test_a_setting_that_cannot_be_is_refused(model, file, change, message):
    path = model / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refused(model, message)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("model_index.json", "{"),
        ("model_index.json", "[" * 100_000),
        ("model_index.json", '{"a": 1}'),
        ("denoiser/config.json", "{"),
        ("denoiser/config.json", '{"a": 1}'),
        ("denoiser/config.json", None),
        ("scheduler/scheduler_config.json", "{"),
        ("scheduler/scheduler_config.json", '{"a": 1}'),
        ("scheduler/scheduler_config.json", None),
    ],
)
def test_a_broken_description_is_refused(model, file, text):
    if text is None:
        (model / file).unlink()
    else:
        (model / file).write_text(text)
    refused(model)


def test_a_config_with_impossible_sizes_is_refused(model):
    change_config(model, num_blocks=[1])
    refused(model, "differ in length")
