"""Building blocks of the denoiser.

Everything is channels_last, so that a normalisation over the channels of one pixel reads contiguous memory:
PyTorch's fused LayerNorm then runs forwards and backwards at memory speed in bfloat16, where GroupNorm's
backward is the slowest pass of a U-Net on a CPU (``experiments/benchmarks`` measures it).
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class NoiseLevelEmbedding(nn.Module):
    """Embeds the continuous signal level gamma through its log-SNR, ln(gamma / (1 - gamma)).

    The log-SNR varies evenly over the levels that matter, where gamma itself is squeezed against 0 and 1.
    It is cut to +-16 and meets sines and cosines with periods from 64 down to 0.5
    (our own choice; SR3 says only that it conditions on gamma).
    """

    def __init__(self, dim: int, num_frequencies: int = 32) -> None:
        super().__init__()
        self.num_frequencies = num_frequencies
        self.net = nn.Sequential(nn.Linear(2 * num_frequencies, dim), nn.SiLU(), nn.Linear(dim, dim), nn.SiLU())

    def forward(self, gamma: Float[Tensor, " b"]) -> Float[Tensor, "b dim"]:
        log_snr = (torch.log(gamma) - torch.log1p(-gamma)).clamp(-16, 16).float()
        frequencies = 2 ** torch.linspace(0, 7, self.num_frequencies, device=gamma.device) * (2 * math.pi / 64)
        angles = log_snr[:, None] * frequencies
        return self.net(torch.cat([angles.sin(), angles.cos()], dim=1).to(next(self.net.parameters())))


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of a channels_last image."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return rearrange(layer_norm(self, rearrange(x, "b c h w -> b h w c")), "b h w c -> b c h w")


def layer_norm(norm: nn.LayerNorm, x: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
    """A layer's normalisation in the precision of ``x``; sums are float32 in any case.

    Autocast would widen ``x`` to float32 on a GPU, and with it all that follows up to the next convolution.
    """
    if not (x.is_cuda and torch.is_autocast_enabled("cuda")):
        return nn.LayerNorm.forward(norm, x)
    weight, bias = (None if part is None else part.to(x.dtype) for part in (norm.weight, norm.bias))
    with torch.autocast("cuda", enabled=False):
        return F.layer_norm(x, norm.normalized_shape, weight, bias, norm.eps)


class ResidualBlock(nn.Module):
    """x + conv(SiLU(conv(FiLM(norm(x))))): one normalisation and one activation for two convolutions.

    FiLM is (1 + scale) * norm(x) + shift with scale and shift from the noise level. The last convolution
    starts at zero, so that every block begins as the identity. ``dilation`` is the distance of the kernels' taps.
    """

    def __init__(self, channels: int, embedding_dim: int, dropout: float, *, dilation: int = 1) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, elementwise_affine=False)
        self.film = nn.Linear(embedding_dim, 2 * channels)
        self.conv_in = nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(nn.Conv2d(channels, channels, 3, padding=dilation, dilation=dilation))

    def forward(self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b dim"]) -> Float[Tensor, "b c h w"]:
        scale, shift = rearrange(self.film(embedding), "b (two c) -> two b c 1 1", two=2)
        h = self.norm(x)
        h = torch.addcmul(shift.to(h.dtype), h, 1 + scale.to(h.dtype))
        h = self.conv_out(self.dropout(F.silu(self.conv_in(h))))
        return x + h


Heads = Float[Tensor, "b head n d"]


def attend(q: Heads, k: Heads, v: Heads) -> Heads:
    """softmax(q k^T / sqrt(d)) v.

    PyTorch's fused kernel, except for a CPU's few tokens: there two bfloat16 matrix products are twice as fast,
    forwards and backwards, and the n x n weights of up to 32 x 32 pixels fit in memory.
    """
    if q.device.type == "cpu" and q.shape[-2] <= 1024:
        return torch.softmax(q * q.shape[-1] ** -0.5 @ k.mT, dim=-1) @ v
    return F.scaled_dot_product_attention(q, k, v)


class Attention(nn.Module):
    """x + proj(attend(q, k, v)) over all pixels, in heads of ``head_dim``."""

    def __init__(self, channels: int, head_dim: int) -> None:
        super().__init__()
        if channels % head_dim:
            raise ValueError(f"{channels} channels do not divide into attention heads of {head_dim}")
        self.num_heads = channels // head_dim
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = zero_init(nn.Linear(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        height, width = x.shape[-2:]
        tokens = rearrange(x, "b c h w -> b (h w) c")
        qkv = self.qkv(layer_norm(self.norm, tokens))
        q, k, v = rearrange(qkv, "b n (three head d) -> three b head n d", three=3, head=self.num_heads)
        attended = rearrange(attend(q, k, v), "b head n d -> b n (head d)")
        return x + rearrange(self.proj(attended), "b (h w) c -> b c h w", h=height, w=width)


class Downsample(nn.Conv2d):
    """Halves height and width by a 3x3 convolution with stride 2."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, stride=2, padding=1)


class Upsample(nn.Module):
    """Doubles height and width: a 1x1 convolution to four times the channels, then depth to space."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 4 * channels_out, 1)

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h2 w2"]:
        return depth_to_space(self.conv(x), 2)


def depth_to_space(x: Float[Tensor, "b c_in h w"], factor: int) -> Float[Tensor, "b c_out h2 w2"]:
    """``F.pixel_shuffle`` of a channels_last image to a channels_last image; on a GPU it would give another layout."""
    if x.device.type == "cpu":
        return F.pixel_shuffle(x, factor)
    pixels = rearrange(x, "b (c i j) h w -> b (h i) (w j) c", i=factor, j=factor)
    return rearrange(pixels, "b h w c -> b c h w")


def zero_init(layer: Layer) -> Layer:
    """Set a layer's weight and bias to zero; returns the layer."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
