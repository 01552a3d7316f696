"""Train the built-in face detector on composites.

``python experiments/detector/train.py --faces $IDM_ASSETS/faces256/train --scenes FOLDER -o FILE [--minutes 40]``

``--scenes`` is a folder of PNG pictures without faces (README.md in this folder lists those that we used). The learning
rate decays to zero over the given minutes. The network runs in bfloat16, which took 40 % less time per step on a
processor with AVX512-BF16. The averaged weights are written every minute, so that training can be
stopped at any time.
"""

import argparse
import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from composites import Composer, Composite, CompositeConfig, load_faces, load_scenes
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, IterableDataset

from idm.faces.detector.decode import cell_centres
from idm.faces.detector.network import GREATEST, LEAST, UNIT, FaceMaps, FaceNet

SIDE = 128  # side of a training picture in pixels
BATCH = 32
CONFIG = CompositeConfig(sizes=(13, 84))
MARGIN = 1.4  # faces up to this factor outside the network's sizes are ignored by the losses
LANDMARK_WEIGHT = 2.0


def to_targets(picture: Composite) -> tuple[Tensor, Tensor, Tensor]:
    """Return (h, w) peaks in [0, 1], or -1 for ignored cells; (h, w, 5, 2) offsets; (3, 128, 128) pixels in [0, 1]."""
    centres = cell_centres(SIDE // 8, SIDE // 8).numpy()
    peaks, offsets = np.zeros(centres.shape[:2], np.float32), np.zeros((*centres.shape[:2], 5, 2), np.float32)
    unasked = np.zeros(peaks.shape, bool)
    for points, centre, size, hidden in zip(
        picture.landmarks, picture.centres, picture.sizes, picture.hidden, strict=True
    ):
        distances = np.linalg.norm(centres - centre, axis=2)
        if hidden or not LEAST <= size <= GREATEST:
            if hidden or LEAST / MARGIN <= size <= GREATEST * MARGIN or size < LEAST:
                unasked |= distances <= max(6.0, 0.3 * size)
            continue
        heat = np.exp(-((distances / max(5.0, size / 5)) ** 2) / 2)
        heat[np.unravel_index(distances.argmin(), heat.shape)] = 1
        nearer = heat > peaks
        peaks[nearer] = heat[nearer]
        offsets[nearer] = (points - centres[nearer][:, None]) / UNIT
    peaks[unasked & (peaks < 1)] = -1
    pixels = torch.from_numpy(picture.pixels).permute(2, 0, 1).float() / 255
    return torch.from_numpy(peaks), torch.from_numpy(offsets), pixels


def focal_loss(logits: Float[Tensor, "b h w"], peaks: Float[Tensor, "b h w"]) -> Tensor:
    """The penalty-reduced focal loss of CornerNet (arXiv 1808.01244, eq. 1), per face."""
    p = logits.sigmoid()
    is_face = peaks == 1
    face = is_face * (1 - p) ** 2 * F.logsigmoid(logits)
    other = (~is_face & (peaks >= 0)) * (1 - peaks.clamp(min=0)) ** 4 * p**2 * F.logsigmoid(-logits)
    return -(face + other).sum() / is_face.sum().clamp(min=1)


def landmark_loss(offsets: Float[Tensor, "b h w 5 2"], wanted: Float[Tensor, "b h w 5 2"], peaks: Tensor) -> Tensor:
    """Return the smooth L1 loss of the landmarks, weighted by the peaks above 0.3."""
    weights = peaks * (peaks > 0.3)
    errors = F.smooth_l1_loss(offsets, wanted, reduction="none", beta=0.05).mean(dim=(-1, -2))
    return (weights * errors).sum() / weights.sum().clamp(min=1)


class Composites(IterableDataset):
    """An endless data set of training targets."""

    def __init__(self, composer: Composer) -> None:
        self.composer = composer

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        while True:
            yield to_targets(self.composer.draw((SIDE, SIDE)))


def train(network: FaceNet, pictures: DataLoader, minutes: float, peak_rate: float, output: Path) -> int:
    """Train for the given minutes, write the averaged weights, and return the number of steps."""
    network = network.to(memory_format=torch.channels_last).train()
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-8, weight_decay=1e-2)
    started = written = time.monotonic()
    sums = np.zeros(2)
    for step, (peaks, offsets, pixels) in enumerate(pictures):
        done = (time.monotonic() - started) / (60 * minutes)
        if done >= 1:
            break
        rate = peak_rate * min(1, (step + 1) / 100) * (1 + math.cos(math.pi * done)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            maps: FaceMaps = network(pixels.contiguous(memory_format=torch.channels_last))
        losses = focal_loss(maps.logits.float(), peaks), landmark_loss(maps.offsets.float(), offsets, peaks)
        optimizer.zero_grad()
        (losses[0] + LANDMARK_WEIGHT * losses[1]).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(network)
        sums += [float(loss.detach()) for loss in losses]
        if step % 100 == 99:
            print(f"step {step + 1} at {done:.1%}: face {sums[0] / 100:.4f} landmarks {sums[1] / 100:.4f}", flush=True)
            sums[:] = 0
        if time.monotonic() - written > 60:
            write(average.module, output)
            written = time.monotonic()
    write(average.module, output)
    return step


def write(network: torch.nn.Module, path: Path) -> None:
    """Write the weights in float16, atomically."""
    part = path.with_suffix(".part")
    weights = network.state_dict().items()
    save_file(
        {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in weights}, part
    )
    part.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--rate", type=float, default=3e-3, help="peak learning rate (default 0.003)")
    parser.add_argument("--init", type=Path, help="weights to continue from")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    torch.manual_seed(arguments.seed)
    network = FaceNet()
    if arguments.init:
        network.load_state_dict(load_file(arguments.init), strict=False)
    composer = Composer(
        load_faces(arguments.faces, 160),
        load_scenes(arguments.scenes, held_out=False),
        CONFIG,
        np.random.default_rng(arguments.seed),
    )
    steps = train(network, DataLoader(Composites(composer), BATCH), arguments.minutes, arguments.rate, arguments.output)
    print(f"{steps} steps of {BATCH} pictures")


if __name__ == "__main__":
    main()
