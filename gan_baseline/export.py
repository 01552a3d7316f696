"""GFP-GAN's generator as a graph for ``idm export``."""

import json

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gan_baseline.gfpgan import GFPGAN
from idm.restorers.export import Graph


class ExportableGenerator(nn.Module):
    """Maps degraded faces to restored ones. The generator's stored noise becomes part of the graph."""

    def __init__(self, gfpgan: GFPGAN) -> None:
        super().__init__()
        self.gfpgan = gfpgan

    def forward(self, x_d: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        restored, _ = self.gfpgan(x_d)
        return restored


def generator_graph(gfpgan: GFPGAN) -> Graph:
    """Return the graph for :func:`idm.restorers.export.export_onnx`: x_d in [-1, 1] -> faces around [-1, 1], not
    clipped."""
    size = gfpgan.image_size
    x_d = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    metadata = {
        "inputs": "x_d: degraded faces in [-1, 1]; the output is around [-1, 1], not clipped",
        "architecture": json.dumps(gfpgan.architecture),
    }
    return Graph("gfpgan", ExportableGenerator(gfpgan), {"x_d": x_d}, metadata, strict=True)
