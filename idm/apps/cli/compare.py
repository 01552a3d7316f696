"""``idm compare``."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from idm.apps.cli.faces import check_splits, face_tags
from idm.apps.cli.measures import check_results
from idm.apps.cli.model import load_labelled, prepare_machine
from idm.apps.cli.options.measure import CompareOptions
from idm.apps.cli.task import Task, build_task, delete_kept, kept_images, measure_faces
from idm.evaluation.compare import Measured, breakdown, differences, score_columns, table_rows
from idm.evaluation.metrics import METRICS
from idm.evaluation.pictures import NUM_FIRST, choose_pictures, save_pictures
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, REAL, STRANGER
from idm.evaluation.statistics import INTERVAL
from idm.evaluation.tables import render_breakdown, render_comparison
from idm.io.atomic import write_csv, write_json, write_text
from idm.io.errors import InvalidInput
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.machine import provenance
from idm.restorers.idm import IDM


def compare_command(options: CompareOptions) -> int:
    """``idm compare``: 0 if every restorer was measured on every face."""
    _check(options)
    task = _prepare(options)
    for label, weights in task.absent.items():
        print(f"warning: {label} is not measured: `idm weights fetch {weights}` gets its weights", file=sys.stderr)
    splits = check_splits(options.data, options.training_data)
    measured = measure_faces(options, task, _prepare)
    loaded, metrics, settings = task.loaded, task.metrics, task.settings
    restorers = {label: one.metadata for label, one in loaded.items()}
    result = {
        "num_images": len(measured.faces),
        "rows": table_rows(measured.faces, measured.sets, restorers),
        "differences": differences(measured.faces, list(loaded)),
        "breakdown": breakdown(measured.faces, face_tags(options.data)),
        "missing": metrics.missing,
        "absent": task.absent,
        "protocol": {name: METRICS[name].protocol for name in (*metrics.each, *metrics.together)},
        "interval": INTERVAL,
        "splits": splits,
        "processes": options.processes,
        "pictures": choose_pictures(score_columns(measured.faces), list(loaded), len(measured.faces)),
        **settings,
        **provenance(),
    }
    _write(options, task, measured.faces, result)
    return 0


def _check(options: CompareOptions) -> None:
    check_results(options)
    if options.samples < 1:
        raise InvalidInput(f"--samples must be at least 1, got {options.samples}")


def _prepare(options: CompareOptions) -> Task:
    """Load what a comparison needs."""
    taken = (DEGRADED, BICUBIC, STRANGER, REAL, ORIGINAL)
    absent: dict[str, str] = {}
    loaded = load_labelled(options.restorers, prepare_machine(options), taken, absent)
    smallest = min(one.restorer.image_size for one in loaded.values())
    size = smallest if options.size is None else options.size
    task = build_task(options, loaded, size, samples=options.samples)
    samples = {label: options.samples for label, one in loaded.items() if isinstance(one.restorer, IDM)}
    return replace(task, absent=absent, samples=samples, with_strangers=not options.no_stranger)


def _write(options: CompareOptions, task: Task, faces: list[Measured], result: dict[str, Any]) -> None:
    """comparison.json, table.md, scores.csv, differences.csv, grid.png, pictures, and the table on the screen; the
    files for resuming are deleted."""
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", result)
    table = render_comparison(result)
    if options.breakdown:
        table += render_breakdown(result)
    write_text(output / "table.md", table)
    first = faces[0]
    header = ["name", *(f"{name}_{label}" for label, scores in first.scores.items() for name in scores)]
    header += [f"diversity_{label}" for label in first.diversity]
    lines = (
        [face.key, *(value for scores in face.scores.values() for value in scores.values()), *face.diversity.values()]
        for face in faces
    )
    write_csv(output / "scores.csv", header, lines)
    columns = ("mean", "low", "high", "n")
    pairs = (
        [row["a"], row["b"], name, *(value[column] for column in columns)]
        for row in result["differences"]
        for name, value in row["metrics"].items()
    )
    write_csv(output / "differences.csv", ["a", "b", "metric", *columns], pairs)
    shown = {position: kept_images(task, position, first.scores) for position in result["pictures"]}
    grid = [list(images.values()) for images in list(shown.values())[:NUM_FIRST]]
    write_image(output / "grid.png", image_grid(grid, list(shown[0])))
    pictured = (DEGRADED, *task.loaded, ORIGINAL)
    save_pictures(
        output, {i: {label: images[label] for label in pictured if label in images} for i, images in shown.items()}
    )
    delete_kept(options)
    print(table)
    print(f"{len(faces)} faces -> {output}")
