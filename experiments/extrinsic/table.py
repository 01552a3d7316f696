"""Make the tables of the README in this folder from the result files.

``python experiments/extrinsic/table.py`` prints them, ``--write`` puts them into the README, and ``--check`` exits with
status 1 if the tables in the README are stale.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t

from idm.evaluation.layout import update_tables

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
VARIANTS, AT_128 = RESULTS / "variants", RESULTS / "size128"
ARMS = {
    "round_0": "round 0 (30 % of the targets spoiled)",
    "round_1": "round 1 (trained on cleaned targets)",
    "round_1_previous": "round 1, from round 0's weights",
    "ceiling": "ceiling (nothing spoiled)",
    "control": "control (spoiled, twice the steps)",
    "control_previous": "control (spoiled, again from round 0's weights)",
    "round_1_ungated": "round 1, no gate: every x is replaced",
    "round_1_original": "round 1, x_d made from the originals",
    "round_1_gradual": "round 1, gradual replacement",
    "round_1_mixed": "round 1, half of P_X* and half of P_X",
}
METRICS = {"psnr": ("PSNR ↑", 2), "ssim": ("SSIM ↑", 4), "identity": ("identity ↑", 4), "sharpness": ("sharpness", 4)}
KINDS = ("blur", "noise", "jpeg", "mixed", "none")

Scores = dict[int, dict[str, list[float]]]
"""Scores of one arm: seed -> metric -> one number per face."""


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def load(arm: str, folder: Path = RESULTS) -> Scores:
    files = [json.loads(path.read_text()) for path in sorted(folder.glob(f"{arm}_[0-9].json"))]
    return {file["seed"]: file["scores"] for file in files}


def over_seeds(values: Sequence[float], digits: int) -> str:
    """Format the mean and, for at least two seeds, Student's 95 % interval of the seeds' means."""
    mean = f"{np.mean(values):.{digits}f}"
    if len(values) < 2:
        return mean
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{mean} ± {half:.{digits}f}"


def over_images(differences: np.ndarray, digits: int) -> str:
    """Format the mean and the paired bootstrap 95 % interval over the faces."""
    rng = np.random.default_rng(0)
    means = [differences[rng.integers(len(differences), size=len(differences))].mean() for _ in range(2000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return f"{differences.mean():+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def arms_table(folder: Path = RESULTS) -> str:
    rows = []
    for arm, title in ARMS.items():
        scores = load(arm, folder)
        if scores:
            means = {name: [float(np.mean(seed[name])) for seed in scores.values()] for name in METRICS}
            rows.append([title, len(scores), *(over_seeds(means[name], METRICS[name][1]) for name in METRICS)])
    return markdown(["trained as", "seeds", *(title for title, _ in METRICS.values())], rows)


def differences_table(than: str, arms: Sequence[str], folder: Path = RESULTS) -> str:
    """Compare each arm with the arm ``than`` of the same seed."""
    base, rows = load(than, folder), []
    for arm in arms:
        scores = load(arm, folder)
        seeds = sorted(base.keys() & scores.keys())
        if not seeds:
            continue
        cells: list[str] = []
        for name, (_, digits) in list(METRICS.items())[:3]:
            paired = np.array([np.subtract(scores[seed][name], base[seed][name]) for seed in seeds])
            cells += [over_seeds(paired.mean(axis=1).tolist(), digits), over_images(paired.mean(axis=0), digits)]
        rows.append([ARMS[arm], *cells])
    header = [f"{METRICS[name][0]}, over {what}" for name in list(METRICS)[:3] for what in ("seeds", "faces")]
    return markdown([f"against: {ARMS[than]}", *header], rows)


def targets_table(folder: Path = RESULTS) -> str:
    """Compare training targets with their unspoiled originals, averaged over the seeds."""
    files = [json.loads(path.read_text())["kinds"] for path in sorted(folder.glob("targets_[0-9].json"))]
    rows = []
    for kind in KINDS:
        groups = [file[kind] for file in files]

        def mean(name: str, digits: int, groups: list[dict[str, Any]] = groups) -> str:
            values = [group.get(name) for group in groups]
            return "–" if None in values else f"{np.mean([v for v in values if v is not None]):.{digits}f}"

        rows.append(
            [
                kind,
                sum(group["num_faces"] for group in groups),
                mean("accepted", 3),
                mean("nearer", 3),
                f"{mean('psnr_before', 2)} → {mean('psnr_after', 2)}",
                f"{mean('identity_before', 4)} → {mean('identity_after', 4)}",
            ]
        )
    header = ["spoiled by", "faces", "share replaced", "of these nearer to the original", "PSNR", "identity"]
    return markdown(header, rows)


def drift_table() -> str:
    files = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("targets_[0-9].json"))]
    rows = [
        [
            file["seed"],
            f"{file['job']['drift']['share']:.3f}",
            f"{file['job']['drift']['identity']:.4f}",
            " ".join(f"{value:+.3f}" for value in file["job"]["drift"]["colour"]),
            ", ".join(f"{count} {reason}" for reason, count in file["job"]["reasons"].items()),
        ]
        for file in files
    ]
    return markdown(["seed", "share replaced", "identity", "colour (R, G, B in 1/255)", "decisions"], rows)


def fixed_point() -> str:
    result = json.loads((RESULTS / "fixed_point.json").read_text())
    first, second = (f"{result[name]['drift']['psnr']:.1f} dB" for name in ("first", "second"))
    drift = result["second"]["drift"]
    return (
        f"The cleaned set, cleaned once more by the same model ({result['second']['num_faces']} faces of seed 0): "
        f"{drift['share']:.1%} are replaced. Compared with the pool before, identity is {drift['identity']:.4f}, the "
        f"colour shifts by {' '.join(f'{value:+.4f}' for value in drift['colour'])}, and PSNR is {second} "
        f"(first cleaning: {first})."
    )


def quality_table() -> str:
    result = json.loads((RESULTS / "quality.json").read_text())
    names = ("sharpness", "noise", "blockiness")
    rows = [
        [
            row["pixels"],
            row["kind"],
            f"{row['strength']:g}",
            *(f"{row[name]['worse_than_own_original']:.2f} / {row[name]['auc']:.2f}" for name in names),
        ]
        for row in result["rows"]
    ]
    return markdown(["pixels", "spoiled by", "strength", *names], rows)


def unconditional_table() -> str:
    """Results of the unconditional models, averaged over the seeds."""
    files = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("unconditional_[0-9].json"))]
    names = ("frechet", "final_loss", "loss_jump", "mean_gradient", "largest_gradient")
    rows = []
    for label, first in files[0]["rows"].items():
        columns = [[file["rows"][label][name] for file in files] if name in first else None for name in names]
        rows.append([label, len(files), *("–" if column is None else over_seeds(column, 4) for column in columns)])
    pairs = [[file["rows"][label]["frechet"] for label in ("cleaned", "spoiled")] for file in files]
    rows.append(["cleaned less spoiled", len(files), over_seeds([a - b for a, b in pairs], 4), *["–"] * 4])
    header = ["faces", "seeds", f"{files[0]['distance']} ↓"]
    return markdown([*header, "final loss", "loss jump", "mean gradient", "largest gradient"], rows)


def portraits_table() -> str:
    path = RESULTS / "portraits.json"
    if not path.exists():
        return "Not run yet."

    def interval(value: Sequence[float]) -> str:
        return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"

    rows = []
    for chain, row in json.loads(path.read_text())["rows"].items():
        for group in ("all", "taken"):
            if group in row:
                count = row["num_images"] if group == "all" else row["reasons"].get("better", 0)
                columns = ("identity", "sharpness_change", "noise_change", "psnr_to_x")
                rows.append([chain, group, count, *(interval(row[group][name]) for name in columns)])
    return markdown(["chain", "x*", "faces", "identity", "sharpness, relative", "noise, 1/255", "PSNR to x"], rows)


def variants(folder: Path, title: str) -> str:
    """Variants of round 1 from round 0's weights, in an experiment of their own with fewer steps."""
    first = json.loads((folder / "round_0_0.json").read_text())
    return "\n\n".join(
        [
            f"### {title}\n\n{first['steps']} steps per round, commit {first['commit'][:12]}; round 1 is trained from "
            "round 0's weights.",
            arms_table(folder),
            differences_table("round_1_previous", [arm for arm in ARMS if arm != "round_1_previous"], folder),
        ]
    )


