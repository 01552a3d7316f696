"""``idm compare``."""

import multiprocessing
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from idm.evaluation.compare import Comparison, Measured, breakdown, compare, differences, table_rows
from idm.evaluation.identity import nearest_others
from idm.evaluation.kept import KeptFaces
from idm.evaluation.metrics import METRICS, Metrics
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, REAL, STRANGER, SetScores
from idm.evaluation.statistics import INTERVAL
from idm.evaluation.tables import render_breakdown, render_comparison
from idm.io.atomic import write_csv, write_json, write_text
from idm.io.errors import InvalidInput
from idm.io.grid import image_grid
from idm.io.images import write_image
from idm.io.machine import provenance
from idm.restorers.idm import IDM
from idm.restorers.load import Loaded

SHOWN = 8
KEPT = ".kept"  # faces of an unfinished comparison


@dataclass(frozen=True)
class Task:
    """What a comparison needs: restorers by label, metrics, clean faces, and the settings that results state."""

    loaded: dict[str, Loaded]
    metrics: Metrics
    source: FaceSource
    about: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """The measured faces of a comparison, their scores as sets, and the images of the first faces."""

    faces: list[Measured]
    sets: SetScores
    shown: list[dict[str, np.ndarray]]


def compare_command(options: CompareOptions) -> int:
    """``idm compare``: 0 if every restorer was measured on every face."""
    _check(options)
    task = _prepare(options)
    splits = check_splits(options.data, options.training_data)
    if options.processes > 1:
        _share_out(options)
    run = _measure(options, task)
    loaded, metrics, about = task.loaded, task.metrics, task.about
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
        "processes": options.processes,
        **about,
        **provenance(),
    }
    _write(options, run, result)
    return 0


def _check(options: CompareOptions) -> None:
    check_output(options.output)
    for name in ("samples", "processes"):
        if getattr(options, name) < 1:
            raise InvalidInput(f"--{name} must be at least 1, got {getattr(options, name)}")


def _prepare(options: CompareOptions) -> Task:
    """Load what a comparison needs."""
    taken = (DEGRADED, BICUBIC, STRANGER, REAL, ORIGINAL)
    loaded = load_labelled(options.restorers, prepare_machine(options), taken)
    smallest = min(one.restorer.image_size for one in loaded.values())
    size = smallest if options.size is None else options.size
    source = build_faces(options, size)
    about = {
        "data": options.data,
        "preset": options.preset,
        "seed": options.seed,
        "size": size,
        "batch_size": options.batch_size,
        "samples": options.samples,
    }
    return Task(loaded, build_measures(options.metrics, size), source, about)


def _share_out(options: CompareOptions) -> None:
    """Start processes that restore and measure their shares of the faces and save the results, which this process
    reads.

    Raises:
        ChildProcessError: one of them failed and printed the reason.
    """
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_work, args=(options, rank), daemon=True) for rank in range(options.processes)]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
    if any(worker.exitcode for worker in workers):
        raise ChildProcessError("a process of the comparison failed; the same command resumes it")


def _work(options: CompareOptions, rank: int) -> None:
    """One process's share; each has a GPU of its own if there are several."""
    if options.device in (None, "cuda") and torch.cuda.device_count() > 1:
        options = replace(options, device=f"cuda:{rank % torch.cuda.device_count()}")
    task = _prepare(options)  # with as many threads as one process has: they change the last bits
    for _ in tqdm(
        _compare(options, task, (rank, options.processes)),
        unit="face",
        position=rank,
        leave=False,
        disable=not sys.stderr.isatty(),
    ):
        pass


def _compare(options: CompareOptions, task: Task, share: tuple[int, int] = (0, 1)) -> Iterator[Comparison]:
    """Every face of a share by every restorer, beside the reference rows; resumes what an earlier run kept."""
    recipe, seed = build_preset(options.preset), options.seed
    commit = provenance()["commit"]
    known = {label: one.metadata for label, one in task.loaded.items()}
    kept = {
        label: KeptFaces(
            options.output / KEPT, {"label": label, "commit": commit, **known.get(label, {}), **task.about}
        )
        for label in (DEGRADED, BICUBIC, STRANGER, *task.loaded)
    }
    metrics, source = task.metrics, task.source
    with_identity = {"identity", "deg"} & metrics.each.keys() and len(source) > 1 and not options.no_stranger
    return compare(
        {label: one.restorer for label, one in task.loaded.items()},
        FrozenPairs(source, recipe, seed),
        FrozenPairs(source, recipe.change(Resize, interpolation="bicubic"), seed),
        metrics.each,
        batch_size=options.batch_size,
        seed=seed,
        strangers=nearest_others(source, metrics.networks.faces) if with_identity else None,
        kept=kept,
        samples={label: options.samples for label, one in task.loaded.items() if isinstance(one.restorer, IDM)},
        share=share,
    )


def _measure(options: CompareOptions, task: Task) -> Run:
    """Every face by every restorer, and the scores of whole sets."""
    source, metrics = task.source, task.metrics
    run = Run([], SetScores(metrics.together), [])
    comparisons = _compare(options, task)
    for face in tqdm(comparisons, total=len(source), unit="face", disable=not sys.stderr.isatty()):
        run.faces.append(face.measured)
        run.sets.add({label: image for label, image in face.images.items() if label != STRANGER})
        if len(run.shown) < SHOWN:  # of thousands of faces the images would not fit in memory
            run.shown.append(face.images)
    if options.real is not None and metrics.together:
        others = open_faces(options.real, task.about["size"], len(source), options.seed + 1)
        for i in range(len(others)):
            run.sets.add({REAL: others[i].image})
    return run


def _write(options: CompareOptions, run: Run, result: dict[str, Any]) -> None:
    """comparison.json, table.md, scores.csv, differences.csv, grid.png, and the table on the screen; the files for
    resuming are deleted."""
    output: Path = options.output
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "comparison.json", result)
    table = render_comparison(result)
    if options.breakdown:
        table += render_breakdown(result)
    write_text(output / "table.md", table)
    first = run.faces[0]
    header = ["name", *(f"{name}_{label}" for label, scores in first.scores.items() for name in scores)]
    header += [f"diversity_{label}" for label in first.diversity]
    lines = (
        [face.key, *(value for scores in face.scores.values() for value in scores.values()), *face.diversity.values()]
        for face in run.faces
    )
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
