"""Draw a run's training curve: ``python experiments/plot_curve.py LOG.jsonl -o CURVE.png``."""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from idm.training.log import read_log


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = read_log(arguments.log)
    steps = [row for row in rows if "loss" in row]
    checks = [row for row in rows if row.get("validation")]

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), constrained_layout=True)
    left.plot([row["step"] for row in steps], [row["loss"] for row in steps], color="tab:gray", linewidth=1)
    left.set(xlabel="step", ylabel="training loss", yscale="log")
    right.plot([r["step"] for r in checks], [r["psnr_restored"] for r in checks], "o-", label="restored")
    right.axhline(checks[0]["psnr_degraded"], linestyle="--", color="tab:red", label="degraded")
    right.set(xlabel="step", ylabel="PSNR on held-out faces (dB)")
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    figure.savefig(arguments.output, dpi=110)


if __name__ == "__main__":
    main()
