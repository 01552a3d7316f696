"""The sizes of the denoiser."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal, assert_never, get_args

if TYPE_CHECKING:
    from idm.models.denoiser import Denoiser

NetworkName = Literal["unet"]
MAX_COUNT = 100_000  # beyond it, a file is damaged


@dataclass(frozen=True)
class Architecture:
    """The network of a denoiser and its sizes, as in its ``config.json``.

    Args:
        network: "unet" is :class:`idm.models.unet.UNet`.
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
        refine_channels: width of two convolutions at full resolution that refine the patches' output; 0 for none.
            Without them the pixels of a patch do not see the next patch, and flat dark regions show its grid.
        refine_blocks: residual blocks of the refinement with dilated convolutions, three times as wide.
        dropout: dropout inside the residual blocks.
        conditional: if false, the input is x_t alone: a generator of faces instead of a restorer.

    Raises:
        ValueError: sizes that contradict each other.
    """

    network: NetworkName = "unet"
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
        if self.network not in get_args(NetworkName):
            raise ValueError(f"network must be one of {', '.join(get_args(NetworkName))}, got {self.network!r}")
        sizes = (self.image_size, self.patch_size, self.image_channels, self.head_dim, *self.channels)
        for least, counts in ((1, sizes), (0, self.num_blocks)):
            if not all(isinstance(count, int) and least <= count < MAX_COUNT for count in counts):
                raise ValueError(f"sizes lie in 1..{MAX_COUNT - 1}, numbers of blocks from 0, got {list(counts)}")
        if (self.inject_degraded or self.add_degraded) and not self.conditional:
            raise ValueError("inject_degraded and add_degraded need a conditional denoiser: without it there is no x_d")
        if len(self.channels) != len(self.num_blocks) or not self.channels:
            raise ValueError(
                f"channels {list(self.channels)} and num_blocks {list(self.num_blocks)} differ in length or are empty"
            )
        if self.image_size % self.patch_size:
            raise ValueError(f"patch_size {self.patch_size} does not divide image_size {self.image_size}")
        if self.refine_channels and self.patch_size & (self.patch_size - 1):
            raise ValueError(f"a refinement doubles sizes: patch_size {self.patch_size} must be a power of two")
        if self.refine_blocks and not self.refine_channels:
            raise ValueError("refine_blocks are part of a refinement: they need refine_channels")

    def build(self) -> "Denoiser":
        """The denoiser of these sizes, with random weights."""
        match self.network:
            case "unet":
                from idm.models.unet import UNet

                return UNet(**asdict(self))
            case _:
                assert_never(self.network)
