"""StyleGAN2's generator (Karras et al., arXiv 1912.04958): the prior on its own, and the decoder of GFP-GAN.

This is the "clean" form in which GFP-GAN publishes its weights since v1.2: plain convolutions, no equalised learning
rates, bilinear resampling. Names and shapes of the weights are those of the published files. For the earlier form, see
:mod:`gan_baseline.equalised`.
"""

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from idm.models.critics import SLOPE, SMALLEST, widths

Condition = tuple[Float[Tensor, "b _ _ _"], Float[Tensor, "b _ _ _"]]
"""Scale and shift of one spatial feature transform."""


def noise_sides(image_size: int) -> list[int]:
    """Return the sides of the noise maps in the order of the layers: 4, 8, 8, 16, 16, ..., ``image_size`` twice."""
    levels = [2**i for i in range(SMALLEST.bit_length(), image_size.bit_length())]
    return [SMALLEST, *(side for side in levels for _ in range(2))]


def draw_noise(
    image_size: int, generators: Sequence[torch.Generator], device: torch.device | None = None
) -> list[Float[Tensor, "b 1 _ _"]]:
    """Draw standard normal noise maps, one for each styled convolution of a generator for ``image_size`` px.

    Args:
        generators: one for each image, so that the maps of an image do not depend on its batch. The maps are drawn on
            the generators' device.
        device: device of the returned maps; None keeps the generators' device.
    """

    def draw(side: int) -> Tensor:
        maps = [torch.randn(1, side, side, generator=generator, device=generator.device) for generator in generators]
        return torch.stack(maps).to(device)

    return [draw(side) for side in noise_sides(image_size)]


def noise_size(image_size: int) -> int:
    """Number of pixels of all noise maps together."""
    return sum(side**2 for side in noise_sides(image_size))


def noise_maps(noise: Float[Tensor, "b n"], image_size: int) -> list[Float[Tensor, "b 1 _ _"]]:
    """The noise maps of a generator for ``image_size`` px, from :func:`noise_size` numbers."""
    sides = noise_sides(image_size)
    return [
        rearrange(part, "b (h w) -> b 1 h w", h=side)
        for side, part in zip(sides, noise.split([side**2 for side in sides], dim=1), strict=True)
    ]


