"""98 landmarks of an aligned face, by facexlib's alignment network (AWing, arXiv 1904.07399; WFLW's points)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Float64
from torch import Tensor, nn

from idm.io.known_weights import LANDMARK_WEIGHTS
from idm.io.weights import fill, find_weights, read_weights

NUM_LANDMARKS = 98
_SIDE = 256  # of the network's input


class LandmarkNet(Protocol):
    """Finds the 98 landmarks of WFLW. :func:`load_landmarks` builds one."""

    def __call__(self, image: Float32[np.ndarray, "s s 3"]) -> Float64[np.ndarray, "98 2"]:
        """Landmarks (x, y) of an aligned face in [0, 1], in pixels of it; (0, 0) is the centre of the first pixel."""
        ...


@dataclass(frozen=True)
class AlignmentNet:
    """facexlib's stack of four hourglasses. Build it with :func:`load_landmarks`."""

    network: nn.Module
    device: str = "cpu"

    @torch.inference_mode()
    def __call__(self, image: Float32[np.ndarray, "s s 3"]) -> Float64[np.ndarray, "98 2"]:
        """Landmarks as :class:`LandmarkNet` says: from the network's last heatmaps, at a quarter of its resolution."""
        resized = cv2.resize(image, (_SIDE, _SIDE))
        x = rearrange(torch.from_numpy(resized), "h w c -> 1 c h w").to(self.device)
        heatmaps = self.network(x)[0][-1][0, :NUM_LANDMARKS].float().cpu()
        cell = image.shape[0] / heatmaps.shape[-1]  # pixels of the image
        return (peaks(heatmaps) + 0.5) * cell - 0.5


def peaks(heatmaps: Float[Tensor, "n h w"]) -> Float64[np.ndarray, "n 2"]:
    """Return the peak of each heatmap, (x, y) in pixel indices, a quarter of a pixel nearer to the higher neighbour.

    That quarter is how networks of this kind are read (Newell et al. 2016, arXiv 1603.06937).
    """
    _, height, width = heatmaps.shape
    maps = heatmaps.numpy().astype(np.float64)
    ys, xs = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), width)
    number = np.arange(len(maps))

    def slope(dy: int, dx: int) -> Float64[np.ndarray, " n"]:
        after = maps[number, (ys + dy).clip(max=height - 1), (xs + dx).clip(max=width - 1)]
        before = maps[number, (ys - dy).clip(min=0), (xs - dx).clip(min=0)]
        return np.sign(after - before)

    return np.stack([xs + 0.25 * slope(0, 1), ys + 0.25 * slope(1, 0)], axis=1)


def load_landmarks(weights: Path | None = None, device: str = "cpu") -> AlignmentNet:
    """The alignment network with the user's weights; nothing is downloaded.

    Args:
        weights: ``alignment_WFLW_4HG.pth`` or its folder; by default searched as
            :func:`idm.io.weights.find_weights` says.
        device: where it runs, such as "cpu" or "cuda:0".

    Raises:
        FileNotFoundError: the file is missing; says where to put it.
        ModuleNotFoundError: facexlib is not installed.
        WeightsError: the file is broken or holds another network.
    """
    from facexlib.alignment.awing_arch import FAN

    path = find_weights(LANDMARK_WEIGHTS, weights)
    network = FAN(num_modules=4, num_landmarks=NUM_LANDMARKS, device=device)
    fill(network, read_weights(path, ["state_dict"]), path)
    return AlignmentNet(network.eval().requires_grad_(False).to(device), device)
