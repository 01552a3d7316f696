"""Measure the effect of an extrinsic iteration: 30 % of the training targets are spoiled, with and without cleaning.

``python experiments/extrinsic/run.py -o FOLDER [--config FILE] [--seeds 0 1 2] [--arms NAME ...] [section.key=value
...]``; the same command resumes. The arms of each seed are: round 0 on spoiled targets, cleaning with its model, and
round 1 on the cleaned targets from round 0's weights (one command); variants of this round 1 (`ROUND_1`); the ceiling
(nothing spoiled); and the control (spoiled, twice the steps). All arms are measured on the same clean held-out faces
with frozen degradations. Results are written to ``FOLDER/results``; ``table.py`` makes the tables from them.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from spoil import write_spoiled

from idm.config.assembly.data import build_recipe, evenly
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.data.pairs import FrozenPairs
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.evaluation.engine import evaluate
from idm.evaluation.metrics import build_metric
from idm.extrinsic.manifest import SUMMARY, read_manifest
from idm.extrinsic.quality import measure
from idm.extrinsic.shards import cleaned_faces
from idm.faces.recognition import cosine_similarity, load_identity
from idm.io.atomic import write_json
from idm.io.machine import inference_dtype, keep_freed_memory, provenance
from idm.io.ranges import from_uint8
from idm.restorers.saved import load_idm

ROOT = Path(__file__).parents[2]
SHARE = 0.3
BASE = "round_1_previous"
ROUND_1: dict[str, list[str]] = {
    "round_1": ["extrinsic.init=scratch"],
    "control_previous": ["extrinsic.gate.min_identity=1"],
    "round_1_ungated": ["extrinsic.gate=null"],
    "round_1_original": ["extrinsic.condition_on=original"],
    "round_1_gradual": ["extrinsic.replacement={name: gradual}"],
    "round_1_mixed": ["extrinsic.replacement={name: mixed}"],
}
"""The changes of each arm against `BASE`, round 1 on cleaned targets from round 0's weights."""
ALONE = ("ceiling", "control")


def train(config: Path, output: Path, source: Path, seed: int, overrides: list[str]) -> None:
    """Run the training command in its own process."""
    subprocess.run(
        [
            sys.executable,
            str(ROOT / "train_idm.py"),
            f"--config={config}",
            f"output_dir={output}",
            f"seed={seed}",
            "data.source.name=folder",
            f"data.source.path={source}",
            "train.trackers=[]",
            *overrides,
        ],
        check=True,
    )


def measure_model(run: Path, result: Path, arm: str, seed: int) -> None:
    """Write the scores of a run for each clean held-out face, with frozen degradations as in the run's validation."""
    if result.exists():
        return
    config = load_config(run / "config.yaml", IDMConfig)
    pairs = FrozenPairs(
        FolderFaces(assets_folder() / "faces256" / "val", config.data.image_size),
        build_recipe(config.degradation),
        config.validation.seed,
    )
    device = torch.device("cpu")
    rows = list(
        evaluate(
            load_idm(run, device, inference_dtype(device)),
            pairs,
            {name: build_metric(name) for name in ("psnr", "ssim", "identity")},
            indices=range(len(pairs)),
            batch_size=16,
            seed=config.validation.seed,
        )
    )
    scores = {name: [row.restored_scores[name] for row in rows] for name in ("psnr", "ssim", "identity")}
    scores["sharpness"] = [measure(row.restored).sharpness for row in rows]
    degraded = {name: [row.degraded_scores[name] for row in rows] for name in ("psnr", "ssim", "identity")}
    degraded["sharpness"] = [measure(row.pair.lq).sharpness for row in rows]
    training = json.loads((run / "metrics.json").read_text())
    write_json(
        result,
        {
            "arm": arm,
            "seed": seed,
            "num_images": len(rows),
            "names": [row.pair.key for row in rows],
            "scores": _rounded(scores),
            "degraded": _rounded(degraded),
            "original_sharpness": _rounded([measure(row.pair.hq).sharpness for row in rows]),
            "steps": training["step"],
            "training_seconds": training["training_seconds"],
            **provenance(),
        },
    )


