"""``idm compare``."""

import argparse
import csv
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from idm.commands.faces import build_faces, build_metrics, build_preset
from idm.commands.model import USER_ERRORS, load_labelled, prepare_machine
from idm.data.images import image_grid, write_image
from idm.data.pairs import FrozenPairs
from idm.evaluation.compare import BICUBIC, DEGRADED, Comparison, compare, table_rows
from idm.evaluation.metrics import METRICS
from idm.evaluation.report import render_comparison
from idm.runtime import provenance
from idm.training.checkpoint import write_json, write_text

SHOWN = 8


def compare_command(arguments: argparse.Namespace) -> int:
    """``idm compare``: 0 if every restorer was measured on every face."""
    try:
        metrics, set_metrics = build_metrics(arguments.metrics)
        loaded = load_labelled(arguments.restorers, prepare_machine(arguments), taken=(DEGRADED, BICUBIC))
        size = arguments.size or min(one.restorer.image_size for one in loaded.values())
        faces, recipe = build_faces(arguments, size), build_preset(arguments.preset)
        arguments.output.mkdir(parents=True, exist_ok=True)
        with tqdm(total=len(faces), unit="face", disable=not sys.stderr.isatty()) as bar:

            def advance(num_faces: int) -> None:
                bar.update(num_faces)

            results = list(
                compare(
                    {label: one.restorer for label, one in loaded.items()},
                    FrozenPairs(faces, recipe, arguments.seed),
                    FrozenPairs(faces, replace(recipe, enlarge="bicubic"), arguments.seed),
                    metrics,
                    batch_size=arguments.batch_size,
                    seed=arguments.seed,
                    on_batch=advance,
                )
            )
        about = {
            "data": arguments.data,
            "preset": arguments.preset,
            "seed": arguments.seed,
            "size": size,
            "batch_size": arguments.batch_size,
        }
        rows = table_rows(results, {label: one.about for label, one in loaded.items()}, set_metrics)
        _write(arguments.output, results, rows, about)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _write(output: Path, results: list[Comparison], rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    """comparison.json, table.md, scores.csv, grid.png, and the table on the screen."""
    protocol = {name: metric.protocol for name, metric in METRICS.items() if name in rows[0]["metrics"]}
    result = {"num_images": len(results), "rows": rows, "protocol": protocol, **about, **provenance()}
    write_json(output / "comparison.json", result)
    table = render_comparison(result)
    write_text(output / "table.md", table)
    labels, names = list(results[0].images), list(results[0].scores[DEGRADED])
    with (output / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *(f"{name}_{label}" for label in labels for name in names)])
        for face in results:
            writer.writerow([face.pair.key, *(face.scores[label][name] for label in labels for name in names)])
    shown = [[*face.images.values(), face.pair.hq] for face in results[:SHOWN]]
    write_image(output / "grid.png", image_grid(shown, [*labels, "original"]))
    print(table)
    print(f"{len(results)} faces -> {output}")
