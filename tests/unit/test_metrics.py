import math
import re
import types
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image

from idm.data.synthetic import synthetic_face
from idm.evaluation import metrics
from idm.evaluation.frechet import frechet_distance
from idm.evaluation.metrics import (
    METRICS,
    MetricName,
    PairName,
    SetName,
    SingleName,
    build_metric,
    mean_and_interval,
    psnr,
    ssim,
)
from idm.evaluation.sets import SetMetric
from idm.faces import recognition as identity_module
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet
from idm.faces.template import ffhq_landmarks
from idm.io.images import read_image
from idm.io.ranges import from_uint8

RNG = np.random.default_rng(0)
HQ = RNG.random((24, 32, 3), np.float32)
LQ = np.clip(HQ + RNG.normal(0, 0.1, HQ.shape), 0, 1).astype(np.float32)


@pytest.fixture
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without weights files."""
    import torch

    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path


# --- the table


def test_every_metric_name_has_one_row_of_the_right_kind() -> None:
    names = [*get_args(PairName), *get_args(SingleName), *get_args(SetName)]
    assert sorted(METRICS) == sorted(names)
    assert all(METRICS[name].kind == "pair" and METRICS[name].full_reference for name in get_args(PairName))
    assert [METRICS[name].kind for name in get_args(SingleName)] == ["single"]
    assert [METRICS[name].kind for name in get_args(SetName)] == ["set", "set"]
    assert not any(METRICS[name].full_reference for name in ("niqe", "frechet", "fid"))


def test_arrows_point_to_better() -> None:
    lower = {name for name, metric in METRICS.items() if metric.arrow == "lower"}
    assert lower == {"lpips", "niqe", "frechet", "fid"}
    assert psnr(HQ, HQ) > psnr(LQ, HQ)
    assert ssim(HQ, HQ) > ssim(LQ, HQ)


# --- PSNR and SSIM


def test_psnr_of_a_constant_error_is_its_closed_form() -> None:
    hq = np.full((4, 5, 3), 0.25, np.float32)
    assert psnr(hq + np.float32(0.5), hq) == pytest.approx(-20 * math.log10(0.5), abs=1e-12)
    one_pixel = hq.copy()
    one_pixel[2, 3, 1] = 0.75  # one of 60 numbers is off by a half
    assert psnr(one_pixel, hq) == pytest.approx(10 * math.log10(60 / 0.25), abs=1e-12)


def test_psnr_of_equal_images_is_infinite() -> None:
    assert psnr(HQ, HQ) == math.inf


def test_ssim_of_equal_images_is_one_and_needs_eleven_pixels() -> None:
    assert ssim(HQ, HQ) == 1
    ssim(HQ[:11, :11], HQ[:11, :11])
    with pytest.raises(ValueError, match="image of 10 x 32 is too small: each side needs 11"):
        ssim(HQ[:10], HQ[:10])


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_images_of_other_shapes_or_ranges_are_refused(metric: metrics.PairMetric) -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        metric(HQ[:, :20], HQ)
    for wrong in (HQ * 2 - 1, HQ * 255, np.full_like(HQ, np.nan)):
        with pytest.raises(ValueError, match=r"values must lie in \[0, 1\]"):
            metric(wrong, HQ)
        with pytest.raises(ValueError, match=r"values must lie in \[0, 1\]"):
            metric(HQ, wrong)


def test_names_build_the_functions_they_name() -> None:
    assert build_metric("psnr") is psnr
    assert build_metric("ssim") is ssim


# --- networks: what happens without weights, and NIQE with them


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lpips", "alexnet-owt-7be5be79.pth"),
        ("identity", "mobilefacenet_casia.safetensors"),
        ("frechet", "mobilefacenet_casia.safetensors"),
        ("niqe", "niqe_modelparameters.mat"),
    ],
)
def test_missing_weights_are_one_error_that_says_which_file_and_where(
    no_weights: Path, name: MetricName, file: str
) -> None:
    put = rf"Put it into {re.escape(str(no_weights / 'home' / 'weights'))}; nothing is downloaded"
    with pytest.raises(FileNotFoundError, match=rf"^{re.escape(file)}: .*{put}"):
        build_metric(name)
    elsewhere = no_weights / "elsewhere"
    with pytest.raises(FileNotFoundError, match=rf"looked in {re.escape(str(elsewhere))}\)"):
        build_metric(name, elsewhere)


def test_lpips_also_looks_where_torchvision_keeps_its_trunk(no_weights: Path) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(str(no_weights / "hub" / "checkpoints"))):
        build_metric("lpips")


def test_fid_without_the_inception_file_does_not_reach_for_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyiqa
    from pyiqa.utils import download_util

    created = []

    def create_metric(name: str, device: str) -> object:
        created.append((name, device))
        return lambda a, b, mode, **options: len(list(Path(a).glob("*.png"))) - len(list(Path(b).glob("*.png"))) / 10

    monkeypatch.setattr(pyiqa, "create_metric", create_metric)
    monkeypatch.setattr(download_util, "DEFAULT_CACHE_DIR", str(tmp_path / "pyiqa"))
    with pytest.raises(FileNotFoundError, match=rf"^pt_inception-\S+.*Put it into {tmp_path}/pyiqa; nothing"):
        build_metric("fid")
    assert created == []

    (tmp_path / "pyiqa").mkdir()
    (tmp_path / "pyiqa" / "pt_inception-2015-12-05-6726825d.pth").touch()
    fid = build_metric("fid")
    assert created == [("fid", "cpu")]
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    originals = [fid.describe(image) for image in (black, white)]
    restored = [fid.describe(white), *originals]
    assert fid.compare(restored, originals) == 3 - 2 / 10
    np.testing.assert_array_equal(read_image(restored[0]).rgb, white)


def test_identity_wants_square_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    from idm.faces import recognition

    monkeypatch.setattr(recognition, "load_identity", lambda weights, device: types.SimpleNamespace())
    with pytest.raises(ValueError, match="square aligned faces, got 24 x 32"):
        build_metric("identity")(HQ, HQ)


def test_identity_is_one_for_the_same_face_and_falls_with_blur(assets: Path) -> None:
    from idm.io.images import read_image, resize_image
    from idm.io.ranges import from_uint8

    face = read_image(next((assets / "faces256" / "val").glob("portrait_*.jpg"))).rgb
    identity = build_metric("identity", assets / "weights")
    small = [resize_image(resize_image(face, (side, side)), (256, 256)) for side in (128, 32, 16)]
    same, *falling = [identity(from_uint8(image), from_uint8(face)) for image in (face, *small)]
    assert same == pytest.approx(1, abs=1e-5)
    assert same > falling[0] > 0.98 > falling[1] > 0.4 > falling[2]


@pytest.mark.filterwarnings("ignore:cov")  # of the flat picture
def test_niqe_gives_the_known_value_of_a_known_picture(assets: Path) -> None:
    import skimage.data

    niqe = build_metric("niqe", assets / "weights")
    picture = skimage.data.astronaut()
    assert niqe(picture.astype(np.float32) / 255) == pytest.approx(3.0624, abs=2e-3)
    small = Image.fromarray(picture).resize((128, 128), Image.Resampling.BICUBIC)
    blurred = np.asarray(small.resize((512, 512), Image.Resampling.BICUBIC))
    assert niqe(blurred.astype(np.float32) / 255) > 6
    with pytest.raises(ValueError, match="without texture"):
        niqe(np.full((256, 256, 3), 0.5, np.float32))
    with pytest.raises(ValueError, match="two blocks"):
        niqe(np.zeros((191, 191, 3), np.float32))
    with pytest.raises(ValueError, match=r"values must lie in \[0, 1\]"):
        niqe(picture.astype(np.float32))


# --- means


def test_the_interval_is_that_of_a_normal_mean_for_many_values() -> None:
    values = np.random.default_rng(1).normal(30, 4, 2000)
    mean, low, high = mean_and_interval(values)
    half = 1.96 * values.std() / math.sqrt(2000)
    assert mean == pytest.approx(values.mean(), abs=1e-12)
    assert low == pytest.approx(mean - half, abs=half / 8)
    assert high == pytest.approx(mean + half, abs=half / 8)


def test_the_interval_covers_the_truth_about_95_times_of_100() -> None:
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(200):
        _, low, high = mean_and_interval(rng.uniform(0, 1, 40), num_resamples=300)
        inside += low <= 0.5 <= high
    assert 178 <= inside <= 198


def test_the_interval_depends_on_values_and_seed_only() -> None:
    values = list(RNG.random(30))
    np.random.seed(1)  # noqa: NPY002
    first = mean_and_interval(values)
    np.random.seed(2)  # noqa: NPY002
    assert mean_and_interval(values) == first
    assert mean_and_interval(values, seed=1)[1:] != first[1:]
    assert mean_and_interval(values, seed=1)[0] == first[0]


def test_one_value_is_its_own_interval_and_none_or_nan_is_an_error() -> None:
    assert mean_and_interval([0.25]) == (0.25, 0.25, 0.25)
    for bad in ([], [1.0, math.nan]):
        with pytest.raises(ValueError, match="at least one value and no NaN"):
            mean_and_interval(bad)


def test_an_infinite_value_makes_the_mean_infinite_not_undefined() -> None:
    mean, low, high = mean_and_interval([30.0] * 20 + [math.inf])
    assert (mean, low, high) == (math.inf, 30.0, math.inf)


def test_the_frechet_distance_of_faces_is_that_of_their_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = IdentityNet(MobileFaceNet().eval())
    monkeypatch.setattr(identity_module, "load_identity", lambda weights, device: network)
    frechet = build_metric("frechet")
    assert isinstance(frechet, SetMetric)
    faces = [[synthetic_face(seed, i, 48).image for i in range(4)] for seed in (0, 1)]
    a, b = ([frechet.describe(image) for image in images] for images in faces)
    embedded = [network.embed([from_uint8(f) for f in images], [ffhq_landmarks(48)] * 4) for images in faces]
    assert frechet.compare(a, b) == pytest.approx(frechet_distance(*embedded), rel=1e-3)
    assert frechet.compare(a, a[::-1]) == pytest.approx(0, abs=1e-6)
