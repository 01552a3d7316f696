"""Make the table and the plot of ablations: ``python experiments/ablations/table.py FOLDER``.

The script writes ``FOLDER/ablations.md``, ``.png`` and ``.json`` from the results of ``run.py`` in ``FOLDER/results``.
Each row is compared with the first row of its ablation by paired differences per face, averaged over the seeds. The
interval is over faces, and the difference of each seed is stated beside it. The JSON file holds the same numbers and,
for every training run, the hash of its configuration, seed, steps, time, commit and machine, without scores per face.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from jobs import ablations

from idm.evaluation.metrics import METRICS
from idm.evaluation.statistics import mean_and_interval
from idm.io.atomic import write_json, write_text

Key = tuple[str, str, str]  # ablation, arm, test
Results = dict[Key, list[dict[str, Any]]]  # one entry per seed
TRAINING = ("config", "seed", "training_seconds", "training_processor_seconds")
SHARED = ("steps", "budget", "settings", "num_images", "data", "preset", "commit", "machine")
Difference = tuple[float, float | None, float | None]


def read(folder: Path) -> Results:
    """Read all results; those of a row are sorted by seed."""
    rows: Results = defaultdict(list)
    for path in sorted((folder / "results").glob("*.json")):
        result = json.loads(path.read_text())
        rows[result["ablation"], result["arm"], result["test"]].append(result)
    return {key: sorted(results, key=lambda result: result["seed"]) for key, results in rows.items()}


def difference(row: list[dict[str, Any]], first: list[dict[str, Any]], metric: str) -> tuple[Difference, list[float]]:
    """Return the mean difference of two rows with its interval over faces, and the difference of each seed.

    Both rows must have the same seeds.
    """
    each = np.subtract([result["scores"][metric] for result in row], [result["scores"][metric] for result in first])
    return mean_and_interval(each.mean(axis=0)), each.mean(axis=1).tolist()


def finished(keys: list[Key], rows: Results) -> list[Key]:
    """Return the rows of an ablation that have the same seeds as its first row; none if the first row is missing."""
    if keys[0] not in rows:
        return []
    seeds = [result["seed"] for result in rows[keys[0]]]
    return [key for key in keys if [result["seed"] for result in rows.get(key, [])] == seeds]


def render(rows: Results) -> str:
    """Return the tables of all ablations that have results, as Markdown."""
    parts = ["# Ablations\n\n`python experiments/ablations/table.py FOLDER` makes this file.\n"]
    for ablation in ablations():
        keys = [(ablation.name, arm, test) for arm in ablation.arms for test in ablation.tests]
        found = finished(keys, rows)
        if not found:
            continue
        first = rows[keys[0]]
        metrics = list(first[0]["scores"])
        header = ["", "seeds", *(f"{METRICS[name].heading} | difference" for name in metrics)]
        lines = [f"| {' | '.join(header)} |", "|---" * (2 + 2 * len(metrics)) + "|"]
        for key in found:
            cells = [_cells(rows[key], first, name, key == keys[0]) for name in metrics]
            lines.append(f"| {', '.join(filter(None, key[1:]))} | {len(rows[key])} | {' | '.join(cells)} |")
        steps, seconds = first[0]["steps"], np.mean([result["training_processor_seconds"] for result in first])
        note = f"{steps} steps, {seconds:.0f} processor seconds a training on {first[0]['machine']['processor']}"
        faces = f"{first[0]['num_images']} faces of `{first[0]['data']}`, commit {first[0]['commit'][:12]}"
        note += "".join(f", `{setting}`" for setting in first[0]["settings"])
        left = [", ".join(filter(None, key[1:])) for key in keys if key not in found]
        faces += f". Not finished: {'; '.join(left)}" if left else ""
        parts.append(f"## {ablation.title}\n\n" + "\n".join(lines) + f"\n\n{note}; {faces}.\n")
    parts.append(
        "Differences: from the first row of the table, mean and studentised bootstrap 95 % interval over faces after "
        "the mean over seeds, and in brackets what each seed says. An interval with 0 in it is a null result.\n"
    )
    return "\n".join(parts)


def summary(rows: Results) -> list[dict[str, Any]]:
    """Return the numbers of all rows, with the provenance of their training runs."""
    found = []
    for ablation in ablations():
        keys = [(ablation.name, arm, test) for arm in ablation.arms for test in ablation.tests]
        for key in finished(keys, rows):
            row, first = rows[key], rows[keys[0]]
            metrics = {}
            for name in first[0]["scores"]:
                (mean, low, high), seeds = difference(row, first, name)
                by_seed = [float(np.mean(result["scores"][name])) for result in row]
                metrics[name] = {"by_seed": by_seed, "difference": mean, "low": low, "high": high, "differences": seeds}
            trainings = [{name: result[name] for name in TRAINING} for result in row]
            entry = {"ablation": key[0], "arm": key[1], "test": key[2], "metrics": metrics, "trainings": trainings}
            found.append(entry | {name: row[0][name] for name in SHARED})
    return found


def _cells(row: list[dict[str, Any]], first: list[dict[str, Any]], metric: str, is_first: bool) -> str:
    mean = float(np.mean([result["scores"][metric] for result in row]))
    if is_first:
        return f"{mean:.4g} | "
    (middle, low, high), seeds = difference(row, first, metric)
    interval = "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"
    return f"{mean:.4g} | {middle:+.3g}{interval} ({', '.join(f'{value:+.3g}' for value in seeds)})"


def plot(rows: Results, path: Path, metric: str = "psnr") -> None:
    """Plot the difference of every row in one metric, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    labels, points = [], []
    for ablation in ablations():
        keys = [(ablation.name, arm, test) for arm in ablation.arms for test in ablation.tests]
        for key in finished(keys, rows)[1:]:
            labels.append(f"{ablation.name}: {', '.join(filter(None, key[1:]))}")
            points.append(difference(rows[key], rows[keys[0]], metric)[0])
    if not points:
        return
    figure, axis = plt.subplots(figsize=(8, 1 + 0.3 * len(points)), constrained_layout=True)
    for place, (mean, low, high) in enumerate(points):
        axis.plot([mean if low is None else low, mean if high is None else high], [place, place], color="tab:blue")
        axis.plot(mean, place, "o", color="tab:blue")
    axis.axvline(0, color="tab:gray", linewidth=1)
    axis.set(yticks=range(len(labels)), yticklabels=labels, xlabel=f"{METRICS[metric].title}: difference from the base")
    axis.invert_yaxis()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    rows = read(folder)
    write_text(folder / "ablations.md", render(rows))
    write_json(folder / "ablations.json", summary(rows))
    plot(rows, folder / "ablations.png")
    print(folder / "ablations.md")


if __name__ == "__main__":
    main()
