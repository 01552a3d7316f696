"""Compare IDM and GFP-GAN on equal terms: one command trains both, measures both, and writes the comparison.

``python experiments/equal_terms/run.py -o FOLDER [--size 64] [--minutes 10] [--seeds 0 1 2]``; the same command
resumes.

Both models have the same faces, degradations and feature loss, and train for the same core-minutes of processor time,
which hardly depends on other work on the machine. The script first times a few steps of each model and then fixes their
numbers of steps (``calibration.json``). For each seed, both models are trained and measured on the faces of ``--data``
with the same frozen degradations. The script writes ``comparison.json`` and ``table.md``, with paired differences per
face, to ``FOLDER/results``.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from idm.evaluation.engine import summarise_column
from idm.io.atomic import write_json, write_text
from idm.io.machine import inference_dtype, provenance
from idm.restorers.load import load_restorer

ROOT = Path(__file__).parents[2]
METRICS = ("psnr", "ssim", "sharpness", "identity")
TIMED = (4, 36)
"""First and last timed step of a calibration: two periods of GFP-GAN's R1."""
NUM_CHECKPOINTS = 8
"""Number of evenly spaced checkpoints of a training run; ``critic.py`` measures those of GFP-GAN."""
GFPGAN_SETTINGS = ["losses.perceptual_network=mobilefacenet", "losses.perceptual=0.1", "losses.style=0"]


@dataclass(frozen=True)
class Arm:
    """A restorer to train.

    Attributes:
        command: the training command, without the interpreter.
        folder, config: folder and file name of its configuration; ``{size}`` stands for the side of the faces.
        network: the attribute of its restorer that holds the network.
    """

    command: tuple[str, ...]
    folder: Path
    config: str
    network: str

    def settings(self, num_steps: int) -> list[str]:
        """Return the settings of all runs, GFP-GAN's feature loss (as in IDM's configuration), and the settings that
        depend on the number of steps."""
        every = max(1, num_steps // NUM_CHECKPOINTS)
        common = [f"train.num_steps={num_steps}", "train.log_every=10", "train.trackers=[]"]
        common += [f"validation.every={num_steps}", f"train.checkpoint_every={every}"]
        common += [f"train.keep_checkpoints={NUM_CHECKPOINTS + 1}"]
        if self.network == "denoiser":
            return [*common, f"train.warmup_steps={num_steps // 6}"]
        milestones = [max(1, round(share * num_steps)) for share in (0.65, 0.85)]
        return [*common, *GFPGAN_SETTINGS, f"train.milestones={sorted(set(milestones))}"]


ARMS = {
    "idm": Arm((str(ROOT / "train_idm.py"),), ROOT / "experiments" / "equal_terms", "idm{size}.yaml", "denoiser"),
    "gfpgan": Arm(("-m", "gan_baseline.train"), ROOT / "configs", "gan_faces{size}.yaml", "generator"),
}


def run(*arguments: object) -> None:
    """Run a command of the project in its own process."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True, cwd=ROOT)


def train(arm: Arm, output: Path, size: int, seed: int, num_steps: int, overrides: Sequence[str]) -> None:
    """Train to the end; a finished run is not changed."""
    config = arm.folder / arm.config.format(size=size)
    fixed = [f"output_dir={output}", f"seed={seed}"]
    run(*arm.command, f"--config={config}", *fixed, *arm.settings(num_steps), *overrides)


def log(run_folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_folder / "log.jsonl").read_text().splitlines()]


def core_minutes(run_folder: Path) -> float:
    """Return the processor time of a training run, including stage zero, without validations."""
    folders = [folder for folder in (run_folder, run_folder / "prior") if folder.is_dir()]
    return sum(max(row.get("processor_seconds", 0) for row in log(folder)) for folder in folders) / 60


def calibrate(folder: Path, size: int, minutes: float, overrides: dict[str, list[str]]) -> dict[str, int]:
    """Return the number of steps of each arm that fit into ``minutes`` of one core; it is measured once and saved."""
    kept = folder / "calibration.json"
    if kept.exists():
        found = json.loads(kept.read_text())
        if found["core_minutes"] != minutes:
            sys.exit(f"error: {kept} is for {found['core_minutes']} core-minutes, not {minutes}; choose another folder")
        return dict(found["num_steps"])
    first, last = TIMED
    few = ["train.log_every=1", "validation.num_images=2", "validation.num_shown=2"]
    seconds = {}
    for label, arm in ARMS.items():
        here = folder / "calibration" / label
        train(arm, here, size, 0, last, [*few, *overrides[label]])
        clock = {row["step"]: row["processor_seconds"] for row in log(here) if "processor_seconds" in row}
        seconds[label] = (clock[last] - clock[first]) / (last - first)
    num_steps = {label: int(60 * minutes / each) for label, each in seconds.items()}
    found = {"core_minutes": minutes, "processor_seconds_per_step": seconds, "num_steps": num_steps}
    write_json(kept, found | provenance())
    return num_steps


def cost(arm: Arm, model: Path) -> dict[str, float]:
    """Measure network evaluations and GFLOP per face, processor seconds per face in a batch of 8, and parameters."""
    device = torch.device("cpu")
    restorer = load_restorer(model, device, inference_dtype(device)).restorer
    network: torch.nn.Module = getattr(restorer, arm.network)
    calls: list[None] = []
    hook = network.register_forward_hook(lambda *_: calls.append(None))
    with FlopCounterMode(display=False) as counter:
        restorer.restore(torch.rand(1, 3, restorer.image_size, restorer.image_size), [0])
    hook.remove()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        restorer.restore(torch.rand(8, 3, restorer.image_size, restorer.image_size), range(8))
        seconds.append((time.process_time() - begin) / 8)
    gflop = counter.get_total_flops() / 1e9
    return {"evaluations": len(calls), "gflop": gflop, "processor_seconds": min(seconds), "parameters": parameters}


def scores(folder: Path) -> dict[str, np.ndarray]:
    """Read the columns of a comparison's scores.csv, with one number per face."""
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "name"}


