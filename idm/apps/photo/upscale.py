"""A whole photograph enlarged: by bicubic interpolation, or by any upscaling network that spandrel knows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Integer
from torch import Tensor

from idm.faces.align import to_unit, warp
from idm.io.ranges import hwc_to_chw
from idm.restorers.third_party import ThirdPartyModelError, load_network


@runtime_checkable
class Upscaler(Protocol):
    """Enlarges whole photographs."""

    def upscale(self, pixels: Integer[np.ndarray, "h w 3"], size: tuple[int, int]) -> Integer[np.ndarray, "h2 w2 3"]:
        """A new picture of ``size`` (height, width) in the same levels, uint8 or uint16; nothing in it moves."""
        ...


def bicubic(pixels: Integer[np.ndarray, "h w *c"], size: tuple[int, int]) -> Integer[np.ndarray, "h2 w2 *c"]:
    """OpenCV's bicubic enlargement (a = -0.75); pixel centres are at half-integers. The same size is a copy."""
    if pixels.shape[:2] == size:
        return pixels.copy()
    return cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_CUBIC)


class Bicubic:
    """:func:`bicubic` as an :class:`Upscaler`."""

    def upscale(self, pixels: Integer[np.ndarray, "h w 3"], size: tuple[int, int]) -> Integer[np.ndarray, "h2 w2 3"]:
        """See :meth:`Upscaler.upscale`."""
        return bicubic(pixels, size)


@runtime_checkable
class _Network(Protocol):
    @property
    def scale(self) -> int: ...

    def __call__(self, image: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class NetworkUpscaler:
    """An upscaling network run tile by tile, so that memory does not grow with the picture. Build it with
    :func:`load_upscaler`.

    ``tile`` is the side in pixels of the result, ``margin`` the border around a tile that the network also sees, in
    pixels of its input. An exact, antialiased warp converts the network's own scale to the requested one.
    """

    network: _Network
    device: str = "cpu"
    tile: int = 512
    margin: int = 16

    def upscale(self, pixels: Integer[np.ndarray, "h w 3"], size: tuple[int, int]) -> Integer[np.ndarray, "h2 w2 3"]:
        """See :meth:`Upscaler.upscale`; a picture of the same size is only cleaned."""
        result = np.empty((*size, 3), pixels.dtype)
        for top in range(0, size[0], self.tile):
            for left in range(0, size[1], self.tile):
                part = result[top : top + self.tile, left : left + self.tile]
                values = self._upscale_tile(pixels, size, (left, top), (part.shape[0], part.shape[1]))
                part[...] = np.rint(values.clip(0, 1) * np.iinfo(pixels.dtype).max)
        return result

    def _upscale_tile(
        self,
        pixels: Integer[np.ndarray, "h w 3"],
        size: tuple[int, int],
        origin: tuple[int, int],
        shape: tuple[int, int],
    ) -> Float[np.ndarray, "h2 w2 3"]:
        """The tile of the result whose first pixel is ``origin`` (x, y)."""
        limits = np.array([pixels.shape[1], pixels.shape[0]])
        factors = np.array(size[::-1]) / limits
        start = np.array(origin)
        low = np.maximum(np.floor(start / factors).astype(int) - self.margin, 0)
        high = np.minimum(np.ceil((start + shape[::-1]) / factors).astype(int) + self.margin, limits)
        large = self._run(pixels[low[1] : high[1], low[0] : high[0]])
        # pixel u of the network's output lies at (u + 0.5) / scale - 0.5 + low in the picture, and that at
        # (x + 0.5) * factors - 0.5 in the result
        diagonal = factors / self.network.scale
        offset = 0.5 * diagonal + low * factors - 0.5 - start
        return warp(large, np.column_stack([np.diag(diagonal), offset]), shape, "bicubic")

    @torch.inference_mode()
    def _run(self, part: Integer[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h2 w2 3"]:
        image = hwc_to_chw(to_unit(part)).to(self.device)
        return rearrange(self.network(image[None])[0], "c h w -> h w c").float().cpu().numpy()


def load_upscaler(path: Path, device: str = "cpu") -> NetworkUpscaler:
    """Load the weights of an upscaling network (ESRGAN, SwinIR, SPAN and others) from a file.

    Raises:
        FileNotFoundError: ``path`` does not exist.
        ThirdPartyModelError: spandrel is not installed, or the file does not hold a network that enlarges or cleans RGB
            pictures.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weights file for the background; leave it out for bicubic")
    network = load_network(path)
    if network.purpose == "FaceSR":
        raise ThirdPartyModelError(f"{path}: is a {network.architecture.name} network for faces, not for pictures")
    if (network.input_channels, network.output_channels) != (3, 3):
        raise ThirdPartyModelError(
            f"{path}: must take and give RGB, not {network.input_channels} -> {network.output_channels} channels"
        )
    return NetworkUpscaler(network.to(torch.device(device)).eval(), device)
