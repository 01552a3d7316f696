"""Comparisons as one self-contained page, which loads nothing from other hosts: tables, the worst faces, SVG plots."""

import csv
import json
import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from idm.evaluation.layout import DIFFERENCES, Table, parts
from idm.evaluation.metrics import METRICS, PERCEPTUAL
from idm.evaluation.pictures import MAX_SIDE, NUM_WORST, picture_path, rank_gains, reference_metric
from idm.evaluation.plots import Point, histogram, scatter_plot
from idm.evaluation.sets import DEGRADED, ORIGINAL, STRANGER
from idm.evaluation.tables import comparison_table, differences_table, faces_note, interval_note, notes
from idm.io.errors import InvalidInput
from idm.io.slider import SLIDER_CSS, picture_slider

NUM_LISTED = 8

# The policy keeps browsers from loading anything, whatever the names of faces and restorers hold.
HEAD = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Comparison of face restorers</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem;
  overflow-wrap: anywhere }}
:focus-visible {{ outline: 3px solid light-dark(#0f766e, #5eead4); outline-offset: 2px }}
.scroll {{ overflow-x: auto; max-width: 100%; margin-bottom: 1rem }} table {{ border-collapse: collapse }}
th, td {{ padding: .2rem .8rem .2rem 0; text-align: left; white-space: nowrap; border-bottom: 1px solid #8884 }}
.plots {{ display: flex; flex-wrap: wrap; gap: 1rem 2rem }} .plots > * {{ min-width: 0; max-width: 100% }}
svg {{ height: auto }}
svg text {{ font: 12px system-ui, sans-serif; fill: currentColor }}
.faces {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 16rem), 1fr)); gap: 1.2rem;
  margin-bottom: 1.2rem }}
figure {{ margin: 0 }} figcaption {{ font-size: .9rem; padding-top: .3rem }} select {{ font: inherit; max-width: 100% }}
{SLIDER_CSS}</style>
<main>
<h1>Comparison of face restorers</h1>
"""

_CHOOSE = (
    "for (const image of this.closest('figure').querySelectorAll('[data-label]')) "
    "image.hidden = image.dataset.label !== this.value"
)


class ReportError(InvalidInput):
    """A folder does not hold a comparison; the message begins with its path."""


@dataclass(frozen=True)
class Result:
    """A comparison read from the files of ``idm compare``.

    Attributes:
        keys: the name of each face.
        scores: of each face, by method and metric.
        pictures: WebP files of a few faces, by the face's position and the method.
    """

    name: str
    comparison: dict[str, Any]
    keys: list[str]
    scores: dict[str, dict[str, list[float]]]
    pictures: dict[int, dict[str, bytes]]

    @property
    def restorers(self) -> list[str]:
        """The labels of the restorers."""
        return _restorers(self.comparison)


def _restorers(comparison: dict[str, Any]) -> list[str]:
    return [row["label"] for row in comparison["rows"] if "seconds_per_image" in row]


def read_result(folder: Path, with_images: bool) -> Result:
    """Read a folder of ``idm compare``. Those of versions that kept no pictures have none.

    Raises:
        ReportError: a file is missing or damaged.
    """
    try:
        comparison = json.loads((folder / "comparison.json").read_text())
        with (folder / "scores.csv").open(newline="") as file:
            header, *rows = list(csv.reader(file))
        keys, *columns = zip(*rows, strict=True)
        known = {name: [*map(float, column)] for name, column in zip(header[1:], columns, strict=True)}
        labels = [row["label"] for row in comparison["rows"]]
        scores = {
            label: {name: known[f"{name}_{label}"] for name in METRICS if f"{name}_{label}" in known}
            for label in labels
        }
        pictures = _read_pictures(folder, comparison) if with_images and (folder / "pictures").is_dir() else {}
    except (OSError, ValueError) as error:
        raise ReportError(f"{folder}: is not a finished comparison ({error})") from error
    return Result(folder.name, comparison, list(keys), scores, pictures)


def _read_pictures(folder: Path, comparison: dict[str, Any]) -> dict[int, dict[str, bytes]]:
    originals = [ORIGINAL] if comparison.get("originals", True) else []
    methods = [DEGRADED, *_restorers(comparison), *originals]
    return {
        position: {label: picture_path(folder, position, label).read_bytes() for label in methods}
        for position in comparison.get("pictures", ())
    }


def render_page(results: Sequence[Result]) -> str:
    """The whole page."""
    return f"{HEAD}{''.join(_section(result) for result in results)}</main></html>\n"


def _section(result: Result) -> str:
    """The table, the worst faces, plots, differences, and the first faces."""
    comparison = result.comparison
    worst = _worst_positions(result)
    blocks = [
        f"<h2>{escape(result.name)}: {comparison['num_images']} faces of {escape(comparison['data'])}</h2>",
        f"<p>{_marked(faces_note(comparison))}</p>",
        _tables(comparison_table(comparison), "Means"),
        f"<p>{escape(interval_note(comparison))}</p>",
        *_worst_faces(result, worst),
        f"<h3>Plots</h3><div class=plots>{''.join([*_planes(comparison), *_distributions(result)])}</div>",
    ]
    if comparison.get("differences"):
        table = _tables(differences_table(comparison), "Pairs", num_labels=2)
        blocks += [f"<h3>Paired differences</h3><p>{DIFFERENCES}</p>", table]
    others = [position for position in result.pictures if position not in worst]
    if others:
        blocks += ["<h3>Other faces</h3>", _cards(result, {position: [] for position in others})]
    items = "".join(f"<li>{_marked(line)}" for line in notes(comparison))
    return "\n".join([*blocks, f"<h3>Notes</h3><ul>{items}</ul>\n"])


def _marked(line: str) -> str:
    """A line of notes, whose code is in backquotes."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(line))


def _tables(table: Table, title: str, num_labels: int = 1) -> str:
    """The parts of a table one below the other."""
    found = parts(table, num_labels)
    names = [title] if len(found) == 1 else [f"{title}, {i} of {len(found)}" for i in range(1, len(found) + 1)]
    return "".join(_table(part, name) for part, name in zip(found, names, strict=True))


def _table(table: Table, title: str) -> str:
    header, rows = table
    head = "".join(f"<th scope=col>{escape(cell)}" if cell else "<td>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}" for cell in row) for row in rows)
    return (
        f"<div class=scroll tabindex=0 role=region aria-label='{escape(title)}'><table><tr>{head}{body}</table></div>"
    )