def summarise(folder: Path, seeds: Sequence[int], size: int, data: str) -> dict[str, Any]:
    """Summarise all seeds: means over faces and seeds, and paired differences per face, averaged over the seeds.

    The stated commit is the one at which the models were measured.
    """
    per_seed = [scores(folder / f"seed_{seed}" / "compare") for seed in seeds]
    compared = [json.loads((folder / f"seed_{seed}" / "compare" / "comparison.json").read_text()) for seed in seeds]
    result: dict[str, Any] = {"size": size, "data": data, "seeds": list(seeds), "arms": {}, "differences": {}}
    for label, arm in ARMS.items():
        rows = [next(row for row in each["rows"] if row["label"] == label) for each in compared]
        runs = [folder / f"seed_{seed}" / label for seed in seeds]
        result["arms"][label] = {
            "metrics": {name: [float(np.mean(each[f"{name}_{label}"])) for each in per_seed] for name in METRICS}
            | {"frechet": [row["metrics"]["frechet"]["mean"] for row in rows]},
            "core_minutes": [core_minutes(each) for each in runs],
            "steps": log(runs[0])[-1]["step"],
            **cost(arm, runs[0]),
        }
    for name in METRICS:
        faces = np.mean([each[f"{name}_idm"] - each[f"{name}_gfpgan"] for each in per_seed], axis=0)
        by_seed = [float(np.mean(each[f"{name}_idm"] - each[f"{name}_gfpgan"])) for each in per_seed]
        result["differences"][name] = {**summarise_column(faces.tolist()), "by_seed": by_seed, "num_faces": len(faces)}
    commits = sorted({each["commit"] for each in compared})
    return {**result, **provenance(), "commit": ", ".join(commits)}


