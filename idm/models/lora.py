"""Low-rank adapters: a trained network keeps its weights W, and only small factors are trained.

LoRA (Hu et al., arXiv 2106.09685, section 4.1) uses W + alpha / r B A, where A has r rows, B has r columns and begins
at zero. A convolution's weight is taken as the matrix of its output channels.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

_ORIGINAL = ".parametrizations.weight.original"


class LowRank(nn.Module):
    """W -> W + alpha / r B A.

    Args:
        weight: W, which gives the sizes. The rank is at most that of W.
        generator: for A, which begins as a linear layer of its size does.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        self.scale, rank = alpha / rank, min(rank, rows, columns)
        self.down = nn.Parameter(torch.empty(rank, columns))
        self.up = nn.Parameter(torch.zeros(rows, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5), generator=generator)

    def forward(self, weight: Float[Tensor, "c_out c_in *kernel"]) -> Float[Tensor, "c_out c_in *kernel"]:
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def add_adapters(network: nn.Module, rank: int, alpha: float, seed: int) -> None:
    """Add an adapter to every convolution and linear layer of a network, and freeze all other weights."""
    generator = torch.Generator().manual_seed(seed)
    network.requires_grad_(False)
    for layer in [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]:
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, rank, alpha, generator))


@torch.no_grad()
def merged_weights(network: nn.Module) -> dict[str, Tensor]:
    """The weights by name of the same network without adapters, W + alpha / r B A; without adapters, its own
    weights."""
    merged: dict[str, Tensor] = {}
    for name, parameter in network.named_parameters():
        if name.endswith(_ORIGINAL):
            layer = name.removesuffix(_ORIGINAL)
            weight = network.get_submodule(layer).weight
            assert isinstance(weight, Tensor)
            merged[f"{layer}.weight"] = weight
        elif ".parametrizations." not in name:
            merged[name] = parameter
    return merged
