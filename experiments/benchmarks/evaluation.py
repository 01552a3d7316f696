"""Measure the speed of PSNR, SSIM and identity on pairs of 256 px, compared with decoding alone and with pyiqa.

Seconds are processor time on one thread, so that other programs do not count. pyiqa is called as in its documentation,
with the paths of two files; it has no identity metric. The identity network has random weights, which have the same
cost. The engine measures two faces against one original, as `idm evaluate` does with the degraded and the restored
face, and embeds each image once; a second run finds the embeddings on the disk.

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
from idm.evaluation.cache import KnownValues, MetricCache
from idm.evaluation.engine import Scores, score
from idm.evaluation.identity import build_identity
from idm.evaluation.metric import FaceEmbeddings, MetricNetworks
from idm.evaluation.metrics import psnr, ssim
from idm.faces.mobilefacenet import MobileFaceNet, fold_norms
from idm.faces.recognition import IdentityNet
from idm.io.image_writer import write_image
from idm.io.images import read_image
from idm.io.machine import keep_freed_memory, provenance
from idm.io.ranges import from_uint8

SIZE = 256
OURS, THEIRS = "psnr, ssim, identity", "pyiqa psnr, ssimc"
ENGINE, AGAIN = "engine: psnr, ssim, identity", "engine, second run"
NUM_PAIRS = {ENGINE: 2, AGAIN: 2}  # measured by one call, where this is not one
Files = tuple[Path, Path, Path]  # degraded, restored, original


def write_faces(folder: Path, number: int) -> list[Files]:
    """Write procedural faces and two noisy copies of each as PNG files."""
    rng = np.random.default_rng(0)
    faces = []
    for i in range(number):
        face = synthetic_face(0, i, SIZE).image
        noisy = [np.clip(face + rng.normal(0, sigma, face.shape), 0, 255).astype(np.uint8) for sigma in (16, 8)]
        faces.append((folder / f"{i}_degraded.png", folder / f"{i}_restored.png", folder / f"{i}_hq.png"))
        for path, image in zip(faces[-1], (*noisy, face), strict=True):
            write_image(path, image)
    return faces


def decode(files: Files) -> list[np.ndarray]:
    return [from_uint8(read_image(path).rgb) for path in files[1:]]


def variants(cache: MetricCache) -> dict[str, Callable[[Files], object]]:
    """Return the functions to time by name; each takes the files of one face."""
    import pyiqa

    mobilefacenet = MobileFaceNet().eval().requires_grad_(False)
    fold_norms(mobilefacenet)
    network = IdentityNet(mobilefacenet.to(memory_format=torch.channels_last))
    theirs = [pyiqa.create_metric(name, device="cpu") for name in ("psnr", "ssimc")]

    def pixels(files: Files) -> tuple[float, float]:
        restored, hq = decode(files)
        return psnr(restored, hq), ssim(restored, hq)

    def identity(files: Files) -> list[np.ndarray]:
        faces = FaceEmbeddings(network)
        return [faces(image) for image in decode(files)]

    def everything(files: Files) -> tuple[float, float, list[np.ndarray]]:
        restored, hq = decode(files)
        faces = FaceEmbeddings(network)
        return psnr(restored, hq), ssim(restored, hq), [faces(restored), faces(hq)]

    def engine(files: Files, known: KnownValues) -> list[Scores]:
        networks = MetricNetworks()
        networks.faces = FaceEmbeddings(network, known)
        metrics = {"psnr": psnr, "ssim": ssim, "identity": build_identity(networks)}
        *images, hq = (read_image(path).rgb for path in files)
        return [score(image, hq, metrics) for image in images]

    return {
        "decoding": decode,
        "psnr, ssim": pixels,
        "identity": identity,
        OURS: everything,
        ENGINE: lambda files: engine(files, KnownValues()),
        AGAIN: lambda files: engine(files, KnownValues("random weights", cache)),
        THEIRS: lambda files: [float(metric(*map(str, files[1:]))) for metric in theirs],
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
        faces = write_faces(Path(folder), arguments.num_pairs)
        works = list(variants(MetricCache(Path(folder) / "metrics.sqlite")).items())
        for number in range(arguments.rounds + 1):
            for name, work in works[:: -1 if number % 2 else 1]:
                begin = time.process_time()
                for files in faces:
                    work(files)
                if number:  # the first round warms up
                    num_pairs = len(faces) * NUM_PAIRS.get(name, 1)
                    seconds.setdefault(name, []).append((time.process_time() - begin) / num_pairs)
    for name, values in seconds.items():
        print(f"{name:30} {1e3 * median(values):7.2f} ms a pair, {1 / median(values):7.1f} pairs/s")
    ratio = {name: speedup(seconds[THEIRS], seconds[name]) for name in ("psnr, ssim", OURS, ENGINE, AGAIN)}
    for name, value in ratio.items():
        print(f"{name}: {value['median']:.1f} times as fast as {THEIRS} ({value['min']:.1f} to {value['max']:.1f})")
    if arguments.output is not None:
        result = {"pixels": SIZE, "num_pairs": arguments.num_pairs, "rounds": arguments.rounds, "load_average": load}
        result |= {"seconds_per_pair": {name: median(values) for name, values in seconds.items()}, "speedup": ratio}
        write_result(arguments.output, {**result, **provenance()})


if __name__ == "__main__":
    main()