# ------------------------------------------------------------------------------------------- faces


def _worst_positions(result: Result) -> dict[int, list[str]]:
    """The faces on which restorers gain least, the worst of each restorer first, with the labels of the restorers."""
    ranks = [rank_gains(result.scores, label)[:NUM_WORST] for label in result.restorers]
    worst: dict[int, list[str]] = {}
    for rank in range(max(map(len, ranks), default=0)):
        for label, ranked in zip(result.restorers, ranks, strict=True):
            if rank < len(ranked):
                worst.setdefault(ranked[rank][0], []).append(label)
    return worst


def _worst_faces(result: Result, worst: dict[int, list[str]]) -> list[str]:
    """The worst faces as pictures and, a few more, in numbers."""
    metric = reference_metric(result.scores)
    blocks = ["<h3>Worst faces</h3>"]
    if metric is None:
        blocks.append("<p>No metric compares the faces with originals, so none is the worst.</p>")
    else:
        blocks.append(f"<p>Faces on which a restorer gains least over the degraded face, in {metric.title}.</p>")
    if result.pictures:
        blocks.append(_cards(result, worst))
    else:
        blocks.append(
            "<p>There are no pictures of faces: <code>--no-images</code> left them out, or an older version of "
            "<code>idm compare</code> made the result and kept none.</p>"
        )
    tables = "".join(_worst_table(result, label) for label in result.restorers) if metric else ""
    return [*blocks, f"<div class=plots>{tables}</div>"]


def _worst_table(result: Result, label: str) -> str:
    metric = reference_metric(result.scores)
    assert metric is not None
    before, after = result.scores[DEGRADED][metric.name], result.scores[label][metric.name]
    rows = [
        [result.keys[i], f"{before[i]:#.4g}", f"{after[i]:#.4g}", f"{gain:+#.3g}"]
        for i, gain in rank_gains(result.scores, label)[:NUM_LISTED]
    ]
    title = f"Worst faces of {label}"
    return f"<div>{_table(([title, f'degraded, {metric.heading}', 'restored', 'gain'], rows), title)}</div>"