def measure_targets(clean: Path, spoiled: Path, originals: Path, size: int, result: Path, seed: int) -> None:
    """Compare training targets with the unspoiled originals, before and after cleaning, by kind of spoiling."""
    if result.exists():
        return
    rows = [json.loads(line) for line in (spoiled / "metadata.jsonl").read_text().splitlines()]
    kinds = {row["file_name"]: row["spoiled"] for row in rows}
    before, original, after = FolderFaces(spoiled, size), FolderFaces(originals, size), cleaned_faces(clean, size)
    network = load_identity()
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for i, entry in enumerate(read_manifest(clean)):
        x, x_0, x_clean = before[i], original[i], after[i]
        assert x.key == x_0.key == x_clean.key == entry.id
        images = [from_uint8(face.image) for face in (x, x_0, x_clean)]
        group = groups[kinds[x.key]]
        group["accepted"].append(float(entry.accepted))
        for column, j in (("before", 0), ("after", 2)):
            group[f"mse_{column}"].append(float(np.mean((images[j].astype(np.float64) - images[1]) ** 2)))
        if kinds[x.key] != "none" or entry.accepted:
            embedded = network.embed(images, [x.landmarks] * 3)
            group["identity_before"].append(float(cosine_similarity(embedded[:1], embedded[1:2])[0]))
            group["identity_after"].append(float(cosine_similarity(embedded[2:], embedded[1:2])[0]))
        else:
            group["identity_before"].append(1.0)
            group["identity_after"].append(1.0)
        if entry.accepted:
            group["nearer"].append(float(group["mse_after"][-1] < group["mse_before"][-1]))
    summary = {kind: _summary(group) for kind, group in sorted(groups.items())}
    job = json.loads((clean / SUMMARY).read_text())
    write_json(result, {"seed": seed, "kinds": _rounded(summary), "job": job, **provenance()})


def _summary(group: dict[str, list[float]]) -> dict[str, Any]:
    """Average a group. PSNR is that of the mean squared error of all faces, because it is infinite for an untouched
    face."""
    summary = {name: float(np.mean(values)) for name, values in group.items()}
    for column in ("before", "after"):
        error = summary.pop(f"mse_{column}")
        summary[f"psnr_{column}"] = -10 * math.log10(error) if error > 0 else None
    return {"num_faces": len(group["accepted"]), **summary}


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return round(value, 5) if math.isfinite(value) else None
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list():
            return [_rounded(item) for item in value]
        case _:
            return value


def run_seed(
    config: Path, seed: int, output: Path, arms: Sequence[str], overrides: list[str], num_faces: int | None
) -> None:
    """Train and measure round 0, `BASE` and the given arms of one seed."""
    settings = load_config(config, IDMConfig, overrides)
    size, num_steps = settings.data.image_size, settings.train.num_steps
    faces = FolderFaces(assets_folder() / "faces256" / "train", size)
    faces_used = Part(faces, evenly(len(faces), num_faces or len(faces)))
    originals, spoiled = output / "originals", output / f"spoiled_{seed}"
    write_spoiled(faces_used, originals, 0.0, 0)
    write_spoiled(faces_used, spoiled, SHARE, seed)
    here, results = output / f"seed_{seed}", output / "results"
    results.mkdir(exist_ok=True)

    base = here / BASE
    train(config, base, spoiled, seed, overrides)
    measure_model(base / "round_0", results / f"round_0_{seed}.json", "round_0", seed)
    measure_model(base / "round_1", results / f"{BASE}_{seed}.json", BASE, seed)
    measure_targets(base / "clean_0", spoiled, originals, size, results / f"targets_{seed}.json", seed)
    for arm, changes in ROUND_1.items():
        if arm in arms:
            own_gate = any(change.startswith("extrinsic.gate") for change in changes)
            _copy(base, here / arm, ("round_0",) if own_gate else ("round_0", "clean_0"))  # equal stages
            train(config, here / arm, spoiled, seed, [*overrides, *changes])
            measure_model(here / arm / "round_1", results / f"{arm}_{seed}.json", arm, seed)
    twice = [f"train.num_steps={2 * num_steps}", f"validation.every={2 * num_steps}"]
    for arm, source, changes in (("ceiling", originals, []), ("control", spoiled, twice)):
        if arm in arms:
            train(config, here / arm, source, seed, [*overrides, "extrinsic=null", *changes])
            measure_model(here / arm, results / f"{arm}_{seed}.json", arm, seed)


def _copy(source: Path, target: Path, stages: Sequence[str]) -> None:
    """Copy finished stages from one experiment to another."""
    for stage in stages:
        if not (target / stage).exists():
            shutil.copytree(source / stage, target / f".{stage}")
            (target / f".{stage}").rename(target / stage)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "extrinsic64.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    every = [*ROUND_1, *ALONE]
    parser.add_argument("--arms", nargs="*", choices=every, default=every, help=f"beside round 0 and {BASE}")
    parser.add_argument("--num-faces", type=int, help="number of training faces, for a trial (default all)")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    keep_freed_memory()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        run_seed(
            arguments.config, seed, arguments.output.resolve(), arguments.arms, arguments.overrides, arguments.num_faces
        )


if __name__ == "__main__":
    main()
