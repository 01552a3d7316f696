"""Measure the bookkeeping of a cleaning job of FFHQ's size on 64 processes, without networks.

Faces are small noise images and the restorer changes them slightly, so only reading, judging, storing, the distribution
of shards and the assembly of the manifest are measured. This process works through the shares of all processes in turn,
in the order in which :func:`idm.extrinsic.job.run_job` assigns them. One of them is stopped in the middle of its share
and restarted.

``python experiments/benchmarks/many_shards.py [--faces N] [--processes N] [-o FILE]``
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rounds import write_result
from torch import Tensor

from idm.data.sources import Face
from idm.extrinsic.clean import Cleaning, CleanSettings
from idm.extrinsic.gate import Gate
from idm.extrinsic.job import share
from idm.extrinsic.manifest import read_manifest, write_manifest
from idm.extrinsic.shards import cleaned_faces
from idm.io.machine import keep_freed_memory, provenance

SIZE = 32
SEED = 0


class Noise:
    """A source of noise images; each depends only on its index."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Face:
        pixels = np.random.default_rng([SEED, index]).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        return Face(pixels, None, f"{index:08d}")


class Smoother:
    """A restorer that returns the mean of an image and of the same image shifted by a pixel."""

    image_size = SIZE

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        return (lq + lq.roll(1, dims=-1)) / 2


class Stopped(Exception):
    """A process was killed."""


def stop_after(num_faces: int) -> Any:
    done = 0

    def on_batch(number: int) -> None:
        nonlocal done
        done += number
        if done > num_faces:
            raise Stopped

    return on_batch


def measure(num_faces: int, num_processes: int, output: Path) -> dict[str, Any]:
    """Return the seconds for each part of the job, and the sizes of its results."""

    def job() -> Cleaning:
        gate = Gate(min_identity=None)
        metadata = {"source": {"name": "noise"}, "model": None}
        return Cleaning(
            Noise(num_faces), Smoother(), output, settings=CleanSettings(), gate=gate, identity=None, metadata=metadata
        )

    begun = time.perf_counter()
    main = job()
    main.claim()
    todo = main.todo()
    claimed = time.perf_counter()
    shares = [share(todo, rank, num_processes) for rank in range(num_processes)]
    try:
        job().run(shares[0], stop_after(main.settings.shard_size))
    except Stopped:
        shares[0] = [number for number in job().todo() if number in shares[0]]
    seconds = []
    for shards in shares:
        start = time.perf_counter()
        job().run(shards, lambda number: None)
        seconds.append(time.perf_counter() - start)
    cleaned = time.perf_counter()
    summary = write_manifest(output, main.paths, main.metadata)
    finished = time.perf_counter()
    claim_again = time.perf_counter()
    again = job()
    again.claim()
    again.verify()  # all shards, byte by byte
    checked = time.perf_counter()
    assert [entry.index for entry in read_manifest(output)] == list(range(num_faces))
    assert len(cleaned_faces(output, SIZE)) == num_faces
    return {
        "num_shards": len(main.paths),
        "shards_of_a_process": [min(map(len, shares)), max(map(len, shares))],
        "seconds": {
            "claim": claimed - begun,
            "all_processes_together": cleaned - claimed,
            "slowest_process": max(seconds),
            "manifest": finished - cleaned,
            "check_of_a_finished_job": checked - claim_again,
        },
        "accepted": summary["accepted"],
        "duplicates": summary["duplicates"],
        "bytes": sum(path.stat().st_size for path in output.rglob("*") if path.is_file()),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=int, default=70_000)
    parser.add_argument("--processes", type=int, default=64)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        row = measure(arguments.faces, arguments.processes, Path(folder))
    result = {"num_faces": arguments.faces, "num_processes": arguments.processes, "pixels": SIZE, **row, **provenance()}
    print(json.dumps(result, indent=1))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
