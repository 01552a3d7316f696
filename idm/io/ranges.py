"""Value ranges ([-1, 1] inside diffusion, [0, 1] outside, uint8 at the file edge) and CHW <-> HWC."""

from typing import overload

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor


def to_diffusion(x01: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """[0, 1] -> [-1, 1]."""
    return 2 * x01 - 1


def from_diffusion(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """[-1, 1] -> [0, 1]; what a sampler left outside is clamped (NaN stays NaN)."""
    return ((x + 1) / 2).clamp(0, 1)


@overload
def to_uint8(x01: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]: ...
@overload
def to_uint8(x01: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]: ...
def to_uint8(
    x01: Float[np.ndarray, "*shape"] | Float[Tensor, "*shape"],
) -> UInt8[np.ndarray, "*shape"] | UInt8[Tensor, "*shape"]:
    """[0, 1] -> 0..255, rounded to the nearest level, ties to even.

    Raises:
        ValueError: a value is NaN or rounds to a level outside 0..255. A picture in another range is a
            mistake of the caller, and clamping would hide it.
    """
    if isinstance(x01, Tensor):
        wide = x01 if x01.dtype == torch.float64 else x01.float()  # half precision cannot hold x * 255
        levels = torch.round(wide * 255)
        _require_levels(bool(((levels >= 0) & (levels <= 255)).all()))
        return levels.to(torch.uint8)
    rounded = np.rint(x01.astype(np.result_type(x01, np.float32)) * 255)
    _require_levels(bool(((rounded >= 0) & (rounded <= 255)).all()))
    return rounded.astype(np.uint8)


def _require_levels(valid: bool) -> None:
    if not valid:
        raise ValueError("values must be in [0, 1]: from_diffusion() converts [-1, 1]; clamp what overshoots")


@overload
def from_uint8(levels: UInt8[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]: ...
@overload
def from_uint8(levels: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]: ...
def from_uint8(
    levels: UInt8[np.ndarray, "*shape"] | UInt8[Tensor, "*shape"],
) -> Float32[np.ndarray, "*shape"] | Float32[Tensor, "*shape"]:
    """0..255 -> float32 in [0, 1]; :func:`to_uint8` inverts it exactly."""
    if isinstance(levels, Tensor):
        return levels.float() / 255
    return levels.astype(np.float32) / np.float32(255)


def hwc_to_chw(image: Shaped[np.ndarray, "h w c"]) -> Shaped[Tensor, "c h w"]:
    """A numpy picture as a tensor that owns its memory; type and values stay."""
    return torch.from_numpy(rearrange(image, "h w c -> c h w").copy())


def chw_to_hwc(image: Shaped[Tensor, "c h w"]) -> Shaped[np.ndarray, "h w c"]:
    """A tensor, on any device, as a contiguous numpy picture; type (not bfloat16) and values stay."""
    return np.ascontiguousarray(rearrange(image.detach().cpu(), "c h w -> h w c").numpy())
