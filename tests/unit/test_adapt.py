"""``idm adapt``: which faces are good enough, what counts as better, and the command with a tiny model."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from safetensors.torch import load_file
from scipy import stats

from idm.apps.cli import main as cli
from idm.apps.photo.album import AlbumFace, detect_and_align, read_aligned
from idm.apps.photo.collect import TooFewFaces, select_faces
from idm.config.assembly import adapt as assembly
from idm.data.synthetic import synthetic_face
from idm.diffusion.chain import Chain
from idm.diffusion.schedule import cosine
from idm.evaluation.before_after import compare_scores, student_interval
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image
from idm.io.ranges import from_uint8
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.restorers.saved import load_idm, save_idm
from idm.training.loop import Run

SIZE = 32
GAMMAS = cosine(100)
CHAIN = Chain("dpmpp_2m", 2)


# --- which faces


def face(index: int, source: str = "", side: float = 128.0) -> AlbumFace:
    image = from_uint8(synthetic_face(0, index, 128).image)
    return AlbumFace(Path(source or f"{index}.jpg"), image, ffhq_landmarks(128), side)


def changed(one: AlbumFace, image: np.ndarray) -> AlbumFace:
    return AlbumFace(one.source, image.astype(np.float32).clip(0, 1), one.landmarks, one.side)


def test_small_soft_noisy_and_repeated_faces_are_left_out() -> None:
    good = [face(i) for i in range(12)]
    noise = np.random.default_rng(0).normal(scale=0.05, size=good[0].image.shape)
    bad = [
        face(12, side=60.0),
        changed(face(13), cv2.GaussianBlur(face(13).image, (0, 0), 3)),
        changed(face(14), face(14).image + noise),
        changed(face(15, "again.jpg"), face(3).image + 0.01),
    ]
    found = select_faces([[one] for one in [*good, *bad]])
    assert found.left_out == {"too small": 1, "not sharp": 1, "noisy": 1, "nearly the same as another": 1}
    assert {one.source for one in [*found.train, *found.held_out]} == {one.source for one in good}


@pytest.mark.parametrize(("number", "held_out"), [(10, 2), (16, 4), (40, 10), (50, 10)])
def test_a_tenth_at_least_is_held_out_and_no_photograph_is_on_both_sides(number: int, held_out: int) -> None:
    def plain(i: int, source: str) -> AlbumFace:
        coarse = np.random.default_rng(i).random((8, 8, 3), np.float32)
        image = cv2.resize(coarse, (64, 64), interpolation=cv2.INTER_LINEAR)
        return AlbumFace(Path(source), image, ffhq_landmarks(64), 64.0)

    found = select_faces([[plain(2 * i, f"{i}.jpg"), plain(2 * i + 1, f"{i}.jpg")] for i in range(number)], 0.0)
    assert not found.left_out
    train, held = ({one.source for one in side} for side in (found.train, found.held_out))
    assert len(held) == held_out >= max(2, len(train | held) / 10)
    assert not train & held


def test_too_few_faces_and_too_few_photographs_are_refused() -> None:
    with pytest.raises(TooFewFaces, match="9 good faces in 9 photographs"):
        select_faces([[face(i)] for i in range(9)])
    with pytest.raises(TooFewFaces, match="12 good faces in 1 photographs"):
        select_faces([[face(i, "crowd.jpg") for i in range(12)]])


def test_the_faces_of_photographs_are_aligned_and_unreadable_ones_cost_no_other(tmp_path: Path) -> None:
    class FixedFace:
        def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
            landmarks = ffhq_landmarks(64) + np.array([30.0, 10.0])
            return [DetectedFace(np.array([40.0, 20, 80, 60]), landmarks, 0.9)]

    picture = np.full((100, 140, 3), 50, np.uint8)
    picture[10:74, 30:94] = synthetic_face(0, 1, 64).image
    write_image(tmp_path / "a.png", picture)
    (tmp_path / "b.png").write_bytes(b"no picture")
    unreadable: dict[Path, str] = {}
    ((found,),) = detect_and_align([tmp_path / "a.png", tmp_path / "b.png"], FixedFace(), 64, 0.0, unreadable)
    assert found.side == pytest.approx(64)
    np.testing.assert_allclose(found.image * 255, picture[10:74, 30:94], atol=1)
    assert list(unreadable) == [tmp_path / "b.png"]
    assert list(read_aligned([tmp_path / "a.png"], 64, unreadable)) == []
    assert "an aligned face is square" in unreadable[tmp_path / "a.png"]


# --- what is better


def test_the_interval_is_that_of_students_paired_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 6).tolist()
    known = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert student_interval(values) == pytest.approx((np.mean(values), known.low, known.high))
    with pytest.raises(ValueError, match="at least two"):
        student_interval([1.0])


@pytest.mark.parametrize(
    ("psnr", "ssim", "helped"),
    [
        ([0.3, 0.4, 0.2], [0.001, -0.001, 0.0], True),
        ([0.3, 0.4, 0.2], [-0.03, -0.02, -0.03], False),
        ([0.3, -0.4, 0.2], [0.001, -0.001, 0.0], False),
        ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0], False),
    ],
)
def test_it_helped_if_something_is_surely_better_and_nothing_surely_worse(psnr, ssim, helped) -> None:
    before = {"psnr": [20.0, 21.0, 25.0], "ssim": [0.5, 0.6, 0.7]}
    after = {name: np.add(before[name], change).tolist() for name, change in (("psnr", psnr), ("ssim", ssim))}
    verdict = compare_scores(before, before, after)
    assert verdict.helped is helped
    assert verdict.metrics["psnr"]["difference"] == pytest.approx(np.mean(psnr))


# --- the command


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No weights of others, and accelerate's global state reset."""
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    reset()
    yield
    reset()


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that makes every face too bright, which is learnt to be wrong at once."""
    torch.manual_seed(0)
    denoiser = UNet(
        image_size=SIZE, channels=(8, 16), num_blocks=(1, 1), attention_resolutions=(8,), head_dim=8, add_degraded=True
    )
    torch.nn.init.normal_(denoiser.conv_out.weight, std=0.02)
    torch.nn.init.constant_(denoiser.conv_out.bias, 0.4)
    folder = tmp_path_factory.mktemp("given")
    save_idm(IDM(denoiser, GAMMAS, chain=CHAIN), folder)
    return folder


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("album")
    for index in range(12):
        write_image(folder / f"{index}.png", synthetic_face(0, index, 2 * SIZE).image)
    return folder


def adapt(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    fixed = ["--aligned", "--batch-size", "4", "--min-sharpness", "1"]
    code = cli.run(cli.build_parser().parse_args(["adapt", *fixed, *map(str, arguments)]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "denoiser" / "diffusion_pytorch_model.safetensors")


def test_a_model_that_is_helped_is_published_with_its_own_chain_and_schedule(given, album, tmp_path, capsys) -> None:
    output = tmp_path / "adapted"
    code, out, _ = adapt(capsys, album, "-o", output, "--model", given, "--steps", 30, "--learning-rate", 3e-2)
    assert code == 0
    assert "12 good faces in 12 photographs: 9 to learn from, 3 held out" in out
    assert "adapting helped" in out
    adapted = load_idm(output, torch.device("cpu"), torch.float32)
    assert adapted.chain == CHAIN
    assert adapted.prediction == "sample"
    torch.testing.assert_close(adapted.gammas, GAMMAS, rtol=1e-9, atol=0)
    result = json.loads((output / "adapt.json").read_text())
    assert result["helped"]
    assert result["metrics"]["psnr"]["after"] > result["metrics"]["psnr"]["before"] + 1
    assert "holds adapted weights" in (output / "README.md").read_text()


def test_adapters_help_too_and_are_merged(given, album, tmp_path, capsys) -> None:
    output = tmp_path / "adapted"
    command = ("-o", output, "--model", given, "--steps", 30, "--learning-rate", 3e-2, "--lora-rank", 2)
    code, out, _ = adapt(capsys, album, *command)
    assert code == 0
    assert "adapting helped" in out
    adapted, before = weights_of(output), weights_of(given)
    assert adapted.keys() == before.keys()
    for name, weight in before.items():
        assert torch.equal(adapted[name], weight) == (weight.ndim == 1), name  # biases and norms stay


def test_a_model_that_is_not_helped_is_kept_byte_by_byte(given, album, tmp_path, capsys) -> None:
    output = tmp_path / "adapted"
    code, out, _ = adapt(capsys, album, "-o", output, "--model", given, "--steps", 2, "--learning-rate", 1e-12)
    assert code == 0
    assert "adapting did not help" in out
    for file in ("model_index.json", "denoiser/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"):
        assert (output / file).read_bytes() == (given / file).read_bytes()
    assert "original weights" in (output / "README.md").read_text()


def test_an_interrupted_adaptation_resumes_to_the_same_weights(given, album, tmp_path, capsys, monkeypatch) -> None:
    command = ("--model", given, "--steps", 6, "--learning-rate", 3e-2)
    assert adapt(capsys, album, "-o", tmp_path / "whole", *command)[0] == 0
    reset()
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_stopping", lambda run, signals: run.step == 3)
        with pytest.raises(SystemExit):
            adapt(capsys, album, "-o", tmp_path / "cut", *command)
    assert not (tmp_path / "cut" / "model_index.json").exists()
    reset()
    code, out, _ = adapt(capsys, album, "-o", tmp_path / "cut", *command[:2], "--learning-rate", 3e-2)  # steps as held
    assert code == 0
    assert "training 6 steps" in out
    checkpoint = Path("run", "checkpoints", "step_00000006", "pipeline")
    whole, cut = (weights_of(tmp_path / name / checkpoint) for name in ("whole", "cut"))
    for name, weight in whole.items():
        torch.testing.assert_close(cut[name], weight, rtol=0, atol=0)


def test_the_steps_are_those_that_fit_into_the_minutes(given, album, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(assembly, "seconds_per_step", lambda config: 1.5)
    _, out, _ = adapt(capsys, album, "-o", tmp_path / "out", "--model", given, "--minutes", 0.1)
    assert "training 4 steps" in out


def test_each_wrong_request_gives_one_clear_message(given, album, tmp_path, capsys) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for index in range(4):
        write_image(few / f"{index}.png", synthetic_face(0, index, SIZE).image)
    output = tmp_path / "out"
    wrong = {
        "4 good faces in 4 photographs": (few,),
        "no such file or folder": (tmp_path / "nowhere",),
        "--preset: degradation.preset: Input should be 'gfpgan', ": (album, "--preset", "worse"),
        "--minutes must be positive": (album, "--minutes", "0"),
    }
    for message, arguments in wrong.items():
        code, _, err = adapt(capsys, *arguments, "-o", output, "--model", given)
        assert code == 1
        assert message in err
        assert len(err.strip().splitlines()) == 1
    assert adapt(capsys, album, "-o", output, "--model", given, "--steps", 1)[0] == 0
    code, _, err = adapt(capsys, few, "-o", output, "--model", given)
    assert code == 1
    assert "holds faces of other photographs" in err
