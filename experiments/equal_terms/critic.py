"""Analyse GFP-GAN's critic during training: its accuracy, and the quality of the faces of its generator.

``python experiments/equal_terms/critic.py RUN -o NAME [--without OTHER]`` reads the log of a run, measures each of its
checkpoints on faces of ``val`` with frozen degradations, and writes ``NAME.json`` and ``NAME.png``. At chance each
accuracy of the critic is 1/2 and its loss ln 2, or twice that if it judges single faces. The critics of eyes and mouth
are shown if there are any. ``OTHER`` is the same run with ``losses.adversarial=1e-9``, whose generator learns nothing
from its critic.
"""

import argparse
import json
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from gan_baseline.restorer import MODEL
from gan_baseline.schema import GANConfig
from idm.apps.cli.main import build_parser
from idm.apps.cli.main import run as run_idm
from idm.config.load import load_config
from idm.io.atomic import write_json
from idm.io.machine import provenance
from idm.io.run_folder import list_checkpoints
from idm.training.log import read_log

ACCURACIES = ("real_accuracy", "fake_accuracy", "pair_accuracy")
COMPONENTS = tuple(f"component_{name}" for name in ACCURACIES)
LOGGED = ("step", "discriminator", *ACCURACIES, "adversarial", "l1", "component_discriminator", *COMPONENTS)
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


def measure_checkpoints(run: Path, num_images: int) -> list[dict[str, float]]:
    """Return step and mean scores of every checkpoint of a run."""
    return [
        {"step": int(folder.name.removeprefix("step_")), **measure(folder / MODEL, num_images)}
        for folder in list_checkpoints(run / "checkpoints")
    ]


def select(row: dict[str, float]) -> dict[str, float]:
    """Return what the result keeps of a line of the log."""
    return {name: row[name] for name in LOGGED if name in row}


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot loss and accuracies of the critics, sharpness and Frechet distance of the checkpoints, over the steps."""
    log = result["log"]
    steps = [row["step"] for row in log]
    judged = [("critic's accuracy", ACCURACIES), ("accuracy on eyes and mouths", COMPONENTS)]
    judged = [(label, names) for label, names in judged if names[0] in log[0]]
    figure, axes = plt.subplots(1, len(judged) + 3, figsize=(3.5 * (len(judged) + 3), 3.2), constrained_layout=True)
    for axis, (label, names) in zip(axes[3:], judged, strict=True):
        for name in names:
            axis.plot(steps, [row[name] for row in log], label=name.removeprefix("component_").replace("_", " "))
        axis.axhline(0.5, linestyle="--", color="tab:gray", label="chance")
        axis.set(ylabel=label, ylim=(0, 1.02))
    axes[0].plot(steps, [row["discriminator"] for row in log], color="tab:red", label="loss")
    axes[0].axhline(result["chance"], linestyle="--", color="tab:gray", label="chance")
    axes[0].set(ylabel="critic's loss", ylim=(0, None))
    for axis, name in zip(axes[1:3], ("sharpness", "frechet"), strict=True):
        for label, checkpoints in (("with the critic", result["checkpoints"]), ("without", result["without"])):
            if checkpoints:
                axis.plot([row["step"] for row in checkpoints], [row[name] for row in checkpoints], "o-", label=label)
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
    run, num_images, other = arguments.run, arguments.num_images, arguments.without
    relativistic = load_config(run / "config.yaml", GANConfig).losses.relativistic
    result = {
        "log": [select(row) for row in read_log(run / "log.jsonl") if "loss" in row],
        "chance": math.log(2) * (1 if relativistic else 2),
        "checkpoints": measure_checkpoints(run, num_images),
        "without": [] if other is None else measure_checkpoints(other, num_images),
        "num_images": num_images,
        "data": "assets:val",
    }
    write_json(arguments.output.with_suffix(".json"), result | provenance())
    plot(result, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
