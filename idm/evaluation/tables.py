"""Tables from result files: ``python -m idm.evaluation.tables experiments/tables/*.yaml``.

A table's YAML names result files that ``idm evaluate`` or ``idm compare`` wrote; the table is written beside it as
Markdown, LaTeX and CSV (:mod:`~idm.evaluation.layout`). A test fails if a committed table does not match its files.
"""

import csv
import json
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from idm.evaluation.layout import GAP, Content, Number, Table, csv_text, markdown, markdown_table, tex
from idm.evaluation.metrics import METRICS
from idm.evaluation.sets import ORIGINAL, REAL, STRANGER
from idm.evaluation.splits import COPY
from idm.evaluation.statistics import paired_differences
from idm.io.atomic import write_text
from idm.io.errors import InvalidInput

Value = Mapping[str, Any]  # "mean", and "low" and "high" of its interval


def render(spec_path: Path) -> dict[str, str]:
    """The text of one table by suffix: ".md", ".tex" and ".csv".

    The YAML has ``title``, optionally ``note``, and either ``comparison``, a file that ``idm compare`` wrote, or
    ``metrics`` (names) with ``rows`` (``label``, ``result``: a file that ``idm evaluate`` wrote, ``column``:
    "restored" or "degraded"). Paths are relative to the YAML.

    Raises:
        ValueError: the rows have different protocols or different data.
    """
    spec = yaml.safe_load(spec_path.read_text())
    if "comparison" in spec:
        content = comparison_content(_read_comparison(spec_path.parent / spec["comparison"]))
    else:
        content = _rows_content(spec, spec_path.parent)
    folders = spec_path.resolve().parts[-3:-1]
    path = "/".join([*folders, spec_path.name]) if folders == ("experiments", "tables") else spec_path.name
    made_by = f"`python -m idm.evaluation.tables {path}` makes this file."
    note = spec.get("note", "").strip()
    return {
        ".md": f"# {spec['title']}\n\n{made_by}\n\n{markdown(content)}" + (f"\n{note}\n" if note else ""),
        ".tex": tex(spec["title"], made_by, content, note),
        ".csv": csv_text(content),
    }


def _read_comparison(path: Path) -> dict[str, Any]:
    """A comparison.json. Where it is older than paired differences, they are those of the scores.csv beside it."""
    result: dict[str, Any] = json.loads(path.read_text())
    if "differences" in result:
        return result
    with path.with_name("scores.csv").open(newline="") as file:
        faces = list(csv.DictReader(file))
    labels = [row["label"] for row in result["rows"] if "seconds_per_image" in row]
    names = [name for name in METRICS if f"{name}_{labels[0]}" in faces[0]]
    columns = {label: {name: [float(face[f"{name}_{label}"]) for face in faces] for name in names} for label in labels}
    return result | {"differences": paired_differences(columns, labels)}


def _rows_content(spec: dict[str, Any], folder: Path) -> Content:
    results = [json.loads((folder / row["result"]).read_text()) for row in spec["rows"]]
    names = spec["metrics"]
    _require_one_protocol(results, names)
    values = [
        (row["label"], {name: result["metrics"][name][row.get("column", "restored")] for name in names})
        for row, result in zip(spec["rows"], results, strict=True)
    ]
    cells = _cells(names, [metrics for _, metrics in values])
    protocols = [f"{METRICS[name].title}: {results[0]['protocol'][name]}" for name in names]
    return Content(
        (["", *map(_title, names)], [[label, *each] for (label, _), each in zip(values, cells, strict=True)]),
        f"{_interval_of(results[0])}.",
        None,
        [*protocols, *_split_notes(results[0]), *_provenance(results)],
        [number for label, metrics in values for number in _numbers(label, metrics)],
    )


def render_comparison(result: dict[str, Any]) -> str:
    """The Markdown tables of a comparison.json: a row for each method on the same faces, and for every two restorers
    their paired differences."""
    return markdown(comparison_content(result))


def comparison_content(result: dict[str, Any]) -> Content:
    """The content of the table of a comparison.json, for all formats."""
    numbers = [number for row in result["rows"] for number in _numbers(row["label"], row["metrics"])]
    for row in result["rows"]:
        numbers += [(row["label"], "diversity", row["diversity"])] if "diversity" in row else []
        numbers += [
            (row["label"], key, {"mean": row[key]}) for key in ("seconds_per_image", "parameters") if key in row
        ]
    for row in result.get("differences", ()):
        numbers += _numbers(f"{row['a']} - {row['b']}", row["metrics"])
    differences = differences_table(result) if result.get("differences") else None
    return Content(comparison_table(result), interval_note(result), differences, notes(result), numbers)


