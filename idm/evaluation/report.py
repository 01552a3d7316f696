"""Comparisons as one self-contained page, which loads nothing from other hosts: tables, SVG plots, worst cases."""

import csv
import json
import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from idm.evaluation.layout import DIFFERENCES, Table
from idm.evaluation.metrics import METRICS
from idm.evaluation.tables import comparison_table, differences_table, interval_note, notes
from idm.io.errors import InvalidInput

# Of the first that was measured: how likely the faces look, against PSNR, how near they are.
PERCEPTION = ("lpips", "dists", "fid", "kid", "niqe", "musiq", "topiq_nr-face", "kernel", "frechet", "deg", "sharpness")
NUM_WORST = 8
NUM_BINS = 24

Point = tuple[str, float, float]  # label, x, y


class ReportError(InvalidInput):
    """A folder does not hold a comparison; the message begins with its path."""


@dataclass(frozen=True)
class Result:
    """A comparison read from the files of ``idm compare``.

    Attributes:
        scores: columns of scores.csv by their headings, such as "psnr_idm".
        grid: the PNG of faces before and after, None if it is not shown.
    """

    name: str
    comparison: dict[str, Any]
    keys: list[str]
    scores: dict[str, list[float]]
    grid: bytes | None


def read_result(folder: Path, with_images: bool) -> Result:
    """Read a folder of ``idm compare``.

    Raises:
        ReportError: a file is missing or damaged.
    """
    try:
        comparison = json.loads((folder / "comparison.json").read_text())
        with (folder / "scores.csv").open(newline="") as file:
            header, *rows = list(csv.reader(file))
        columns = list(zip(*rows, strict=True))
        scores = {name: [*map(float, column)] for name, column in zip(header[1:], columns[1:], strict=True)}
        grid = (folder / "grid.png").read_bytes() if with_images else None
    except (OSError, ValueError) as error:
        raise ReportError(f"{folder}: is not a finished comparison ({error})") from error
    return Result(folder.name, comparison, list(columns[0]), scores, grid)


