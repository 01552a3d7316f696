"""Learned perceptual metrics: LPIPS, DISTS, and quality without reference, through the packages lpips and pyiqa."""

import importlib
import math
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import numpy as np

from idm.evaluation.metric import Image01, Metric, MetricNetworks, PairMetric, check_images
from idm.io.errors import InvalidInput

ALEXNET_WEIGHTS = "alexnet-owt-7be5be79.pth"
NIQE_MODEL = "niqe_modelparameters.mat"
DISTS_WEIGHTS, VGG16_WEIGHTS = "DISTS_weights-f5e65c96.pth", "vgg16-397923af.pth"
MUSIQ_WEIGHTS = "musiq_koniq_ckpt-e95806b9.pth"
MANIQA_WEIGHTS = "ckpt_koniq10k.pt"
CLIP_WEIGHTS, PROMPTS = "RN50.pt", "CLIP-IQA+_learned_prompts-603f3273.pth"
TOPIQ_WEIGHTS = "topiq_nr_cgfiqa_res50-0a8b8e4f.pth"


def build_lpips(networks: MetricNetworks) -> PairMetric:
    """LPIPS (Zhang et al. 2018) version 0.1 with the AlexNet trunk, 0 for equal images; sides of 32 pixels or more."""
    import warnings

    import torch
    from einops import rearrange
    from lpips import LPIPS

    from idm.io.weights import fill, find_weights, read_weights

    path = find_weights(ALEXNET_WEIGHTS, networks.weights_dir)
    state = read_weights(path)
    # lpips would have torchvision download the trunk, so a random one is built and filled here. That must
    # not move torch's global generator, nor warn of the deprecated way in which lpips calls torchvision.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = LPIPS(net="alex", pnet_rand=True, verbose=False)
    names = {name: f"features.{name.partition('.')[2]}" for name in network.net.state_dict()}  # "slice2.3.weight"
    fill(network.net, {name: state[theirs] for name, theirs in names.items() if theirs in state}, path)
    network.requires_grad_(False).to(networks.device)

    @torch.inference_mode()
    def lpips(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq, smallest=32)  # below, AlexNet runs out of pixels
        pair = rearrange(torch.from_numpy(np.stack([restored, hq])), "n h w c -> n 1 c h w").to(networks.device)
        return float(network(pair[0] * 2 - 1, pair[1] * 2 - 1))

    return lpips


def build_niqe(networks: MetricNetworks) -> PairMetric:
    """NIQE (Mittal et al. 2013) of the restored image alone, lower for natural ones.

    Its function raises ValueError for an image without texture, or whose longer side is below 192 pixels or whose
    shorter one is below 96.
    """
    import pyiqa
    import torch
    from einops import rearrange

    from idm.io.weights import find_weights

    path = find_weights(NIQE_MODEL, networks.weights_dir)
    network = pyiqa.create_metric("niqe", device=networks.device, pretrained_model_path=str(path))

    def niqe(restored: Image01, hq: Image01 | None = None) -> float:
        check_images(restored, restored, smallest=96)
        if max(restored.shape) < 192:
            raise InvalidInput("NIQE needs two blocks of 96 x 96: one has no covariance")
        try:
            value = network(rearrange(torch.from_numpy(restored), "h w c -> 1 c h w")).item()
        except torch.linalg.LinAlgError:
            value = math.nan
        if not math.isfinite(value):
            raise InvalidInput("NIQE is not defined for an image without texture")
        return value

    return niqe


