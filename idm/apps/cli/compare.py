"""``idm compare``."""

import multiprocessing
import shutil
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from idm.apps.cli.faces import (
    Degraded,
    SetReference,
    build_pairs,
    check_splits,
    describe_reference,
    face_tags,
    open_reference,
)
from idm.apps.cli.measures import build_measures, check_output
from idm.apps.cli.model import load_labelled, prepare_machine
from idm.apps.cli.options.measure import CompareOptions
from idm.evaluation.compare import (
    Comparison,
    Measured,
    breakdown,
    compare,
    differences,
    score_columns,
    table_rows,
)
from idm.evaluation.identity import nearest_others
from idm.evaluation.kept import KeptFaces
from idm.evaluation.metric import Image8
from idm.evaluation.metrics import METRICS, Metrics
from idm.evaluation.pictures import NUM_FIRST, choose_pictures, save_pictures
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, REAL, STRANGER, SetScores
from idm.evaluation.statistics import INTERVAL
from idm.evaluation.tables import render_breakdown, render_comparison
from idm.io.atomic import write_csv, write_json, write_text
from idm.io.errors import InvalidInput
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.machine import provenance
from idm.restorers.idm import IDM
from idm.restorers.load import Loaded

KEPT = ".kept"  # faces of an unfinished comparison


@dataclass(frozen=True)
class Task:
    """The parts of a comparison: restorers by label, the missing weights files of others, metrics, faces, what sets are
    compared with, the settings that results state, and by method the measured faces of an interrupted run."""

    loaded: dict[str, Loaded]
    absent: dict[str, str]
    metrics: Metrics
    faces: Degraded
    reference: SetReference
    settings: dict[str, Any]
    kept: dict[str, KeptFaces]


@dataclass(frozen=True)
class MeasuredFaces:
    """The measured faces of a comparison, and their scores as sets."""

    faces: list[Measured]
    sets: SetScores


def compare_command(options: CompareOptions) -> int:
    """``idm compare``: 0 if every restorer was measured on every face."""
    _check(options)
    task = _prepare(options)
    for label, weights in task.absent.items():
        print(f"warning: {label} is not measured: `idm weights fetch {weights}` gets its weights", file=sys.stderr)
    splits = check_splits(options.data, options.training_data)
    if options.processes > 1:
        _share_out(options)
    measured = _measure(options, task)
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
    check_output(options.output)
    for name in ("samples", "processes"):
        if getattr(options, name) < 1:
            raise InvalidInput(f"--{name} must be at least 1, got {getattr(options, name)}")


def _prepare(options: CompareOptions) -> Task:
    """Load what a comparison needs."""
    taken = (DEGRADED, BICUBIC, STRANGER, REAL, ORIGINAL)
    absent: dict[str, str] = {}
    loaded = load_labelled(options.restorers, prepare_machine(options), taken, absent)
    smallest = min(one.restorer.image_size for one in loaded.values())
    size = smallest if options.size is None else options.size
    faces = build_pairs(options, size)
    has_originals = faces.pairs.has_originals
    reference = open_reference(options, size, len(faces.pairs) if has_originals else 0)
    settings = {
        "data": options.data,
        "preset": faces.preset,
        "degradation": faces.degradation,
        "originals": has_originals,
        "seed": options.seed,
        "size": size,
        "batch_size": options.batch_size,
        "samples": options.samples,
    }
    metrics = build_measures(options, size, has_originals, reference.exists)
    commit = provenance()["commit"]
    known = {label: one.metadata for label, one in loaded.items()}
    kept = {
        label: KeptFaces(options.output / KEPT, {"label": label, "commit": commit, **known.get(label, {}), **settings})
        for label in (DEGRADED, BICUBIC, STRANGER, *loaded)
    }
    settings |= describe_reference(options, reference)
    return Task(loaded, absent, metrics, faces, reference, settings, kept)


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
    metrics, pairs = task.metrics, task.faces.pairs
    with_identity = {"identity", "deg"} & metrics.each.keys() and len(pairs) > 1 and not options.no_stranger
    return compare(
        {label: one.restorer for label, one in task.loaded.items()},
        pairs,
        task.faces.bicubic,
        metrics.each,
        batch_size=options.batch_size,
        seed=options.seed,
        strangers=nearest_others(pairs.source, metrics.networks.faces) if with_identity else None,
        kept=task.kept,
        samples={label: options.samples for label, one in task.loaded.items() if isinstance(one.restorer, IDM)},
        share=share,
    )


def _measure(options: CompareOptions, task: Task) -> MeasuredFaces:
    """Every face by every restorer, and the scores of whole sets."""
    measured = MeasuredFaces([], SetScores(task.metrics.together, task.reference.column))
    comparisons = _compare(options, task)
    for face in tqdm(comparisons, total=len(task.faces.pairs), unit="face", disable=not sys.stderr.isatty()):
        measured.faces.append(face.measured)
        measured.sets.add({label: image for label, image in face.images.items() if label != STRANGER})
    task.reference.add_to(measured.sets)
    return measured


def _images(task: Task, position: int, methods: Collection[str]) -> dict[str, Image8]:
    """One face by every method, as the comparison keeps it until its end, and the original if there is one."""
    pair = task.faces.pairs[position]
    images = {}
    for label in methods:
        face = task.kept[label].load(pair)
        assert face is not None, f"{label} has lost face {position}"
        images[label] = face.image
    return images | ({ORIGINAL: pair.hq} if task.faces.pairs.has_originals else {})


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
    shown = {position: _images(task, position, first.scores) for position in result["pictures"]}
    grid = [list(images.values()) for images in list(shown.values())[:NUM_FIRST]]
    write_image(output / "grid.png", image_grid(grid, list(shown[0])))
    pictured = (DEGRADED, *task.loaded, ORIGINAL)
    save_pictures(
        output, {i: {label: images[label] for label in pictured if label in images} for i, images in shown.items()}
    )
    shutil.rmtree(output / KEPT, ignore_errors=True)
    print(table)
    print(f"{len(faces)} faces -> {output}")
