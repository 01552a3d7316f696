"""MobileFaceNet, a small face-recognition network (Chen et al., arXiv 1804.07573v4, table 1).

Parameter names and shapes are those of the PyTorch version github.com/Xiaoccer/MobileFaceNet_Pytorch, whose
weights load strictly.
"""

from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

HEIGHT, WIDTH, FEATURES = 112, 96, 128

# Table 1: expansion t, channels c, repeats n, stride s of the first repeat.
_BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class ConvBlock(nn.Module):
    """Convolution, batch norm and, unless ``linear``, PReLU."""

    def __init__(
        self,
        num_in: int,
        num_out: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int = 0,
        depthwise: bool = False,
        linear: bool = False,
    ) -> None:
        super().__init__()
        groups = num_in if depthwise else 1
        self.conv = nn.Conv2d(num_in, num_out, kernel, stride, padding, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(num_out)
        self.prelu = None if linear else nn.PReLU(num_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        x = self.bn(self.conv(x))
        return x if self.prelu is None else self.prelu(x)


class Bottleneck(nn.Module):
    """Widen by ``expansion``, filter depthwise, narrow linearly; a residual where the shape stays."""

    def __init__(self, num_in: int, num_out: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = num_in * expansion
        self.residual = stride == 1 and num_in == num_out
        self.conv = nn.Sequential(
            nn.Conv2d(num_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, num_out, 1, bias=False),
            nn.BatchNorm2d(num_out),
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        out = self.conv(x)
        return x + out if self.residual else out


class MobileFaceNet(nn.Module):
    """RGB faces 112 x 96, aligned, ``(level - 127.5) / 128`` -> 128 features, not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, 3, stride=2, padding=1)
        self.dw_conv1 = ConvBlock(64, 64, 3, padding=1, depthwise=True)
        channels = [64]
        blocks = []
        for expansion, num_out, repeats, stride in _BOTTLENECKS:
            channels += [num_out] * repeats
            blocks += [(expansion, stride if repeat == 0 else 1) for repeat in range(repeats)]
        self.blocks = nn.Sequential(
            *(
                Bottleneck(num_in, num_out, stride, expansion)
                for (num_in, num_out), (expansion, stride) in zip(pairwise(channels), blocks, strict=True)
            )
        )
        self.conv2 = ConvBlock(128, 512, 1)
        # The "global depthwise convolution" of section 3.1: one learned weight per position of the 7 x 6 map.
        self.linear7 = ConvBlock(512, 512, (7, 6), depthwise=True, linear=True)
        self.linear1 = ConvBlock(512, FEATURES, 1, linear=True)

    def forward(self, faces: Float[Tensor, "b 3 112 96"]) -> Float[Tensor, "b 128"]:
        x = self.dw_conv1(self.conv1(faces))
        x = self.conv2(self.blocks(x))
        return self.linear1(self.linear7(x)).flatten(1)


def fold_norms(network: nn.Module) -> None:
    """Put each batch norm of a network in evaluation mode into the convolution before it: the same function, faster."""
    for block in list(network.modules()):
        for (name, conv), (next_name, norm) in pairwise(block.named_children()):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(block, name, fuse_conv_bn_eval(conv, norm))
                setattr(block, next_name, nn.Identity())