def build_dists(networks: MetricNetworks) -> PairMetric:
    """DISTS (Ding et al. 2020), 0 for equal images; its own weights and those of its trunk are in two files."""
    from unittest.mock import patch

    import pyiqa
    import torch
    from torchvision import models

    from idm.io.weights import fill, find_weights, read_weights

    path, trunk_path = (find_weights(file, networks.weights_dir) for file in (DISTS_WEIGHTS, VGG16_WEIGHTS))
    weights, trunk_weights = read_weights(path), read_weights(trunk_path)
    with torch.device("meta"):  # the classifier, nine tenths of the network, is never used
        trunk = models.vgg16(init_weights=False)
    convolutions = {name: weight for name, weight in trunk_weights.items() if name.startswith("features.")}
    trunk.classifier = torch.nn.Identity()
    fill(trunk.to_empty(device="cpu"), convolutions, trunk_path)
    # pyiqa would have torchvision download the trunk.
    with torch.random.fork_rng(devices=[]), patch.object(models, "vgg16", lambda **_: trunk):
        network = pyiqa.create_metric("dists", device=networks.device, pretrained=False)
    own = ("alpha", "beta")
    rest = {name: weight for name, weight in network.net.state_dict().items() if name not in own}
    fill(network.net, rest | {name: weights[name] for name in own if name in weights}, path)
    return _score(network)


def build_maniqa(networks: MetricNetworks) -> PairMetric:
    """MANIQA (Yang et al. 2022), higher for better images. pyiqa would download its backbone, which the file holds."""
    from unittest.mock import patch

    from pyiqa.archs.maniqa_arch import timm

    create_model = timm.create_model
    with patch.object(timm, "create_model", lambda name, pretrained: create_model(name)):
        return _pyiqa("maniqa", MANIQA_WEIGHTS)(networks)


def build_clipiqa(networks: MetricNetworks) -> PairMetric:
    """CLIP-IQA (Wang et al. 2023) of the restored image alone, in [0, 1]."""
    from idm.io.weights import find_weights

    return _score(_clipiqa("clipiqa", find_weights(CLIP_WEIGHTS, networks.weights_dir), networks.device))


def build_clipiqa_plus(networks: MetricNetworks) -> PairMetric:
    """CLIP-IQA+ (Wang et al. 2023), in [0, 1]: CLIP-IQA with one pair of learned prompts, in a file of their own."""
    from idm.io.weights import fill, find_weights, read_weights

    path, clip_path = (find_weights(file, networks.weights_dir) for file in (PROMPTS, CLIP_WEIGHTS))
    prompts = read_weights(path, single="ctx")
    network = _clipiqa("clipiqa+", clip_path, networks.device)
    learner = network.net.prompt_learner
    fill(learner, dict(learner.named_buffers()) | dict(prompts), path)
    return _score(network)


def _clipiqa(name: str, path: Path, device: str) -> Any:
    """pyiqa's network, with CLIP from a file."""
    import pyiqa
    import torch

    from idm.io.weights import WeightsError

    _import_clip()
    with torch.random.fork_rng(devices=[]):
        try:
            return pyiqa.create_metric(name, device=device, backbone=str(path), pretrained=False)
        except (RuntimeError, KeyError, EOFError, UnpicklingError) as error:
            raise WeightsError(f"{path}: does not hold the weights of CLIP") from error


def _import_clip() -> None:
    """Import OpenAI's package clip, which pyiqa uses. It takes ``packaging`` from pkg_resources, which setuptools no
    longer has since version 82."""
    import packaging.version

    stand_in = ModuleType("pkg_resources")
    stand_in.__dict__["packaging"] = packaging
    missing = find_spec("pkg_resources") is None
    if missing:
        sys.modules["pkg_resources"] = stand_in
    try:
        importlib.import_module("clip")
    finally:
        if missing:
            del sys.modules["pkg_resources"]


def _pyiqa(name: str, file: str, **options: Any) -> Callable[[MetricNetworks], PairMetric]:
    """The builder of a metric of pyiqa whose weights are all in one file.

    Args:
        options: of the metric, instead of pyiqa's own.
    """

    def build(networks: MetricNetworks) -> PairMetric:
        import pyiqa
        import torch

        from idm.io.weights import fill, find_weights, read_weights

        path = find_weights(file, networks.weights_dir)
        weights = {name.removeprefix("module."): weight for name, weight in read_weights(path, ["params"]).items()}
        with torch.random.fork_rng(devices=[]):
            network = pyiqa.create_metric(name, device=networks.device, pretrained=False, **options)
        fill(network.net, weights, path)
        return _score(network)

    return build


