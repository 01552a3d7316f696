"""The network of the built-in face detector: a score and five landmarks per cell of 8 x 8 pixels.

The network knows faces of one size only, ``LEAST`` to ``GREATEST`` pixels; a pyramid of the picture brings every face
to that size. The box of a face is not predicted: it follows from the landmarks (:mod:`idm.faces.detector.decode`).
"""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

STRIDE = 8  # pixels per cell
UNIT = 16.0  # pixels per unit of a landmark's offset from the centre of its cell
LEAST, GREATEST = 18.0, 52.0  # size of the faces that the network is trained to find, in pixels

_WIDTHS = (16, 24, 48)
_BLOCKS = 3


class FaceMaps(NamedTuple):
    """The network's outputs in each cell.

    ``logits`` are of "the centre of a face lies here"; ``offsets`` are (x, y) of the five landmarks, measured from the
    centre of the cell in units of ``UNIT`` pixels, meaningful near faces only.
    """

    logits: Float[Tensor, "b h w"]
    offsets: Float[Tensor, "b h w 5 2"]


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch norm and ReLU."""

    def __init__(self, num_in: int, num_out: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_in, num_out, 3, stride, 1, bias=False)
        self.norm = nn.BatchNorm2d(num_out)
        self.relu = nn.ReLU(inplace=True)


class ResidualBlock(nn.Module):
    """Two :class:`ConvBlock` whose output is added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(ConvBlock(channels, channels), ConvBlock(channels, channels))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.blocks(x)


class FaceNet(nn.Module):
    """RGB in [0, 1], sides divisible by ``STRIDE`` -> one cell per ``STRIDE`` pixels. It sees 111 pixels per cell."""

    def __init__(self) -> None:
        super().__init__()
        first, second, last = _WIDTHS
        self.stem = nn.Sequential(ConvBlock(3, first, 2), ConvBlock(first, second, 2), ConvBlock(second, last, 2))
        self.trunk = nn.Sequential(*(ResidualBlock(last) for _ in range(_BLOCKS)))
        self.head = nn.Conv2d(last, 1 + 10, 1)
        nn.init.constant_(self.head.get_parameter("bias")[:1], -4.6)  # each cell begins at 1 % (RetinaNet)

    def forward(self, pictures: Float[Tensor, "b 3 h8 w8"]) -> FaceMaps:
        maps = self.head(self.trunk(self.stem(2 * pictures - 1))).movedim(1, -1)
        return FaceMaps(maps[..., 0], maps[..., 1:].unflatten(-1, (5, 2)))
