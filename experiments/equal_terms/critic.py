"""Analyse GFP-GAN's critic during training: its accuracy, and the quality of the faces of its generator.

``python experiments/equal_terms/critic.py RUN -o NAME`` reads the log of a run, measures each of its checkpoints on
faces of ``val`` with frozen degradations, and writes ``NAME.json`` and ``NAME.png``. A critic at chance classifies half
of the real and half of the restored faces correctly, and its loss is 2 ln 2 = 1.386.
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


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot accuracy and loss of the critic, and sharpness and Frechet distance of the checkpoints, over the steps."""
    log, checkpoints = result["log"], result["checkpoints"]
    steps, measured_at = [row["step"] for row in log], [row["step"] for row in checkpoints]
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), constrained_layout=True)
    for name in ("real_accuracy", "fake_accuracy"):
        axes[0].plot(steps, [row[name] for row in log], label=name.replace("_", " "))
    axes[0].axhline(0.5, linestyle="--", color="tab:gray", label="chance")
    axes[0].set(ylabel="critic's accuracy", ylim=(0, 1.02))
    axes[1].plot(steps, [row["discriminator"] for row in log], color="tab:red", label="loss")
    axes[1].axhline(CHANCE, linestyle="--", color="tab:gray", label="chance")
    axes[1].set(ylabel="critic's loss", ylim=(0, None))
    for axis, name in zip(axes[2:], ("sharpness", "frechet"), strict=True):
        axis.plot(measured_at, [row[name] for row in checkpoints], "o-", label="restored faces")
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
    parser.add_argument("--num-images", type=int, default=64, help="faces of val for each checkpoint (default 64)")
    arguments = parser.parse_args()
    rows = [{name: row[name] for name in LOGGED} for row in read_log(arguments.run / "log.jsonl") if "loss" in row]
    checkpoints = [
        {"step": int(folder.name.removeprefix("step_")), **measure(folder / MODEL, arguments.num_images)}
        for folder in list_checkpoints(arguments.run / "checkpoints")
    ]
    result = {"log": rows, "checkpoints": checkpoints, "num_images": arguments.num_images, "data": "assets:val"}
    write_json(arguments.output.with_suffix(".json"), result | provenance())
    plot(result, arguments.output.with_suffix(".png"))


if __name__ == "__main__":
    main()
