"""Measure the overhead of cleaning: reading, judging and storing, relative to sampling with the same model and chain.

Seconds are processor time on one thread, which includes work in parallel to sampling and excludes other programs.

``python experiments/benchmarks/cleaning.py [--rounds N] [--num-faces N] [-o FILE]``; faces and the weights of the
identity network come from IDM_ASSETS.
"""

import argparse
import os
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from networks import FACES64, FACES128, Case
from rounds import Turn, start, take_turns, write_result

from idm.config.assembly.intrinsic import build_denoiser, build_idm
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.extrinsic.clean import Cleaning, CleanSettings
from idm.extrinsic.gate import Gate
from idm.faces.recognition import load_identity
from idm.io.machine import inference_dtype, keep_freed_memory, provenance, share_cores
from idm.io.ranges import from_uint8, hwc_to_chw
from idm.restorers.idm import IDM

BATCH_SIZE = 16
SAMPLING, CLEANING = "sampling", "cleaning"


def prepare(case: Case) -> tuple[IDM, FolderFaces]:
    """Build the model of a case with random weights, and open faces of its size."""
    keep_freed_memory()
    share_cores(1)
    config = case.load()
    denoiser = build_denoiser(config).eval().requires_grad_(False).type(inference_dtype(torch.device("cpu")))
    return build_idm(config, denoiser), FolderFaces(assets_folder() / "faces256" / "val", config.data.image_size)


def prepare_sampling(case: Case, num_faces: int) -> Turn:
    """Prepare the restoration alone, of faces in memory."""
    idm, faces = prepare(case)
    x_d = torch.stack([hwc_to_chw(from_uint8(faces[i].image)) for i in range(num_faces)])

    def turn(num_steps: int) -> float:
        idm.chain = idm.chain.changed(num_steps=num_steps)
        begin = time.process_time()
        for first in range(0, num_faces, BATCH_SIZE):
            batch = x_d[first : first + BATCH_SIZE]
            idm.restore(batch, range(len(batch)))
        return (time.process_time() - begin) / num_faces

    return turn


def prepare_cleaning(case: Case, num_faces: int) -> Turn:
    """Prepare a whole job, from JPEG files to a parquet shard."""
    idm, faces = prepare(case)
    identity = load_identity(mirrored=False, dtype=idm.denoiser.dtype)  # as in idm clean

    def turn(num_steps: int) -> float:
        idm.chain = idm.chain.changed(num_steps=num_steps)
        with tempfile.TemporaryDirectory() as folder:
            job = Cleaning(
                Part(faces, range(num_faces)),
                idm,
                Path(folder),
                settings=CleanSettings(batch_size=BATCH_SIZE, shard_size=num_faces),
                gate=Gate(),
                identity=identity,
                metadata={"model": None},
            )
            begin = time.process_time()
            job.claim()
            job.run(job.todo(), lambda number: None)
            return (time.process_time() - begin) / num_faces

    return turn


def compare(case: Case, all_steps: list[int], num_faces: int, num_rounds: int) -> list[dict[str, Any]]:
    """Measure one case with each number of steps; the overhead is the median over the rounds."""
    rows = []
    with ExitStack() as stack:
        makers = {SAMPLING: prepare_sampling, CLEANING: prepare_cleaning}
        workers = start(stack, {name: partial(make, case, num_faces) for name, make in makers.items()})
        take_turns(workers, 1, 1)  # warm up
        for num_steps in all_steps:
            seconds = take_turns(workers, num_steps, num_rounds)
            overheads = [c / s - 1 for s, c in zip(seconds[SAMPLING], seconds[CLEANING], strict=True)]
            rows.append(
                {
                    "case": case.name,
                    "pixels": case.load().data.image_size,
                    "num_steps": num_steps,
                    "seconds_per_face": {name: median(values) for name, values in seconds.items()},
                    "overhead": {"median": median(overheads), "min": min(overheads), "max": max(overheads)},
                    "all_seconds_per_face": seconds,
                }
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--num-faces", type=int, default=64)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    share_cores(1)
    rows = [
        row
        for case, all_steps in ((FACES64, [1, 4, 10]), (FACES128, [1, 10]))
        for row in compare(case, all_steps, arguments.num_faces, arguments.rounds)
    ]
    metadata = {"num_faces": arguments.num_faces, "rounds": arguments.rounds, "load_average": load}
    result = {**metadata, "batch_size": BATCH_SIZE, "cases": rows, **provenance()}
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