def render_page(results: Sequence[Result]) -> str:
    """The whole page."""
    sections = "".join(_section(result) for result in results)
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Comparison of face restorers</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem }}
.scroll {{ overflow-x: auto }} table {{ border-collapse: collapse }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #8884 }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1rem }} svg {{ max-width: 100%; height: auto }}
svg text {{ font: 12px system-ui, sans-serif; fill: currentColor }} img {{ max-width: 100% }}
</style>
<h1>Comparison of face restorers</h1>
{sections}</html>
"""


def _section(result: Result) -> str:
    comparison = result.comparison
    restorers = [row["label"] for row in comparison["rows"] if "seconds_per_image" in row]
    parts = [f"<h2>{escape(result.name)}: {comparison['num_images']} faces of {escape(comparison['data'])}</h2>"]
    parts += [_table(comparison_table(comparison)), f"<p>{escape(interval_note(comparison))}</p>"]
    plots = [*_planes(comparison), *_distributions(result, restorers)]
    parts.append(f"<div class=plots>{''.join(plots)}</div>")
    if comparison.get("differences"):
        parts += [f"<p>{DIFFERENCES}</p>", _table(differences_table(comparison))]
    parts += [_worst(result, label) for label in restorers]
    if result.grid is not None:
        data = b64encode(result.grid).decode()
        parts.append(f"<img alt='faces before and after' src='data:image/png;base64,{data}'>")
    items = "".join(f"<li>{escape(line)}" for line in notes(comparison))
    return "\n".join([*parts, f"<ul>{items}</ul>\n"])


def _table(table: Table) -> str:
    header, rows = table
    head = "".join(f"<th>{escape(cell)}" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return f"<div class=scroll><table><tr>{head}{body}</table></div>"


def _planes(comparison: dict[str, Any]) -> list[str]:
    """Perception against distortion, and quality against seconds, of the methods that have both."""
    rows = comparison["rows"]
    measured = {name for row in rows for name in row["metrics"]}
    plots = []
    for name in PERCEPTION:
        if name in measured and "psnr" in measured:
            points = _points(rows, "psnr", name)
            plots.append(_scatter(points, METRICS["psnr"].heading, METRICS[name].heading, "Perception and distortion"))
            break
    quality = next(name for name in METRICS if name in measured)
    timed = [
        (row["label"], math.log10(row["seconds_per_image"]), row["metrics"][quality]["mean"])
        for row in rows
        if row.get("seconds_per_image")
    ]
    if timed:
        plots.append(_scatter(timed, "seconds per face, log10", METRICS[quality].heading, "Quality and seconds"))
    return plots


def _points(rows: list[dict[str, Any]], x: str, y: str) -> list[Point]:
    return [
        (row["label"], row["metrics"][x]["mean"], row["metrics"][y]["mean"])
        for row in rows
        if x in row["metrics"] and y in row["metrics"]
    ]


def _distributions(result: Result, restorers: list[str]) -> list[str]:
    """A histogram of the differences of every two restorers, in the first metric."""
    name = next(name for name in METRICS if any(column.startswith(f"{name}_") for column in result.scores))
    plots = []
    for i, a in enumerate(restorers):
        for b in restorers[i + 1 :]:
            pairs = zip(result.scores[f"{name}_{a}"], result.scores[f"{name}_{b}"], strict=True)
            title = f"{METRICS[name].title} of each face: {a} − {b}"
            plots.append(_histogram([one - other for one, other in pairs], title))
    return plots


def _worst(result: Result, label: str) -> str:
    """The faces on which a restorer's gain over the degraded face is least, in its first full-reference metric."""
    name = next((name for name in METRICS if f"{name}_{label}" in result.scores and METRICS[name].full_reference), None)
    if name is None:
        return ""
    before, after = result.scores[f"{name}_degraded"], result.scores[f"{name}_{label}"]
    sign = -1 if METRICS[name].better == "lower" else 1
    order = sorted(range(len(after)), key=lambda i: sign * (after[i] - before[i]))[:NUM_WORST]
    header = ["face", f"degraded, {METRICS[name].heading}", "restored", "gain"]
    rows = [
        [result.keys[i], f"{before[i]:.4g}", f"{after[i]:.4g}", f"{sign * (after[i] - before[i]):+.3g}"] for i in order
    ]
    return f"<h3>Worst cases of {escape(label)}</h3>{_table((header, rows))}"


# ------------------------------------------------------------------------------------------- plots

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 520.0, 320.0, 60.0, 90.0, 30.0, 45.0


def _scatter(points: Sequence[Point], x_title: str, y_title: str, title: str) -> str:
    """Labelled points."""
    x_range, y_range = _span([x for _, x, _ in points]), _span([y for _, _, y in points])
    marks = ""
    for label, x, y in points:
        px, py = _place(x, x_range, LEFT, WIDTH - RIGHT), _place(y, y_range, HEIGHT - BOTTOM, TOP)
        marks += f"<circle cx='{px:.1f}' cy='{py:.1f}' r='4' fill='#37c'/>"
        marks += f"<text x='{px + 7:.1f}' y='{py + 4:.1f}'>{escape(label)}</text>"
    return _frame(marks, x_range, y_range, x_title, y_title, title)


def _histogram(values: Sequence[float], title: str) -> str:
    """The distribution of values, with a line at 0."""
    x_range = _span([*values, 0.0])
    low, high = x_range
    counts = [0] * NUM_BINS
    for value in values:
        counts[min(NUM_BINS - 1, int((value - low) / (high - low) * NUM_BINS))] += 1
    y_range = (0.0, float(max(counts)))
    step = (WIDTH - LEFT - RIGHT) / NUM_BINS
    bars = ""
    for i, count in enumerate(counts):
        top = _place(float(count), y_range, HEIGHT - BOTTOM, TOP)
        size = f"width='{step - 1:.1f}' height='{HEIGHT - BOTTOM - top:.1f}'"
        bars += f"<rect x='{LEFT + i * step:.1f}' y='{top:.1f}' {size} fill='#37c'/>"
    zero = _place(0.0, x_range, LEFT, WIDTH - RIGHT)
    bars += f"<line x1='{zero:.1f}' x2='{zero:.1f}' y1='{TOP}' y2='{HEIGHT - BOTTOM}' stroke='#c33'/>"
    return _frame(bars, x_range, y_range, "difference", "faces", title)


def _frame(
    content: str, x_range: tuple[float, float], y_range: tuple[float, float], x_title: str, y_title: str, title: str
) -> str:
    """Axes with their ends around a plot's content."""
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    axes = f"<path d='M{LEFT} {TOP}V{bottom}H{right}' fill='none' stroke='currentColor'/>"
    texts = [
        (LEFT, bottom + 16, "start", f"{x_range[0]:.3g}"),
        (right, bottom + 16, "end", f"{x_range[1]:.3g}"),
        ((LEFT + right) / 2, bottom + 34, "middle", x_title),
        (LEFT - 5, bottom, "end", f"{y_range[0]:.3g}"),
        (LEFT - 5, TOP + 10, "end", f"{y_range[1]:.3g}"),
        (LEFT, TOP - 12, "start", f"{title} ({y_title})"),
    ]
    labels = "".join(
        f"<text x='{x}' y='{y}' text-anchor='{place}'>{escape(text)}</text>" for x, y, place, text in texts
    )
    return f"<svg viewBox='0 0 {WIDTH} {HEIGHT}' width='{WIDTH}' role='img'>{axes}{content}{labels}</svg>"


def _span(values: Sequence[float]) -> tuple[float, float]:
    """The range of values with a margin, never empty."""
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.5
    return low - margin, high + margin


def _place(value: float, span: tuple[float, float], start: float, end: float) -> float:
    return start + (value - span[0]) / (span[1] - span[0]) * (end - start)