def _score(network: Any) -> PairMetric:
    """A metric of pyiqa as a function of two images."""
    import torch
    from einops import rearrange

    with_reference = network.metric_mode == "FR"

    def score(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq)
        pair = rearrange(torch.from_numpy(np.stack([restored, hq])), "n h w c -> n 1 c h w")
        return float(network(pair[0], pair[1]) if with_reference else network(pair[0]))

    return score


_WITHOUT = "of pyiqa, on the restored image alone"

METRICS = (
    Metric(
        "lpips",
        "LPIPS",
        "lower",
        "pair",
        "LPIPS version 0.1 with the AlexNet trunk (package lpips), RGB scaled to [-1, 1], full size.",
        build_lpips,
        smallest=32,
        weights=(ALEXNET_WEIGHTS,),
        package="lpips",
    ),
    Metric(
        "dists",
        "DISTS",
        "lower",
        "pair",
        "DISTS (Ding et al. 2020) of pyiqa: VGG-16, RGB, full size.",
        build_dists,
        smallest=32,
        weights=(DISTS_WEIGHTS, VGG16_WEIGHTS),
        package="pyiqa",
    ),
    Metric(
        "niqe",
        "NIQE",
        "lower",
        "single",
        "NIQE (Mittal et al. 2013) of pyiqa: luma of YIQ, whole blocks of 96 x 96 from the upper left, "
        "the original pristine model; needs no original.",
        build_niqe,
        smallest=192,
        weights=(NIQE_MODEL,),
        package="pyiqa",
    ),
    Metric(
        "musiq",
        "MUSIQ",
        "higher",
        "single",
        f"MUSIQ (Ke et al. 2021) {_WITHOUT}: trained on KonIQ-10k, scales of 224, 384 and the full size.",
        _pyiqa("musiq", MUSIQ_WEIGHTS),
        smallest=32,
        weights=(MUSIQ_WEIGHTS,),
        package="pyiqa",
    ),
    Metric(
        "maniqa",
        "MANIQA",
        "higher",
        "single",
        f"MANIQA (Yang et al. 2022) {_WITHOUT}: trained on KonIQ-10k, 20 uniform crops of 224 x 224.",
        build_maniqa,
        smallest=224,
        weights=(MANIQA_WEIGHTS,),
        package="pyiqa",
    ),
    Metric(
        "clipiqa",
        "CLIP-IQA",
        "higher",
        "single",
        f"CLIP-IQA (Wang et al. 2023) {_WITHOUT}: CLIP RN50 without position embedding, five pairs of prompts.",
        build_clipiqa,
        smallest=32,
        weights=(CLIP_WEIGHTS,),
        package="pyiqa",
    ),
    Metric(
        "clipiqa+",
        "CLIP-IQA+",
        "higher",
        "single",
        f"CLIP-IQA+ (Wang et al. 2023) {_WITHOUT}: CLIP RN50 without position embedding, one pair of learned prompts.",
        build_clipiqa_plus,
        smallest=32,
        weights=(PROMPTS, CLIP_WEIGHTS),
        package="pyiqa",
    ),
    Metric(
        "topiq_nr-face",
        "TOPIQ-face",
        "higher",
        "single",
        f"TOPIQ (Chen et al. 2024) {_WITHOUT}: ResNet-50 trained on CGFIQA, the aligned face resized to 512 and not "
        "aligned anew.",
        _pyiqa(
            "topiq_nr-face",
            TOPIQ_WEIGHTS,
            backbone_pretrain=False,  # the weights file holds the backbone
            model_name="topiq",  # pyiqa loads a detector and a parser, to align faces, for names with "gfiqa"
        ),
        smallest=32,
        weights=(TOPIQ_WEIGHTS,),
        package="pyiqa",
    ),
)
