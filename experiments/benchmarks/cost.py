"""Measure the cost of restorers: parameters, floating-point operations, seconds and memory for one face of their size.

``python experiments/benchmarks/cost.py [NAME ...] [--rounds N] [-o FILE]``

Restorers are named as for ``idm compare``: idm@1, gfpgan, or a label with a path. Each restorer runs on one thread in
its own process, in the precision that the commands use, and the processes take turns. Seconds are processor time. If
the weights of GFP-GAN are missing, it is measured with random weights, which have the same cost. Other restorers
without weights are gaps with the command that fetches the weights.
"""

import argparse
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rounds import Turn, start, take_turns, write_result
from table import cost_table
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.restorer import GFPGANRestorer
from idm.apps.cli.model import load_labelled
from idm.io.machine import inference_dtype, keep_freed_memory, provenance, share_cores
from idm.io.weights import find_weights
from idm.restorers.load import Loaded
from idm.restorers.names import PUBLISHED
from idm.restorers.protocol import Restorer

NAMES = ("idm@1", "idm@2", "small=idm-faces-128@1", *PUBLISHED)
CPU = torch.device("cpu")


def load(name: str) -> Loaded:
    """Load a restorer on the CPU.

    Raises:
        FileNotFoundError: its weights are missing.
    """
    dtype = inference_dtype(CPU)
    try:
        [loaded] = load_labelled([name], (CPU, dtype)).values()
    except FileNotFoundError:
        if name != "gfpgan":
            raise
        torch.manual_seed(0)
        network = GFPGAN(512).eval().requires_grad_(False)
        number = sum(parameter.numel() for parameter in network.parameters())
        metadata = {"name": "GFP-GAN, random weights", "image_size": 512, "parameters": number}
        return Loaded(GFPGANRestorer(network.to(dtype)), metadata)
    return loaded


def restore(restorer: Restorer) -> None:
    """Restore one face of noise."""
    size = restorer.image_size
    restorer.restore(torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1)), [0])


def gflop(restorer: Restorer) -> float:
    """Count the floating-point operations of restoring one face with the whole chain, in 10^9.

    A multiply-add counts as two operations.
    """
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        restore(restorer)
    return counter.get_total_flops() / 1e9


def prepare(name: str) -> Turn:
    """Load a restorer and warm it up."""
    keep_freed_memory()
    share_cores(1)
    restorer = load(name).restorer
    restore(restorer)

    def turn(request: Any) -> float:
        """Return the processor time of one face in seconds, which excludes the work of other programs."""
        begin = time.process_time()
        restore(restorer)
        return time.process_time() - begin

    return turn


def measure(names: list[str], num_rounds: int) -> list[dict[str, Any]]:
    """Return a row for each restorer. If its weights are missing, "missing" holds the command that fetches them."""
    rows: dict[str, dict[str, Any]] = {name: {"label": name.partition("=")[0]} for name in names}
    for name in PUBLISHED.keys() & rows.keys() - {"gfpgan"}:
        try:
            find_weights(PUBLISHED[name])
        except FileNotFoundError:
            rows[name]["missing"] = f"idm weights fetch {PUBLISHED[name]}"
    found = [name for name, row in rows.items() if "missing" not in row]
    with ExitStack() as stack:
        workers = start(stack, {name: partial(prepare, name) for name in found})
        seconds = take_turns(workers, "face", num_rounds)
        for name in found:
            rows[name]["all_seconds_per_face"] = seconds[name]
            rows[name]["seconds_per_face"] = median(seconds[name])
            rows[name]["peak_memory_mb"] = workers[name].peak_memory()
    for name in found:  # last, because a worker's peak memory starts at this process's peak so far
        loaded = load(name)
        rows[name] |= {**loaded.metadata, "gflop_per_face": gflop(loaded.restorer)}
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=NAMES, help=f"default: {' '.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    share_cores(1)
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    rows = measure(list(arguments.names), arguments.rounds)
    precision = str(inference_dtype(CPU)).removeprefix("torch.")
    result = {"rounds": arguments.rounds, "load_average": load_average, "precision": precision, "rows": rows}
    print(cost_table(result))
    if arguments.output:
        write_result(arguments.output, {**result, **provenance()})


if __name__ == "__main__":
    main()
