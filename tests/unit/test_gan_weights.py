"""GFP-GAN's weights come back as they were written, or one clear error says what is wrong with which file."""

import json
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from gan_baseline import weights
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.restorer import MODEL, load_gfpgan_restorer, open_restorer
from gan_baseline.weights import (
    PUBLISHED,
    WeightsError,
    export_gfpgan,
    holds_gfpgan,
    load_gfpgan,
    save_gfpgan,
)
from idm.apps.cli import main as cli
from idm.restorers.load import ENTRY_POINTS

TINY = {
    "image_size": 16,
    "num_style_feat": 16,
    "channel_multiplier": 1,
    "num_mlp": 2,
    "narrow": 1 / 64,
    "sft_half": False,
    "smooth": False,
}


@pytest.fixture(scope="module")
def tiny() -> GFPGAN:
    torch.manual_seed(0)
    return GFPGAN(**TINY)


@pytest.fixture
def saved(tiny, tmp_path) -> Path:
    save_gfpgan(tiny, tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def same_weights(a: GFPGAN, b: GFPGAN) -> bool:
    theirs = b.state_dict()
    return a.state_dict().keys() == theirs.keys() and all(torch.equal(w, theirs[n]) for n, w in a.state_dict().items())


def refused(path: Path, *parts: str) -> None:
    with pytest.raises(WeightsError) as caught:
        load_gfpgan(path)
    assert str(caught.value).startswith(f"{path}: ")
    for part in parts:
        assert part in str(caught.value)


# Our own file


def test_saved_weights_come_back_with_their_architecture(tiny, saved):
    loaded = load_gfpgan(saved)
    assert loaded.architecture == TINY
    assert same_weights(loaded, tiny)
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_weights_in_channels_last_and_bfloat16_come_back_in_float32(tiny, tmp_path):
    model = GFPGAN(**TINY).bfloat16()
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    save_gfpgan(model, tmp_path / "a.safetensors")
    loaded = load_gfpgan(tmp_path / "a.safetensors")
    assert {weight.dtype for weight in loaded.state_dict().values()} == {torch.float32}
    assert same_weights(loaded, model.float())


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tiny, saved, monkeypatch):
    before = saved.read_bytes()

    def full_disk(state: object, draft: Path, metadata: object) -> None:
        draft.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights, "save_file", full_disk)
    with pytest.raises(WeightsError, match="No space left"):
        save_gfpgan(tiny, saved)
    assert saved.read_bytes() == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_a_file_that_is_not_there_or_of_another_kind_is_refused(saved, tmp_path):
    refused(tmp_path / "absent.pth", "no such file")
    refused(saved.rename(tmp_path / "tiny.ckpt"), "unknown suffix '.ckpt'")


@pytest.mark.parametrize("length", [0, 100, -1])
def test_a_truncated_file_is_refused(saved, length):
    saved.write_bytes(saved.read_bytes()[:length])
    refused(saved, "is not a complete weights file")


def test_files_from_before_there_was_smooth_resampling_are_read(tiny, saved):
    before = {name: value for name, value in TINY.items() if name != "smooth"}
    save_file(load_file(saved), saved, {"architecture": json.dumps(before)})
    assert load_gfpgan(saved).architecture == TINY


def test_weights_without_their_architecture_are_refused(saved):
    save_file(load_file(saved), saved)
    refused(saved, "does not state its architecture")


@pytest.mark.parametrize("change", [{"sft_half": True}, {"image_size": 32}, {"narrow": 1 / 32}, {"num_mlp": 3}])
def test_weights_of_another_architecture_are_refused(saved, change):
    save_file(load_file(saved), saved, {"architecture": json.dumps({**TINY, **change})})
    refused(saved, "its weights do not fit the architecture", "weights differ, first ")


