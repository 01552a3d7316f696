"""The Inception features of FID and KID, as clean-fid computes them."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32
from PIL import Image as PILImage
from torch import Tensor

from idm.evaluation.metric import Image8
from idm.io.weights import missing_weights

INCEPTION_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
FEATURES = 2048


class Inception:
    """2048 features of an 8-bit image; each image is described once.

    Args:
        network: pyiqa's ``InceptionV3``.
    """

    def __init__(self, network: Callable[..., list[Tensor]], device: str = "cpu") -> None:
        self.network, self.device = network, device
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, image: Image8) -> Float32[np.ndarray, " 2048"]:
        key = hashlib.blake2b(image.tobytes()).digest() + str(image.shape).encode()
        if key not in self._known:
            self._known[key] = self._describe(image)
        return self._known[key]

    @torch.inference_mode()
    def _describe(self, image: Image8) -> Float32[np.ndarray, " 2048"]:
        x = (torch.from_numpy(resize_clean(image)) - 128) / 128
        [features] = self.network(rearrange(x, "h w c -> 1 c h w").to(self.device), False, False)
        return features.flatten().cpu().numpy()


def resize_clean(image: Image8) -> Float32[np.ndarray, "299 299 3"]:
    """299 x 299 in [0, 255] by PIL's bicubic filter on float channels, which antialiases (Parmar et al. 2022)."""
    channels = [PILImage.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    resized = [np.asarray(channel.resize((299, 299), PILImage.Resampling.BICUBIC)) for channel in channels]
    return np.stack(resized, axis=-1).clip(0, 255)


def load_inception(device: str = "cpu") -> Inception:
    """Inception with the weights of FID, from pyiqa's own folder.

    Raises:
        FileNotFoundError: the weights are not there; pyiqa would download them.
    """
    from pyiqa.utils.download_util import DEFAULT_CACHE_DIR

    folder = Path(DEFAULT_CACHE_DIR)  # pyiqa looks nowhere else, and downloads what is not there
    if not (folder / INCEPTION_WEIGHTS).is_file():
        raise missing_weights(INCEPTION_WEIGHTS, [folder], folder)
    from pyiqa.archs.inception import InceptionV3

    network = InceptionV3(output_blocks=[InceptionV3.BLOCK_INDEX_BY_DIM[FEATURES]])
    return Inception(network.eval().to(device), device)
