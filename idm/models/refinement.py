"""The end of the denoiser: from patches to pixels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from idm.models.architecture import Architecture
from idm.models.layers import ResidualBlock, depth_to_space, zero_init


class Refinement(nn.Module):
    """A correction of the patches' pixels: convolutions over features, input and output at full resolution.

    Features are interpolated instead of rearranged from patches to pixels, and no layer has a stride. With layers that
    treat some pixels differently from their neighbours, a critic made the refinement draw a weave into hair and dots
    along edges.

    Where x_d is added to the output, its noise comes along, and the trunk has fewer channels than a patch has pixels to
    subtract it again. So the refinement also predicts, for each pixel, how far a blurred x_d replaces x_d. With
    ``refine_blocks`` a :class:`DilatedLevel` lies between the first convolution and the second. The last
    convolutions of all parts start at zero, so that adding a refinement to a trained denoiser does not change its
    output.
    """

    FEATURES = 8

    def __init__(self, sizes: Architecture, embedding_dim: int) -> None:
        super().__init__()
        self.patch_size = sizes.patch_size
        images = 3 if sizes.conditional else 2  # x_d, x_t, and the pixels so far
        width = sizes.refine_channels
        self.features = nn.Conv2d(sizes.channels[0], self.FEATURES, 3, padding=1)
        self.conv_in = nn.Conv2d(images * sizes.image_channels + self.FEATURES, width, 3, padding=1)
        self.level = DilatedLevel(sizes, embedding_dim) if sizes.refine_blocks else None
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
            patches: the encoder's input: patches of x_d, if there is one, and of x_t.
            pixels: the trunk's output.
            embedding: of gamma.
        """
        features = h
        images = depth_to_space(patches, self.patch_size)
        h = torch.cat([enlarge(self.features(h), self.patch_size), images, pixels], dim=1)
        h = F.silu(self.conv_in(h.contiguous(memory_format=torch.channels_last)))
        if self.level is not None:
            h = h + self.level(h, features, embedding)
        h = F.silu(self.conv(h))
        if self.blurring is None:
            return self.conv_out(h)
        x_d = images[:, : self.image_channels]
        return self.conv_out(h) + self.blurring(h) * (wide_blur(x_d) - x_d)


class DilatedLevel(nn.Module):
    """The level of a :class:`Refinement` between the patches and the pixels: residual blocks of dilated convolutions.

    Their taps are two pixels apart (Yu and Koltun, arXiv 1511.07122), so that they see as far as convolutions at half
    the resolution, and every pixel alike. A blur before and after them couples the even and odd pixels.
    """

    def __init__(self, sizes: Architecture, embedding_dim: int) -> None:
        super().__init__()
        width = 3 * sizes.refine_channels
        self.patch_size = sizes.patch_size
        self.conv_in = nn.Conv2d(sizes.refine_channels, width, 3, padding=2, dilation=2)
        self.features = nn.Conv2d(sizes.channels[0], width, 1)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, embedding_dim, 0.0, dilation=2) for _ in range(sizes.refine_blocks)
        )
        self.conv_out = zero_init(nn.Conv2d(width, sizes.refine_channels, 3, padding=2, dilation=2))

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
        h = self.conv_in(narrow_blur(h)) + enlarge(self.features(features), self.patch_size)
        for block in self.blocks:
            h = block(h, embedding)
        return narrow_blur(self.conv_out(h))


def narrow_blur(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Convolve with [1, 2, 1] / 4 along both axes, which removes a period of two pixels; nearest pixels around."""
    if torch.compiler.is_compiling() and not torch.compiler.is_exporting():
        # torch.compile stops at the gradient of F.pad, which has another layout than it expects
        x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
        x = torch.cat([x[..., :1], x, x[..., -1:]], dim=3)
    else:
        x = F.pad(x, (1, 1, 1, 1), mode="replicate").contiguous(memory_format=torch.channels_last)
    return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2, stride=1)


def enlarge(x: Float[Tensor, "b c h w"], factor: int) -> Float[Tensor, "b c h2 w2"]:
    """Interpolate to ``factor`` times the height and width, in the precision of ``x`` under autocast too.

    Linear interpolation by a factor of 4 has a kink at every pixel of ``x``; doubling twice halves it.

    Args:
        factor: a power of two.
    """
    for _ in range(factor.bit_length() - 1):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False).to(x.dtype)
    return x


def wide_blur(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Convolve with [1, 2, 4, 6, 6, 6, 4, 2, 1] / 32 along both axes, numbers that bfloat16 has; nearest pixels around.

    The standard deviation of the kernel is 1.9 pixels.
    """
    distance = (torch.arange(9, dtype=x.dtype, device=x.device) - 4).abs()
    taps = (8 - 2 * distance).clamp(1, 6) / 32  # made where x is: a GPU would wait for a list of numbers
    kernel = taps.expand(x.shape[1], 1, 1, -1)
    x = F.pad(x, (4, 4, 4, 4), mode="replicate").contiguous(memory_format=torch.channels_last)
    return F.conv2d(F.conv2d(x, kernel, groups=len(kernel)), kernel.transpose(2, 3), groups=len(kernel))