def _numbers(label: str, metrics: dict[str, dict[str, float | None]]) -> list[Number]:
    return [(label, name, metrics[name]) for name in _ordered(metrics)]


def comparison_table(result: dict[str, Any]) -> Table:
    """A row for each method, and one of gaps for each restorer whose weights are missing."""
    names = _names(result)
    has_samples = any("diversity" in row for row in result["rows"])
    cells = _cells(names, [row["metrics"] for row in result["rows"]])
    rows = [_comparison_row(row, each, has_samples) for row, each in zip(result["rows"], cells, strict=True)]
    header = ["", *map(_title, names), *["diversity"] * has_samples, "seconds per face", "parameters"]
    return header, rows + [[label] + [GAP] * (len(header) - 1) for label in result.get("absent", ())]


def differences_table(result: dict[str, Any]) -> Table:
    """A row for every two restorers."""
    names = _ordered(result["differences"][0]["metrics"])
    cells = _cells(names, [row["metrics"] for row in result["differences"]])
    rows = [
        [f"{row['a']} − {row['b']}", str(row["metrics"][names[0]]["n"]), *each]
        for row, each in zip(result["differences"], cells, strict=True)
    ]
    return ["", "faces", *map(_title, names)], rows


def interval_note(result: dict[str, Any]) -> str:
    """The line below a table: what its intervals, its seconds and its gaps are."""
    beside = f", {result['processes']} processes at once" if result.get("processes", 1) > 1 else ""
    line = f"{_interval_of(result)}; seconds: median, in batches of {result['batch_size']}{beside}."
    has_gaps = result.get("missing") or result.get("absent")
    return line + (f" {GAP} marks what was not measured; the notes give the reasons." if has_gaps else "")


def render_breakdown(result: dict[str, Any]) -> str:
    """A table for each property of the faces that a comparison.json is broken down by."""
    lines = []
    for prop, parts in result["breakdown"].items():
        names = _ordered(next(iter(parts.values()))[0]["metrics"])
        methods = [(value, method) for value, part in parts.items() for method in part]
        cells = _cells(names, [method["metrics"] for _, method in methods])
        rows = [
            [f"{value} ({method['metrics'][names[0]]['n']})", method["label"], *each]
            for (value, method), each in zip(methods, cells, strict=True)
        ]
        table = ([prop, "", *map(_title, names)], rows)
        lines += ["", f"By {prop} (faces):", "", *markdown_table(table, num_labels=2)]
    return "\n".join(lines) + "\n"


def _names(result: dict[str, Any]) -> list[str]:
    """The metrics of a comparison, those that are missing among them, in the order of the table of metrics."""
    return _ordered({*result.get("missing", ()), *(name for row in result["rows"] for name in row["metrics"])})


def _ordered(names: Collection[str]) -> list[str]:
    """Names of metrics in the order of their table."""
    return [name for name in METRICS if name in names]


def _comparison_row(row: dict[str, Any], cells: list[str], has_samples: bool) -> list[str]:
    if has_samples:
        cells = [*cells, _cell(row["diversity"], 4) if "diversity" in row else ""]
    seconds = f"{row['seconds_per_image']:.3f}" if "seconds_per_image" in row else ""
    parameters = f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else ""
    return [row["label"], *cells, seconds, parameters]


def notes(result: dict[str, Any]) -> list[str]:
    """Explain each column, and state which are missing, which cannot rank the rows, and the source of the numbers."""
    names, missing, labels = _names(result), result.get("missing", {}), [row["label"] for row in result["rows"]]
    lines = [f"{METRICS[name].title}: {result['protocol'][name]}" for name in names if name not in missing]
    lines += [f"{METRICS[name].title}: not measured: {missing[name]}." for name in names if name in missing]
    lines += [
        f"{label}: not measured: its weights are missing; `idm weights fetch {weights}` gets them."
        for label, weights in result.get("absent", {}).items()
    ]
    for name in names:
        value = result["rows"][0]["metrics"].get(name, {})
        number = min([value.get("n", 0), *_num_reference(result)])
        if value.get("d") is not None and number <= value["d"]:
            lines.append(
                f"{METRICS[name].title} cannot rank these rows: {number} faces do not determine the covariance "
                f"of {value['d']} features."
            )
    if any("diversity" in row for row in result["rows"]):
        lines.append(
            f"Rows with a diversity: {result['samples']} samples of each face. Scores are means over the samples, "
            "those of whole sets are of the first one. Diversity: root mean square over all values of their standard "
            "deviation over the samples, in levels of 255."
        )
    if STRANGER in labels:
        lines.append(
            f"{STRANGER}: for each face the original of the most similar other one of the same data: another person. A "
            "metric without reference shows there what originals score."
        )
    if REAL in labels:
        lines.append(f"{REAL}: as many other real faces, of `{result['real']['data']}`.")
    if ORIGINAL in labels:
        lines.append(f"{ORIGINAL}: the originals of the faces, a scale for the other rows.")
    lines += _split_notes(result) + _provenance([result])
    return [*lines, *_faces_notes(result)]


