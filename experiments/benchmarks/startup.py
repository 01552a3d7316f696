"""Measure the start-up time of whole commands relative to ``python -c "import torch"``, in interleaved rounds.

``python experiments/benchmarks/startup.py [--preview PHOTO] [-o FILE]``
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from rounds import write_result

from idm.io.image_writer import write_image
from idm.io.machine import provenance

BASELINE = "import torch"


def commands(folder: Path, photo: Path | None) -> dict[str, list[str]]:
    """Return the arguments of ``python`` by the name of the command; the aligned face has 128 px."""
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    write_image(folder / "face.png", np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], ramp[None]), axis=-1))
    output = ["-o", str(folder / "out")]
    found = {
        BASELINE: ["-c", "import torch"],
        "idm --help": ["-m", "idm", "--help"],
        "idm restore --aligned": ["-m", "idm", "restore", "--aligned", str(folder / "face.png"), *output],
        "from idm import IDMPipeline": ["-c", "from idm import IDMPipeline"],
    }
    if photo is not None:
        found["idm restore --preview"] = ["-m", "idm", "restore", "--preview", str(photo), *output]
    return found


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Return (wall, processor) seconds of one command."""
    begin, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, os.times()
    return wall, after.children_user - before.children_user + after.children_system - before.children_system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds after one warm-up round (default 5)")
    parser.add_argument("--preview", type=Path, metavar="PHOTO", help="also time the preview of this photograph")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        todo = commands(Path(folder), arguments.preview)
        rounds = [{name: seconds(command) for name, command in todo.items()} for _ in range(arguments.rounds + 1)][1:]
    rows = []
    for name in todo:
        wall, processor = (median(turn[name][kind] for turn in rounds) for kind in (0, 1))
        ratio = median(turn[name][1] / turn[BASELINE][1] for turn in rounds)
        rows.append({"command": name, "wall_seconds": wall, "processor_seconds": processor, "ratio": ratio})
        print(f"{name:28} {wall:6.2f} s, of the processor {processor:6.2f} s: {ratio:.2f} x {BASELINE}")
    if arguments.output:
        write_result(arguments.output, {"rounds": arguments.rounds, "rows": rows, **provenance()})


if __name__ == "__main__":
    main()
