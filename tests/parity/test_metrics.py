"""The metrics against independent code: scikit-image, scipy, torchmetrics, and LPIPS and DISTS written out in full."""

from pathlib import Path
from types import ModuleType

import lpips as lpips_package
import numpy as np
import pytest
import torch
from einops import rearrange
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from skimage.transform import SimilarityTransform
from torch import Tensor, nn

from idm.evaluation.metric import PairMetric
from idm.evaluation.metrics import build_metric, psnr, psnr_y, ssim
from idm.faces.template import umeyama

RNG = np.random.default_rng(0)


def image_pair(height: int, width: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    hq = gaussian_filter(RNG.random((height, width, 3)), (2, 2, 0))
    hq = (hq - hq.min()) / np.ptp(hq)
    restored = np.clip(hq + RNG.normal(0, noise, hq.shape), 0, 1)
    return restored.astype(np.float32), hq.astype(np.float32)


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_psnr_equals_scikit_image(noise: float) -> None:
    restored, hq = image_pair(37, 50, noise)
    expected = peak_signal_noise_ratio(hq.astype(np.float64), restored.astype(np.float64), data_range=1)
    assert psnr(restored, hq) == pytest.approx(expected, abs=1e-9)


def test_psnr_y_equals_that_of_scikit_images_luma() -> None:
    restored, hq = image_pair(24, 32, 0.05)
    luma = [rgb2ycbcr(image.astype(np.float64))[..., 0] for image in (hq, restored)]
    assert psnr_y(restored, hq) == pytest.approx(peak_signal_noise_ratio(*luma, data_range=255), abs=1e-6)


def ms_ssim_in_full(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2003, eq. 7, on the luma of YIQ rounded to 8 bits; five scales, halved by 2 x 2 means."""
    x, y = (np.round(image.astype(np.float64) @ (0.299, 0.587, 0.114) * 255) for image in (a, b))
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    product = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mean_x, mean_y, xx, yy, xy = (
            gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5] for v in (x, y, x * x, y * y, x * y)
        )
        term = (2 * (xy - mean_x * mean_y) + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
        if scale == 4:
            term = term * (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        product *= np.maximum(term, 0).mean() ** weight
        x, y = (v.reshape(v.shape[0] // 2, 2, v.shape[1] // 2, 2).mean(axis=(1, 3)) for v in (x, y))
    return float(product)


@pytest.mark.parametrize("noise", [0.02, 0.2])
def test_ms_ssim_equals_its_formula(noise: float) -> None:
    restored, hq = image_pair(192, 192, noise)
    assert build_metric("ms_ssim")(restored, hq) == pytest.approx(ms_ssim_in_full(restored, hq), abs=1e-3)


def ssim_in_full(a: np.ndarray, b: np.ndarray) -> float:
    """Wang et al. 2004, eq. 13, Gaussian window 11 x 11 of sigma 1.5, where it fits."""
    c1, c2 = 0.01**2, 0.03**2
    values = []
    for channel in range(3):
        x, y = a[..., channel].astype(np.float64), b[..., channel].astype(np.float64)
        mean_x, mean_y, xx, yy, xy = (
            gaussian_filter(v, 1.5, radius=5)[5:-5, 5:-5] for v in (x, y, x * x, y * y, x * y)
        )
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        covariance = xy - mean_x * mean_y
        structure = (2 * covariance + c2) / (xx - mean_x**2 + yy - mean_y**2 + c2)
        values.append((luminance * structure).mean())
    return float(np.mean(values))


@pytest.mark.parametrize(("shape", "noise"), [((11, 11), 0.1), ((37, 50), 0.02), ((64, 40), 0.3)])
def test_ssim_equals_its_formula(shape: tuple[int, int], noise: float) -> None:
    restored, hq = image_pair(*shape, noise)
    assert ssim(restored, hq) == pytest.approx(ssim_in_full(restored, hq), abs=1e-9)
    trusted = structural_similarity(
        restored.astype(np.float64),
        hq.astype(np.float64),
        data_range=1,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(restored, hq) == pytest.approx(trusted, abs=1e-9)


def test_ssim_of_two_constants_is_its_luminance_term() -> None:
    a, b = np.full((16, 16, 3), 0.2, np.float32), np.full((16, 16, 3), 0.7, np.float32)
    expected = (2 * 0.2 * 0.7 + 1e-4) / (0.2**2 + 0.7**2 + 1e-4)
    assert ssim(a, b) == pytest.approx(expected, abs=1e-6)


@pytest.fixture(scope="module")
def torchmetrics() -> ModuleType:
    return pytest.importorskip("torchmetrics.functional.image")


def batch(image: np.ndarray) -> Tensor:
    return rearrange(torch.from_numpy(image.astype(np.float64)), "h w c -> 1 c h w")


@pytest.mark.parametrize("noise", [0.001, 0.05, 0.5])
def test_psnr_and_ssim_equal_those_of_torchmetrics(torchmetrics: ModuleType, noise: float) -> None:
    restored, hq = image_pair(37, 50, noise)
    images = (batch(restored), batch(hq))
    expected = torchmetrics.peak_signal_noise_ratio(*images, data_range=1.0)
    assert psnr(restored, hq) == pytest.approx(float(expected), abs=1e-5)  # it rounds to float32
    _, everywhere = torchmetrics.structural_similarity_index_measure(
        *images, data_range=1.0, sigma=1.5, return_full_image=True
    )
    assert ssim(restored, hq) == pytest.approx(float(everywhere[..., 5:-5, 5:-5].mean()), abs=1e-9)


@pytest.mark.parametrize(("noise", "tolerance"), [(0.02, 1e-4), (0.2, 4e-3)])
def test_ms_ssim_is_near_that_of_torchmetrics(torchmetrics: ModuleType, noise: float, tolerance: float) -> None:
    """It mirrors the image beyond its border, where ours ends, and knows no luma."""
    restored, hq = image_pair(192, 192, noise)
    luma = (np.round(image.astype(np.float64) @ (0.299, 0.587, 0.114) * 255)[..., None] for image in (restored, hq))
    expected = torchmetrics.multiscale_structural_similarity_index_measure(*map(batch, luma), data_range=255.0)
    assert build_metric("ms_ssim")(restored, hq) == pytest.approx(float(expected), abs=tolerance)


# --- LPIPS: the trunk weights are not here, so a random trunk shows the wiring


def random_alexnet() -> nn.Sequential:
    """The features of torchvision's AlexNet, at the same indices."""
    layers: list[nn.Module] = []
    for num_in, num_out, kernel, stride, padding, pool in (
        (3, 64, 11, 4, 2, True),
        (64, 192, 5, 1, 2, True),
        (192, 384, 3, 1, 1, False),
        (384, 256, 3, 1, 1, False),
        (256, 256, 3, 1, 1, False),
    ):
        layers += [nn.Conv2d(num_in, num_out, kernel, stride, padding), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if pool else []
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def trunk() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return random_alexnet().requires_grad_(False)


@pytest.fixture(scope="module")
def lpips(trunk: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> PairMetric:
    folder = tmp_path_factory.mktemp("weights")
    state = {f"features.{name}": tensor for name, tensor in trunk.state_dict().items()}
    torch.save(state, folder / "alexnet-owt-7be5be79.pth")
    before = torch.get_rng_state()
    metric = build_metric("lpips", folder)
    assert torch.equal(torch.get_rng_state(), before), "building a metric must not move the global generator"
    return metric


def lpips_in_full(trunk: nn.Sequential, restored: np.ndarray, hq: np.ndarray) -> float:
    """Zhang et al., arXiv 1801.03924, eq. 1: distances of unit feature vectors, weighted by channel."""
    path = Path(lpips_package.__file__).parent / "weights" / "v0.1" / "alex.pth"
    heads = torch.load(path, map_location="cpu", weights_only=True)
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])

    def features(image: np.ndarray) -> list[Tensor]:
        x = ((torch.from_numpy(image) * 2 - 1 - shift) / scale).permute(2, 0, 1)
        taken = []
        for layer in trunk:
            x = layer(x)
            taken += [x / x.norm(dim=0)] if isinstance(layer, nn.ReLU) else []
        return taken

    total = 0.0
    for i, (a, b) in enumerate(zip(features(restored), features(hq), strict=True)):
        weight = heads[f"lin{i}.model.1.weight"][0]
        total += float((weight * (a - b) ** 2).sum(dim=0).mean())
    return total


def test_lpips_equals_its_formula_on_the_given_trunk(lpips: PairMetric, trunk: nn.Sequential) -> None:
    for shape in ((64, 64), (48, 71)):
        restored, hq = image_pair(*shape, 0.1)
        expected = lpips_in_full(trunk, restored, hq)
        assert expected > 1e-4
        assert lpips(restored, hq) == pytest.approx(expected, rel=1e-4)
        assert lpips(hq, hq) == 0


def test_lpips_refuses_other_ranges_shapes_and_tiny_images(lpips: PairMetric) -> None:
    restored, hq = image_pair(40, 40, 0.1)
    for wrong in (restored * 2 - 1, restored * 255):
        with pytest.raises(ValueError, match=r"values must lie in \[0, 1\]"):
            lpips(wrong, hq)
    with pytest.raises(ValueError, match="differ in shape"):
        lpips(restored[:39], hq)
    with pytest.raises(ValueError, match="each side needs 32 pixels"):
        lpips(restored[:31], hq[:31])
    lpips(restored[:32, :32], hq[:32, :32])


# --- DISTS, on a random trunk too


def dists_in_full(trunk: nn.Sequential, own: dict[str, Tensor], restored: np.ndarray, hq: np.ndarray) -> float:
    """Ding et al., arXiv 2004.07728, eq. 3 to 6: means and covariances of the image and of VGG-16's five stages, which
    are shrunk by L2 pooling with a Hann window."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    hann = torch.tensor([0.5, 1, 0.5])
    window = hann.outer(hann) / 4

    def features(image: np.ndarray) -> list[Tensor]:
        x = ((torch.from_numpy(image) - mean) / std).permute(2, 0, 1)
        taken = [torch.from_numpy(image).permute(2, 0, 1)]
        for layer in trunk:
            if not isinstance(layer, nn.MaxPool2d):
                x = layer(x)
                continue
            taken.append(x)
            kernel = window.expand(len(x), 1, 3, 3)
            x = (nn.functional.conv2d(x[None] ** 2, kernel, stride=2, padding=1, groups=len(x))[0] + 1e-12).sqrt()
        return taken

    total, start, c = 1.0, 0, 1e-6
    weights = own["alpha"].sum() + own["beta"].sum()
    for a, b in zip(features(restored), features(hq), strict=True):
        alpha, beta = (own[name][0, start : start + len(a), 0, 0] / weights for name in ("alpha", "beta"))
        start += len(a)
        mean_a, mean_b = a.mean((1, 2)), b.mean((1, 2))
        texture = (2 * mean_a * mean_b + c) / (mean_a**2 + mean_b**2 + c)
        covariance = (a * b).mean((1, 2)) - mean_a * mean_b
        variances = a.var((1, 2), correction=0) + b.var((1, 2), correction=0)
        total -= float((alpha * texture).sum() + (beta * (2 * covariance + c) / (variances + c)).sum())
    return total


def test_dists_equals_its_formula_on_the_given_trunk_and_weights(tmp_path: Path) -> None:
    vgg = pytest.importorskip("torchvision").models.vgg
    with torch.random.fork_rng():
        torch.manual_seed(0)
        trunk = vgg.make_layers(vgg.cfgs["D"]).requires_grad_(False)
        own = {name: torch.rand(1, 1475, 1, 1) for name in ("alpha", "beta")}
    state = {f"features.{name}": weight for name, weight in trunk.state_dict().items()}
    torch.save(state, tmp_path / "vgg16-397923af.pth")
    torch.save(own, tmp_path / "DISTS_weights-f5e65c96.pth")
    restored, hq = image_pair(48, 64, 0.1)
    expected = dists_in_full(trunk, own, restored, hq)
    assert expected > 1e-3
    assert build_metric("dists", tmp_path)(restored, hq) == pytest.approx(expected, rel=1e-4)


# --- similarity transforms

coordinates = st.floats(-500, 500)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 8),
    st.floats(-np.pi, np.pi),
    st.floats(0.02, 50),
    coordinates,
    coordinates,
)
def test_umeyama_recovers_any_similarity(
    seed: int, num_points: int, angle: float, scale: float, dx: float, dy: float
) -> None:
    src = np.random.default_rng(seed).uniform(0, 256, (num_points, 2))
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    truth = np.array([[c, -s, dx], [s, c, dy]])
    found = umeyama(src, src @ truth[:, :2].T + truth[:, 2])
    np.testing.assert_allclose(found[:, :2], truth[:, :2], rtol=0, atol=1e-9 * max(1, scale))
    np.testing.assert_allclose(found[:, 2], truth[:, 2], rtol=0, atol=1e-9 * 256 * max(1, scale))


def test_umeyama_fits_noisy_points_like_scikit_image() -> None:
    for _ in range(20):
        src = RNG.uniform(0, 100, (5, 2))
        dst = src * 0.4 + RNG.normal(0, 3, (5, 2)) + 7
        trusted = SimilarityTransform.from_estimate(src, dst)
        np.testing.assert_allclose(umeyama(src, dst), trusted.params[:2], rtol=0, atol=1e-9)


def test_umeyama_never_mirrors() -> None:
    src = RNG.uniform(0, 100, (5, 2)) * (1, 0.2)
    found = umeyama(src, src * (1, -1))
    assert np.linalg.det(found[:, :2]) > 0