class ModulatedConv2d(nn.Module):
    """A convolution whose weights are scaled by the style code of each image (StyleGAN2, eq. 1 to 3).

    A convolution is linear, so the input channels are scaled by s, and the output channels by one over the norm of the
    scaled filters, instead of the weights. The result is the same, without a set of weights for each image. For eight
    images on a CPU this was faster than a grouped convolution, except in backward passes from 128 px on. Restoring one
    512 px face took 3 % longer than with scaling the weights in the layers where these are smaller than the features.

    Args:
        demodulate: scale the modulated filters to unit norm (eq. 3); not used for RGB heads.
        upsample: double height and width before the convolution.
        smooth: upsample as StyleGAN2 does, see :func:`upsample_smoothly`.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        num_style_feat: int,
        *,
        demodulate: bool,
        upsample: bool = False,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        self.demodulate, self.upsample, self.smooth = demodulate, upsample, smooth
        fan_in = channels_in * kernel_size**2
        self.weight = nn.Parameter(torch.randn(1, channels_out, channels_in, kernel_size, kernel_size) / sqrt(fan_in))
        self.modulation = nn.Linear(num_style_feat, channels_in)
        nn.init.normal_(self.modulation.weight, std=num_style_feat**-0.5)
        nn.init.ones_(self.modulation.bias)

    def forward(
        self,
        x: Float[Tensor, "b c_in _ _"],
        code: Float[Tensor, "b d"],
        bias: Float[Tensor, "1 c_out 1 1"],
        gain: float = 1.0,
    ) -> Float[Tensor, "b c_out h w"]:
        """Return gain * modulated convolution + bias."""
        s = self.modulation(code)
        x = x * s[:, :, None, None]  # before upsampling, because the image is smaller there
        padding = self.weight.shape[-1] // 2
        if self.upsample and self.smooth:
            x, padding = upsample_smoothly(x, margin=padding), 0
        elif self.upsample:
            x = upsample(x)
        h = F.conv2d(x, self.weight[0], padding=padding)
        return torch.addcmul(bias, h, gain * self.demodulation(s)[:, :, None, None])

    def demodulation(self, s: Float[Tensor, "b c_in"]) -> Float[Tensor, "b c_out"]:
        """Return 1 / sqrt(sum_ik (s_i w_ijk)^2 + 1e-8) for every output channel j, or 1 without demodulation."""
        if not self.demodulate:
            return s.new_ones(len(s), self.weight.shape[1])
        squares = self.weight[0].square().sum(dim=(2, 3))  # c_out c_in
        return torch.rsqrt(s.square() @ squares.T + 1e-8)


class StyleConv(nn.Module):
    """Leaky ReLU of (sqrt(2) * modulated convolution + noise of a learnt strength + bias)."""

    def __init__(
        self, channels_in: int, channels_out: int, num_style_feat: int, *, upsample: bool, smooth: bool = False
    ) -> None:
        super().__init__()
        self.modulated_conv = ModulatedConv2d(
            channels_in, channels_out, 3, num_style_feat, demodulate=True, upsample=upsample, smooth=smooth
        )
        self.weight = nn.Parameter(torch.zeros(1))  # the strength of the noise
        self.bias = nn.Parameter(torch.zeros(1, channels_out, 1, 1))

    def forward(
        self, x: Float[Tensor, "b c_in _ _"], code: Float[Tensor, "b d"], noise: Float[Tensor, "#b 1 h w"]
    ) -> Float[Tensor, "b c_out h w"]:
        h = self.modulated_conv(x, code, self.bias, gain=sqrt(2))
        return F.leaky_relu_(h.add_(self.weight * noise.to(h)), SLOPE)


class ToRGB(nn.Module):
    """Maps features to colours and adds the upsampled image of the next coarser level."""

    def __init__(self, channels: int, num_style_feat: int, *, smooth: bool = False) -> None:
        super().__init__()
        self.upsample = upsample_smoothly if smooth else upsample
        self.modulated_conv = ModulatedConv2d(channels, 3, 1, num_style_feat, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))

    def forward(
        self, x: Float[Tensor, "b c h w"], code: Float[Tensor, "b d"], image: Float[Tensor, "b 3 _ _"] | None = None
    ) -> Float[Tensor, "b 3 h w"]:
        rgb = self.modulated_conv(x, code, self.bias)
        return rgb if image is None else rgb + self.upsample(image)


class NormaliseCode(nn.Module):
    """Scales z to a mean square of 1."""

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        return z * torch.rsqrt(z.square().mean(dim=1, keepdim=True) + 1e-8)


class ConstantInput(nn.Module):
    """The learnt 4x4 input features, the same for every image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, channels, SMALLEST, SMALLEST))

    def forward(self, batch_size: int) -> Float[Tensor, "b c 4 4"]:
        return self.weight.expand(batch_size, -1, -1, -1).contiguous(memory_format=torch.channels_last)


