"""``idm evaluate``."""

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from idm.commands.faces import build_faces, build_metrics, build_preset
from idm.commands.model import USER_ERRORS, load
from idm.data.images import ImageError, find_images, image_grid, read_image, write_image
from idm.data.pairs import FrozenPairs
from idm.evaluation.evaluate import Row, Scores, evaluate, score, score_sets, summarise, summarise_column
from idm.evaluation.metrics import METRICS, PairMetric, SetMetric
from idm.runtime import provenance
from idm.training.checkpoint import write_json


def evaluate_command(arguments: argparse.Namespace) -> int:
    """``idm evaluate``: 0 if everything was measured."""
    try:
        metrics, set_metrics = build_metrics(arguments.metrics)
        arguments.output.mkdir(parents=True, exist_ok=True)
        if arguments.pairs:
            restored, hq = arguments.pairs
            return _compare_folders(restored, hq, metrics, set_metrics, arguments.output)
        return _evaluate_model(arguments, metrics, set_metrics)
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _evaluate_model(
    arguments: argparse.Namespace, metrics: dict[str, PairMetric], set_metrics: dict[str, SetMetric]
) -> int:
    loaded = load(arguments)
    faces = build_faces(arguments, loaded.restorer.image_size)
    pairs = FrozenPairs(faces, build_preset(arguments.preset), arguments.seed)
    with tqdm(total=len(pairs), unit="face", disable=not sys.stderr.isatty()) as bar:

        def advance(num_faces: int) -> None:
            bar.update(num_faces)

        rows = list(
            evaluate(
                loaded.restorer,
                pairs,
                metrics,
                indices=range(len(pairs)),
                batch_size=arguments.batch_size,
                seed=arguments.seed,
                on_batch=advance,
            )
        )
    scores = [(row.pair.key, {"degraded": row.degraded_scores, "restored": row.restored_scores}) for row in rows]
    summary = summarise([(row.degraded_scores, row.restored_scores) for row in rows])
    originals = [row.pair.hq for row in rows]
    for column, images in (("degraded", [row.pair.lq for row in rows]), ("restored", [row.restored for row in rows])):
        for name, value in score_sets(images, originals, set_metrics).items():
            summary.setdefault(name, {})[column] = value
    about = {
        "data": arguments.data,
        "preset": arguments.preset,
        "seed": arguments.seed,
        "model": loaded.about,
        "seconds_per_image": sum(row.seconds for row in rows) / len(rows),
    }
    _write_results(arguments.output, scores, summary, about)
    _write_grid(arguments.output / "grid.png", rows)
    return 0


def _compare_folders(
    restored: Path, hq: Path, metrics: dict[str, PairMetric], set_metrics: dict[str, SetMetric], output: Path
) -> int:
    """Measure the images of one folder against those of the same relative name, whatever their suffix, in another."""
    originals = {path.relative_to(hq).with_suffix(""): path for path in find_images([hq])}
    scores, pictures, num_failed = [], [], 0
    for path in find_images([restored]):
        name = path.relative_to(restored).with_suffix("")
        try:
            if name not in originals:
                raise ImageError(f"{path}: has no counterpart in {hq}")
            pair = read_image(path).rgb, read_image(originals[name]).rgb
            values = score(*pair, metrics)
        except (ImageError, ValueError) as error:
            print(f"error: {error}", file=sys.stderr)
            num_failed += 1
        else:
            scores.append((name.as_posix(), {"restored": values}))
            if set_metrics:
                pictures.append(pair)
    if not scores:
        raise ImageError(f"{restored}: nothing in it could be measured")
    columns = {name: summarise_column([row["restored"][name] for _, row in scores]) for name in metrics}
    columns |= score_sets([image for image, _ in pictures], [original for _, original in pictures], set_metrics)
    about = {"restored": str(restored), "hq": str(hq), "failed": num_failed}
    _write_results(output, scores, {name: {"restored": value} for name, value in columns.items()}, about)
    return 1 if num_failed else 0


def _write_results(
    output: Path, scores: list[tuple[str, dict[str, Scores]]], summary: dict[str, Any], about: dict[str, Any]
) -> None:
    """metrics.json, scores.csv, and the means on the screen.

    Args:
        scores: for each face its name and, by column ("degraded", "restored"), its scores.
        summary: as of :func:`idm.evaluation.evaluate.summarise`.
    """
    protocol = {name: metric.protocol for name, metric in METRICS.items() if name in summary}
    write_json(
        output / "metrics.json",
        {"num_images": len(scores), "metrics": summary, "protocol": protocol, **about, **provenance()},
    )
    _, first = scores[0]
    with (output / "scores.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *(f"{name}_{column}" for column in first for name in first[column])])
        for key, row in scores:
            writer.writerow([key, *(value for values in row.values() for value in values.values())])
    for name, columns in summary.items():
        print(f"{name:9}" + "".join(f" {column} {_interval(value)}" for column, value in columns.items()))
    print(f"{len(scores)} faces -> {output}")


def _interval(value: dict[str, float | None] | int) -> str:
    if isinstance(value, int):
        return str(value)
    if value["mean"] is None:
        return "infinite"
    if value["low"] is None:
        return f"{value['mean']:.4f}"
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"


def _write_grid(path: Path, rows: list[Row], most: int = 8) -> None:
    shown = [(row.pair.lq, row.restored, row.pair.hq) for row in rows[:most]]
    write_image(path, image_grid(shown, ["degraded", "restored", "original"]))
