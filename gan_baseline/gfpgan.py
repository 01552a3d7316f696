"""GFP-GAN (Wang et al., CVPR 2021, arXiv 2101.04061): a U-Net removes degradations and steers a StyleGAN2."""

from collections.abc import Sequence
from math import sqrt
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from gan_baseline.stylegan2 import StyleGAN2Generator, upsample
from idm.models.critics import SLOPE, SMALLEST, binomial_blur, widths


class ResBlock(nn.Module):
    """conv2(resample(conv1(x))) + skip(resample(x)), with leaky ReLU after both convolutions.

    Resampling is bilinear by a factor of 2. Bilinear halving with centred pixels is the mean of 2x2 pixels. "smooth
    down" is StyleGAN2's halving: a blur with [1, 3, 3, 1] x [1, 3, 3, 1] / 64, then a convolution with stride 2. The
    1x1 convolution of the skip commutes with resampling, so it runs on the smaller of the two images.

    Args:
        gain: gain of the initial weights, such that an input with E[x^2] = 1 / gain^2 gives an output with about 1.
    """

    def __init__(
        self, channels_in: int, channels_out: int, resample: Literal["down", "smooth down", "up"], gain: float = 1.0
    ) -> None:
        super().__init__()
        self.resample = resample
        self.conv1 = _conv(channels_in, channels_in, 3, gain=gain * _LEAKY_GAIN)
        self.conv2 = _conv(channels_in, channels_out, 3, gain=_LEAKY_GAIN / sqrt(2))
        self.skip = _conv(channels_in, channels_out, 1, gain=gain / sqrt(2), bias=False)

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h2 w2"]:
        h = F.leaky_relu_(self.conv1(x), SLOPE)
        match self.resample:
            case "down":
                h, skip = self.conv2(F.avg_pool2d(h, 2)), self.skip(F.avg_pool2d(x, 2))
            case "smooth down":
                h = F.conv2d(binomial_blur(h, padding=2), self.conv2.weight, self.conv2.bias, stride=2)
                skip = self.skip(binomial_blur(x, padding=1, stride=2))
            case "up":
                h, skip = self.conv2(upsample(h)), upsample(self.skip(x))
            case _:
                assert_never(self.resample)
        return F.leaky_relu_(h, SLOPE) + skip