class StyleGAN2Generator(nn.Module):
    """Generates an image from W+ codes: StyleGAN2 with RGB outputs joined by skips, without truncation.

    Initial weights (ours): normal weights with variance 1 / fan-in, modulation biases 1, all other biases and the
    noise strengths 0, as in StyleGAN2 but without its equalised learning rates.

    Args:
        image_size: side of the images in pixels, a power of two and at least 8.
        num_style_feat: length of z and of a style code.
        channel_multiplier: factor of the widths from 64 px on.
        num_mlp: layers of the network that maps z to w.
        narrow: factor of all widths.
        smooth: resample as StyleGAN2 does. False resamples bilinearly, as GFP-GAN v1.2 to v1.4 do.

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
        smooth: bool = False,
    ) -> None:
        super().__init__()
        channels = widths(image_size, channel_multiplier, narrow)
        d, first = num_style_feat, channels[SMALLEST]
        self.image_size, self.smooth = image_size, smooth
        mapping: list[nn.Module] = [NormaliseCode()]
        for _ in range(num_mlp):
            mapping += [_kaiming(nn.Linear(d, d)), nn.LeakyReLU(SLOPE)]
        self.style_mlp = nn.Sequential(*mapping)
        self.constant_input = ConstantInput(first)
        self.style_conv1 = StyleConv(first, first, d, upsample=False)
        self.to_rgb1 = ToRGB(first, d)
        self.style_convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for side, width in list(channels.items())[1:]:
            self.style_convs.append(StyleConv(channels[side // 2], width, d, upsample=True, smooth=smooth))
            self.style_convs.append(StyleConv(width, width, d, upsample=False))
            self.to_rgbs.append(ToRGB(width, d, smooth=smooth))
        self.noises = nn.Module()
        for i, side in enumerate(noise_sides(image_size)):
            self.noises.register_buffer(f"noise{i}", torch.randn(1, 1, side, side))

    @property
    def num_codes(self) -> int:
        """Length of a W+ code: 2 log2(image_size) - 2."""
        return 2 * len(self.to_rgbs) + 2

    def codes_of(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b n d"]:
        """Map z ~ N(0, I) to w and repeat it for every layer.

        Style mixing joins the first codes of one z with the last codes of another.
        """
        return repeat(self.style_mlp(z), "b d -> b n d", n=self.num_codes)

    def sample(
        self, z: Float[Tensor, "b d"], noise: Sequence[Float[Tensor, "#b 1 _ _"]] | None = None
    ) -> Float[Tensor, "b 3 s s"]:
        """Return the prior's image for each z ~ N(0, I), around [-1, 1] and not clipped."""
        return self(self.codes_of(z), noise)

    def forward(
        self,
        codes: Float[Tensor, "b n d"],
        noise: Sequence[Float[Tensor, "#b 1 _ _"]] | None = None,
        conditions: Sequence[Condition] | None = None,
    ) -> Float[Tensor, "b 3 s s"]:
        """Return images around [-1, 1], not clipped.

        Args:
            codes: ``num_codes`` style codes, one for every layer (W+); an RGB head shares its code with the first
                convolution of the next level.
            noise: a map for every styled convolution, as :func:`draw_noise` returns them; None uses the stored maps.
            conditions: scale and shift for every level from 8 px on, applied between its two convolutions.

        Raises:
            ValueError: the number of codes, noise maps or conditions does not fit.
        """
        maps = list(self.noises.buffers()) if noise is None else noise
        expected = (self.num_codes, 1 + len(self.style_convs), len(self.to_rgbs))
        given = (codes.shape[1], len(maps), expected[2] if conditions is None else len(conditions))
        if given != expected:
            raise ValueError(f"expected {expected} codes, noise maps and conditions, got {given}")
        h = self.style_conv1(self.constant_input(len(codes)), codes[:, 0], maps[0])
        image = self.to_rgb1(h, codes[:, 1])
        for i, to_rgb in enumerate(self.to_rgbs):
            h = self.style_convs[2 * i](h, codes[:, 2 * i + 1], maps[2 * i + 1])
            if conditions is not None:
                h = spatial_feature_transform(h, *conditions[i])
            h = self.style_convs[2 * i + 1](h, codes[:, 2 * i + 2], maps[2 * i + 2])
            image = to_rgb(h, codes[:, 2 * i + 3], image)
        return image


def spatial_feature_transform(
    x: Float[Tensor, "b c h w"], scale: Float[Tensor, "b part h w"], shift: Float[Tensor, "b part h w"]
) -> Float[Tensor, "b c h w"]:
    """Apply scale * x + shift to the last channels, as many as scale has; the first ones pass (GFP-GAN's CS-SFT)."""
    identity = x.shape[1] - scale.shape[1]
    return torch.cat([x[:, :identity], torch.addcmul(shift, x[:, identity:], scale)], dim=1)


def upsample(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    """Double height and width, bilinearly."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def upsample_smoothly(x: Float[Tensor, "b c h w"], margin: int = 0) -> Float[Tensor, "b c h2 w2"]:
    """Double height and width as StyleGAN2 does: insert zeros and filter with [1, 3, 3, 1] x [1, 3, 3, 1] / 16.

    This equals bilinear upsampling of an image that is padded with zeros. Followed by a convolution without padding, it
    equals the transposed convolution and filter of the authors' code, with filters turned by 180 degrees.

    Args:
        margin: pixels to add on each side, 0 or 1.
    """
    cut = 2 - margin
    return upsample(F.pad(x, (1, 1, 1, 1)))[..., cut:-cut, cut:-cut]


def _kaiming(layer: nn.Linear) -> nn.Linear:
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)
    return layer
