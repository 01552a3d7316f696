"""Make the table and the plot of ablations: ``python experiments/ablations/table.py [FOLDER]``.

With ``FOLDER``, the script first writes ``FOLDER/ablations.json`` from the results of ``run.py`` in ``FOLDER/results``.
Without it, the numbers are the committed ones, ``results/ablations.json``. ``ablations.md`` and ``.png`` are made from
this file alone, beside it.

Each row is compared with the first row of its ablation by paired differences per face, averaged over the seeds. The
interval is over faces, and the difference of each seed is stated beside it. The JSON file holds, for every row, these
numbers and, for every training run, the hash of its configuration, seed, steps, time, commit and machine, without
scores per face.
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

RESULTS = Path(__file__).parent / "results"

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
            shared = {name: row[0][name] for name in (*SHARED, "channels") if name in row[0]}
            found.append(entry | shared)
    return found


def render(entries: list[dict[str, Any]]) -> str:
    """Return the tables of all ablations that have a :func:`summary`, as Markdown."""
    parts = ["# Ablations\n\n`python experiments/ablations/table.py` makes this file.\n"]
    for ablation in ablations():
        found = [entry for entry in entries if entry["ablation"] == ablation.name]
        if not found:
            continue
        first = found[0]
        header = ["", "seeds", *(f"{METRICS[name].heading} | difference" for name in first["metrics"])]
        lines = [f"| {' | '.join(header)} |", "|---" * (2 + 2 * len(first["metrics"])) + "|"]
        for entry in found:
            cells = [_cells(numbers, entry is first) for numbers in entry["metrics"].values()]
            lines.append(f"| {_label(entry)} | {len(entry['trainings'])} | {' | '.join(cells)} |")
        seconds = np.mean([training["training_processor_seconds"] for training in first["trainings"]])
        note = f"{first['steps']} steps, {seconds:.0f} processor seconds a training on {first['machine']['processor']}"
        note += f", channels {first['channels']}" if "channels" in first else ""
        note += "".join(f", `{setting}`" for setting in first["settings"])
        faces = f"{first['num_images']} faces of `{first['data']}`, commit {first['commit'][:12]}"
        against = f"Differences are from *{_label(first)}*, with `--preset {first['preset']}`"
        known = {(entry["arm"], entry["test"]) for entry in found}
        missing = [(arm, test) for arm in ablation.arms for test in ablation.tests if (arm, test) not in known]
        left = f" Not finished: {'; '.join(', '.join(filter(None, names)) for names in missing)}." if missing else ""
        parts.append(f"## {ablation.title}\n\n" + "\n".join(lines) + f"\n\n{note}; {faces}. {against}.{left}\n")
    parts.append(
        "Differences: from the first row of the table, mean and studentised bootstrap 95 % interval over faces after "
        "the mean over seeds, and in brackets what each seed says. An interval with 0 in it is a null result. The "
        "difference of a row with another test (`on mild`, `undegraded faces`) includes the difference of the tests.\n"
    )
    return "\n".join(parts)


def _label(entry: dict[str, Any]) -> str:
    return ", ".join(filter(None, (entry["arm"], entry["test"])))


def _cells(numbers: dict[str, Any], is_first: bool) -> str:
    mean = f"{np.mean(numbers['by_seed']):.4g}"
    if is_first:
        return f"{mean} | "
    low, high = numbers["low"], numbers["high"]
    interval = "" if low is None or high is None else f" [{low:+.3g}, {high:+.3g}]"
    seeds = ", ".join(f"{value:+.3g}" for value in numbers["differences"])
    return f"{mean} | {numbers['difference']:+.3g}{interval} ({seeds})"


def plot(entries: list[dict[str, Any]], path: Path, metric: str = "psnr") -> None:
    """Plot the difference of every row in one metric, with its interval."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first = {entry["ablation"]: entry for entry in reversed(entries)}
    compared = [entry for entry in entries if entry is not first[entry["ablation"]]]
    if not compared:
        return
    figure, axis = plt.subplots(figsize=(8, 1 + 0.3 * len(compared)), constrained_layout=True)
    for place, entry in enumerate(compared):
        numbers = entry["metrics"][metric]
        mean, low, high = (numbers[name] for name in ("difference", "low", "high"))
        axis.plot([mean if low is None else low, mean if high is None else high], [place, place], color="tab:blue")
        axis.plot(mean, place, "o", color="tab:blue")
    axis.axvline(0, color="tab:gray", linewidth=1)
    axis.set_xscale("symlog", linthresh=1)  # a twentieth of a dB and fifteen dB in one picture
    labels = [f"{entry['ablation']}: {_label(entry)}" for entry in compared]
    axis.set(yticks=range(len(labels)), yticklabels=labels, xlabel=f"{METRICS[metric].title}: difference from the base")
    axis.set_ylim(len(compared), -1)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    given = parser.parse_args().folder
    folder = RESULTS if given is None else given
    if given is not None:
        write_json(folder / "ablations.json", summary(read(folder)))
    entries = json.loads((folder / "ablations.json").read_text())
    write_text(folder / "ablations.md", render(entries))
    plot(entries, folder / "ablations.png")
    print(folder / "ablations.md")


if __name__ == "__main__":
    main()