def _cards(result: Result, faces: dict[int, list[str]]) -> str:
    """Each face with a slider, and a choice of the restorer; the first label of a face is chosen at first."""
    cards = [_card(result, position, labels) for position, labels in faces.items() if position in result.pictures]
    return (
        "<p>Left of the line: degraded. Right of it: what is chosen below the face. Drag the line, or move it with the "
        f"arrow keys.</p><div class=faces>{''.join(cards)}</div>"
    )


def _card(result: Result, position: int, worst_of: Sequence[str]) -> str:
    key, pictures = result.keys[position], dict(result.pictures[position])
    before = _image(pictures.pop(DEGRADED), f"{key}, degraded")
    chosen = [*worst_of, *pictures][0]
    after = "".join(
        _image(data, f"{key}, {label}", f" data-label='{escape(label)}'{'' if label == chosen else ' hidden'}")
        for label, data in pictures.items()
    )
    options = "".join(f"<option{' selected' if label == chosen else ''}>{escape(label)}" for label in pictures)
    slider = picture_slider(before, after, f"{key}: percent of the picture that shows it degraded", MAX_SIDE)
    return (
        f"<figure>{slider}<figcaption><strong>{escape(key)}</strong>{_caption(result, position, worst_of)}<br>"
        f"<label>Right of the line: <select autocomplete=off aria-label='Right of the line: {escape(key)}' "
        f'onchange="{_CHOOSE}">{options}</select></label></figcaption></figure>'
    )


def _image(data: bytes, alt: str, attributes: str = "") -> str:
    return f"<img alt='{escape(alt)}' src='data:image/webp;base64,{b64encode(data).decode()}'{attributes}>"


def _caption(result: Result, position: int, worst_of: Sequence[str]) -> str:
    """The methods of which this is a worst face, and the first metric of every method that has a picture."""
    lines = [f"one of the worst of {', '.join(worst_of)}"] if worst_of else []
    metric = reference_metric(result.scores) or next(
        (metric for name, metric in METRICS.items() if name in result.scores[DEGRADED]), None
    )
    if metric is not None:
        values = [
            f"{label} {result.scores[label][metric.name][position]:#.4g}" for label in (DEGRADED, *result.restorers)
        ]
        lines.append(f"{metric.heading}: {', '.join(values)}")
    return "".join(f"<br>{escape(line)}" for line in lines)


# ------------------------------------------------------------------------------------------- plots


def _planes(comparison: dict[str, Any]) -> list[str]:
    """Perception against distortion, and quality against seconds, of the methods that have both; a stranger has no
    distortion."""
    rows = [row for row in comparison["rows"] if row["label"] != STRANGER]
    measured = {name for row in rows for name in row["metrics"]}
    plots = []
    perceptual = next((name for name in PERCEPTUAL if name in measured), None)
    if perceptual is not None and "psnr" in measured:
        x, y = METRICS["psnr"].heading, METRICS[perceptual].heading
        plots.append(scatter_plot(_points(rows, "psnr", perceptual), x, y, "Perception and distortion"))
    quality = next(name for name in METRICS if name in measured)
    timed = [
        (row["label"], row["seconds_per_image"], row["metrics"][quality]["mean"])
        for row in rows
        if row.get("seconds_per_image")
    ]
    if timed:
        title = "Quality and seconds"
        plots.append(scatter_plot(timed, "seconds per face (logarithmic)", METRICS[quality].heading, title, log_x=True))
    return plots


def _points(rows: list[dict[str, Any]], x: str, y: str) -> list[Point]:
    return [
        (row["label"], row["metrics"][x]["mean"], row["metrics"][y]["mean"])
        for row in rows
        if x in row["metrics"] and y in row["metrics"]
    ]


def _distributions(result: Result) -> list[str]:
    """A histogram of the differences of every two restorers, in the first metric."""
    restorers = result.restorers
    metric = next((metric for name, metric in METRICS.items() if name in result.scores[DEGRADED]), None)
    if metric is None:
        return []
    plots = []
    for i, a in enumerate(restorers):
        for b in restorers[i + 1 :]:
            pairs = zip(result.scores[a][metric.name], result.scores[b][metric.name], strict=True)
            title = f"{metric.title} of each face: {a} − {b}"
            plots.append(histogram([one - other for one, other in pairs], title))
    return plots
