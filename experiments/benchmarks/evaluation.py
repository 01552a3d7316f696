"""Measure the speed of PSNR, SSIM and identity on pairs of 256 px, compared with decoding alone and with pyiqa.

Seconds are processor time on one thread, so that other programs do not count. pyiqa is called as in its documentation,
with the paths of two files; it has no identity metric. The identity network has random weights, which have the same
cost.

``python experiments/benchmarks/evaluation.py [--rounds N] [--num-pairs N] [-o FILE]``
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from rounds import speedup, write_result

from idm.data.synthetic import synthetic_face
from idm.evaluation.metric import FaceEmbeddings
from idm.evaluation.metrics import psnr, ssim
from idm.faces.mobilefacenet import MobileFaceNet, fold_norms
from idm.faces.recognition import IdentityNet
from idm.io.images import read_image, write_image
from idm.io.machine import keep_freed_memory, provenance
from idm.io.ranges import from_uint8

SIZE = 256
OURS, THEIRS = "psnr, ssim, identity", "pyiqa psnr, ssimc"
Pair = tuple[Path, Path]


def write_pairs(folder: Path, number: int) -> list[Pair]:
    """Write procedural faces and a noisy copy of each as PNG files."""
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(number):
        face = synthetic_face(0, i, SIZE).image
        noisy = np.clip(face + rng.normal(0, 8, face.shape), 0, 255).astype(np.uint8)
        pairs.append((folder / f"{i}_restored.png", folder / f"{i}_hq.png"))
        for path, image in zip(pairs[-1], (noisy, face), strict=True):
            write_image(path, image)
    return pairs


def decode(pair: Pair) -> list[np.ndarray]:
    return [from_uint8(read_image(path).rgb) for path in pair]


def variants() -> dict[str, Callable[[Pair], object]]:
    """Return the functions to time by name; each takes a pair of files."""
    import pyiqa

    mobilefacenet = MobileFaceNet().eval().requires_grad_(False)
    fold_norms(mobilefacenet)
    network = IdentityNet(mobilefacenet.to(memory_format=torch.channels_last))
    theirs = [pyiqa.create_metric(name, device="cpu") for name in ("psnr", "ssimc")]

    def pixels(pair: Pair) -> tuple[float, float]:
        restored, hq = decode(pair)
        return psnr(restored, hq), ssim(restored, hq)

    def identity(pair: Pair) -> list[np.ndarray]:
        faces = FaceEmbeddings(network)
        return [faces(image) for image in decode(pair)]

    def everything(pair: Pair) -> tuple[float, float, list[np.ndarray]]:
        restored, hq = decode(pair)
        faces = FaceEmbeddings(network)
        return psnr(restored, hq), ssim(restored, hq), [faces(restored), faces(hq)]

    return {
        "decoding": decode,
        "psnr, ssim": pixels,
        "identity": identity,
        OURS: everything,
        THEIRS: lambda pair: [float(metric(*map(str, pair))) for metric in theirs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-pairs", type=int, default=40)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    keep_freed_memory()
    torch.set_num_threads(1)
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs, works = write_pairs(Path(folder), arguments.num_pairs), list(variants().items())
        for number in range(arguments.rounds + 1):
            for name, work in works[:: -1 if number % 2 else 1]:
                begin = time.process_time()
                for pair in pairs:
                    work(pair)
                if number:  # the first round warms up
                    seconds.setdefault(name, []).append((time.process_time() - begin) / len(pairs))
    for name, values in seconds.items():
        print(f"{name:20} {1e3 * median(values):7.2f} ms a pair, {1 / median(values):7.1f} pairs/s")
    ratio = {name: speedup(seconds[THEIRS], seconds[name]) for name in ("psnr, ssim", OURS)}
    for name, value in ratio.items():
        print(f"{name}: {value['median']:.1f} times as fast as {THEIRS} ({value['min']:.1f} to {value['max']:.1f})")
    if arguments.output is not None:
        result = {"pixels": SIZE, "num_pairs": arguments.num_pairs, "rounds": arguments.rounds, "load_average": load}
        result |= {"seconds_per_pair": {name: median(values) for name, values in seconds.items()}, "speedup": ratio}
        write_result(arguments.output, {**result, **provenance()})


if __name__ == "__main__":
    main()
