"""Metrics of pixels, which need no network: PSNR, SSIM, MS-SSIM, colour, sharpness and detail."""

import math

import numpy as np
from jaxtyping import Float64

from idm.evaluation.metric import Image01, Metric, PairMetric, check_images
from idm.io.errors import InvalidInput

_EQUAL = (
    "an image equal to its original counts as one that differs by one 8-bit level in one value, the smallest "
    "difference there is"
)
_LUMA = np.array([65.481, 128.553, 24.966]) / 255  # ITU-R BT.601, 16 to 235 of 255


def psnr(restored: Image01, hq: Image01) -> float:
    """-10 log10(mean squared error) in dB over all pixels and channels of images in [0, 1].

    The error counts as at least (1/255)^2 / (number of values), so that equal images have a finite score above all
    8-bit images that differ: 95 dB at 128 x 128.
    """
    check_images(restored, hq)
    return _decibel(restored.astype(np.float64) - hq)


def psnr_y(restored: Image01, hq: Image01) -> float:
    """PSNR in dB of the luma of images in [0, 1], by ITU-R BT.601 (16..235 of 255), with the floor of :func:`psnr`."""
    check_images(restored, hq)
    return _decibel((restored.astype(np.float64) - hq) @ _LUMA)


def _decibel(difference: Float64[np.ndarray, "..."]) -> float:
    floor = 1 / 255**2 / difference.size
    return -10 * math.log10(max(float(np.mean(difference**2)), floor))


def ssim(restored: Image01, hq: Image01) -> float:
    """Structural similarity (Wang et al. 2004, eq. 13), at most 1; the sides must be 11 pixels or more.

    Equal to scikit-image's with the settings of the paper, and several times faster.
    """
    check_images(restored, hq, smallest=11)
    c1, c2 = 0.01**2, 0.03**2
    x, y = restored.astype(np.float64), hq.astype(np.float64)
    mean_x, mean_y = _local_mean(x), _local_mean(y)
    product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance, variances = _local_mean(x * y) - product, _local_mean(x * x + y * y) - squares
    return float(np.mean((2 * product + c1) * (2 * covariance + c2) / ((squares + c1) * (variances + c2))))


def _local_mean(image: Float64[np.ndarray, "h w 3"]) -> Float64[np.ndarray, "h2 w2 3"]:
    """Weighted by a Gaussian window of 11 x 11, sigma 1.5, wherever it lies in the image."""
    import cv2

    window = cv2.getGaussianKernel(11, 1.5, cv2.CV_64F)
    return cv2.sepFilter2D(image, -1, window, window)[5:-5, 5:-5]


def build_ms_ssim() -> PairMetric:
    """MS-SSIM (Wang et al. 2003) of pyiqa; the sides must be 176 pixels or more, 11 at the coarsest of five scales."""
    import torch
    from einops import rearrange
    from pyiqa.archs.ssim_arch import MS_SSIM

    network = MS_SSIM()

    def ms_ssim(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq, smallest=176)
        pair = rearrange(torch.from_numpy(np.stack([restored, hq])), "n h w c -> n 1 c h w")
        return float(network(pair[0], pair[1]))

    return ms_ssim


def colour_shift(restored: Image01, hq: Image01) -> float:
    """Euclidean distance of the mean colours in CIE L*a*b* (D65); 2.3 is about the smallest noticeable difference.

    Source: G. Sharma, Digital Color Imaging Handbook, 2003.
    """
    from skimage.color import rgb2lab

    check_images(restored, hq)
    means = [rgb2lab(image.astype(np.float64)).mean(axis=(0, 1)) for image in (restored, hq)]
    return float(np.linalg.norm(means[0] - means[1]))


def sharpness(restored: Image01, hq: Image01) -> float:
    """Variance of the Laplacian of luma over the original's: below 1 is blurrier, above 1 sharper or noisier.

    Raises:
        ValueError: the original has no texture.
    """
    ours, original = _laplacians(restored, hq)
    return float(ours.var() / original.var())


def detail(restored: Image01, hq: Image01) -> float:
    """Correlation of the Laplacian of luma with the original's, in [-1, 1]: 1 if the finest structures agree.

    Noise and invented texture raise :func:`sharpness` and not this. It is 0 for a restored face without texture.

    Raises:
        ValueError: the original has no texture.
    """
    ours, original = _laplacians(restored, hq)
    if ours.var() == 0:
        return 0.0
    return float(np.corrcoef(ours.ravel(), original.ravel())[0, 1])


def _laplacians(restored: Image01, hq: Image01) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
    """The Laplacians (3 x 3, four neighbours) of luma."""
    import cv2

    check_images(restored, hq, smallest=3)
    ours, original = (cv2.Laplacian(image.astype(np.float64) @ _LUMA, cv2.CV_64F) for image in (restored, hq))
    if original.var() == 0:
        raise InvalidInput("sharpness and detail are not defined for an original without texture")
    return ours, original


METRICS = (
    Metric(
        "psnr",
        "PSNR",
        "higher",
        "pair",
        f"PSNR in dB over all pixels of R, G and B (not luma), no border cropped, averaged over images; {_EQUAL}.",
        lambda networks: psnr,
    ),
    Metric(
        "psnr_y",
        "PSNR-Y",
        "higher",
        "pair",
        "PSNR in dB of the luma of ITU-R BT.601 (16 to 235 of 255), no border cropped, averaged over images; "
        f"{_EQUAL}.",
        lambda networks: psnr_y,
    ),
    Metric(
        "ssim",
        "SSIM",
        "higher",
        "pair",
        "SSIM (Wang et al. 2004) averaged over R, G and B: Gaussian window 11 x 11, sigma 1.5, K1 0.01, "
        "K2 0.03, population covariance, 5 border pixels left out (scikit-image).",
        lambda networks: ssim,
        smallest=11,
    ),
    Metric(
        "ms_ssim",
        "MS-SSIM",
        "higher",
        "pair",
        "MS-SSIM (Wang et al. 2003) of pyiqa: luma of YIQ rounded to 8 bits, five scales, the product of their terms, "
        "negative contrast terms counted as 0.",
        lambda networks: build_ms_ssim(),
        smallest=176,
    ),
    Metric(
        "colour",
        "Colour",
        "lower",
        "pair",
        "Colour shift: Euclidean distance in CIE L*a*b* (D65) between the mean colours of the restored and the "
        "original face.",
        lambda networks: colour_shift,
    ),
    Metric(
        "sharpness",
        "Sharpness",
        "one",
        "pair",
        "Variance of the Laplacian (3 x 3, four neighbours) of BT.601 luma, divided by the original's; noise raises "
        "it too.",
        lambda networks: sharpness,
        smallest=3,
    ),
    Metric(
        "detail",
        "Detail",
        "higher",
        "pair",
        "Correlation of the Laplacian (3 x 3, four neighbours) of BT.601 luma with the original's. Our own.",
        lambda networks: detail,
        smallest=3,
    ),
)
