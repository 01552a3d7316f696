"""``idm evaluate``."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from idm.apps.cli.faces import SetReference, build_pairs, check_splits, describe_reference, open_reference
from idm.apps.cli.measures import build_measures, check_output
from idm.apps.cli.model import load
from idm.apps.cli.options.measure import EvaluateOptions
from idm.evaluation.engine import Scores, evaluate, score, summarise_scores
from idm.evaluation.metrics import METRICS, Metrics
from idm.evaluation.sets import ORIGINAL, SetScores
from idm.evaluation.statistics import INTERVAL, summarise_column
from idm.io.atomic import write_csv, write_json
from idm.io.errors import UserError
from idm.io.find import find_images
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.images import ImageError, read_image
from idm.io.machine import provenance

SHOWN = 8


def evaluate_command(options: EvaluateOptions) -> int:
    """``idm evaluate``: 0 if everything was measured."""
    check_output(options.output)
    return _compare_folders(options) if options.pairs else _evaluate_model(options)


def _evaluate_model(options: EvaluateOptions) -> int:
    loaded = load(options)
    faces = build_pairs(options, loaded.restorer.image_size)
    pairs = faces.pairs
    size = loaded.restorer.image_size
    reference = open_reference(options, size, len(pairs) if pairs.has_originals else 0)
    metrics = build_measures(options, size, pairs.has_originals, reference.exists)
    sets = SetScores(metrics.together, reference.column)
    splits = check_splits(options.data, options.training_data)
    rows = evaluate(
        loaded.restorer,
        pairs,
        metrics.each,
        indices=range(len(pairs)),
        batch_size=options.batch_size,
        seed=options.seed,
    )
    scores, seconds = [], []
    shown: list[dict[str, np.ndarray]] = []
    for row in tqdm(rows, total=len(pairs), unit="face", disable=not sys.stderr.isatty()):
        scores.append((row.pair.key, {"degraded": row.degraded_scores, "restored": row.restored_scores}))
        seconds.append(row.seconds)
        images = {"degraded": row.pair.lq, "restored": row.restored}
        images |= {ORIGINAL: row.pair.hq} if pairs.has_originals else {}
        sets.add(images)
        if len(shown) < SHOWN:  # of thousands of faces the images would not fit in memory
            shown.append(images)
    summary = summarise_scores([(row["degraded"], row["restored"]) for _, row in scores])
    _add_sets(summary, sets, reference)
    metadata = {
        "data": options.data,
        "preset": faces.preset,
        "degradation": faces.degradation,
        "originals": pairs.has_originals,
        **describe_reference(options, reference),
        "seed": options.seed,
        "splits": splits,
        "model": loaded.metadata,
        "seconds_per_image": sum(seconds) / len(seconds),
    }
    _write_results(options.output, scores, summary, metrics, metadata)
    write_image(options.output / "grid.png", image_grid([list(images.values()) for images in shown], list(shown[0])))
    return 0


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
            scores.append((name.as_posix(), {"restored": values}))
            sets.add({"restored": image, ORIGINAL: original})
    if not scores:
        raise ImageError(f"{restored}: nothing in it could be measured")
    summary = {
        name: {"restored": summarise_column([row["restored"][name] for _, row in scores])} for name in metrics.each
    }
    _add_sets(summary, sets, reference)
    metadata = {"restored": str(restored), "hq": str(hq), "failed": num_failed}
    metadata |= describe_reference(options, reference)
    _write_results(options.output, scores, summary, metrics, metadata)
    return 1 if num_failed else 0


def _add_sets(summary: dict[str, Any], sets: SetScores, reference: SetReference) -> None:
    """Add the scores of every column as a set to a summary, but for those of the reference."""
    reference.add_to(sets)
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
