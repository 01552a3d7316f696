"""GFP-GAN's generator as an ONNX file: ``python -m gan_baseline.export WEIGHTS -o FILE``."""

import argparse
import json
import sys
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import WeightsError, load_gfpgan
from idm.export import OPSET, ExportError, Graph, export_onnx


class Restoration(nn.Module):
    """Degraded faces to restored ones with the generator's stored noise, which becomes part of the graph."""

    def __init__(self, gfpgan: GFPGAN) -> None:
        super().__init__()
        self.gfpgan = gfpgan

    def forward(self, x_d: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
        restored, _ = self.gfpgan(x_d)
        return restored


def generator_graph(gfpgan: GFPGAN) -> Graph:
    """What :func:`idm.export.export_onnx` writes: x_d in [-1, 1] -> faces around [-1, 1], not clipped."""
    size = gfpgan.image_size
    x_d = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    metadata = {
        "inputs": "x_d: degraded faces in [-1, 1]; the output is around [-1, 1], not clipped",
        "architecture": json.dumps(gfpgan.architecture),
    }
    return Graph("gfpgan", Restoration(gfpgan), {"x_d": x_d}, metadata, strict=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help=".pth as GFP-GAN publishes it, or .safetensors of ours")
    parser.add_argument("-o", "--output", type=Path, required=True, help="ONNX file")
    arguments = parser.parse_args()
    try:
        difference = export_onnx(generator_graph(load_gfpgan(arguments.weights)), arguments.output)
    except (WeightsError, ExportError) as error:
        sys.exit(f"error: {error}")
    print(
        f"{arguments.output}: opset {OPSET}; run by ONNX Runtime it differs from PyTorch by at most {difference:.1e} "
        "of the output's largest value"
    )


if __name__ == "__main__":
    main()