COSTS = {
    "steps": ("steps", "d"),
    "evaluations": ("network evaluations per face", "d"),
    "gflop": ("GFLOP per face", ".2f"),
    "parameters": ("parameters", ",d"),
    "processor_seconds": ("processor seconds per face", ".4f"),
}

NOTE = """{num_faces} faces of `{data}`, seeds {seeds}. Cells: mean over faces and seeds (least and greatest seed).
Differences: paired per face and averaged over the seeds, with a bootstrap 95 % interval over the faces; in brackets,
the differences of the seeds. The feature losses of both models use the network that measures identity and the Frechet
distance. Sharpness: variance of the Laplacian divided by that of the original. Commit {commit}; {processor}."""


def render(result: dict[str, Any]) -> str:
    """Return the comparison as Markdown."""
    arms, differences = list(result["arms"].values()), result["differences"]
    rows = [["", "IDM", "GFP-GAN", "IDM - GFP-GAN"], ["---"] * 4]
    for name in METRICS:
        rows.append([name, *(_mean(arm["metrics"][name]) for arm in arms), _difference(differences[name])])
    frechet = [arm["metrics"]["frechet"] for arm in arms]
    rows.append(["frechet", *map(_mean, frechet), _seeds(np.subtract(*frechet))])
    rows.append(["core-minutes of training", *(_mean(arm["core_minutes"]) for arm in arms), ""])
    rows += [[title, *(format(arm[name], form) for arm in arms), ""] for name, (title, form) in COSTS.items()]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    metadata = {"num_faces": differences["psnr"]["num_faces"], "data": result["data"]}
    metadata |= {"commit": result["commit"][:12], "processor": result["machine"]["processor"]}
    note = NOTE.format(**metadata, seeds=", ".join(map(str, result["seeds"])))
    return f"# IDM and GFP-GAN at {result['size']} px on equal terms\n\n{table}\n\n{note}\n"


def _mean(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def _difference(found: dict[str, Any]) -> str:
    interval = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
    return f"{found['mean']:+.3f}{interval} {_seeds(found['by_seed'])}"


def _seeds(values: Iterable[float]) -> str:
    return f"({', '.join(f'{value:+.3f}' for value in values)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--size", type=int, default=64, choices=(64, 128), help="side of the faces (default 64)")
    parser.add_argument("--minutes", type=float, default=10, help="core-minutes of each training (default 10)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", default="assets:test", help="faces to measure on (default assets:test)")
    parser.add_argument("--num-images", type=int, help="number of faces, for a trial (default all)")
    parser.add_argument("--idm", nargs="*", default=[], metavar="section.key=value", help="more settings of IDM")
    parser.add_argument("--gfpgan", nargs="*", default=[], metavar="section.key=value", help="more settings of GFP-GAN")
    arguments = parser.parse_args()
    folder = arguments.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    overrides = {"idm": arguments.idm, "gfpgan": arguments.gfpgan}
    num_steps = calibrate(folder, arguments.size, arguments.minutes, overrides)
    for seed in arguments.seeds:
        here = folder / f"seed_{seed}"
        if (here / "compare" / "comparison.json").exists():
            continue
        for label, arm in ARMS.items():
            train(arm, here / label, arguments.size, seed, num_steps[label], overrides[label])
        restorers = [f"{label}={here / label}" for label in ARMS]
        few = [] if arguments.num_images is None else [f"--num-images={arguments.num_images}"]
        wanted = f"--metrics={','.join(METRICS)},frechet"
        run("-m", "idm", "compare", *restorers, f"--data={arguments.data}", wanted, "-o", here / "compare", *few)
    result = summarise(folder, arguments.seeds, arguments.size, arguments.data)
    (folder / "results").mkdir(exist_ok=True)
    write_json(folder / "results" / "comparison.json", result)
    write_text(folder / "results" / "table.md", render(result))
    print(render(result))


if __name__ == "__main__":
    main()
