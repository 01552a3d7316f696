"""The critics: StyleGAN2's discriminator of whole faces, GFP-GAN's of eyes and mouths, and a cheap one of patches.

Weights of the first two are standard normal and scaled where they are used (equalised learning rate, Karras et al.,
arXiv 1710.10196, section 4.1). Everything can be differentiated twice, as R1 needs.
"""

from collections.abc import Sequence
from math import sqrt

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from idm.io.machine import on_device

SLOPE = 0.2  # of every leaky ReLU
SMALLEST = 4  # side of the smallest features of StyleGAN2's networks
BLUR = (1.0, 3.0, 3.0, 1.0)


def widths(image_size: int, channel_multiplier: int, narrow: float) -> dict[int, int]:
    """Channels at every side from 4 to ``image_size``: 512 up to 32 px, then halved from level to level.

    Args:
        channel_multiplier: factor from 64 px on; 2 in GFP-GAN v1.2 to v1.4, 1 in its paper.
        narrow: factor of all widths.

    Raises:
        ValueError: the size is not a power of two from 8 on, or a width is odd (GFP-GAN needs halves).
    """
    if image_size < 2 * SMALLEST or image_size & (image_size - 1):
        raise ValueError(f"image_size {image_size} is not a power of two from {2 * SMALLEST} on")
    sides = [2**i for i in range(SMALLEST.bit_length() - 1, image_size.bit_length())]
    found = {s: int((512 if s <= 32 else channel_multiplier * 16384 // s) * narrow) for s in sides}
    if odd := {side: width for side, width in found.items() if width < 2 or width % 2}:
        raise ValueError(
            f"narrow {narrow} and channel_multiplier {channel_multiplier} give odd or no channels ({odd}, by side); "
            "choose factors that leave even widths"
        )
    return found


class EqualisedConv2d(nn.Module):
    """A convolution with weights w / sqrt(fan-in), w ~ N(0, 1) at first; optionally halving the image.

    A halving one blurs with [1, 3, 3, 1] x [1, 3, 3, 1] / 64 first, so that every second pixel can be left out.

    Args:
        activate: take sqrt(2) * leaky ReLU.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        kernel_size: int,
        *,
        downsample: bool = False,
        bias: bool = True,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.downsample, self.activate = downsample, activate
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels_out)) if bias else None
        # sqrt(2) passes through leaky ReLU, so weights and bias take it up
        self.gain = sqrt(2) if activate else 1.0

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h2 w2"]:
        weight = self.weight * (self.gain / sqrt(self.weight[0].numel()))
        bias = None if self.bias is None else self.gain * self.bias
        kernel_size = weight.shape[-1]
        if not self.downsample:
            h = F.conv2d(x, weight, bias, padding=kernel_size // 2)
        elif kernel_size == 1:
            h = F.conv2d(binomial_blur(x, padding=1, stride=2), weight, bias)
        else:
            h = F.conv2d(binomial_blur(x, padding=2), weight, bias, stride=2)
        return F.leaky_relu(h, SLOPE) if self.activate else h


class EqualisedLinear(nn.Module):
    """A linear layer with weights w / sqrt(fan-in), w ~ N(0, 1) at first; sqrt(2) * leaky ReLU if ``activate``."""

    def __init__(self, dim_in: int, dim_out: int, *, activate: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim_out, dim_in))
        self.bias = nn.Parameter(torch.zeros(dim_out))
        self.activate = activate

    def forward(self, x: Float[Tensor, "b d_in"]) -> Float[Tensor, "b d_out"]:
        h = F.linear(x, self.weight / sqrt(self.weight.shape[1]), self.bias)
        return sqrt(2) * F.leaky_relu(h, SLOPE) if self.activate else h


class DownBlock(nn.Module):
    """(conv2(conv1(x)) + skip(x)) / sqrt(2) at half the size."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = EqualisedConv2d(channels_in, channels_in, 3)
        self.conv2 = EqualisedConv2d(channels_in, channels_out, 3, downsample=True)
        self.skip = EqualisedConv2d(channels_in, channels_out, 1, downsample=True, bias=False, activate=False)

    def forward(self, x: Float[Tensor, "b c_in h w"]) -> Float[Tensor, "b c_out h2 w2"]:
        return (self.conv2(self.conv1(x)) + self.skip(x)) / sqrt(2)


class StyleGAN2Discriminator(nn.Module):
    """Real or generated? One logit for each face, high for real.

    Args:
        image_size: side of the faces, a power of two from 8 on.
        channel_multiplier: factor of the widths from 64 px on; GFP-GAN trains with 1.
        narrow: factor of all widths.
        stddev_group: greatest group of the minibatch standard deviation.
    """

    def __init__(
        self, image_size: int = 512, channel_multiplier: int = 1, narrow: float = 1.0, stddev_group: int = 4
    ) -> None:
        super().__init__()
        channels = widths(image_size, channel_multiplier, narrow)
        last = channels[SMALLEST]
        self.stddev_group = stddev_group
        self.first = EqualisedConv2d(3, channels[image_size], 1)
        sides = [side for side in reversed(channels) if side > SMALLEST]
        self.blocks = nn.Sequential(*(DownBlock(channels[side], channels[side // 2]) for side in sides))
        self.final_conv = EqualisedConv2d(last + 1, last, 3)
        self.final_linear = nn.Sequential(
            EqualisedLinear(last * SMALLEST**2, last, activate=True), EqualisedLinear(last, 1, activate=False)
        )

    def forward(self, x: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 1"]:
        """Logits of faces in [-1, 1]."""
        h = self.blocks(self.first(x.contiguous(memory_format=torch.channels_last)))
        h = torch.cat([h, minibatch_stddev(h, self.stddev_group)], dim=1)
        return self.final_linear(self.final_conv(h).flatten(1))


class FacialComponentDiscriminator(nn.Module):
    """Real or generated? For crops of an eye or the mouth, patch by patch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = EqualisedConv2d(3, 64, 3)
        self.conv2 = EqualisedConv2d(64, 128, 3, downsample=True)
        self.conv3 = EqualisedConv2d(128, 128, 3)
        self.conv4 = EqualisedConv2d(128, 256, 3, downsample=True)
        self.conv5 = EqualisedConv2d(256, 256, 3)
        self.final_conv = EqualisedConv2d(256, 1, 3, activate=False)

    def forward(
        self, x: Float[Tensor, "b 3 h w"]
    ) -> tuple[Float[Tensor, "b 1 h4 w4"], tuple[Float[Tensor, "b 128 h2 w2"], Float[Tensor, "b 256 h4 w4"]]]:
        """Logits of crops in [-1, 1], and the features after the third and the fifth layer, for a Gram loss."""
        half = self.conv3(self.conv2(self.conv1(x.contiguous(memory_format=torch.channels_last))))
        quarter = self.conv5(self.conv4(half))
        return self.final_conv(quarter), (half, quarter)


class PatchCritic(nn.Module):
    """Real or generated? Patch by patch, for about 0.7 GFLOP per 256 px face with the default arguments.

    Each square of ``patch_size`` pixels becomes the channels of one pixel. The first 3x3 convolution keeps that
    size, every further one halves it; leaky ReLU follows each. The last convolution gives the logits. With the default
    arguments a logit sees 68 px. Without normalisation: with spectrally normalised layers our pilots' critics stayed at
    chance, since what differs, texture, is faint. R1 bounds the critic instead.

    Args:
        patch_size: pixels that one convolution step of the first layer spans.
        channels: outputs of the convolutions before the last.
    """

    def __init__(self, patch_size: int = 4, channels: Sequence[int] = (96, 128, 192)) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.stride = patch_size * 2 ** (len(channels) - 1)
        widths_in = [3 * patch_size**2, *channels[:-1]]
        convs = [
            nn.Conv2d(channels_in, channels_out, 3, stride=1 if i == 0 else 2, padding=1)
            for i, (channels_in, channels_out) in enumerate(zip(widths_in, channels, strict=True))
        ]
        for conv in convs:
            nn.init.kaiming_normal_(conv.weight, a=SLOPE)
        self.convs = nn.ModuleList(convs)
        self.final_conv = nn.Conv2d(channels[-1], 1, 3, padding=1)

    def forward(self, x: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 1 h w"]:
        """Logits of images in [-1, 1], whose side ``stride`` divides."""
        p = self.patch_size
        h = rearrange(x, "b c (h p) (w q) -> b (c p q) h w", p=p, q=p).contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            h = F.leaky_relu(conv(h), SLOPE)
        return self.final_conv(h)


def binomial_blur(x: Float[Tensor, "b c h w"], padding: int, stride: int = 1) -> Float[Tensor, "b c h2 w2"]:
    """Convolve every channel with [1, 3, 3, 1] x [1, 3, 3, 1] / 64, with zeros around the image."""
    taps = on_device(torch.tensor(BLUR, dtype=x.dtype), x.device) / sum(BLUR)
    channels = x.shape[1]
    kernel = torch.outer(taps, taps).expand(channels, 1, -1, -1)
    return F.conv2d(x, kernel, stride=stride, padding=padding, groups=channels)


def minibatch_stddev(x: Float[Tensor, "b c h w"], group_size: int) -> Float[Tensor, "b 1 h w"]:
    """Measure how much the images of a group differ: the standard deviation over the group, averaged over c, h and w.

    A batch of b makes ceil(b / group_size) groups, and image i belongs to group i modulo their number; so groups
    differ in size by one at most. If group_size divides b, they are those of StyleGAN2 in BasicSR. For a group of
    one image the value is 1e-4, the square root of the 1e-8 that keeps the gradient finite.
    """
    num_groups = -(-len(x) // group_size)
    parts = (x[first::num_groups] for first in range(num_groups))
    deviations = [torch.sqrt(part.var(dim=0, unbiased=False) + 1e-8).mean() for part in parts]
    values = torch.stack(deviations)[torch.arange(len(x), device=x.device) % num_groups]
    return values[:, None, None, None].expand(-1, 1, *x.shape[2:])
