"""Make the picture of the README: ``python experiments/readme_picture.py -o docs/pictures/astronaut.png``.

scikit-image's astronaut (Eileen Collins; NASA, public domain) is aligned, degraded with three seeds of the GFP-GAN
recipe and restored by the bundled model. The seeds were chosen to show blur, noise and low resolution; there was no
other selection.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch

from idm.degradation import GFPGAN, degradation_rng, degrade
from idm.faces.template import ffhq_landmarks, umeyama
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.saved import load_idm

# Found once by facexlib's retinaface_mobile0.25: eyes, nose, mouth corners.
LANDMARKS = np.array([(203.63, 101.13), (247.50, 104.55), (223.26, 129.34), (200.92, 138.40), (245.63, 141.16)])
SEEDS = (6, 13, 17)


def aligned_astronaut(size: int) -> np.ndarray:
    """Return the face aligned to the FFHQ template, as 8-bit RGB of size x size pixels."""
    from skimage.data import astronaut

    large = 2 * size  # warp to twice the size, then average, to avoid aliasing
    matrix = umeyama(LANDMARKS, ffhq_landmarks(large))
    face = cv2.warpAffine(astronaut(), matrix, (large, large), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return cv2.resize(face, (size, size), interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: the bundled model")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    pipeline = load_idm(arguments.model, torch.device("cpu"), torch.float32)
    hq = aligned_astronaut(pipeline.image_size)
    lq = [to_uint8(degrade(from_uint8(hq), GFPGAN, degradation_rng(seed, 0, 0))) for seed in SEEDS]
    restored = pipeline.restore(torch.stack([hwc_to_chw(from_uint8(image)) for image in lq]), [0] * len(lq))
    rows = [(a, chw_to_hwc(b), hq) for a, b in zip(lq, to_uint8(restored), strict=True)]
    write_image(arguments.output, image_grid(rows, ["degraded", "restored", "original"]))


if __name__ == "__main__":
    main()
