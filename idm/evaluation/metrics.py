"""What each number in our tables means exactly, and how to compute it.

The contract: images are RGB float32 height x width x 3 in [0, 1], or 8-bit where a whole set is looked at. Whatever
breaks it is a ValueError, since a picture in another range gives a plausible, wrong number. Nothing is downloaded: a
metric whose weights are missing says which file it wants and where.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, assert_never, overload

import numpy as np
from jaxtyping import Float32, Float64

from idm.evaluation.sets import CleanFID, Frechet, SetMetric
from idm.io.weights import find_weights, missing_weights

Image01 = Float32[np.ndarray, "_ _ 3"]
PairMetric = Callable[[Image01, Image01], float]  # (restored, hq)
SingleMetric = Callable[[Image01], float]  # (restored)

PairName = Literal["psnr", "ssim", "lpips", "identity"]
SingleName = Literal["niqe"]
SetName = Literal["frechet", "fid"]
MetricName = PairName | SingleName | SetName


@dataclass(frozen=True)
class Metric:
    """One column of a table.

    ``arrow`` is the direction of better. ``kind`` says what it compares: a "pair" (restored, hq), a "single" image
    without reference, or a "set" of images with another, in any order. ``protocol`` is printed below each table.
    """

    name: MetricName
    title: str
    arrow: Literal["higher", "lower"]
    kind: Literal["pair", "single", "set"]
    protocol: str

    @property
    def full_reference(self) -> bool:
        """Whether it needs the original of each image."""
        return self.kind == "pair"


METRICS: dict[MetricName, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "psnr",
            "PSNR",
            "higher",
            "pair",
            "PSNR in dB over all pixels of R, G and B (not luma), no border cropped, averaged over images; "
            "an image equal to its original counts as infinite.",
        ),
        Metric(
            "ssim",
            "SSIM",
            "higher",
            "pair",
            "SSIM (Wang et al. 2004) averaged over R, G and B: Gaussian window 11 x 11, sigma 1.5, K1 0.01, "
            "K2 0.03, population covariance, 5 border pixels left out (scikit-image).",
        ),
        Metric(
            "lpips",
            "LPIPS",
            "lower",
            "pair",
            "LPIPS version 0.1 with the AlexNet trunk (package lpips), RGB scaled to [-1, 1], full size.",
        ),
        Metric(
            "identity",
            "Identity",
            "higher",
            "pair",
            "Cosine similarity of MobileFaceNet embeddings (CASIA-WebFace) of the restored and the original "
            "face and their mirror images, 112 x 96, both aligned by the FFHQ landmark template.",
        ),
        Metric(
            "niqe",
            "NIQE",
            "lower",
            "single",
            "NIQE (Mittal et al. 2013) of pyiqa: luma of YIQ, whole blocks of 96 x 96 from the upper left, "
            "the original pristine model; needs no original.",
        ),
        Metric(
            "frechet",
            "Frechet",
            "lower",
            "set",
            "Frechet distance of normal distributions fitted to the MobileFaceNet embeddings (as for Identity) of the "
            "restored and the original faces. Not FID; biased by the number of faces, so compare equal numbers only.",
        ),
        Metric(
            "fid",
            "FID",
            "lower",
            "set",
            "Clean-FID (Parmar et al. 2022) of pyiqa: 2048 Inception features of images resized to 299 x 299 "
            "by PIL's bicubic filter; biased by the number of images, so compare equal numbers only.",
        ),
    )
}


@overload
def build_metric(name: PairName, weights_dir: Path | None = None, device: str = "cpu") -> PairMetric: ...
@overload
def build_metric(name: SingleName, weights_dir: Path | None = None, device: str = "cpu") -> SingleMetric: ...
@overload
def build_metric(name: SetName, weights_dir: Path | None = None, device: str = "cpu") -> SetMetric: ...
def build_metric(
    name: MetricName, weights_dir: Path | None = None, device: str = "cpu"
) -> PairMetric | SingleMetric | SetMetric:
    """The function behind a name, with its weights loaded.

    Args:
        name: a key of ``METRICS``.
        weights_dir: folder of weights files; by default searched as
            :func:`idm.io.weights.find_weights` says. FID reads pyiqa's own folder in any case.
        device: where networks run, such as "cpu" or "cuda:0".

    Raises:
        FileNotFoundError: a weights file is missing; says which and where to put it.
    """
    match name:
        case "psnr":
            return psnr
        case "ssim":
            return ssim
        case "lpips":
            return _build_lpips(weights_dir, device)
        case "identity":
            return _build_identity(weights_dir, device)
        case "niqe":
            return _build_niqe(weights_dir, device)
        case "frechet":
            return _build_frechet(weights_dir, device)
        case "fid":
            return _build_fid(device)
        case _:
            assert_never(name)


def psnr(restored: Image01, hq: Image01) -> float:
    """-10 log10(mean squared error) in dB over all pixels and channels; ``math.inf`` for equal images.

    No cap stands in for infinity: a mean that holds one is infinite, and the reader sees why.
    """
    _check(restored, hq, smallest=1)
    error = float(np.mean((restored.astype(np.float64) - hq) ** 2))
    return -10 * math.log10(error) if error > 0 else math.inf


def ssim(restored: Image01, hq: Image01) -> float:
    """Structural similarity (Wang et al. 2004), at most 1; the sides must be 11 pixels or more."""
    from skimage.metrics import structural_similarity

    _check(restored, hq, smallest=11)
    value = structural_similarity(
        restored.astype(np.float64),
        hq.astype(np.float64),
        data_range=1,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def _build_lpips(weights_dir: Path | None, device: str) -> PairMetric:
    import warnings

    import torch
    from einops import rearrange

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    path = find_weights("alexnet-owt-7be5be79.pth", weights_dir, [hub])
    from lpips import LPIPS

    # lpips would have torchvision download the trunk, so a random one is built and filled here. That must
    # not move torch's global generator, nor warn of the deprecated way in which lpips calls torchvision.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in network.net.named_parameters():  # "slice2.3.weight" is AlexNet's features.3
            _, layer, kind = name.split(".")
            parameter.copy_(state[f"features.{layer}.{kind}"])
    network.requires_grad_(False).to(device)

    @torch.inference_mode()
    def lpips(restored: Image01, hq: Image01) -> float:
        _check(restored, hq, smallest=32)  # below, AlexNet runs out of pixels
        pair = rearrange(torch.from_numpy(np.stack([restored, hq])), "n h w c -> n 1 c h w").to(device)
        return float(network(pair[0] * 2 - 1, pair[1] * 2 - 1))

    return lpips


def _build_identity(weights_dir: Path | None, device: str) -> PairMetric:
    from idm.faces.recognition import cosine, load_identity
    from idm.faces.template import ffhq_landmarks

    network = load_identity(weights_dir, device)

    def identity(restored: Image01, hq: Image01) -> float:
        _check(restored, hq, smallest=1)
        height, width, _ = hq.shape
        if height != width:
            raise ValueError(f"identity wants square aligned faces, got {height} x {width}")
        embedded = network.embed([restored, hq], [ffhq_landmarks(height)] * 2)
        return float(cosine(embedded[:1], embedded[1:])[0])

    return identity


def _build_niqe(weights_dir: Path | None, device: str) -> SingleMetric:
    path = find_weights("pyiqa/niqe_modelparameters.mat", weights_dir)
    import pyiqa
    import torch
    from einops import rearrange

    network = pyiqa.create_metric("niqe", device=device, pretrained_model_path=str(path))

    def niqe(restored: Image01) -> float:
        _check(restored, restored, smallest=96)
        if max(restored.shape) < 192:
            raise ValueError("NIQE needs two blocks of 96 x 96: one has no covariance")
        try:
            value = network(rearrange(torch.from_numpy(restored), "h w c -> 1 c h w")).item()
        except torch.linalg.LinAlgError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError("NIQE is not defined for an image without texture")
        return value

    return niqe


def _build_frechet(weights_dir: Path | None, device: str) -> SetMetric:
    from idm.faces.recognition import load_identity

    return Frechet(load_identity(weights_dir, device))


def _build_fid(device: str) -> SetMetric:
    import pyiqa
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    folder = Path(DEFAULT_CACHE_DIR)  # pyiqa looks nowhere else, and downloads what is not there
    inception = "pt_inception-2015-12-05-6726825d.pth"
    if not (folder / inception).is_file():
        raise missing_weights(inception, [folder], folder)
    return CleanFID(pyiqa.create_metric("fid", device=device))


def _check(restored: Image01, hq: Image01, smallest: int) -> None:
    if restored.shape != hq.shape:
        raise ValueError(f"images to compare differ in shape: {restored.shape} and {hq.shape}")
    height, width, _ = restored.shape
    if min(height, width) < smallest:
        raise ValueError(f"image of {height} x {width} is too small: each side needs {smallest} pixels")
    for image in (restored, hq):
        low, high = float(image.min()), float(image.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # false for NaN too
            raise ValueError(f"values must lie in [0, 1], got {low:g}..{high:g}")


def mean_and_interval(
    values: Sequence[float] | Float64[np.ndarray, " n"], seed: int = 0, num_resamples: int = 1000
) -> tuple[float, float, float]:
    """The mean, and the ends of its 95 % bootstrap percentile interval: (mean, low, high).

    Equal arguments give equal results. Infinite values (PSNR of equal images) make the mean infinite.

    Raises:
        ValueError: no values, or a NaN among them.
    """
    array = np.asarray(values, np.float64)
    if array.size == 0 or np.isnan(array).any():
        raise ValueError(f"need at least one value and no NaN, got {array.size} values")
    rng = np.random.default_rng(seed)
    means = [array[rng.integers(array.size, size=array.size)].mean() for _ in range(num_resamples)]
    # an observed mean, not one interpolated: infinity minus infinity is NaN
    low, high = np.quantile(means, [0.025, 0.975], method="inverted_cdf")
    return float(array.mean()), float(low), float(high)
