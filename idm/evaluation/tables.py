"""Tables from result files: ``python -m idm.evaluation.tables experiments/tables/*.yaml``.

A table's YAML names result files that ``idm evaluate`` or ``idm compare`` wrote; beside it the table appears as
Markdown. A test fails when a committed table is not what its files give.
"""

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from idm.evaluation.metrics import METRICS
from idm.evaluation.sets import REAL, STRANGER
from idm.io.errors import InvalidInput

Table = tuple[list[str], list[list[str]]]  # header, rows
DIFFERENCES = "Paired differences over the same faces; an interval without 0 supports a difference."


def render(spec_path: Path) -> str:
    """The Markdown of one table.

    The YAML has ``title``, optionally ``note``, and either ``comparison``, a file that ``idm compare`` wrote, or
    ``metrics`` (names) with ``rows`` (``label``, ``result``: a file that ``idm evaluate`` wrote, ``column``:
    "restored" or "degraded"). Paths are relative to the YAML.

    Raises:
        ValueError: the rows were measured by different protocols or on different data.
    """
    spec = yaml.safe_load(spec_path.read_text())
    command = f"python -m idm.evaluation.tables experiments/tables/{spec_path.name}"
    head = f"# {spec['title']}\n\n`{command}` makes this file.\n\n"
    if "comparison" in spec:
        table = render_comparison(json.loads((spec_path.parent / spec["comparison"]).read_text()))
    else:
        table = _render_rows(spec, spec_path.parent)
    return head + table + (f"\n{spec['note'].strip()}\n" if "note" in spec else "")


def _render_rows(spec: dict[str, Any], folder: Path) -> str:
    results = [json.loads((folder / row["result"]).read_text()) for row in spec["rows"]]
    names = spec["metrics"]
    _require_one_protocol(results, names)
    rows = [
        [row["label"], *(_cell(result["metrics"][name][row.get("column", "restored")]) for name in names)]
        for row, result in zip(spec["rows"], results, strict=True)
    ]
    lines = _markdown(["", *map(_title, names)], rows)
    lines += ["", f"{_interval_of(results[0])}.", ""]
    lines += [f"- {METRICS[name].title}: {results[0]['protocol'][name]}" for name in names]
    lines += [f"- {line}" for line in _provenance(results)]
    return "\n".join(lines) + "\n"


def render_comparison(result: dict[str, Any]) -> str:
    """The Markdown tables of a comparison.json: a row for each method on the same faces, and for every two restorers
    their paired differences."""
    lines = [*_markdown(*comparison_table(result)), "", interval_note(result), ""]
    if result.get("differences"):
        lines += [DIFFERENCES, "", *_markdown(*differences_table(result)), ""]
    lines += [f"- {line}" for line in notes(result)]
    return "\n".join(lines) + "\n"


def comparison_table(result: dict[str, Any]) -> Table:
    """A row for each method."""
    names = _names(result)
    rows = [_comparison_row(row, names) for row in result["rows"]]
    return ["", *map(_title, names), "seconds per face", "parameters"], rows


def differences_table(result: dict[str, Any]) -> Table:
    """A row for every two restorers."""
    names = _ordered(result["differences"][0]["metrics"])
    rows = [
        [f"{row['a']} − {row['b']}", str(row["metrics"][names[0]]["n"])]
        + [_cell(row["metrics"][name]) for name in names]
        for row in result["differences"]
    ]
    return ["", "faces", *map(_title, names)], rows


def interval_note(result: dict[str, Any]) -> str:
    return f"{_interval_of(result)}; seconds: median, in batches of {result['batch_size']}."


def render_breakdown(result: dict[str, Any]) -> str:
    """A table for each property of the faces that a comparison.json is broken down by."""
    lines = []
    for prop, parts in result["breakdown"].items():
        names = _ordered(next(iter(parts.values()))[0]["metrics"])
        rows = []
        for value, methods in parts.items():
            number = methods[0]["metrics"][names[0]]["n"]
            rows += [
                [f"{value} ({number})", method["label"], *(_cell(method["metrics"][name]) for name in names)]
                for method in methods
            ]
        lines += ["", f"By {prop} (faces):", "", *_markdown([prop, "", *map(_title, names)], rows)]
    return "\n".join(lines) + "\n"


def _names(result: dict[str, Any]) -> list[str]:
    """The metrics of a comparison, those that are missing among them, in the order of the table of metrics."""
    return _ordered({*result.get("missing", ()), *(name for row in result["rows"] for name in row["metrics"])})


def _ordered(names: Collection[str]) -> list[str]:
    """Names of metrics in the order of their table."""
    return [name for name in METRICS if name in names]


def _comparison_row(row: dict[str, Any], names: list[str]) -> list[str]:
    cells = [_cell(row["metrics"].get(name)) for name in names]
    seconds = f"{row['seconds_per_image']:.3f}" if "seconds_per_image" in row else ""
    parameters = f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else ""
    return [row["label"], *cells, seconds, parameters]


def notes(result: dict[str, Any]) -> list[str]:
    """What each column is, which are missing, which cannot rank the rows, and where the numbers come from."""
    names, missing, labels = _names(result), result.get("missing", {}), [row["label"] for row in result["rows"]]
    lines = [f"{METRICS[name].title}: {result['protocol'][name]}" for name in names if name not in missing]
    lines += [f"{METRICS[name].title}: not measured: {missing[name]}." for name in names if name in missing]
    for name in names:
        value = result["rows"][0]["metrics"].get(name, {})
        if value.get("d") is not None and value["n"] <= value["d"]:
            lines.append(
                f"{METRICS[name].title} cannot rank these rows: {value['n']} faces do not determine the covariance "
                f"of {value['d']} features."
            )
    if STRANGER in labels:
        lines.append(f"{STRANGER}: for each face the most similar other one of the same data: another person.")
    if REAL in labels:
        lines.append(f"{REAL}: as many other real faces.")
    if result.get("splits"):
        lines.append(
            f"None of the {result['splits']['evaluated']} faces of `{result['data']}` is one of the "
            f"{result['splits']['train']} training faces (sha256)."
        )
    lines += _provenance([result])
    lines.append(
        f"All at {result['size']} px, preset `{result['preset']}`; a restorer of another size gets the face resized."
    )
    return lines


def _markdown(header: list[str], rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head = "| " + " | ".join(header).lstrip() + " |"
    return [head, "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in rows)]


def _interval_of(result: dict[str, Any]) -> str:
    """How the intervals of a result file were made; files that do not say so have percentile intervals."""
    return str(result.get("interval", "Mean and bootstrap 95 % interval"))


def _title(name: str) -> str:
    return METRICS[name].heading


def _cell(value: dict[str, float | None] | None) -> str:
    if value is None or value["mean"] is None:
        return "–"
    digits = 2 if abs(value["mean"]) >= 10 else 4
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
    return [
        f"Data: {first['num_images']} faces of `{first['data']}`, degradations and noise from seed {first['seed']}.",
        f"Commit {commits}; {machine['processor']}, {machine['threads']} threads; {versions}.",
    ]


def main() -> None:
    for name in sys.argv[1:]:
        path = Path(name)
        path.with_suffix(".md").write_text(render(path))
        print(path.with_suffix(".md"))


if __name__ == "__main__":
    main()
