"""Laws that every metric obeys, networks with random weights among them: what is tested is how they are called."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from idm.data.synthetic import synthetic_face
from idm.evaluation import inception as inception_module
from idm.evaluation.metric import PairMetric, SetMetric
from idm.evaluation.metrics import METRICS, build_metric
from idm.evaluation.perceptual import ALEXNET_WEIGHTS, DISTS_WEIGHTS, VGG16_WEIGHTS
from idm.faces import features, recognition
from idm.faces import landmarks as landmarks_module
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet
from idm.io.image_writer import write_image
from idm.io.images import read_image
from idm.io.ranges import from_uint8, to_uint8

SIZES = {"ms_ssim": 192}  # the least that it is defined for; 96 px for the others
# The others judge by what they learned, and random weights obey no law of degradation.
FACES = ("identity", "deg", "ids", "deg_arcface")
PAIRS = ("psnr", "psnr_y", "ssim", "ms_ssim", "colour", "sharpness", "detail", "lpips", "dists", *FACES, "lmd")
BEST_AT_ONE = ("ssim", "ms_ssim", "sharpness", "detail", "identity", "ids")
SETS = ("frechet", "kernel", "fid", "kid")
LEARNED = {"musiq", "maniqa", "clipiqa", "clipiqa+", "topiq_nr-face"}
SIGNS = {"higher": 1, "lower": -1, "one": 1}


def random_lpips(folder: Path) -> None:
    shapes = {0: (64, 3, 11), 3: (192, 64, 5), 6: (384, 192, 3), 8: (256, 384, 3), 10: (256, 256, 3)}
    state = {}
    for layer, (out, given, side) in shapes.items():
        state[f"features.{layer}.weight"] = torch.randn(out, given, side, side) * (2 / (given * side**2)) ** 0.5
        state[f"features.{layer}.bias"] = torch.zeros(out)
    torch.save(state, folder / ALEXNET_WEIGHTS)


def random_dists(folder: Path) -> None:
    """The trunk, and DISTS's own weights, which are positive as theirs are."""
    from torchvision import models

    features = models.vgg.make_layers(models.vgg.cfgs["D"])
    torch.save({f"features.{name}": weight for name, weight in features.state_dict().items()}, folder / VGG16_WEIGHTS)
    torch.save({name: torch.rand(1, 1475, 1, 1) for name in ("alpha", "beta")}, folder / DISTS_WEIGHTS)


