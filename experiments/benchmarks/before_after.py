"""Compare the training speed of the working tree with that of a commit, in alternating runs of the training command.

``python experiments/benchmarks/before_after.py COMMIT [--config FILE] [--rounds N] [-o FILE] [section.key=value ...]``
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path
from statistics import median

from command import REPOSITORY, throughput
from rounds import speedup, write_result

from idm.io.machine import provenance


def check_out(commit: str, folder: Path) -> None:
    """Extract the files of a commit into a folder."""
    archive = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, capture_output=True, check=True)
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commit", help="commit to compare with")
    parser.add_argument("--config", default="configs/faces64.yaml", help="must exist in both (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="rounds of one run each (default %(default)s)")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings of both")
    arguments = parser.parse_intermixed_args()
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    rates: dict[str, list[float]] = {"before": [], "after": []}
    with tempfile.TemporaryDirectory() as folder:
        check_out(arguments.commit, Path(folder))
        code = {"before": Path(folder), "after": REPOSITORY}
        for number in range(arguments.rounds):
            for name in list(code)[:: -1 if number % 2 else 1]:
                rates[name].append(throughput(code[name], arguments.config, arguments.overrides))
                print(f"round {number + 1}, {name}: {rates[name][-1]:.2f} images/s", flush=True)
    ratio = speedup(rates["after"], rates["before"])
    print(f"after / before: {ratio['median']:.3f} ({ratio['min']:.3f} to {ratio['max']:.3f})")
    if arguments.output:
        result = {
            "before": arguments.commit,
            "config": arguments.config,
            "overrides": arguments.overrides,
            "images_per_second": {name: {"median": median(each), "all": each} for name, each in rates.items()},
            "ratio": ratio,
            "load_average": load_average,
            **provenance(),
        }
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
