"""The denoiser f_theta(x_d, x_t, gamma): a U-Net with attention at its low-resolution levels."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idm.models.architecture import Architecture
from idm.models.layers import (
    Attention,
    ChannelNorm,
    Downsample,
    NoiseLevelEmbedding,
    ResidualBlock,
    Upsample,
    depth_to_space,
    zero_init,
)
from idm.models.refinement import Refinement


class Denoiser(nn.Module):
    """f_theta(x_d, x_t, gamma) of document A: "the original DDM with added attention layers, 32x32 to 8x8".

    The degraded face x_d is concatenated with the noisy image x_t. Both pass a space-to-depth of
    ``patch_size``, an encoder whose levels halve the resolution, and a decoder that adds the encoder's
    features back. Each level ends in self-attention if its feature map has one of ``attention_resolutions``.
    The paper's own widths are not known; all sizes here are our choice.

    Args:
        sizes: of :class:`Architecture`, which stays here as ``config``.

    Attributes:
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        self.config = config = Architecture(**sizes)
        channels, patch_size = config.channels, config.patch_size
        embedding_dim = 4 * channels[0]
        patch_channels = config.image_channels * patch_size**2
        self.stride = patch_size * 2 ** (len(channels) - 1)
        self.gradient_checkpointing = False

        self.embed_gamma = NoiseLevelEmbedding(embedding_dim)
        self.conv_in = nn.Conv2d(patch_channels * (2 if config.conditional else 1), channels[0], 3, padding=1)

        def level(index: int) -> nn.ModuleList:
            width, side = channels[index], config.image_size // (patch_size * 2**index)
            blocks: list[nn.Module] = [
                ResidualBlock(width, embedding_dim, config.dropout) for _ in range(config.num_blocks[index])
            ]
            if side in config.attention_resolutions:
                blocks.append(Attention(width, config.head_dim))
            return nn.ModuleList(blocks)

        depths = range(len(channels))
        self.encoder = nn.ModuleList(level(i) for i in depths)
        self.decoder = nn.ModuleList(level(i) for i in depths[:-1])
        self.downs = nn.ModuleList(Downsample(channels[i], channels[i + 1]) for i in depths[:-1])
        self.ups = nn.ModuleList(Upsample(channels[i + 1], channels[i]) for i in depths[:-1])
        self.injections = nn.ModuleList(
            zero_init(nn.Conv2d(patch_channels, channels[i], 1)) for i in depths if config.inject_degraded
        )
        self.norm_out = ChannelNorm(channels[0])
        self.conv_out = zero_init(nn.Conv2d(channels[0], patch_channels, 3, padding=1))
        self.refine = Refinement(config, embedding_dim) if config.refine_channels else None

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return next(self.parameters()).device

    def forward(
        self,
        *,
        x_d: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        gamma: Float[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """The network's output in float32, read as eps, x_0 or v by whoever trained it.

        Args:
            x_d: degraded faces in [-1, 1]; not looked at by an unconditional denoiser.
            x_t: noisy targets, x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps.
            gamma: cumulative signal level of each sample, in (0, 1].
        """
        return self.run_unet(x_d=x_d, x_t=x_t, embedding=self.embed_gamma(gamma))

    def run_unet(
        self,
        *,
        x_d: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b dim"],
    ) -> Float[Tensor, "b c h w"]:
        """:meth:`forward` after gamma has become its embedding, the only part that needs more than bfloat16."""
        height, width = x_t.shape[-2:]
        patches = self._to_patches(x_t)
        if self.config.conditional:
            patches_d = self._to_patches(x_d)
            patches = torch.cat([patches_d, patches], dim=1)

        h = self.conv_in(patches)
        skips = []
        for i, level in enumerate(self.encoder):
            if i > 0:
                skips.append(h)
                h = self.downs[i - 1](h)
            if len(self.injections):
                h = h + self.injections[i](F.avg_pool2d(patches_d, 2**i))
            h = self._run(level, h, embedding)
        for i in reversed(range(len(skips))):
            h = self.ups[i](h) + skips[i]
            h = self._run(self.decoder[i], h, embedding)

        h = F.silu(self.norm_out(h))
        pixels = depth_to_space(self.conv_out(h), self.config.patch_size)
        if self.refine is not None:
            pixels = pixels + self.refine(h, patches, pixels, embedding)
        output = pixels[..., :height, :width].float()
        return x_d.float() + output if self.config.add_degraded else output

    def _to_patches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b cp hp wp"]:
        """Pad to a multiple of the stride, space to depth, in the weights' precision, channels_last."""
        height, width = x.shape[-2:]
        pad_h, pad_w = -height % self.stride, -width % self.stride
        if pad_h or pad_w:
            x = F.pad(x, (0, pad_w, 0, pad_h), mode="replicate")
        x = F.pixel_unshuffle(x.to(self.dtype), self.config.patch_size)
        return x.contiguous(memory_format=torch.channels_last)

    def _run(self, level: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        for block in level.children():
            arguments = (h, embedding) if isinstance(block, ResidualBlock) else (h,)
            h = self._checkpointed(block, *arguments)
        return h

    def _checkpointed(self, block: Callable[..., Tensor], *arguments: Any) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)


def double_patches(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of a denoiser with patches of p pixels for one with patches of 2 p and the same feature maps.

    The new denoiser sees every image averaged over 2 x 2 pixels, and gives each of those 4 pixels the old output: on
    twice the image size it begins as the old one on half of it.
    """
    doubled = dict(weights)
    for name, weight in weights.items():
        if name == "conv_in.weight" or re.fullmatch(r"injections\.\d+\.weight", name):
            doubled[name] = _repeat_pixels(weight.movedim(1, 0)).movedim(0, 1) / 4
        elif name.startswith("conv_out."):
            doubled[name] = _repeat_pixels(weight)
    return doubled


def _repeat_pixels(weight: Tensor) -> Tensor:
    """The first axis, p x p pixels of each image channel, as 2 p x 2 p pixels in which each stands four times."""
    patch = next(p for p in (1, 2, 4, 8) if len(weight) in (3 * p**2, 6 * p**2))  # 3 or, with x_d, 6 channels
    pixels = rearrange(weight, "(c i j) ... -> c i j ...", i=patch, j=patch)
    return repeat(pixels, "c i j ... -> (c i two_i j two_j) ...", two_i=2, two_j=2).contiguous()
