"""The compared networks: our UNet, and diffusers' UNet2DModel with equal FLOPs.

``python experiments/benchmarks/networks.py`` searches the widths of the UNet2DModel again.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DModel
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from idm.config.assembly.intrinsic import build_denoiser
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.models.unet import UNet

CONFIGS = Path(__file__).parents[2] / "configs"
ATTENTION_RESOLUTIONS = (32, 16, 8)
HEAD_DIM = 64
TOLERANCE = 0.03


@dataclass(frozen=True)
class Case:
    """One comparison: a shipped configuration, overrides, and the widths of the UNet2DModel with equal FLOPs."""

    name: str
    config: str
    overrides: tuple[str, ...]
    unet_widths: tuple[int, ...]  # the nearest widths that main() finds

    def load(self) -> IDMConfig:
        return load_config(CONFIGS / self.config, IDMConfig, list(self.overrides))


FACES64 = Case("faces64", "faces64.yaml", (), (32, 64, 128, 128))
FACES128 = Case("faces128", "faces128.yaml", (), (16, 32, 64, 128, 128))
WIDE64 = Case("wide64", "faces64.yaml", ("denoiser.channels=[192,384,576]",), (64, 128, 128, 256))


def build_unet(image_size: int, widths: tuple[int, ...], head_dim: int = HEAD_DIM) -> UNet2DModel:
    """Build a UNet2DModel with 6 -> 3 channels; everything else except attention levels and heads is diffusers'
    default."""
    sides = [image_size // 2**level for level in range(len(widths))]
    kinds = ["Attn" if side in ATTENTION_RESOLUTIONS else "" for side in sides]
    return UNet2DModel(
        sample_size=image_size,
        in_channels=6,
        out_channels=3,
        layers_per_block=2,
        block_out_channels=widths,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        attention_head_dim=head_dim,
        norm_num_groups=min(32, widths[0]),
    )


def forward_gflop(network: nn.Module, image_size: int) -> float:
    """Count the floating-point operations of one forward pass of one image, in 10^9; a multiply-add counts as two."""
    network = network.to("meta")
    with torch.device("meta"):
        x = torch.empty(1, 3, image_size, image_size)
        gamma = torch.empty(1)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        if isinstance(network, UNet):
            network(x_d=x, x_t=x, gamma=gamma)
        else:
            network(torch.cat([x, x], dim=1), gamma)
    return counter.get_total_flops() / 1e9


def describe(case: Case) -> dict[str, Any]:
    """Return the sizes of both networks for a result file.

    Raises:
        ValueError: the FLOPs differ by more than 3 %.
    """
    config = case.load()
    size = config.data.image_size
    with torch.device("meta"):
        ours, theirs = build_denoiser(config), build_unet(size, case.unet_widths)
    gflop = {"idm": forward_gflop(ours, size), "diffusers": forward_gflop(theirs, size)}
    ratio = gflop["diffusers"] / gflop["idm"]
    if abs(ratio - 1) > TOLERANCE:
        raise ValueError(f"{case.name}: UNet2DModel has {ratio:.3f} times the FLOPs; search its widths again")
    return {
        "case": case.name,
        "image_size": size,
        "widths": {"idm": list(config.denoiser.channels), "diffusers": list(case.unet_widths)},
        "million_parameters": {"idm": _millions(ours), "diffusers": _millions(theirs)},
        "gflop_per_image": gflop,
        "flop_ratio": ratio,
    }


def _millions(network: nn.Module) -> float:
    return sum(parameter.numel() for parameter in network.parameters()) / 1e6


def candidates(image_size: int) -> Iterator[tuple[int, ...]]:
    """Yield widths that stay or double from level to level down to 8 px, with whole heads at attention levels."""
    num_levels = image_size.bit_length() - 3
    for first, *growth in product((16, 32, 64, 128), *[(1, 2)] * (num_levels - 1)):
        widths = [first]
        for factor in growth:
            widths.append(widths[-1] * factor)
        sides = [image_size // 2**level for level in range(num_levels)]
        attended = [width for width, side in zip(widths, sides, strict=True) if side in ATTENTION_RESOLUTIONS]
        if all(width % HEAD_DIM == 0 for width in attended):
            yield tuple(widths)


def main() -> None:
    for case in (FACES64, FACES128, WIDE64):
        config = case.load()
        size = config.data.image_size
        with torch.device("meta"):
            wanted = forward_gflop(build_denoiser(config), size)
        found = []
        for widths in candidates(size):
            with torch.device("meta"):
                found.append((forward_gflop(build_unet(size, widths), size) / wanted, widths))
        print(f"{case.name}: {wanted:.3f} GFLOP per image; nearest UNet2DModels:")
        for ratio, widths in sorted(found, key=lambda pair: abs(pair[0] - 1))[:4]:
            print(f"  {ratio:.4f}  {widths}")


if __name__ == "__main__":
    main()
