"""The denoiser f_theta(x_d, x_t, gamma): a U-Net with attention at its low-resolution levels."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from idm.models.architecture import Architecture
from idm.models.denoiser import Denoiser
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
from idm.models.refinement import DilatedLevel, Refinement


class UNet(Denoiser):
    """f_theta(x_d, x_t, gamma) of document A: "the original DDM with added attention layers, 32x32 to 8x8".

    The degraded face x_d is concatenated with the noisy image x_t. Both pass a space-to-depth of
    ``patch_size``, an encoder whose levels halve the resolution, and a decoder that adds the encoder's
    features back. Each level ends in self-attention if its feature map has one of ``attention_resolutions``.
    The paper's own widths are not known; all sizes here are our choice.

    Args:
        sizes: of :class:`~idm.models.architecture.Architecture`, which stays here as ``config``.
    """

    def __init__(self, **sizes: Any) -> None:
        super().__init__(**sizes)
        config = self.config
        channels, patch_size = config.channels, config.patch_size
        embedding_dim = 4 * channels[0]
        patch_channels = config.image_channels * patch_size**2

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

    def forward_embedded(
        self,
        *,
        x_d: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b dim"],
    ) -> Float[Tensor, "b c h w"]:
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
        return self._to_output(pixels, x_d, x_t)

    def compile_parts(self) -> None:
        """Compile the residual blocks and the dilated level, whose speed memory limits.

        Blocks of one width share what is compiled, so that this takes a fraction of the time that the whole network
        would.
        """
        for module in self.modules():
            if isinstance(module, ResidualBlock | DilatedLevel):
                module.compile(dynamic=False)

    def _run(self, level: nn.Module, h: Tensor, embedding: Tensor) -> Tensor:
        for block in level.children():
            arguments = (h, embedding) if isinstance(block, ResidualBlock) else (h,)
            h = self._checkpointed(block, *arguments)
        return h


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


def added_layers(small: Architecture, large: Architecture) -> Iterator[str]:
    """Prefixes of the weights that only the larger of two denoisers has, which change nothing before training."""
    if not small.refine_channels:
        yield "refine."
    elif not small.refine_blocks:
        yield "refine.level."
    else:
        yield from (f"refine.level.blocks.{block}." for block in range(small.refine_blocks, large.refine_blocks))
    for level, (few, many) in enumerate(zip(small.num_blocks, large.num_blocks, strict=False)):
        yield from (f"{part}.{level}.{block}." for part in ("encoder", "decoder") for block in range(few, many))


def make_room(weights: Mapping[str, Tensor], small: Architecture, large: Architecture) -> dict[str, Tensor]:
    """The weights of a denoiser under the names of one with more residual blocks, which come before the attention."""
    rooms = [max(0, many - few) for few, many in zip(small.num_blocks, large.num_blocks, strict=False)]

    def moved(name: str) -> str:
        found = re.fullmatch(r"(encoder|decoder)\.(\d+)\.(\d+)\.(.+)", name)
        if found is None:
            return name
        level, layer = int(found[2]), int(found[3])
        if level >= len(rooms) or layer < small.num_blocks[level]:
            return name
        return f"{found[1]}.{level}.{layer + rooms[level]}.{found[4]}"

    return {moved(name): weight for name, weight in weights.items()}


def _repeat_pixels(weight: Tensor) -> Tensor:
    """The first axis, p x p pixels of each image channel, as 2 p x 2 p pixels in which each stands four times."""
    patch = next(p for p in (1, 2, 4, 8) if len(weight) in (3 * p**2, 6 * p**2))  # 3 or, with x_d, 6 channels
    pixels = rearrange(weight, "(c i j) ... -> c i j ...", i=patch, j=patch)
    return repeat(pixels, "c i j ... -> (c i two_i j two_j) ...", two_i=2, two_j=2).contiguous()