def all_tables() -> str:
    first = json.loads((RESULTS / "round_0_0.json").read_text())
    versions = first["versions"]
    parts = [
        f"{first['num_images']} held-out faces; {first['machine']['processor']}, {first['machine']['threads']} thread, "
        f"torch {versions['torch']}, commit {first['commit'][:12]}.",
        "### Models\n\nMeans over the faces; ± is Student's 95 % interval over the seeds.",
        arms_table(),
        "Differences: intervals over seeds as above; intervals over faces are a paired bootstrap of the differences "
        "averaged over the seeds.",
        differences_table("round_0", [arm for arm in ARMS if arm != "round_0"]),
        differences_table("control", ["round_1", "round_1_previous", "ceiling", "control_previous"]),
        differences_table("control_previous", ["round_1_previous"]),
        variants(VARIANTS, "Variants of round 1"),
        variants(AT_128, "At 128 px, with Real-ESRGAN's degradations and a chain of two steps"),
        "Its training targets:",
        targets_table(AT_128),
        "### Training targets\n\nCompared with their unspoiled originals. PSNR is that of the mean squared error of "
        "all faces of a kind, because it is infinite for an untouched face.",
        targets_table(),
        "Drift of the pool in the cleaning of round 0:",
        drift_table(),
        fixed_point(),
        "### Sensitivity of the gate's quality measures\n\nShare of spoiled faces that are worse than their own "
        "originals / area under the ROC curve against all originals. Strengths: sigma of blur in pixels of a 64 px "
        "face, sigma of noise in 1/255, JPEG quality.",
        quality_table(),
        "### Unconditional models",
        unconditional_table(),
        "### Portraits, 128 px",
        portraits_table() + "\n",
    ]
    return "\n\n".join(parts)


if __name__ == "__main__":
    update_tables(__doc__, FOLDER / "README.md", all_tables)
