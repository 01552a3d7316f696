"""Analyse GFP-GAN's critic during training: its accuracy, and the quality of the faces of its generator.

``python experiments/equal_terms/critic.py RUN -o NAME [--without OTHER]`` reads the log of a run, measures each of its
checkpoints on faces of ``val`` with frozen degradations, and writes ``NAME.json`` and ``NAME.png``. A critic at chance
classifies half of the real and half of the restored faces correctly, and its loss is 2 ln 2 = 1.386. ``OTHER`` is a run
whose generator gets nothing from the critic (``losses.adversarial=1e-9``): what differs between the two is the critic's
work.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from gan_baseline.restorer import MODEL
from idm.apps.cli.main import build_parser
from idm.apps.cli.main import run as run_idm
from idm.io.atomic import write_json
from idm.io.machine import provenance
from idm.io.run_folder import list_checkpoints
from idm.training.log import read_log

CHANCE = 1.386
LOGGED = ("step", "discriminator", "real_accuracy", "fake_accuracy", "adversarial", "l1")
MEASURED = {"psnr": "PSNR (dB)", "sharpness": "sharpness / original's", "frechet": "Frechet distance"}


def measure(model: Path, num_images: int) -> dict[str, float]:
    """Return the mean scores of the restored faces."""
    command = ["evaluate", f"--model={model}", "--data=assets:val", f"--metrics={','.join(MEASURED)}"]
    with tempfile.TemporaryDirectory() as folder:
        where = [f"--num-images={num_images}", f"--output={folder}/result"]
        if run_idm(build_parser().parse_args([*command, *where])) != 0:
            sys.exit(1)  # idm evaluate has printed the message
        found = json.loads(Path(folder, "result", "metrics.json").read_text())["metrics"]
    return {name: found[name]["restored"]["mean"] for name in MEASURED}


def analyse(run: Path, num_images: int) -> dict[str, Any]:
    """Return the critic's values in the log of a run, and the scores of its checkpoints."""
    rows = [{name: row[name] for name in LOGGED} for row in read_log(run / "log.jsonl") if "loss" in row]
    checkpoints = [
        {"step": int(folder.name.removeprefix("step_")), **measure(folder / MODEL, num_images)}
        for folder in list_checkpoints(run / "checkpoints")
    ]
    return {"log": rows, "checkpoints": checkpoints}


def plot(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Plot accuracy and loss of the critic, and sharpness and Frechet distance of the checkpoints, over the steps.

    Args:
        runs: the analysis of each run by its label.
    """
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), constrained_layout=True)
    for run, style in zip(runs.values(), ("-", ":"), strict=False):
        steps = [row["step"] for row in run["log"]]
        for name, color in (("real_accuracy", "tab:blue"), ("fake_accuracy", "tab:orange")):
            label = name.replace("_", " ") if style == "-" else None
            axes[0].plot(steps, [row[name] for row in run["log"]], style, color=color, label=label)
    axes[0].set(ylabel="critic's accuracy", ylim=(0, 1.02))
    axes[0].axhline(0.5, linestyle="--", color="tab:gray", label="chance")
    axes[1].axhline(CHANCE, linestyle="--", color="tab:gray", label="chance")
    axes[1].set(ylabel="critic's loss")
    for (label, run), style in zip(runs.items(), ("-", ":"), strict=False):
        axes[1].plot(
            [row["step"] for row in run["log"]], [row["discriminator"] for row in run["log"]], style, label=label
        )
        for axis, name in zip(axes[2:], ("sharpness", "frechet"), strict=True):
            found = run["checkpoints"]
            axis.plot([row["step"] for row in found], [row[name] for row in found], f"o{style}", label=label)
            axis.set(ylabel=MEASURED[name])
    for axis in axes:
        axis.set(xlabel="step")
        axis.grid(alpha=0.3)
        axis.legend()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run of gan_baseline.train")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path of the results, without a suffix")
    parser.add_argument("--without", type=Path, help="the same run without the critic's gradient, for comparison")
    parser.add_argument("--num-images", type=int, default=64, help="faces of val for each checkpoint (default 64)")
    arguments = parser.parse_args()
    runs = {"with the critic": analyse(arguments.run, arguments.num_images)}
    if arguments.without is not None:
        runs["without"] = analyse(arguments.without, arguments.num_images)
    measured = {"runs": runs, "num_images": arguments.num_images, "data": "assets:val"}
    write_json(arguments.output.with_suffix(".json"), measured | provenance())
    plot(runs, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
