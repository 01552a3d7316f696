import importlib.util
import math
import types
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

from idm.data.synthetic import synthetic_face
from idm.evaluation.frechet import frechet_distance, kernel_distance
from idm.evaluation.metric import FaceEmbeddings, PairMetric, SetMetric
from idm.evaluation.metrics import METRICS, build_metric, build_metrics, psnr, psnr_y, ssim
from idm.evaluation.pixels import colour_shift, detail, sharpness
from idm.faces import features
from idm.faces import landmarks as landmarks_module
from idm.faces import recognition as identity_module
from idm.faces.landmarks import AlignmentNet, load_landmarks, peaks
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image
from idm.io.images import read_image
from idm.io.ranges import from_uint8
from idm.io.weights import WeightsError

RNG = np.random.default_rng(0)
HQ = RNG.random((24, 32, 3), np.float32)
LQ = np.clip(HQ + RNG.normal(0, 0.1, HQ.shape), 0, 1).astype(np.float32)


# --- the table


def test_every_row_stands_under_its_name_and_names_its_kind() -> None:
    assert all(name == metric.name for name, metric in METRICS.items())
    assert {name for name, metric in METRICS.items() if metric.kind == "set"} == {"frechet", "kernel", "fid", "kid"}
    assert not any(METRICS[name].full_reference for name in ("niqe", "musiq", "frechet", "fid"))
    assert all(METRICS[name].full_reference for name in ("psnr", "ssim", "lpips", "deg", "colour"))
    assert len({metric.title for metric in METRICS.values()}) == len(METRICS)
    assert all(metric.protocol.endswith(".") for metric in METRICS.values())


def test_what_a_row_builds_is_of_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity_module, "load_identity", lambda weights, device: IdentityNet(MobileFaceNet().eval()))
    for name in (
        "psnr",
        "psnr_y",
        "ssim",
        "ms_ssim",
        "colour",
        "sharpness",
        "detail",
        "identity",
        "deg",
        "frechet",
        "kernel",
    ):
        assert isinstance(build_metric(name), SetMetric) == (METRICS[name].kind == "set"), name


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
    return gaussian_filter(image, (sigma, sigma, 0)).astype(np.float32)


@pytest.mark.parametrize(
    "name", ["psnr", "psnr_y", "ssim", "ms_ssim", "sharpness", "detail", "identity", "deg", "colour"]
)
def test_a_metric_is_best_for_the_original_and_falls_with_degradation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = IdentityNet(MobileFaceNet().eval())
    monkeypatch.setattr(identity_module, "load_identity", lambda weights, device: network)
    metric, face = build_metric(name), from_uint8(synthetic_face(3, 1, 176).image)
    degraded = [face * 0.5 ** (1 / k) for k in (9, 3, 1)] if name == "colour" else [blur(face, k) for k in (1, 2, 4)]
    scores = [metric(image.astype(np.float32), face) for image in (face, *degraded)]
    signs = {"higher": 1, "lower": -1, "one": 1}
    signed = [signs[METRICS[name].better] * score for score in scores]
    assert signed == sorted(signed, reverse=True)
    assert len(set(np.round(signed, 9))) == 4


# --- PSNR and SSIM


def test_psnr_of_a_constant_error_is_its_closed_form() -> None:
    hq = np.full((4, 5, 3), 0.25, np.float32)
    assert psnr(hq + np.float32(0.5), hq) == pytest.approx(-20 * math.log10(0.5), abs=1e-12)
    one_pixel = hq.copy()
    one_pixel[2, 3, 1] = 0.75  # one of 60 numbers is off by a half
    assert psnr(one_pixel, hq) == pytest.approx(10 * math.log10(60 / 0.25), abs=1e-12)


def test_psnr_of_equal_images_is_that_of_one_level_in_one_value() -> None:
    hq = RNG.integers(1, 255, (8, 8, 3)).astype(np.float32) / 255
    off = hq.copy()
    off[0, 0, 0] += 1 / 255
    assert psnr(hq, hq) == pytest.approx(20 * math.log10(255) + 10 * math.log10(8 * 8 * 3), abs=1e-9)
    assert psnr(off, hq) == pytest.approx(psnr(hq, hq), abs=1e-4)
    off[0, 0, 1] += 1 / 255
    assert psnr(off, hq) < psnr(hq, hq) - 3


def test_one_bad_pair_among_nine_perfect_ones_is_not_the_mean() -> None:
    scores = [psnr(HQ, HQ)] * 9 + [psnr(LQ, HQ)]
    assert psnr(LQ, HQ) + 10 < np.mean(scores) < psnr(HQ, HQ)


