"""Clean the set that round 0 cleaned once more with the same model, to see whether cleaning has a fixed point.

``python experiments/extrinsic/fixed_point.py --experiment FOLDER -o OUT [--num-images 1000]`` takes seed 0 of
``run.py``'s experiment and writes ``OUT/fixed_point.json``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from run import BASE

from idm.extrinsic.manifest import read_manifest, summarise_entries
from idm.io.atomic import write_json
from idm.io.machine import provenance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", type=Path, required=True, help="output folder of run.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--num-images", type=int, default=1000)
    arguments = parser.parse_args()
    rounds, again = arguments.experiment / "seed_0" / BASE, arguments.output / "cleaned_again"
    files = rounds / "clean_0" / "data" / "*.parquet"
    source = f'{{name: huggingface, path: parquet, data_files: "{files}", landmarks_column: landmarks, id_column: id}}'
    command = [sys.executable, "-m", "idm", "clean", f"--model={rounds / 'round_0'}", f"--data={source}"]
    count = f"--num-images={arguments.num_images}"
    chain = ["sampler.name=ddim", "sampler.num_steps=1"]  # as configs/extrinsic64.yaml
    subprocess.run([*command, count, f"--output={again}", *chain], check=True)
    summaries = {
        "first": summarise_entries(read_manifest(rounds / "clean_0")),
        "second": summarise_entries(read_manifest(again)),
    }
    write_json(arguments.output / "fixed_point.json", {**summaries, **provenance()})


if __name__ == "__main__":
    main()