def test_a_gap_is_refused_and_not_filled_with_random_numbers(saved):
    state = load_file(saved)
    del state["toRGB.0.bias"]
    save_file(state, saved, {"architecture": json.dumps(TINY)})
    refused(saved, "1 of ", "first toRGB.0.bias (nothing instead of 3)")


@pytest.mark.parametrize("text", ["[1, 2]", '"512"', "7", "null", "{}"])
def test_an_architecture_that_is_not_a_list_of_arguments_is_refused(saved, text):
    save_file(load_file(saved), saved, {"architecture": text})
    refused(saved, "does not state its architecture")


@pytest.mark.parametrize(
    "change",
    [
        *(
            {"image_size": "16"},
            {"num_mlp": 2.0},
            {"sft_half": 1},
            {"narrow": None},
            {"narrow": [1]},
            {"num_mlp": True},
        ),
        *({"num_style_feat": -16}, {"narrow": float("nan")}, {"narrow": 0}, {"image_size": 10**9}, {"smooth": "yes"}),
    ],
)
def test_an_argument_of_the_wrong_type_or_size_is_named(saved, change):
    save_file(load_file(saved), saved, {"architecture": json.dumps({**TINY, **change})})
    refused(saved, f"its architecture has {next(iter(change))} ")


def test_a_broken_or_impossible_architecture_is_refused(saved):
    save_file(load_file(saved), saved, {"architecture": "[" * 100_000})
    refused(saved, "is not JSON")
    save_file(load_file(saved), saved, {"architecture": "{"})
    refused(saved, "its architecture is not JSON")
    save_file(load_file(saved), saved, {"architecture": json.dumps({**TINY, "image_size": 48})})
    refused(saved, "its architecture is impossible: image_size 48 is not a power of two")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(saved, value):
    state = load_file(saved)
    state["toRGB.0.bias"][1] = value
    save_file(state, saved, {"architecture": json.dumps(TINY)})
    refused(saved, "numbers that are not finite, in 1 of ", "first toRGB.0.bias")
    torch.save({"params_ema": state}, saved.with_suffix(".pth"))
    refused(saved.with_suffix(".pth"), "first toRGB.0.bias")


def test_names_that_are_numbers_and_weights_without_a_shape_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"params_ema": {0: torch.zeros(3), "b": torch.zeros(3)}}, path)
    refused(path, "does not hold named weights, the first is called 0")
    assert not holds_gfpgan(path)
    torch.save({"params_ema": {"conv_body_first.weight": torch.tensor(1.0)}}, path)
    refused(path, "its weights do not fit the architecture")
    torch.save(
        {"params_ema": {"condition_scale.0.0.bias": torch.tensor(1.0), "conv_body_first.weight": torch.zeros(9)}}, path
    )
    refused(path, "first condition_scale.0.0.bias (a single number instead of 256)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: torch.zeros_like(weight), "all weights are zero"),
        (lambda weight: torch.ones_like(weight, dtype=torch.int8), "of integers instead of"),
    ],
)
def test_zeros_and_integers_are_refused(saved, change, message):
    save_file(
        {name: change(weight) for name, weight in load_file(saved).items()}, saved, {"architecture": json.dumps(TINY)}
    )
    refused(saved, message)


# The published format


def test_another_size_cannot_be_exported(tiny, tmp_path):
    with pytest.raises(WeightsError, match=r"cannot be exported.*'image_size': 512.*'image_size': 16"):
        export_gfpgan(tiny, tmp_path / "tiny.pth")
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_not_a_published_gfpgan_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    for content in (b"not a zip", b"bad\n", b"", b"PK\x03\x04"):
        path.write_bytes(content)
        refused(path, "is not a complete weights file")
        assert not holds_gfpgan(path)
    torch.save({"state_dict": {}}, path)
    refused(path, "does not hold named weights")
    torch.save({"params_ema": {"encoder.weight": torch.zeros(16, 3, 1, 1)}}, path)
    refused(path, "does not hold GFP-GAN weights (conv_body_first.weight is missing)")
    torch.save({"params_ema": {"conv_body_first.0.weight": torch.zeros(16, 3, 1, 1)}}, path)
    refused(path, "its weights do not fit the architecture", "'smooth': True")
    torch.save({"params_ema": {"conv_body_first.weight": torch.zeros(32, 3, 1, 1)}}, path)
    refused(path, "its weights do not fit the architecture", "first condition_scale.0.0.bias (nothing instead of 256)")