class Brightest:
    """Landmarks that follow the picture: the brightest place of each part of it."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        side = len(image) // 4
        smooth = gaussian_filter(image.mean(axis=2), 3)
        parts = smooth.reshape(4, side, 4, side).transpose(0, 2, 1, 3).reshape(16, -1)
        return np.stack(np.divmod(parts.argmax(axis=1), side), axis=1).astype(np.float64)


class Means:
    """In place of Inception: the mean colours of 16 parts of an image, 48 numbers."""

    def __call__(self, image: np.ndarray) -> np.ndarray:
        side = len(image) // 4
        parts = from_uint8(image).reshape(4, side, 4, side, 3)
        return np.concatenate([parts.mean(axis=(1, 3)).ravel(), parts.std(axis=(1, 3)).ravel()]).astype(np.float32)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], PairMetric | SetMetric]]:
    """Any of the metrics of ``PAIRS`` and ``SETS``, with random weights, built once."""
    folder = tmp_path_factory.mktemp("weights")
    built: dict[str, PairMetric | SetMetric] = {}
    with pytest.MonkeyPatch.context() as monkeypatch, torch.random.fork_rng():
        torch.manual_seed(0)
        random_lpips(folder)
        random_dists(folder)
        network = IdentityNet(MobileFaceNet().eval())
        monkeypatch.setattr(recognition, "load_identity", lambda *_: network)
        arcface = features.ArcFace().eval().requires_grad_(False)
        monkeypatch.setattr(features, "load_arcface", lambda *_: arcface)
        monkeypatch.setattr(landmarks_module, "load_landmarks", lambda *_: Brightest())
        monkeypatch.setattr(inception_module, "load_inception", lambda *_: Means())

        def get(name: str) -> PairMetric | SetMetric:
            if name not in built:
                torch.manual_seed(1)
                built[name] = build_metric(name, folder)
            return built[name]

        yield get


def faces(name: str, number: int) -> list[np.ndarray]:
    """Of the size at which a metric is tested."""
    return [synthetic_face(5, index, SIZES.get(name, 96)).image for index in range(number)]


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return to_uint8(gaussian_filter(from_uint8(image), (sigma, sigma, 0)))


def darkened(image: np.ndarray, share: float) -> np.ndarray:
    return to_uint8(from_uint8(image) * np.float32(1 - share))


def score(metric: PairMetric, image: np.ndarray, hq: np.ndarray) -> float:
    return metric(from_uint8(image), from_uint8(hq))


def test_every_metric_is_under_the_laws_or_named_with_its_reason() -> None:
    assert {*PAIRS, *SETS, *LEARNED, "niqe"} == set(METRICS)


@pytest.mark.parametrize("name", PAIRS)
def test_identical_images_have_the_best_score_and_degradation_lowers_it(name: str, build) -> None:
    metric, sign = build(name), SIGNS[METRICS[name].better]
    perfect = {"psnr": None, "psnr_y": None}.get(name, int(name in BEST_AT_ONE))
    falls, hqs = 0, faces(name, 4)
    for hq in hqs:
        degraded = (
            [darkened(hq, s) for s in (0.1, 0.3, 0.6)] if name == "colour" else [blurred(hq, s) for s in (1, 3, 9)]
        )
        scores = [sign * score(metric, image, hq) for image in (hq, *degraded)]
        if perfect is not None:
            assert scores[0] == pytest.approx(sign * perfect, abs=0.1 if name in ("deg", "deg_arcface") else 1e-4)
        assert scores[0] == max(scores)
        falls += scores == sorted(scores, reverse=True) and len(set(scores)) == 4
    assert falls == len(hqs) or (name in (*FACES, "lmd") and falls > 0)  # of random networks


@pytest.mark.parametrize("name", PAIRS)
def test_a_score_does_not_depend_on_what_was_measured_before(name: str, build) -> None:
    metric = build(name)
    pairs = [(blurred(face, 2), face) for face in faces(name, 4)]
    forwards = [score(metric, *pair) for pair in pairs]
    backwards = [score(metric, *pair) for pair in pairs[::-1]][::-1]
    assert forwards == backwards
    assert score(metric, *pairs[2]) == forwards[2]


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_score_does_not_depend_on_the_lossless_format_of_the_file(name: str, suffix: str, build, tmp_path) -> None:
    [hq] = faces(name, 1)
    image = blurred(hq, 2)
    for path, pixels in ((tmp_path / f"a{suffix}", image), (tmp_path / f"b{suffix}", hq)):
        write_image(path, pixels)
    again = [read_image(tmp_path / f"{stem}{suffix}").rgb for stem in "ab"]
    assert score(build(name), *again) == score(build(name), image, hq)


@pytest.mark.parametrize("name", SETS)
def test_a_set_equals_itself_in_any_order_and_degradation_moves_it_away(name: str, build) -> None:
    metric, originals = build(name), faces(name, 8)
    described = [metric.features(face) for face in originals]
    itself = metric.compare(described[::-1], described)
    if name in ("frechet", "fid"):
        assert itself == pytest.approx(0, abs=1e-6)
    darker = [[metric.features(darkened(face, s)) for face in originals] for s in (0.2, 0.5)]
    distances = [metric.compare(darkness, described) for darkness in darker]
    assert itself < distances[0] < distances[1]
    assert metric.compare(darker[0][::-1], described) == pytest.approx(distances[0], rel=1e-6, abs=1e-9)


def test_niqe_sees_the_restored_image_alone(assets: Path) -> None:
    niqe = build_metric("niqe", assets / "weights")
    face = synthetic_face(0, 0, 256).image
    assert score(niqe, face, face) == score(niqe, face, blurred(face, 5))
