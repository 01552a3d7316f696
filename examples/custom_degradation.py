"""A degradation step of your own: ``python examples/custom_degradation.py -o scratches.png``.

A step is a frozen dataclass: ``draw`` turns its ranges into one strength, ``apply`` changes an image in [0, 1] by that
strength. A recipe is a tuple of steps. This program scratches faces as old prints are scratched, restores them with a
model that has never seen scratches, and prints the PSNR before and after.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch

from idm.data.pairs import FrozenPairs
from idm.data.sources import SyntheticFaces
from idm.degradation import GFPGAN
from idm.degradation.operations import RGB, Resized
from idm.degradation.steps import PROBABILITY, Frame, Limits, Range, Step, uniform
from idm.evaluation.pixels import psnr
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.saved import load_idm


@dataclass(frozen=True)
class Scratches(Step[int]):
    """White, nearly vertical lines."""

    limits: ClassVar[Limits] = {"probability": PROBABILITY, "number": (1.0, 100.0)}

    probability: float = 1.0
    """Share of images that are scratched."""
    number: Range = (2.0, 8.0)
    """Range of the number of scratches."""
    name: Literal["scratches"] = "scratches"

    def draw(self, rng: np.random.Generator) -> int | None:
        scratched, number = rng.random() < self.probability, uniform(self.number, rng)
        return round(number) if scratched else None

    def apply(self, image: RGB, strength: int, frame: Frame, rng: np.random.Generator) -> Resized:
        height, width = image.shape[:2]
        scratched = image.copy()
        for _ in range(strength):
            top, bottom = (int(x) for x in rng.uniform(0, width, 2))
            cv2.line(scratched, (top, 0), ((2 * top + bottom) // 3, height), (0.9, 0.9, 0.9), 1, cv2.LINE_AA)
        return scratched


def main(arguments: Sequence[str] | None = None) -> None:
    """Degrade faces with scratches, restore them, and write a picture of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture of the faces")
    parser.add_argument("--model", type=Path, help="default: the default bundled model")
    parser.add_argument("--num-images", type=int, default=4)
    parsed = parser.parse_args(arguments)

    model = load_idm(parsed.model, torch.device("cpu"), torch.float32)
    recipe = replace(GFPGAN, steps=(Scratches(), *GFPGAN.steps))  # scratched first, then blurred, shrunk, ...
    pairs = FrozenPairs(SyntheticFaces(parsed.num_images, 0, model.image_size), recipe, seed=0)

    rows = []
    for seed in range(len(pairs)):
        pair = pairs[seed]
        lq, hq = from_uint8(pair.lq), from_uint8(pair.hq)
        restored = chw_to_hwc(model.restore(hwc_to_chw(lq)[None], [seed])[0])
        rows.append((pair.lq, to_uint8(restored), pair.hq))
        print(f"face {seed}: PSNR {psnr(lq, hq):.2f} -> {psnr(restored, hq):.2f} dB")
    write_image(parsed.output, image_grid(rows, ["degraded", "restored", "original"]))
    print(parsed.output)


if __name__ == "__main__":
    main()
