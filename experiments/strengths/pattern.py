"""Measure the pattern that patches and strides leave in restored faces.

    python experiments/strengths/pattern.py bundled@1 bundled@2 -o experiments/strengths/results/pattern.json

A face has no grid. In a face that is restored patch by patch, the energy of the Laplacian of luma may depend on the
position of a pixel in its patch. For each restorer and for the originals, the script prints the standard deviation of
this energy over the 4 x 4 positions, relative to its mean, on faces of ``val`` with GFP-GAN's frozen degradation and
averaged over faces.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from einops import reduce
from jaxtyping import Float, UInt8
from run import SEED, restore

from idm.data.pairs import FrozenPairs
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.degradation import GFPGAN
from idm.io.atomic import write_json
from idm.io.machine import best_device, inference_dtype, provenance
from idm.restorers.load import load_with_steps
from idm.restorers.names import DEFAULT_NAME

PERIOD = 4  # pixels; side of a patch of idm-faces-256
BATCH = 8


def energies(image: UInt8[np.ndarray, "s s 3"]) -> Float[np.ndarray, "period period"]:
    """The mean squared Laplacian of luma by the position of a pixel modulo ``PERIOD``."""
    luma = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    inner = luma[1:-1, 1:-1]
    laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner
    whole = laplacian[: len(laplacian) // PERIOD * PERIOD, : len(laplacian) // PERIOD * PERIOD]
    return reduce(whole**2, "(h i) (w j) -> i j", "mean", i=PERIOD, j=PERIOD)


def variation(images: list[UInt8[np.ndarray, "s s 3"]]) -> float:
    """Return the relative standard deviation of the energy over the positions, each face having the same weight."""
    by_position = np.mean([each / each.mean() for each in map(energies, images)], axis=0)
    return float(by_position.std())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorers", nargs="+", help='"bundled" or a path, with "@N" for N steps')
    parser.add_argument("--num-faces", type=int, default=40, help="faces of val (default 40)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    faces = FolderFaces(assets_folder() / "faces256" / "val", 256)
    pairs = FrozenPairs(Part(faces, range(arguments.num_faces)), GFPGAN, SEED)
    chosen = [pairs[index] for index in range(len(pairs))]
    images = {"original": [pair.hq for pair in chosen], "degraded": [pair.lq for pair in chosen]}
    device = best_device()
    for spec in arguments.restorers:
        restorer = load_with_steps(spec.replace("bundled", DEFAULT_NAME, 1), device, inference_dtype(device)).restorer
        images[spec] = []
        for start in range(0, len(chosen), BATCH):
            images[spec] += restore(restorer, chosen[start : start + BATCH], start)
    result = {name: variation(column) for name, column in images.items()}
    for name, value in result.items():
        print(f"{name:20} {value:.3f}")
    write_json(arguments.output, {"variation": result, "num_faces": len(chosen), "seed": SEED} | provenance())


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
