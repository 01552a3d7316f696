"""The Inception features of FID and KID, as clean-fid computes them."""

from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, UInt8
from PIL import Image as PILImage
from torch import Tensor

from idm.io.known_weights import INCEPTION_WEIGHTS
from idm.io.weights import fill, find_weights, read_weights

FEATURES = 2048


class Inception:
    """2048 features of an 8-bit image.

    Args:
        network: pyiqa's ``InceptionV3``.
    """

    def __init__(self, network: Callable[..., list[Tensor]], device: str = "cpu") -> None:
        self.network, self.device = network, device

    @torch.inference_mode()
    def __call__(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, " 2048"]:
        x = (torch.from_numpy(resize_clean(image)) - 128) / 128
        [features] = self.network(rearrange(x, "h w c -> 1 c h w").to(self.device), False, False)
        return features.flatten().cpu().numpy()


def resize_clean(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "299 299 3"]:
    """299 x 299 in [0, 255] by PIL's bicubic filter on float channels, which antialiases (Parmar et al. 2022)."""
    channels = [PILImage.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    resized = [np.asarray(channel.resize((299, 299), PILImage.Resampling.BICUBIC)) for channel in channels]
    return np.stack(resized, axis=-1).clip(0, 255)


def load_inception(weights: Path | None = None, device: str = "cpu") -> Inception:
    """pyiqa's Inception with the weights of FID; nothing is downloaded.

    Args:
        weights: ``pt_inception-2015-12-05-6726825d.pth`` or its folder; by default searched as
            :func:`idm.io.weights.find_weights` says.
        device: where it runs, such as "cpu" or "cuda:0".

    Raises:
        FileNotFoundError: the file is missing; says where to put it.
        ModuleNotFoundError: pyiqa is not installed.
        WeightsError: the file is broken or holds another network.
    """
    from pyiqa.archs import inception

    path = find_weights(INCEPTION_WEIGHTS, weights)
    state = read_weights(path)
    # pyiqa fills the network while it builds it, and only from its own folder.
    with (
        torch.random.fork_rng(devices=[]),
        patch.object(inception, "load_pretrained_network", lambda network, url: fill(network, state, path)),
    ):
        network = inception.InceptionV3(output_blocks=[inception.InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]])
    return Inception(network.eval().to(device), device)
