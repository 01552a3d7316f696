"""``idm compare``."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from idm.apps.cli.faces import (
    build_faces,
    build_measures,
    build_preset,
    check_output,
    check_splits,
    face_tags,
    open_faces,
)
from idm.apps.cli.model import load_labelled, prepare_machine
from idm.apps.cli.options.measure import CompareOptions
from idm.data.pairs import FrozenPairs
from idm.data.sources import FaceSource
from idm.degradation.steps import Resize
from idm.evaluation.compare import Measured, breakdown, compare, differences, table_rows
from idm.evaluation.identity import nearest_others
from idm.evaluation.kept import KeptFaces
from idm.evaluation.metrics import METRICS, Metrics
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, REAL, STRANGER, SetScores
from idm.evaluation.statistics import INTERVAL
from idm.evaluation.tables import render_breakdown, render_comparison
from idm.io.atomic import write_csv, write_json, write_text
from idm.io.grid import image_grid
from idm.io.images import write_image
from idm.io.machine import provenance
from idm.restorers.load import Loaded

SHOWN = 8
KEPT = ".kept"  # faces of an unfinished comparison


@dataclass(frozen=True)
class Run:
    """The measured faces of a comparison, their scores as sets, and the images of the first faces."""

    faces: list[Measured]
    sets: SetScores
    shown: list[dict[str, np.ndarray]]


def compare_command(options: CompareOptions) -> int:
    """``idm compare``: 0 if every restorer was measured on every face."""
    taken = (DEGRADED, BICUBIC, STRANGER, REAL, ORIGINAL)
    check_output(options.output)
    loaded = load_labelled(options.restorers, prepare_machine(options), taken)
    smallest = min(one.restorer.image_size for one in loaded.values())
    size = smallest if options.size is None else options.size
    source = build_faces(options, size)
    metrics = build_measures(options.metrics, size)
    about = {
        "data": options.data,
        "preset": options.preset,
        "seed": options.seed,
        "size": size,
        "batch_size": options.batch_size,
    }
    splits = check_splits(options.data)
    run = _measure(options, loaded, metrics, source, about)
    restorers = {label: one.metadata for label, one in loaded.items()}
    result = {
        "num_images": len(run.faces),
        "rows": table_rows(run.faces, run.sets, restorers),
        "differences": differences(run.faces, list(loaded)),
        "breakdown": breakdown(run.faces, face_tags(options.data)),
        "missing": metrics.missing,
        "protocol": {name: METRICS[name].protocol for name in (*metrics.each, *metrics.together)},
        "interval": INTERVAL,
        "splits": splits,
        **about,
        **provenance(),
    }
    _write(options, run, result)
    return 0


def _measure(
    options: CompareOptions,
    loaded: Mapping[str, Loaded],
    metrics: Metrics,
    source: FaceSource,
    about: Mapping[str, Any],
) -> Run:
    """Every face by every restorer, beside the reference rows; resumes what an earlier run kept."""
    recipe, seed = build_preset(options.preset), options.seed
    commit = provenance()["commit"]
    kept = {
        label: KeptFaces(options.output / KEPT, {"label": label, "commit": commit, **one.metadata, **about})
        for label, one in loaded.items()
    }
    with_identity = {"identity", "deg"} & metrics.each.keys() and len(source) > 1 and not options.no_stranger
    comparisons = compare(
        {label: one.restorer for label, one in loaded.items()},
        FrozenPairs(source, recipe, seed),
        FrozenPairs(source, recipe.change(Resize, interpolation="bicubic"), seed),
        metrics.each,
        batch_size=options.batch_size,
        seed=seed,
        strangers=nearest_others(source, metrics.networks.faces) if with_identity else None,
        kept=kept,
    )
    run = Run([], SetScores(metrics.together), [])
    for face in tqdm(comparisons, total=len(source), unit="face", disable=not sys.stderr.isatty()):
        run.faces.append(face.measured)
        run.sets.add({label: image for label, image in face.images.items() if label != STRANGER})
        if len(run.shown) < SHOWN:  # of thousands of faces the images would not fit in memory
            run.shown.append(face.images)
    if options.real is not None and metrics.together:
        others = open_faces(options.real, about["size"], len(source), seed + 1)
        for i in range(len(others)):
            run.sets.add({REAL: others[i].image})
    return run


def _write(options: CompareOptions, run: Run, result: dict[str, Any]) -> None:
    """comparison.json, table.md, scores.csv, differences.csv, grid.png, and the table on the screen; what was kept
    for resuming goes."""
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", result)
    table = render_comparison(result)
    if options.breakdown:
        table += render_breakdown(result)
    write_text(output / "table.md", table)
    first = run.faces[0].scores
    header = ["name", *(f"{name}_{label}" for label, scores in first.items() for name in scores)]
    lines = ([face.key, *(value for scores in face.scores.values() for value in scores.values())] for face in run.faces)
    write_csv(output / "scores.csv", header, lines)
    columns = ("mean", "low", "high", "n")
    pairs = (
        [row["a"], row["b"], name, *(value[column] for column in columns)]
        for row in result["differences"]
        for name, value in row["metrics"].items()
    )
    write_csv(output / "differences.csv", ["a", "b", "metric", *columns], pairs)
    grid = [list(images.values()) for images in run.shown]
    write_image(output / "grid.png", image_grid(grid, list(run.shown[0])))
    shutil.rmtree(output / KEPT, ignore_errors=True)
    print(table)
    print(f"{len(run.faces)} faces -> {output}")
