"""Compare how OpenMP threads wait for one another, alone and beside other busy processes.

If another process occupies a core, a thread that spins at a barrier takes a core from the thread for which it waits.
Runs of the training command take turns: with OpenMP's own default, with threads that sleep at once or after some spins
(a thousand is the default of our commands), with one thread fewer than cores, and with low priority. The script needs
at least two cores and uses all that are available.

``python experiments/benchmarks/waiting.py [--config FILE] [--rounds N] [-o FILE] [section.key=value ...]``
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from command import REPOSITORY, throughput
from rounds import speedup, write_result

from idm.io.machine import num_usable_cores, provenance


@dataclass(frozen=True)
class Variant:
    """How a run is started: environment variables for OpenMP, and a function to call before."""

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None


def leave_one_core() -> None:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[1:])


def give_way() -> None:
    os.nice(10)


AS_IT_IS = Variant("GOMP_SPINCOUNT=300000, the default", {"GOMP_SPINCOUNT": "300000"})
VARIANTS = (
    AS_IT_IS,
    Variant("OMP_WAIT_POLICY=passive", {"OMP_WAIT_POLICY": "passive"}),
    *(Variant(f"GOMP_SPINCOUNT={count}", {"GOMP_SPINCOUNT": str(count)}) for count in (1_000, 10_000, 100_000)),
    Variant("one thread fewer", AS_IT_IS.environment, leave_one_core),
    Variant("nice 10", AS_IT_IS.environment, give_way),
)


@contextmanager
def busy(number: int) -> Iterator[None]:
    """Run processes that only keep a core busy."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(number)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def compare(others: int, config: str, overrides: list[str], num_rounds: int) -> dict[str, Any]:
    """Measure all variants beside ``others`` busy processes; ratios are relative to the default run of each round."""
    rates: dict[str, list[float]] = {variant.name: [] for variant in VARIANTS}
    with busy(others):
        for number in range(num_rounds):
            for variant in VARIANTS[:: -1 if number % 2 else 1]:
                rate = throughput(REPOSITORY, config, overrides, variant.environment, variant.before)
                rates[variant.name].append(rate)
                print(f"{others} busy, round {number + 1}, {variant.name}: {rate:.2f} images/s", flush=True)
    plain = rates[AS_IT_IS.name]
    return {
        "busy_processes": others,
        "variants": [
            {"name": name, "images_per_second": median(each), "all": each, "ratio": speedup(each, plain)}
            for name, each in rates.items()
        ],
    }


def table(result: dict[str, Any]) -> str:
    """Format the result as Markdown: images per second, and the ratio to the default run with its range."""
    lines = ["| busy processes | setting | images/s | ratio (least to greatest) |", "|---|---|---|---|"]
    for condition in result["conditions"]:
        for row in condition["variants"]:
            ratio = row["ratio"]
            lines.append(
                f"| {condition['busy_processes']} | {row['name']} | {row['images_per_second']:.2f} "
                f"| {ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f}) |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/faces64.yaml", help="configuration (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of one run per variant (default %(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of all runs")
    arguments = parser.parse_intermixed_args()
    cores = num_usable_cores()
    if cores < 2:
        parser.error("only one core is available, so that no thread waits for another; two or more are needed")
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    conditions = [compare(n, arguments.config, arguments.overrides, arguments.rounds) for n in (0, cores)]
    result = {
        "config": arguments.config,
        "overrides": arguments.overrides,
        "cores": cores,
        "load_average": load_average,
        "conditions": conditions,
        **provenance(),
    }
    print(table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
