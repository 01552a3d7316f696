"""Run ablations: ``python experiments/ablations/run.py [NAME ...] -o FOLDER [--budget MINUTES] [--index I]``.

Without names, all ablations run. The same command resumes: training continues from its checkpoint, and existing results
are kept. The script writes a JSON file to ``FOLDER/results`` for each seed of each arm and test. ``table.py FOLDER``
makes the table and the plot. ``--list`` prints the training runs with their numbers; a job array runs one ``--index``
per job.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

from jobs import BASE, Job, ablations, jobs

from idm.apps.cli.main import build_parser
from idm.apps.cli.main import run as run_idm
from idm.config.assembly.intrinsic import build_intrinsic
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.io.atomic import write_json
from idm.io.machine import quieten_libraries

METRICS = "psnr,ssim,sharpness,identity"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="ablations, named as their files (default all)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="MINUTES",
        help="core-minutes per training, which scale the width of the network and the steps (default about 6)",
    )
    parser.add_argument("--index", type=int, metavar="I", help="run only training run number I, counted from 0")
    parser.add_argument("--list", action="store_true", help="print the training runs and stop")
    parser.add_argument("--data", default="assets:val", help="faces to test on, as for idm evaluate")
    parser.add_argument("--num-images", type=int, help="number of faces to test on (default all)")
    parser.add_argument("--metrics", default=METRICS, help=f"metrics, as for idm evaluate (default {METRICS})")
    parser.add_argument("--set", nargs="*", default=[], metavar="key=value", help="settings of every training run")
    arguments = parser.parse_args()
    if arguments.budget is not None and arguments.budget <= 0:
        parser.error(f"--budget must be above 0, got {arguments.budget:g}")
    try:
        todo = jobs(ablations(arguments.names), arguments.budget, arguments.set)
    except ValueError as error:
        parser.error(str(error))
    if arguments.list:
        for number, job in enumerate(todo):
            size = f"{job.num_steps} steps, channels {list(job.channels)}"
            print(f"{number:3} {job.key} {size}, {len(job.measured)} tests: {' '.join(job.overrides)}")
        return
    if arguments.index is not None and not 0 <= arguments.index < len(todo):
        parser.error(f"--index must be in 0..{len(todo) - 1}, got {arguments.index}")
    quieten_libraries()
    for job in todo if arguments.index is None else [todo[arguments.index]]:
        run(job, arguments)


def run(job: Job, arguments: argparse.Namespace) -> None:
    """Train unless the run is complete, then run all of its tests that have no result yet."""
    results = {
        entry: arguments.output / "results" / f"{job.key}_{number:02d}.json" for number, entry in enumerate_tests(job)
    }
    if all(path.exists() for path in results.values()):
        return
    folder = arguments.output / "runs" / job.key
    build_intrinsic(load_config(BASE, IDMConfig, [f"output_dir={folder}", *job.overrides])).fit()
    for (ablation, arm, test, options), path in results.items():
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        measured = evaluate(folder, list(options), arguments)
        metadata = {"ablation": ablation, "arm": arm, "test": test, "seed": job.seed, "config": job.key}
        training = json.loads((folder / "metrics.json").read_text())
        metadata |= {
            "steps": job.num_steps,
            "channels": list(job.channels),
            "budget": arguments.budget,
            "settings": arguments.set,
        }
        metadata |= {name: training[name] for name in ("training_seconds", "training_processor_seconds")}
        write_json(path, {**metadata, **measured})


def enumerate_tests(job: Job) -> list[tuple[int, tuple[str, str, str, tuple[str, ...]]]]:
    """Number the tests of a job, independently of the other selected ablations."""
    entries = [(ablation, arm, test, tuple(options)) for ablation, arm, test, options in job.measured]
    names = [ablation.name for ablation in ablations()]
    counts: dict[str, int] = {}
    numbered = []
    for entry in entries:
        place = counts.get(entry[0], 0)
        counts[entry[0]] = place + 1
        numbered.append((100 * names.index(entry[0]) + place, entry))
    return numbered


def evaluate(folder: Path, options: list[str], arguments: argparse.Namespace) -> dict[str, object]:
    """Run ``idm evaluate`` on a training run and return its result with the scores of each face."""
    output = folder / "evaluation"
    command = ["evaluate", f"--model={folder}", f"--data={arguments.data}", f"--metrics={arguments.metrics}"]
    number = [] if arguments.num_images is None else [f"--num-images={arguments.num_images}"]
    if run_idm(build_parser().parse_args([*command, *number, *options, "-o", str(output)])) != 0:
        sys.exit(1)  # idm evaluate has printed the message
    result = json.loads((output / "metrics.json").read_text())
    with (output / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(result["metrics"])
    kept = (
        "num_images",
        "metrics",
        "missing",
        "protocol",
        "interval",
        "data",
        "preset",
        "commit",
        "machine",
        "versions",
    )
    scores = {name: [round(float(row[f"{name}_restored"]), 5) for row in rows] for name in names}
    return {**{name: result[name] for name in kept}, "scores": scores}


if __name__ == "__main__":
    main()