def test_psnr_y_of_a_grey_error_counts_219_of_255_levels() -> None:
    hq = np.full((4, 5, 3), 0.25, np.float32)
    assert psnr_y(hq + np.float32(0.5), hq) == pytest.approx(-20 * math.log10(0.5 * 219 / 255), abs=1e-6)
    assert psnr_y(hq, hq) == pytest.approx(20 * math.log10(255) + 10 * math.log10(20), abs=1e-9)


def test_colour_shift_is_that_of_the_means_and_sees_no_detail() -> None:
    white, black = np.ones((4, 4, 3), np.float32), np.zeros((4, 4, 3), np.float32)
    assert colour_shift(black, white) == pytest.approx(100, abs=1e-3)
    assert colour_shift(HQ[::-1].copy(), HQ) == pytest.approx(0, abs=1e-9)


def test_colour_shift_of_a_primary_from_white_is_its_place_in_lab() -> None:
    white = np.ones((4, 4, 3), np.float32)
    for channel, place in enumerate([(53.24, 80.09, 67.20), (87.73, -86.18, 83.18), (32.30, 79.19, -107.86)]):
        primary = np.zeros_like(white)
        primary[..., channel] = 1
        assert colour_shift(primary, white) == pytest.approx(math.dist(place, (100, 0, 0)), abs=0.05)


def test_sharpness_weighs_red_green_and_blue_as_luma_does() -> None:
    grey = np.repeat(HQ[..., :1], 3, axis=2)
    for channel, weight in enumerate((65.481, 128.553, 24.966)):
        coloured = np.full_like(grey, 0.5)
        coloured[..., channel] = grey[..., channel]
        assert sharpness(coloured, grey) == pytest.approx((weight / 219) ** 2, rel=1e-5)


def test_sharpness_is_a_ratio_of_variances() -> None:
    dim = HQ * np.float32(0.5)
    assert sharpness(dim, HQ) == pytest.approx(0.25, rel=1e-5)
    assert sharpness(HQ, dim) == pytest.approx(4, rel=1e-5)
    with pytest.raises(ValueError, match="without texture"):
        sharpness(HQ, np.full_like(HQ, 0.5))


def test_noise_lowers_detail_while_it_raises_sharpness() -> None:
    face = 0.4 + 0.1 * HQ
    noise = np.random.default_rng(0).normal(0, 1, HQ.shape).astype(np.float32)
    luma = np.array([65.481, 128.553, 24.966])
    strengths = [cv2.Laplacian(image.astype(np.float64) @ luma, cv2.CV_64F).std() for image in (face, noise)]
    noisy = (face + strengths[0] / strengths[1] * noise).astype(np.float32)
    assert sharpness(noisy, face) == pytest.approx(2, abs=0.2)
    assert detail(noisy, face) == pytest.approx(0.5**0.5, abs=0.05)  # of two equal, independent parts
    assert detail(1 - HQ, HQ) == pytest.approx(-1)
    assert detail(np.full_like(HQ, 0.5), HQ) == 0
    with pytest.raises(ValueError, match="without texture"):
        detail(HQ, np.full_like(HQ, 0.5))


def test_ssim_of_equal_images_is_one_and_needs_eleven_pixels() -> None:
    assert ssim(HQ, HQ) == 1
    ssim(HQ[:11, :11], HQ[:11, :11])
    with pytest.raises(ValueError, match="image of 10 x 32 is too small: each side needs 11"):
        ssim(HQ[:10], HQ[:10])


@pytest.mark.parametrize("metric", [psnr, psnr_y, ssim, colour_shift, sharpness])
def test_images_of_other_shapes_or_ranges_are_refused(metric: PairMetric) -> None:
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


# --- networks


def test_every_image_is_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = []

    class Network:
        def embed(self, images, landmarks):
            embedded.extend(images)
            features = np.array([[1, image.mean()] for image in images], np.float32)
            return features / np.linalg.norm(features, axis=1, keepdims=True)

    monkeypatch.setattr(identity_module, "load_identity", lambda weights, device: Network())
    built = build_metrics(["identity", "deg", "frechet"])
    a, b = (synthetic_face(0, i, 32).image for i in range(2))
    for metric in built.each.values():
        metric(from_uint8(a), from_uint8(b))
        metric(from_uint8(b), from_uint8(b))
    built.together["frechet"].features(a)
    assert len(embedded) == 2
    assert isinstance(built.networks.faces, FaceEmbeddings)


def test_identity_wants_square_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    from idm.faces import recognition

    monkeypatch.setattr(recognition, "load_identity", lambda weights, device: types.SimpleNamespace())
    with pytest.raises(ValueError, match="square aligned faces, got 24 x 32"):
        build_metric("identity")(HQ, HQ)


