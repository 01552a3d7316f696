"""The denoiser f_theta(x_d, x_t, gamma): a U-Net with attention at its low-resolution levels."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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


@dataclass(frozen=True)
class Architecture:
    """The sizes of a :class:`Denoiser`, as its ``config.json`` holds them.

    Args:
        image_size: side of the square images in pixels for which attention levels are laid out. Other sizes
            run too: they are padded to a multiple of ``patch_size * 2**(levels - 1)`` and cropped back.
        patch_size: side of the patch that becomes one position of the first feature map.
        channels: width of each level, highest resolution first.
        num_blocks: residual blocks of each level, in the encoder and again in the decoder.
        attention_resolutions: feature-map sides that get an attention layer.
        head_dim: width of an attention head; must divide the width of every level with attention.
        inject_degraded: also add x_d, pooled to size, at the start of every encoder level ("injecting
            low-quality images at different layers of the model": Ding et al., CVPR 2024, section 2, of IDM).
        add_degraded: the output is x_d + network instead of network; for prediction of x_0 only (our choice).
        refine_channels: width of two convolutions over single pixels that refine what the patches gave; 0 is none.
            Without them the pixels of a patch do not see the next patch, and flat dark regions show its grid.
        refine_blocks: residual blocks of the refinement at half the image's resolution, three times as wide.
        dropout: dropout inside the residual blocks.
        conditional: without it the input is x_t alone, for a model of faces instead of their restoration.

    Raises:
        ValueError: sizes that contradict each other.
    """

    image_size: int = 64
    patch_size: int = 2
    channels: Sequence[int] = (64, 128, 256)
    num_blocks: Sequence[int] = (2, 2, 2)
    attention_resolutions: Sequence[int] = (32, 16, 8)
    head_dim: int = 64
    inject_degraded: bool = False
    add_degraded: bool = False
    refine_channels: int = 0
    refine_blocks: int = 0
    dropout: float = 0.0
    image_channels: int = 3
    conditional: bool = True

    def __post_init__(self) -> None:
        if (self.inject_degraded or self.add_degraded) and not self.conditional:
            raise ValueError("inject_degraded and add_degraded need a conditional denoiser: without it there is no x_d")
        if len(self.channels) != len(self.num_blocks) or not self.channels:
            raise ValueError(
                f"channels {list(self.channels)} and num_blocks {list(self.num_blocks)} differ in length or are empty"
            )
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.refine_blocks and not self.refine_channels:
            raise ValueError("refine_blocks are part of a refinement: they need refine_channels")
        if self.refine_blocks and self.patch_size % 2:
            raise ValueError(f"refine_blocks halve the pixels of a patch: patch_size {self.patch_size} must be even")


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


class Refinement(nn.Module):
    """What is added to the pixels of the patches: convolutions over features, input and output pixel by pixel.

    Where x_d is added to the output, its noise comes along, and the trunk has fewer channels than a patch has pixels to
    subtract it again. So the refinement also says, pixel by pixel, how far x_d is replaced by a blurred x_d. With
    ``refine_blocks`` a level of half the resolution lies between the first convolution and the second. The last
    convolutions of all parts are zero at first: a trained denoiser to which they are added gives what it gave.
    """

    FEATURES = 8

    def __init__(self, sizes: Architecture, embedding_dim: int) -> None:
        super().__init__()
        self.patch_size = sizes.patch_size
        images = 3 if sizes.conditional else 2  # x_d, x_t, and the pixels so far
        width = sizes.refine_channels
        self.features = nn.Conv2d(sizes.channels[0], self.FEATURES * sizes.patch_size**2, 3, padding=1)
        self.conv_in = nn.Conv2d(images * sizes.image_channels + self.FEATURES, width, 3, padding=1)
        self.level = HalfResolution(sizes, embedding_dim) if sizes.refine_blocks else None
        self.conv = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = zero_init(nn.Conv2d(width, sizes.image_channels, 3, padding=1))
        self.image_channels = sizes.image_channels
        self.blurring = zero_init(nn.Conv2d(width, 1, 3, padding=1)) if sizes.add_degraded else None

    def forward(
        self,
        h: Float[Tensor, "b channels hp wp"],
        patches: Float[Tensor, "b cp hp wp"],
        pixels: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b dim"],
    ) -> Float[Tensor, "b c height width"]:
        """
        Args:
            h: the decoder's last features.
            patches: of x_d, where there is one, and of x_t, as the encoder is given them.
            pixels: what the patches gave.
            embedding: of gamma.
        """
        features = h
        seen = depth_to_space(torch.cat([self.features(h), patches], dim=1), self.patch_size)
        h = torch.cat([seen, pixels], dim=1).contiguous(memory_format=torch.channels_last)
        h = F.silu(self.conv_in(h))
        if self.level is not None:
            h = h + self.level(h, features, embedding)
        h = F.silu(self.conv(h))
        if self.blurring is None:
            return self.conv_out(h)
        x_d = seen[:, self.FEATURES : self.FEATURES + self.image_channels].detach()
        return self.conv_out(h) + self.blurring(h) * (blur(x_d) - x_d)


class HalfResolution(nn.Module):
    """The level of a :class:`Refinement` between the patches and the pixels: residual blocks at half the resolution."""

    def __init__(self, sizes: Architecture, embedding_dim: int) -> None:
        super().__init__()
        width = 3 * sizes.refine_channels
        self.factor = sizes.patch_size // 2
        self.down = Downsample(sizes.refine_channels, width)
        self.features = nn.Conv2d(sizes.channels[0], width * self.factor**2, 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, embedding_dim, 0.0) for _ in range(sizes.refine_blocks))
        self.up = Upsample(width, sizes.refine_channels)
        zero_init(self.up.conv)

    def forward(
        self,
        h: Float[Tensor, "b width h w"],
        features: Float[Tensor, "b channels hp wp"],
        embedding: Float[Tensor, "b dim"],
    ) -> Float[Tensor, "b width h w"]:
        """
        Args:
            h: the refinement's features, pixel by pixel.
            features: the decoder's last.
            embedding: of gamma.
        """
        h = self.down(h) + depth_to_space(self.features(features), self.factor)
        for block in self.blocks:
            h = block(h, embedding)
        return self.up(h)


def blur(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Convolve with [1, 2, 4, 6, 6, 6, 4, 2, 1] / 32 along both axes, numbers that bfloat16 has; nearest pixels around.

    The standard deviation of the kernel is 1.9 pixels.
    """
    distance = (torch.arange(9, dtype=x.dtype, device=x.device) - 4).abs()
    taps = (8 - 2 * distance).clamp(1, 6) / 32  # made where x is: a GPU would wait for a list of numbers
    kernel = taps.expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (4, 4, 4, 4), mode="replicate").contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.conv2d(x, kernel, groups=len(kernel)), kernel.transpose(2, 3), groups=len(kernel))


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