def faces_note(result: dict[str, Any]) -> str:
    """The size and the degradation of the faces."""
    degraded = "degraded as given" if result["preset"] is None else f"preset `{result['preset']}`"
    return f"All at {result['size']} px, {degraded}; a restorer of another size gets the face resized."


def _faces_notes(result: dict[str, Any]) -> list[str]:
    """State the degradation of the faces, and the reference of sets that have no originals."""
    lines = [faces_note(result)]
    real = result.get("real")
    against = f"sets are compared with {real['num_images']} faces of `{real['data']}`" if real else ""
    if not result.get("originals", True):
        lines.append(f"The faces have no originals{': ' + against if against else ''}.")
    elif result.get("set_reference") == REAL:
        lines.append(f"{against[0].upper()}{against[1:]}, not with the originals.")
    return lines


def _num_reference(result: dict[str, Any]) -> list[int]:
    """Return the number of faces that sets are compared with, if it is not the number of the faces themselves."""
    return [result["real"]["num_images"]] if result.get("set_reference") == REAL else []


def _split_notes(result: dict[str, Any]) -> list[str]:
    """Report the comparison of the evaluated faces with the training faces."""
    splits = result.get("splits")
    if not splits:
        return []
    note = (
        f"None of the {splits['evaluated']} faces of `{result['data']}` is one of the {splits['train']} training faces "
        "(sha256)."
    )
    nearest = splits.get("nearest")
    if nearest is not None:
        note += f" The most similar two have an identity cosine of {nearest['cosine']:.3f}; a copy has {COPY} or more."
    elif "nearest" in splits:
        note += " Their embeddings were not compared: the identity network's weights are missing."
    return [note]


def _interval_of(result: dict[str, Any]) -> str:
    """Return the kind of intervals of a result file; files that do not record it have percentile intervals."""
    return str(result.get("interval", "Mean and bootstrap 95 % interval"))


def _title(name: str) -> str:
    return METRICS[name].heading


def _cells(names: Sequence[str], rows: Sequence[Mapping[str, Value]]) -> list[list[str]]:
    """The cells of each row; all values of a column have the same number of decimals, by the largest of them."""
    largest = [max((abs((row.get(name) or {}).get("mean") or 0) for row in rows), default=0) for name in names]
    digits = [2 if value >= 10 else 4 if value >= 0.01 or value == 0 else 6 for value in largest]
    return [[_cell(row.get(name), n) for name, n in zip(names, digits, strict=True)] for row in rows]


def _cell(value: Value | None, digits: int) -> str:
    if value is None or value["mean"] is None:
        return GAP
    if value["low"] is None:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _require_one_protocol(results: list[dict[str, Any]], names: list[str]) -> None:
    for key in ("data", "num_images", "seed", "interval"):
        if len({json.dumps(result.get(key)) for result in results}) > 1:
            raise InvalidInput(f"the rows differ in {key!r}: numbers of different data stand in one column")
    for name in names:
        if len({result["protocol"][name] for result in results}) > 1:
            raise InvalidInput(f"the rows were measured by different protocols of {name}")


def _provenance(results: list[dict[str, Any]]) -> list[str]:
    first = results[0]
    machine = first["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in first["versions"].items())
    commits = ", ".join(sorted({result["commit"][:12] for result in results}))
    drawn = "noise" if first.get("preset", "") is None else "degradations and noise"
    return [
        f"Data: {first['num_images']} faces of `{first['data']}`, {drawn} from seed {first['seed']}.",
        f"Commit {commits}; {machine['processor']}, {machine['threads']} threads; {versions}.",
    ]


def main() -> None:
    """Write the Markdown, LaTeX and CSV files of each table description that the command line names."""
    for name in sys.argv[1:]:
        path = Path(name)
        for suffix, text in render(path).items():
            write_text(path.with_suffix(suffix), text)
            print(path.with_suffix(suffix))


if __name__ == "__main__":
    main()
