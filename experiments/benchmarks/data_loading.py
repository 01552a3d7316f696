"""Measure the training pairs per second from a folder of JPEG files, and the rate at which training consumes them.

``IDM_ASSETS=... python experiments/benchmarks/data_loading.py [--faces N] [-o FILE]``; without IDM_ASSETS the
script first fills a folder with synthetic faces.
"""

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from networks import FACES64, FACES128, Case
from rounds import start, take_turns, write_result
from table import data_loading_table
from training import BATCH_SIZE, prepare_ours

from idm.config.assembly.data import build_recipe
from idm.data.cache import Cached
from idm.data.pairs import Pairing, Partition, training_batches
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.data.synthetic import synthetic_face
from idm.io.image_writer import write_image
from idm.io.machine import keep_freed_memory, provenance, share_cores

FILE_SIZE = 256  # side of the JPEG files in pixels
FACES256 = replace(
    FACES128, name="faces256", overrides=("data.image_size=256", "denoiser.patch_size=4")
)  # the network of faces128 on larger patches, which is not a shipped configuration


def write_faces(folder: Path, num_faces: int) -> None:
    """Write synthetic faces as JPEG files."""
    for index in range(num_faces):
        write_image(folder / f"{index:06d}.jpg", synthetic_face(0, index, FILE_SIZE).image)


def loading_rates(case: Case, folder: Path, num_faces: int, num_workers: int) -> dict[str, Any]:
    """Return the pairs per second of the first epoch, which decodes the files, and of the second, which reads the
    cache."""
    config = case.load()
    source = Cached(Part(FolderFaces(folder, config.data.image_size), range(num_faces)))
    pairing = Pairing(build_recipe(config.degradation), config.seed, config.data.flip_probability)
    num_batches = num_faces // BATCH_SIZE
    partition = Partition(BATCH_SIZE)
    batches = training_batches(source, pairing, partition, first=0, num_workers=num_workers, pin=False)
    next(batches)  # start the worker
    rates = {}
    for name, count in (("cold", num_batches - 1), ("warm", num_batches)):
        begin = time.perf_counter()
        for _ in range(count):
            next(batches)
        rates[name] = count * BATCH_SIZE / (time.perf_counter() - begin)
    return {"num_workers": num_workers, "images_per_second": rates}


def training_rate(case: Case) -> float:
    """Return the images per second of the training step alone, without data loading."""
    with ExitStack() as stack:
        workers = start(stack, {"idm": partial(prepare_ours, case)})
        take_turns(workers, 2, 1)  # warm up
        seconds = take_turns(workers, 3, 3)
    return BATCH_SIZE / median(seconds["idm"])


def measure(case: Case, folder: Path, num_faces: int) -> dict[str, Any]:
    """Measure one image size."""
    return {
        "image_size": case.load().data.image_size,
        "training_images_per_second": training_rate(case),
        "loading": [loading_rates(case, folder, num_faces, num_workers) for num_workers in (0, 1)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=256, help="faces per epoch, a multiple of the batch size")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    if arguments.faces < 2 * BATCH_SIZE or arguments.faces % BATCH_SIZE:
        parser.error(f"--faces must be a multiple of {BATCH_SIZE} and at least {2 * BATCH_SIZE}")
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    keep_freed_memory()
    share_cores(1)
    with tempfile.TemporaryDirectory() as temporary:
        real = bool(os.environ.get("IDM_ASSETS"))
        folder = assets_folder() / "faces256" / "train" if real else Path(temporary)
        if not real:
            write_faces(folder, arguments.faces)
        rows = [measure(case, folder, arguments.faces) for case in (FACES64, FACES128, FACES256)]
    result = {
        "batch_size": BATCH_SIZE,
        "num_faces": arguments.faces,
        "faces": "photographs" if real else "synthetic",
        "load_average": load_average,
        "sizes": rows,
        **provenance(),
    }
    print(data_loading_table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
