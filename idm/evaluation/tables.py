"""Tables from result files: ``python -m idm.evaluation.tables experiments/tables/*.yaml``.

A table's YAML names result files that ``idm evaluate`` or ``idm compare`` wrote; beside it the table appears as
Markdown. A test fails when a committed table is not what its files give.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from idm.evaluation.metrics import METRICS


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
    lines = ["| | " + " | ".join(map(_title, names)) + " |", "|---" * (len(names) + 1) + "|"]
    for row, result in zip(spec["rows"], results, strict=True):
        cells = [_cell(result["metrics"][name][row.get("column", "restored")]) for name in names]
        lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
    lines += ["", "Mean and bootstrap 95 % interval.", ""]
    lines += [f"- {METRICS[name].title}: {METRICS[name].protocol}" for name in names]
    lines += [f"- {line}" for line in _provenance(results)]
    return "\n".join(lines) + "\n"


def render_comparison(result: dict[str, Any]) -> str:
    """The Markdown table of a comparison.json: a row for each method on the same faces."""
    names = list(result["rows"][0]["metrics"])
    lines = [
        "| | " + " | ".join(_title(name) for name in names) + " | seconds per face | parameters |",
        "|---" * (len(names) + 3) + "|",
    ]
    for row in result["rows"]:
        cells = [_cell(row["metrics"][name]) for name in names]
        seconds = f"{row['seconds_per_image']:.3f}" if "seconds_per_image" in row else ""
        parameters = f"{row['parameters'] / 1e6:.2f} M" if "parameters" in row else ""
        lines.append(f"| {row['label']} | " + " | ".join([*cells, seconds, parameters]) + " |")
    lines += ["", f"Mean and bootstrap 95 % interval; seconds: median, in batches of {result['batch_size']}.", ""]
    lines += [f"- {METRICS[name].title}: {METRICS[name].protocol}" for name in names]
    lines += [f"- {line}" for line in _provenance([result])]
    lines += [
        f"- All at {result['size']} px, preset `{result['preset']}`; a restorer of another size gets the face resized."
    ]
    return "\n".join(lines) + "\n"


def _title(name: str) -> str:
    metric = METRICS[name]  # type: ignore[index]
    return f"{metric.title} {'↑' if metric.arrow == 'higher' else '↓'}"


def _cell(value: dict[str, float | None]) -> str:
    if value["mean"] is None:
        return "∞"
    digits = 2 if abs(value["mean"]) >= 10 else 4
    if value["low"] is None:
        return f"{value['mean']:.{digits}f}"
    return f"{value['mean']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def _require_one_protocol(results: list[dict[str, Any]], names: list[str]) -> None:
    for key in ("data", "num_images", "seed"):
        if len({json.dumps(result.get(key)) for result in results}) > 1:
            raise ValueError(f"the rows differ in {key!r}: numbers of different data stand in one column")
    for name in names:
        if len({result["protocol"][name] for result in results}) > 1:
            raise ValueError(f"the rows were measured by different protocols of {name}")


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
