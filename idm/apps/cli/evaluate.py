"""``idm evaluate``."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from idm.apps.cli.faces import check_splits, describe_reference, open_reference
from idm.apps.cli.measures import build_measures, check_results
from idm.apps.cli.model import load
from idm.apps.cli.options.measure import EvaluateOptions
from idm.apps.cli.task import Task, build_task, delete_kept, kept_images, measure_faces
from idm.evaluation.engine import Scores, score, summarise_scores
from idm.evaluation.metrics import METRICS, Metrics
from idm.evaluation.pictures import NUM_FIRST
from idm.evaluation.sets import DEGRADED, ORIGINAL, SetScores
from idm.evaluation.statistics import INTERVAL, summarise_column
from idm.io.atomic import write_csv, write_json
from idm.io.errors import UserError
from idm.io.find import find_images
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.images import ImageError, read_image
from idm.io.machine import provenance

RESTORED = "restored"


def evaluate_command(options: EvaluateOptions) -> int:
    """``idm evaluate``: 0 if everything was measured."""
    check_results(options)
    return _compare_folders(options) if options.pairs else _evaluate_model(options)


def _evaluate_model(options: EvaluateOptions) -> int:
    task = _prepare(options)
    splits = check_splits(options.data, options.training_data)
    measured = measure_faces(options, task, _prepare)
    faces = measured.faces
    summary = summarise_scores([(face.scores[DEGRADED], face.scores[RESTORED]) for face in faces])
    _add_sets(summary, measured.sets)
    metadata = {
        **task.settings,
        "splits": splits,
        "model": task.loaded[RESTORED].metadata,
        "seconds_per_image": sum(face.seconds[RESTORED] for face in faces) / len(faces),
    }
    _write_results(options.output, [(face.key, face.scores) for face in faces], summary, task.metrics, metadata)
    shown = [kept_images(task, position, faces[0].scores) for position in range(min(NUM_FIRST, len(faces)))]
    write_image(options.output / "grid.png", image_grid([list(images.values()) for images in shown], list(shown[0])))
    delete_kept(options)
    return 0


def _prepare(options: EvaluateOptions) -> Task:
    """Load what an evaluation needs: that of a comparison of one restorer without the reference rows."""
    loaded = load(options)
    task = build_task(options, {RESTORED: loaded}, loaded.restorer.image_size)
    return replace(task, faces=replace(task.faces, bicubic=None))


def _compare_folders(options: EvaluateOptions) -> int:
    """Measure the images of one folder against those of the same relative name, whatever their suffix, in another."""
    assert options.pairs is not None
    restored, hq = options.pairs
    originals = {path.relative_to(hq).with_suffix(""): path for path in find_images([hq])}
    reference = open_reference(options, 0 if options.real is None else _side(originals.values()), len(originals))
    metrics = build_measures(options, None)
    sets = SetScores(metrics.together, reference.column)
    scores, num_failed = [], 0
    for path in find_images([restored]):
        name = path.relative_to(restored).with_suffix("")
        try:
            if name not in originals:
                raise ImageError(f"{path}: has no counterpart in {hq}")
            image, original = read_image(path).rgb, read_image(originals[name]).rgb
            values = score(image, original, metrics.each)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            num_failed += 1
        else:
            scores.append((name.as_posix(), {RESTORED: values}))
            sets.add({RESTORED: image, ORIGINAL: original})
    if not scores:
        raise ImageError(f"{restored}: nothing in it could be measured")
    summary = {name: {RESTORED: summarise_column([row[RESTORED][name] for _, row in scores])} for name in metrics.each}
    reference.add_to(sets)
    _add_sets(summary, sets)
    metadata = {"restored": str(restored), "hq": str(hq), "failed": num_failed}
    metadata |= describe_reference(options, reference)
    _write_results(options.output, scores, summary, metrics, metadata)
    return 1 if num_failed else 0


def _add_sets(summary: dict[str, Any], sets: SetScores) -> None:
    """Add the scores of every column as a set to a summary, but for those of the reference."""
    for column in sets.columns:
        if column != sets.reference:
            for name, value in sets.scores(column).items():
                summary.setdefault(name, {})[column] = value


def _side(paths: Iterable[Path]) -> int:
    """The side of the first image that can be read, at which other faces are compared; 1 if there is none."""
    for path in paths:
        with suppress(ImageError):
            return read_image(path).rgb.shape[0]
    return 1


def _write_results(
    output: Path,
    scores: list[tuple[str, dict[str, Scores]]],
    summary: dict[str, Any],
    metrics: Metrics,
    metadata: dict[str, Any],
) -> None:
    """metrics.json, scores.csv, and the means on the screen.

    Args:
        scores: for each face its name and, by column ("degraded", "restored"), its scores.
        summary: as of :func:`idm.evaluation.engine.summarise_scores`.
    """
    protocol = {name: metric.protocol for name, metric in METRICS.items() if name in summary}
    result = {"num_images": len(scores), "metrics": summary, "missing": metrics.missing, "protocol": protocol}
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "metrics.json", {**result, "interval": INTERVAL, **metadata, **provenance()})
    _, first = scores[0]
    header = ["name", *(f"{name}_{column}" for column in first for name in first[column])]
    lines = ([key, *(value for values in row.values() for value in values.values())] for key, row in scores)
    write_csv(output / "scores.csv", header, lines)
    for name, columns in summary.items():
        print(f"{name:13}" + "".join(f" {column} {_interval(value)}" for column, value in columns.items()))
    print(f"{len(scores)} faces -> {output}")


def _interval(value: dict[str, float | None]) -> str:
    if value["low"] is None:
        return f"{value['mean']:.4f}"
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"