def test_identity_is_one_for_the_same_face_and_falls_with_blur(assets: Path) -> None:
    from idm.io.images import resize_image
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


def test_deg_is_the_angle_whose_cosine_is_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = IdentityNet(MobileFaceNet().eval())
    monkeypatch.setattr(identity_module, "load_identity", lambda weights, device: network)
    a, b = (from_uint8(synthetic_face(0, i, 48).image) for i in range(2))
    assert math.cos(math.radians(build_metric("deg")(a, b))) == pytest.approx(build_metric("identity")(a, b), abs=1e-9)
    assert build_metric("deg")(b, b) == pytest.approx(0, abs=0.1)


def test_ids_and_deg_arcface_are_those_of_vqfrs_script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = features.ArcFace().eval().requires_grad_(False)
    monkeypatch.setattr(features, "load_arcface", lambda weights: network)
    faces = [synthetic_face(0, i, 200).image for i in range(2)]
    described = []
    for i, face in enumerate(faces):
        write_image(tmp_path / f"{i}.png", face)
        grey = cv2.resize(cv2.imread(str(tmp_path / f"{i}.png"), 0), (128, 128), interpolation=cv2.INTER_LINEAR)
        described.append(network.embed(torch.from_numpy((grey[None, None].astype(np.float32) - 127.5) / 127.5))[0])
    cosine = float(torch.dot(*described) / (described[0].norm() * described[1].norm()))
    a, b = map(from_uint8, faces)
    assert build_metric("ids")(a, b) == pytest.approx(cosine, abs=1e-3)
    assert build_metric("deg_arcface")(a, b) == pytest.approx(math.degrees(math.acos(cosine)), abs=0.2)
    assert build_metric("deg_arcface")(b, b) == pytest.approx(0, abs=0.1)


# --- landmarks


def dots(*places: tuple[int, int], side: int = 64) -> np.ndarray:
    """A dark face with a red, a green and a blue dot at (x, y)."""
    image = np.zeros((side, side, 3), np.float32)
    for channel, (x, y) in enumerate(places):
        image[y, x, channel] = 1
    return image