class GFPGAN(nn.Module):
    """Restores a degraded face in one forward pass.

    The U-Net encodes x_d down to 4x4. A linear layer maps the result to the W+ codes. At every scale from 8 px on,
    the decoder half of the U-Net gives an RGB image, which only a loss uses, and the scale and shift of a spatial
    feature transform in the generator.

    With the default arguments, names and shapes are those of the published v1.2 to v1.4. The paper's network, which
    was released first, has ``channel_multiplier=1`` and ``smooth=True``. Other sizes and widths are ours.

    Initial weights: the last bias of every scale branch is 1, so that the transform begins near the identity, as in
    GFP-GAN's training code. The rest is ours. Weights are normal with variance gain^2 / fan-in, where the gains of
    leaky ReLU and of sums keep the magnitude of the features at any depth. The last weights of the scale and shift
    branches are 0, so that the transform begins exactly as the identity. All other biases are 0.

    Args:
        image_size: side of the images in pixels, a power of two and at least 8.
        num_style_feat: length of a style code.
        channel_multiplier: factor of the widths from 64 px on.
        num_mlp: layers of the prior's network from z to w, which restoration does not use.
        narrow: factor of all widths. The U-Net is half as wide as the generator.
        sft_half: transform only the second half of the channels (channel-split).
        smooth: resample as StyleGAN2 does, except in the decoder half of the U-Net, which is always bilinear.

    Raises:
        ValueError: the size or the widths are impossible, see :func:`idm.models.critics.widths`.
    """

    def __init__(
        self,
        image_size: int = 512,
        num_style_feat: int = 512,
        channel_multiplier: int = 2,
        num_mlp: int = 8,
        narrow: float = 1.0,
        sft_half: bool = True,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.architecture: dict[str, int | float | bool] = {
            "image_size": image_size,
            "num_style_feat": num_style_feat,
            "channel_multiplier": channel_multiplier,
            "num_mlp": num_mlp,
            "narrow": narrow,
            "sft_half": sft_half,
            "smooth": smooth,
        }
        full = widths(image_size, channel_multiplier, narrow)
        unet = {side: width // 2 for side, width in full.items()}
        up_sides = [side for side in full if side > SMALLEST]
        smallest = unet[SMALLEST]

        self.conv_body_first = _conv(3, unet[image_size], 1, gain=_LEAKY_GAIN)
        down: Literal["down", "smooth down"] = "smooth down" if smooth else "down"
        self.conv_body_down = nn.ModuleList(ResBlock(unet[s], unet[s // 2], down) for s in reversed(up_sides))
        self.final_conv = _conv(smallest, smallest, 3, gain=_LEAKY_GAIN)
        self.conv_body_up = nn.ModuleList(ResBlock(unet[s // 2], unet[s], "up", gain=1 / sqrt(2)) for s in up_sides)
        self.toRGB = nn.ModuleList(_conv(unet[s], 3, 1) for s in up_sides)

        self.stylegan_decoder = StyleGAN2Generator(
            image_size, num_style_feat, channel_multiplier, num_mlp, narrow, smooth
        )
        num_features = smallest * SMALLEST**2
        self.final_linear = nn.Linear(num_features, self.stylegan_decoder.num_codes * num_style_feat)
        _initialise(self.final_linear, gain=1.0)
        transformed = {s: unet[s] if sft_half else full[s] for s in up_sides}
        self.condition_scale = nn.ModuleList(_branch(unet[s], transformed[s], start=1.0) for s in up_sides)
        self.condition_shift = nn.ModuleList(_branch(unet[s], transformed[s], start=0.0) for s in up_sides)

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces that the network restores."""
        return self.stylegan_decoder.image_size

    def forward(
        self, x_d: Float[Tensor, "b 3 s s"], noise: Sequence[Float[Tensor, "#b 1 _ _"]] | None = None
    ) -> tuple[Float[Tensor, "b 3 s s"], list[Float[Tensor, "b 3 _ _"]]]:
        """Return the restored faces, and the U-Net's RGB image of every scale, coarsest (8 px) first.

        All outputs are around [-1, 1] and not clipped.

        Args:
            x_d: degraded faces in [-1, 1].
            noise: a map for every styled convolution of the generator, as :func:`gan_baseline.stylegan2.draw_noise`
                returns them. None uses the stored maps, so that results are reproducible.

        Raises:
            ValueError: the faces have another size.
        """
        if x_d.shape[-1] != self.image_size or x_d.shape[-2] != self.image_size:
            raise ValueError(f"expected faces of {self.image_size} px, got {x_d.shape[-2]}x{x_d.shape[-1]}")
        h = F.leaky_relu_(self.conv_body_first(x_d.contiguous(memory_format=torch.channels_last)), SLOPE)
        skips = []
        for block in self.conv_body_down:
            h = block(h)
            skips.append(h)
        h = F.leaky_relu_(self.final_conv(h), SLOPE)
        codes = rearrange(
            self.final_linear(rearrange(h, "b c h w -> b (c h w)")),
            "b (n d) -> b n d",
            n=self.stylegan_decoder.num_codes,
        )
        conditions, rgbs = [], []
        for i, block in enumerate(self.conv_body_up):
            h = block(h + skips.pop())
            conditions.append((self.condition_scale[i](h), self.condition_shift[i](h)))
            rgbs.append(self.toRGB[i](h))
        return self.stylegan_decoder(codes, noise, conditions), rgbs


_LEAKY_GAIN = nn.init.calculate_gain("leaky_relu", SLOPE)


def _conv(channels_in: int, channels_out: int, kernel_size: int, *, gain: float = 1.0, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps height and width, with normal initial weights of variance gain^2 / fan-in."""
    conv = nn.Conv2d(channels_in, channels_out, kernel_size, padding=kernel_size // 2, bias=bias)
    _initialise(conv, gain)
    return conv


def _initialise(layer: nn.Conv2d | nn.Linear, gain: float, bias: float = 0.0) -> None:
    nn.init.normal_(layer.weight, std=gain / sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)


def _branch(channels_in: int, channels_out: int, start: float) -> nn.Sequential:
    """Maps features to the scales or shifts of a transform, which are initially ``start`` everywhere."""
    last = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    _initialise(last, gain=0.0, bias=start)
    return nn.Sequential(_conv(channels_in, channels_in, 3, gain=_LEAKY_GAIN), nn.LeakyReLU(SLOPE, inplace=True), last)
