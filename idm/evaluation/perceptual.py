"""Learned perceptual metrics: LPIPS, DISTS, and quality without reference, through the packages lpips and pyiqa."""

import math
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from idm.evaluation.metric import Image01, Metric, Networks, PairMetric, check_images
from idm.io.errors import InvalidInput


def build_lpips(networks: Networks) -> PairMetric:
    """LPIPS with the AlexNet trunk; the sides must be 32 pixels or more."""
    import warnings

    import torch
    from einops import rearrange
    from lpips import LPIPS

    from idm.io.weights import find_weights

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    path = find_weights("alexnet-owt-7be5be79.pth", networks.weights_dir, [hub])
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
    network.requires_grad_(False).to(networks.device)

    @torch.inference_mode()
    def lpips(restored: Image01, hq: Image01) -> float:
        check_images(restored, hq, smallest=32)  # below, AlexNet runs out of pixels
        pair = rearrange(torch.from_numpy(np.stack([restored, hq])), "n h w c -> n 1 c h w").to(networks.device)
        return float(network(pair[0] * 2 - 1, pair[1] * 2 - 1))

    return lpips


def build_niqe(networks: Networks) -> PairMetric:
    """NIQE of the restored image alone; the longer side must be 192 pixels, the shorter 96."""
    import pyiqa
    import torch
    from einops import rearrange

    from idm.io.weights import find_weights

    path = find_weights("pyiqa/niqe_modelparameters.mat", networks.weights_dir)
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


def _pyiqa(name: str, files: tuple[str, ...], hub: str | None = None, **options: Any) -> Callable[[Networks], Any]:
    """The builder of a metric of pyiqa, which would download missing files, so the builder checks for them first.

    Args:
        files: weights below torch's hub folder, where pyiqa looks.
        hub: a repository of the Hugging Face hub whose ``model.safetensors`` must be in the local cache.
        options: of the metric, instead of pyiqa's own.
    """

    def build(networks: Networks) -> PairMetric:
        import pyiqa
        import torch
        from einops import rearrange

        _require_local(files, hub)
        with redirect_stdout(StringIO()), torch.random.fork_rng(devices=[]):
            network = pyiqa.create_metric(name, device=networks.device, **options)
        with_reference = network.metric_mode == "FR"

        def score(restored: Image01, hq: Image01) -> float:
            check_images(restored, hq)
            pair = rearrange(torch.from_numpy(np.stack([restored, hq])), "n h w c -> n 1 c h w")
            return float(network(pair[0], pair[1]) if with_reference else network(pair[0]))

        return score

    return build


def _require_local(files: tuple[str, ...], hub: str | None) -> None:
    import torch
    from huggingface_hub import try_to_load_from_cache

    from idm.io.weights import missing_weights

    for file in files:
        path = Path(torch.hub.get_dir()) / file
        if not path.is_file():
            raise missing_weights(path.name, [path.parent], path.parent)
    if hub is not None and not isinstance(try_to_load_from_cache(hub, "model.safetensors"), str):
        raise FileNotFoundError(
            f"{hub}: not in the cache of the Hugging Face hub. "
            f"Get it by `hf download {hub} model.safetensors`; nothing is downloaded automatically."
        )


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
    ),
    Metric(
        "dists",
        "DISTS",
        "lower",
        "pair",
        "DISTS (Ding et al. 2020) of pyiqa: VGG-16, RGB, full size.",
        _pyiqa("dists", ("pyiqa/DISTS_weights-f5e65c96.pth", "checkpoints/vgg16-397923af.pth")),
        smallest=32,
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
    ),
    Metric(
        "musiq",
        "MUSIQ",
        "higher",
        "single",
        f"MUSIQ (Ke et al. 2021) {_WITHOUT}: trained on KonIQ-10k, scales of 224, 384 and the full size.",
        _pyiqa("musiq", ("pyiqa/musiq_koniq_ckpt-e95806b9.pth",)),
        smallest=32,
    ),
    Metric(
        "maniqa",
        "MANIQA",
        "higher",
        "single",
        f"MANIQA (Yang et al. 2022) {_WITHOUT}: trained on KonIQ-10k, 20 uniform crops of 224 x 224.",
        _pyiqa("maniqa", ("pyiqa/ckpt_koniq10k.pt",), hub="timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"),
        smallest=224,
    ),
    Metric(
        "clipiqa",
        "CLIP-IQA",
        "higher",
        "single",
        f"CLIP-IQA (Wang et al. 2023) {_WITHOUT}: CLIP RN50 without position embedding, five pairs of prompts.",
        _pyiqa("clipiqa", ("clip/RN50.pt",)),
        smallest=32,
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
            (
                "pyiqa/topiq_nr_cgfiqa_res50-0a8b8e4f.pth",
                "pyiqa/detection_Resnet50_Final.pth",
                "pyiqa/parsing_parsenet.pth",
            ),
            backbone_pretrain=False,  # the weights file holds the backbone
            align_crop_face=False,
        ),
        smallest=32,
    ),
)