def find_dots(image: np.ndarray) -> np.ndarray:
    """A landmark network that finds the dots."""
    side = len(image)
    flat = image.reshape(-1, 3).argmax(axis=0)
    return np.stack([flat % side, flat // side], axis=1).astype(np.float64)


def test_lmd_of_moved_faces_is_how_far_they_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []

    def network(image: np.ndarray) -> np.ndarray:
        looked_at.append(image)
        return find_dots(image)

    monkeypatch.setattr(landmarks_module, "load_landmarks", lambda weights, device: network)
    lmd = build_metric("lmd")
    assert not isinstance(lmd, SetMetric)
    face = dots((10, 20), (40, 20), (25, 45))
    assert lmd(face, face) == 0
    for dx, dy in ((3, 4), (-6, 8), (0, -5)):
        assert lmd(np.roll(face, (dy, dx), (0, 1)), face) == pytest.approx(math.hypot(dx, dy) * 512 / 64)
    assert lmd(dots((10, 20), (40, 20), (25, 48)), face) == pytest.approx(3 / 3 * 8)  # one of three moved by three
    assert len(looked_at) == 5  # the original once
    with pytest.raises(ValueError, match="square aligned faces, got 24 x 32"):
        lmd(HQ, HQ)
    assert build_metrics(["psnr", "lmd"], 16).missing == {"lmd": "needs faces of 32 px or more"}


@pytest.fixture(scope="module")
def alignment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """facexlib's alignment network with random weights, saved as facexlib distributes it."""
    from facexlib.alignment.awing_arch import FAN

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("alignment")
    torch.save({"state_dict": FAN(num_modules=4, num_landmarks=98).state_dict()}, folder / "alignment_WFLW_4HG.pth")
    return folder


def test_landmarks_are_read_from_heatmaps_as_facexlib_does(monkeypatch: pytest.MonkeyPatch) -> None:
    from facexlib.alignment.awing_arch import calculate_points

    monkeypatch.setattr(np, "float", float, raising=False)  # facexlib is older than numpy 2
    maps = np.random.default_rng(0).random((98, 64, 64)).astype(np.float32)
    places = np.random.default_rng(1).integers(2, 62, (98, 2))
    maps[np.arange(98), places[:, 1], places[:, 0]] = 2
    wanted = calculate_points(maps[None])[0] - 0.5  # from the corner of the first pixel
    np.testing.assert_array_equal(peaks(torch.from_numpy(maps)), wanted)


def test_landmarks_lie_in_pixels_of_the_face_whatever_its_size() -> None:
    class Network(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], None]:
            assert x.shape == (1, 3, 256, 256)
            maps = torch.nn.functional.avg_pool2d(x[:, :1], 4)
            return [torch.zeros(1, 99, 64, 64), maps.repeat(1, 99, 1, 1)], None

    for side in (128, 512):
        face = np.zeros((side, side, 3), np.float32)
        face[side // 4 : side // 4 + side // 64, side // 2 : side // 2 + side // 64, 0] = 1
        points = AlignmentNet(Network())(face)
        assert points.shape == (98, 2)
        np.testing.assert_allclose(points, [(side / 2, side / 4)] * 98, atol=side / 64)


def test_weights_are_loaded_as_facexlib_distributes_them(alignment: Path) -> None:
    face = from_uint8(synthetic_face(0, 0, 128).image)
    points = load_landmarks(alignment)(face)
    assert points.shape == (98, 2)
    assert ((points > -2) & (points < 130)).all()
    lmd = build_metric("lmd", alignment)
    assert lmd(face, face) == 0
    assert lmd(blur(face, 6), face) > 0


def test_a_peak_lies_a_quarter_of_a_pixel_towards_its_higher_neighbour() -> None:
    maps = torch.zeros(3, 6, 8)
    maps[0, 2, 3], maps[0, 2, 4], maps[0, 1, 3] = 1, 0.5, 0.2
    maps[1, 0, 0] = 1
    maps[2, 5, 7], maps[2, 5, 6] = 1, 0.5
    np.testing.assert_array_equal(peaks(maps), [(3.25, 1.75), (-0.25, -0.25), (7.25, 5.25)])


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "alignment_WFLW_4HG.pth")
    with pytest.raises(WeightsError, match="does not hold the weights of this FAN"):
        load_landmarks(tmp_path)


# --- sets


def test_the_kernel_distance_is_unbiased_and_finds_a_shift() -> None:
    """Of N(0, I) against N(m, I) in d = 2 the polynomial kernel's squared MMD has a closed form."""
    rng = np.random.default_rng(0)
    shift, d = np.array([1.0, 0.0]), 2
    same, moved = [], []
    for _ in range(200):
        a, b = rng.normal(size=(12, d)), rng.normal(size=(9, d))
        same.append(kernel_distance(a, b))
        moved.append(kernel_distance(a, b + shift))
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5
    # E (x.y/d + 1)^3 = 1 + 3 E[u] + 3 E[u^2] + E[u^3], u = x.y/d, for the three pairs of distributions
    wanted = closed_form(shift, shift, d) + closed_form(0 * shift, 0 * shift, d) - 2 * closed_form(shift, 0 * shift, d)
    assert np.mean(moved) == pytest.approx(wanted, abs=3 * np.std(moved) / 200**0.5)


def closed_form(m: np.ndarray, k: np.ndarray, d: int) -> float:
    """E (x.y / d + 1)^3 for independent x ~ N(m, I), y ~ N(k, I)."""
    mk, mm, kk = m @ k, m @ m, k @ k
    # given y, x.y ~ N(m.y, |y|^2): E (x.y)^3 = E (m.y)^3 + 3 E (m.y) |y|^2
    first, second = mk, mk**2 + mm + kk + d
    third = mk**3 + 3 * mk * mm + 3 * (mk * (kk + d + 2))
    return 1 + 3 * first / d + 3 * second / d**2 + third / d**3


def test_the_frechet_distance_of_faces_is_that_of_their_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = IdentityNet(MobileFaceNet().eval())
    monkeypatch.setattr(identity_module, "load_identity", lambda weights, device: network)
    frechet = build_metric("frechet")
    assert isinstance(frechet, SetMetric)
    faces = [[synthetic_face(seed, i, 48).image for i in range(4)] for seed in (0, 1)]
    a, b = ([frechet.features(image) for image in images] for images in faces)
    embedded = [network.embed([from_uint8(f) for f in images], [ffhq_landmarks(48)] * 4) for images in faces]
    assert frechet.compare(a, b) == pytest.approx(frechet_distance(*embedded), rel=1e-3)
    assert frechet.compare(a, a[::-1]) == pytest.approx(0, abs=1e-6)


def test_the_page_of_metrics_is_that_of_the_table() -> None:
    path = Path(__file__).parents[2] / "docs" / "make_metrics.py"
    spec = importlib.util.spec_from_file_location("make_metrics", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.render(), "run: python docs/make_metrics.py"