def test_code_in_a_published_file_is_not_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return Path.touch, (tmp_path / "run",)

    torch.save({"params_ema": Malicious()}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "is not a complete weights file")
    assert not (tmp_path / "run").exists()


def test_the_published_architecture_is_the_default_one():
    with torch.device("meta"):
        assert GFPGAN().architecture == PUBLISHED


def test_the_command_exports_the_published_format_and_refuses_other_widths_in_one_line(
    saved, tmp_path, capsys, monkeypatch
):
    def export(*arguments: object) -> int:
        return cli.run(cli.build_parser().parse_args(["export", *map(str, arguments)]))

    assert export(saved, "-o", tmp_path / "a.pth") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "'channel_multiplier': 2" in error
    assert error.count("\n") == 1
    assert export("-o", tmp_path / "a.pth") == 1
    assert "idm: has no .pth format" in capsys.readouterr().err
    assert not (tmp_path / "a.pth").exists()
    monkeypatch.setattr(weights, "PUBLISHED", TINY)
    assert export(saved, "-o", tmp_path / "made" / "a.pth") == 0
    written = torch.load(tmp_path / "made" / "a.pth", weights_only=True)
    assert written.keys() == {"params_ema"}
    assert all(torch.equal(weight, written["params_ema"][name]) for name, weight in load_file(saved).items())


# Found by its path


def test_weights_are_known_by_what_is_in_them(saved, tmp_path):
    assert holds_gfpgan(saved)
    torch.save({"params_ema": {"conv_body_first.weight": torch.zeros(1)}}, tmp_path / "theirs.pth")
    assert holds_gfpgan(tmp_path / "theirs.pth")
    torch.save({"params_ema": {"conv_body_first.0.weight": torch.zeros(1)}}, tmp_path / "GFPGANv1.pth")
    assert holds_gfpgan(tmp_path / "GFPGANv1.pth")
    torch.save({"params_ema": {"encoder.weight": torch.zeros(1)}}, tmp_path / "codeformer.pth")
    save_file({"encoder.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "broken.pth").write_bytes(b"no")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    for name in ("codeformer.pth", "other.safetensors", "broken.pth", "broken.safetensors"):
        assert not holds_gfpgan(tmp_path / name)


def test_a_run_is_opened_with_its_best_model_and_described_for_tables(tiny, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "step_00000002"
    checkpoint.mkdir(parents=True)
    assert open_restorer(tmp_path / "run", torch.device("cpu"), torch.float32) is None
    save_gfpgan(tiny, checkpoint / MODEL)
    loaded = open_restorer(tmp_path / "run", torch.device("cpu"), torch.bfloat16)
    assert loaded.restorer.image_size == loaded.metadata["image_size"] == 16
    assert loaded.metadata["parameters"] == sum(p.numel() for p in tiny.parameters())
    assert loaded.metadata["precision"] == "bfloat16"
    faces = torch.rand(2, 3, 16, 16)
    exact = load_gfpgan_restorer(tmp_path / "run", torch.device("cpu")).restore(faces, [1, 2])
    torch.testing.assert_close(loaded.restorer.restore(faces, [1, 2]), exact, atol=0.1, rtol=0)


def test_the_baseline_is_an_installed_entry_point_of_idm():
    (entry,) = [entry for entry in entry_points(group=ENTRY_POINTS) if entry.name == "gfpgan"]
    assert entry.load() is open_restorer
