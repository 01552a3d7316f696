"""Search the second noise level of a chain of two steps, on ``val``.

    python experiments/strengths/levels.py bundled --num-faces 24 -o experiments/strengths/levels

Every chain starts at the schedule's highest level, and its second step begins at one of ``--levels``, as sigma =
sqrt((1 - gamma) / gamma). The chain of two steps that the model has without explicit levels is measured beside them.
Faces, degradation and metrics are those of ``chains.py``. ``levels.json`` holds the means over the faces and the
seconds per face; ``levels.png`` plots each metric against the second level. ``publish_model.py --levels`` stores the
chosen levels with a model.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
from chains import METRICS, build_parser, label_log_scale, measure

from idm.diffusion.chain import Chain, signal_levels
from idm.io.atomic import write_json
from idm.io.machine import provenance
from idm.restorers.idm import IDM

LEVELS = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)


def main() -> None:
    parser = build_parser(__doc__, num_faces=24)
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS, help="sigma of the second step")
    arguments = parser.parse_args()

    def described_chains(idm: IDM) -> Iterator[tuple[dict[str, Any], Chain]]:
        gammas = idm.gammas.tolist()
        return ((described(chain, gammas), chain) for chain in chains(idm.chain, gammas, arguments.levels))

    arguments.output.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.restorer, arguments.num_faces, described_chains)
    write_json(arguments.output / "levels.json", result | provenance())
    draw(result, arguments.output / "levels.png")


def chains(published: Chain, gammas: Sequence[float], second: Sequence[float]) -> Iterator[Chain]:
    """Yield the model's chain with two evenly spaced steps, then chains with each second level.

    Raises:
        ValueError: a level does not lie between 0 and the schedule's highest.
    """
    yield published.changed(num_steps=2, spacing="even", levels=())
    start = math.sqrt((1 - gammas[-1]) / gammas[-1])
    for sigma in second:
        yield published.changed(num_steps=2, spacing="levels", levels=(start, sigma))


def described(chain: Chain, gammas: Sequence[float]) -> dict[str, Any]:
    sigmas = [math.sqrt((1 - gamma) / gamma) for gamma in signal_levels(chain, gammas)]
    return {"sampler": chain.sampler, "spacing": chain.spacing, "levels": [float(f"{sigma:.6g}") for sigma in sigmas]}


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot each metric against the second level; a star marks evenly spaced steps."""
    figure, axes = plt.subplots(1, len(METRICS), figsize=(3.2 * len(METRICS), 3.2), constrained_layout=True)
    rows = sorted(result["chains"], key=lambda row: row["levels"][1])
    for axis, (metric, title) in zip(axes, METRICS.items(), strict=True):
        axis.plot([row["levels"][1] for row in rows], [row[metric] for row in rows], "o-")
        [even] = [row for row in rows if row["spacing"] == "even"]
        axis.plot(even["levels"][1], even[metric], "*", markersize=14, color="tab:red", label="even spacing")
        axis.axhline(result["given"][metric], linestyle="--", color="tab:gray", label="as given")
        axis.set(title=title, xlabel="second level, sigma", xscale="log")
        label_log_scale(axis)
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
