"""The same numbers as code the world trusts: SciPy, Pillow, torch, torchvision, and GFP-GAN's own calls."""

import io
import math

import cv2
import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
import torchvision.transforms.functional as tvf
from einops import rearrange
from PIL import Image

from idm.degradation import (
    GFPGAN,
    Degradation,
    apply_degradation,
    degradation_rng,
    draw_degradation,
    kernels,
    operations,
)
from idm.degradation.steps import Blur, ColourShift, Downscale, GaussianNoise, Grey, Jitter, Jpeg


def scene(height: int = 96, width: int = 80) -> np.ndarray:
    """Waves in two channels and a hard-edged disc in the third."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    disc = np.where((x - width / 2) ** 2 + (y - height / 2) ** 2 < (width / 3) ** 2, 0.9, 0.15)
    return np.stack([0.5 + 0.45 * np.sin(x / 7), 0.5 + 0.45 * np.cos(y / 5 + x / 11), disc], -1).astype(np.float32)


IMAGES = {
    "scene": scene(),
    "noise": np.random.default_rng(0).random((45, 61, 3), dtype=np.float32),
    "grey noise": np.repeat(np.random.default_rng(1).random((32, 32, 1), dtype=np.float32), 3, axis=2),
    "corners of the colour cube": np.rint(np.random.default_rng(2).random((32, 32, 3))).astype(np.float32),
    "dark": np.random.default_rng(3).random((32, 32, 3), dtype=np.float32) / 1000,
}


def to_tensor(image: np.ndarray) -> torch.Tensor:
    return rearrange(torch.from_numpy(image), "h w c -> c h w")


def to_array(tensor: torch.Tensor) -> np.ndarray:
    return rearrange(tensor, "c h w -> h w c").numpy()


@pytest.mark.parametrize(("sigma_x", "sigma_y", "rotation"), [(3.0, 1.0, 0.7), (0.6, 9.0, -2.0), (2.0, 2.0, 0.0)])
def test_a_kernel_is_the_bivariate_normal_density_of_scipy(sigma_x, sigma_y, rotation):
    c, s = math.cos(rotation), math.sin(rotation)
    turn = np.array([[c, -s], [s, c]])
    y, x = np.mgrid[-20:21, -20:21]
    normal = scipy.stats.multivariate_normal(cov=turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T)
    density = normal.pdf(np.stack([x, y], axis=-1))
    kernel = kernels.gaussian_kernel(sigma_x, sigma_y, rotation, radius=20)
    np.testing.assert_allclose(kernel, density / density.sum(), atol=1e-7)


@pytest.mark.parametrize("radius", [1, 3, 5, 6, 20, 50])  # OpenCV turns to a DFT above 11 x 11; 50 exceeds the image
def test_a_square_kernel_filters_as_scipy(radius):
    kernel = kernels.gaussian_kernel(6.0, 2.0, 0.5, radius)
    expected = scipy.ndimage.correlate(scene(), kernel[..., None], mode="mirror")
    np.testing.assert_allclose(operations.blur(scene(), kernel), expected, atol=2e-6)


@pytest.mark.parametrize("radius", [1, 6, 20, 50])
def test_taps_filter_as_the_gaussian_filter_of_scipy(radius):
    expected = scipy.ndimage.gaussian_filter(scene(), (6.0, 6.0, 0.0), mode="mirror", radius=(radius, radius, 0))
    np.testing.assert_allclose(operations.blur(scene(), kernels.gaussian_taps(6.0, radius)), expected, atol=2e-6)


@pytest.mark.parametrize("size", [(96, 80), (48, 40), (31, 17), (1, 1), (130, 101)])
def test_resizing_is_that_of_torch_without_antialiasing(size):
    options = {"mode": "bilinear", "align_corners": False, "antialias": False}
    expected = torch.nn.functional.interpolate(to_tensor(scene())[None], size=size, **options)[0]
    np.testing.assert_allclose(operations.resize(scene(), *size), to_array(expected), atol=1e-5)


@pytest.mark.parametrize("quality", [1, 30, 60, 85, 100])
@pytest.mark.parametrize("name", IMAGES)
def test_jpeg_is_that_of_pillow(name, quality):
    image, file = np.rint(IMAGES[name] * 255).astype(np.uint8), io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    expected = np.asarray(Image.open(file)).astype(np.float32) / 255
    result = operations.jpeg(IMAGES[name], quality)
    np.testing.assert_allclose(result, expected, atol=2.1 / 255)  # libjpeg and libjpeg-turbo may differ by a level
    assert np.abs(result - expected).mean() < 0.1 / 255


def test_grey_is_that_of_pillow():
    image = IMAGES["noise"]
    expected = np.asarray(Image.fromarray(np.rint(image * 255).astype(np.uint8)).convert("L"))
    for channel in range(3):
        np.testing.assert_allclose(operations.to_grey(image)[..., channel] * 255, expected, atol=1.5)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize(
    ("ours", "theirs", "strengths"),
    [
        (operations.adjust_brightness, tvf.adjust_brightness, (0.0, 0.5, 1.0, 1.5)),
        (operations.adjust_contrast, tvf.adjust_contrast, (0.0, 0.5, 1.0, 1.5)),
        (operations.adjust_saturation, tvf.adjust_saturation, (0.0, 0.5, 1.0, 1.5)),
        (operations.adjust_hue, tvf.adjust_hue, (-0.5, -0.1, -0.03, 0.0, 0.1, 0.4)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_jitter_is_that_of_torchvision(name, ours, theirs, strengths):
    for strength in strengths:
        expected = to_array(theirs(to_tensor(IMAGES[name]), strength))
        np.testing.assert_allclose(ours(IMAGES[name], strength), expected, atol=1e-5)


def gfpgan_reference(image: np.ndarray, drawn: Degradation, rng: np.random.Generator) -> np.ndarray:
    """One draw carried out at 512 px by the calls, in the order of GFPGAN's ffhq_degradation_dataset.py."""
    bgr = image[..., ::-1].copy()
    h, w, _ = bgr.shape
    sigma_x, sigma_y, rotation = drawn.strength(Blur)
    c, s = math.cos(rotation), math.sin(rotation)
    turn = np.array([[c, -s], [s, c]])
    inverse = np.linalg.inv(turn @ np.diag([sigma_x**2, sigma_y**2]) @ turn.T)
    grid = np.stack(np.meshgrid(np.arange(-20, 21), np.arange(-20, 21)), axis=-1)
    kernel = np.exp(-0.5 * np.sum(grid @ inverse * grid, axis=2))
    lq = cv2.filter2D(bgr, -1, kernel / kernel.sum())
    down = drawn.strength(Downscale)
    lq = cv2.resize(lq, (int(w // down), int(h // down)), interpolation=cv2.INTER_LINEAR)
    noise = rng.standard_normal(lq.shape, dtype=np.float32)[..., ::-1]  # drawn for R, G, B
    lq = np.clip(lq + noise * np.float32(drawn.strength(GaussianNoise) / 255), 0, 1)
    _, data = cv2.imencode(".jpg", lq * 255.0, [cv2.IMWRITE_JPEG_QUALITY, drawn.strength(Jpeg)])
    lq = np.float32(cv2.imdecode(data, 1)) / 255
    lq = cv2.resize(lq, (w, h), interpolation=cv2.INTER_LINEAR)
    if (shift := drawn.strength(ColourShift)) is not None:
        lq = np.clip(lq + np.float32(shift[::-1]) / 255, 0, 1)
    if drawn.strength(Grey):
        lq = np.tile(cv2.cvtColor(lq, cv2.COLOR_BGR2GRAY)[:, :, None], [1, 1, 3])
    tensor = to_tensor(lq[..., ::-1].copy())
    adjust = {
        "brightness": tvf.adjust_brightness,
        "contrast": tvf.adjust_contrast,
        "saturation": tvf.adjust_saturation,
        "hue": tvf.adjust_hue,
    }
    for name, strength in drawn.strength(Jitter) or ():
        tensor = adjust[name](tensor, strength)
    return to_array(torch.clamp((tensor * 255).round(), 0, 255) / 255)


def test_the_whole_chain_at_512_px_is_that_of_gfpgan():
    image = scene(512, 512)
    drawn = [draw_degradation(GFPGAN, degradation_rng(0, 0, index)) for index in range(40)]
    chosen = [d for d in drawn if d.strength(Jitter) or d.strength(ColourShift)][:4] + drawn[:2]
    assert {d.strength(Blur)[0] == d.strength(Blur)[1] for d in chosen} == {True, False}
    for index, degradation in enumerate(chosen):
        result = apply_degradation(image, degradation, degradation_rng(1, 0, index))
        expected = gfpgan_reference(image, degradation, degradation_rng(1, 0, index))
        # A blurred value may fall on the other side of a rounding step before JPEG: rare, and a few levels.
        assert np.abs(result - expected).mean() < 0.02 / 255
        assert np.abs(result - expected).max() < 12 / 255
