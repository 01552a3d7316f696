"""``idm compare``."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from idm.apps.cli.faces import build_faces, build_metrics, build_preset
from idm.apps.cli.model import USER_ERRORS, load_labelled, prepare_machine
from idm.data.pairs import FrozenPairs
from idm.degradation.steps import Resize
from idm.evaluation.compare import BICUBIC, DEGRADED, Measured, compare, table_rows
from idm.evaluation.metrics import METRICS
from idm.evaluation.sets import ORIGINAL, SetScores
from idm.evaluation.tables import render_comparison
from idm.io.atomic import write_csv, write_json, write_text
from idm.io.images import image_grid, write_image
from idm.io.machine import provenance

SHOWN = 8


def compare_command(arguments: argparse.Namespace) -> int:
    """``idm compare``: 0 if every restorer was measured on every face."""
    try:
        metrics, set_metrics = build_metrics(arguments.metrics)
        loaded = load_labelled(arguments.restorers, prepare_machine(arguments), taken=(DEGRADED, BICUBIC, ORIGINAL))
        smallest = min(one.restorer.image_size for one in loaded.values())
        size = smallest if arguments.size is None else arguments.size
        faces, recipe = build_faces(arguments, size), build_preset(arguments.preset)
        arguments.output.mkdir(parents=True, exist_ok=True)
        comparisons = compare(
            {label: one.restorer for label, one in loaded.items()},
            FrozenPairs(faces, recipe, arguments.seed),
            FrozenPairs(faces, recipe.change(Resize, interpolation="bicubic"), arguments.seed),
            metrics,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
        )
        measured: list[Measured] = []
        sets = SetScores(set_metrics)
        shown: list[dict[str, np.ndarray]] = []
        for face in tqdm(comparisons, total=len(faces), unit="face", disable=not sys.stderr.isatty()):
            measured.append(face.measured)
            sets.add(face.images)
            if len(shown) < SHOWN:  # of thousands of faces the images would not fit in memory
                shown.append(face.images)
        about = {
            "data": arguments.data,
            "preset": arguments.preset,
            "seed": arguments.seed,
            "size": size,
            "batch_size": arguments.batch_size,
        }
        rows = table_rows(measured, sets, {label: one.about for label, one in loaded.items()})
        _write(arguments.output, measured, rows, about)
        write_image(arguments.output / "grid.png", image_grid([list(s.values()) for s in shown], list(shown[0])))
        print(f"{len(measured)} faces -> {arguments.output}")
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(output: Path, faces: list[Measured], rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """comparison.json, table.md, scores.csv, and the table on the screen."""
    protocol = {name: metric.protocol for name, metric in METRICS.items() if name in rows[0]["metrics"]}
    result = {"num_images": len(faces), "rows": rows, "protocol": protocol, **about, **provenance()}
    write_json(output / "comparison.json", result)
    table = render_comparison(result)
    write_text(output / "table.md", table)
    names = list(faces[0].scores[DEGRADED])
    header = ["name", *(f"{name}_{row['label']}" for row in rows for name in names)]
    lines = ([face.key, *(face.scores[row["label"]][name] for row in rows for name in names)] for face in faces)
    write_csv(output / "scores.csv", header, lines)
    print(table)
