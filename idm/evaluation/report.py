"""Tables from result files: ``python -m idm.evaluation.report experiments/tables/*.yaml``.

A table's YAML names result files that ``idm evaluate`` wrote; beside it the table appears as Markdown. A test fails
when a committed table is not what its files give.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

from idm.evaluation.metrics import METRICS


def render(spec_path: Path) -> str:
    """The Markdown of one table.

    The YAML has ``title``, ``metrics`` (names), ``rows`` (``label``, ``result``: a path beside the YAML, ``column``:
    "restored" or "degraded") and optionally ``note``.

    Raises:
        ValueError: the rows were measured by different protocols or on different data.
    """
    spec = yaml.safe_load(spec_path.read_text())
    results = [json.loads((spec_path.parent / row["result"]).read_text()) for row in spec["rows"]]
    names = spec["metrics"]
    _require_one_protocol(results, names)
    titles = [f"{METRICS[name].title} {'↑' if METRICS[name].arrow == 'higher' else '↓'}" for name in names]
    lines = [
        f"# {spec['title']}",
        "",
        f"`python -m idm.evaluation.report experiments/tables/{spec_path.name}` makes this file.",
        "",
        "| | " + " | ".join(titles) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for row, result in zip(spec["rows"], results, strict=True):
        cells = [_cell(result["metrics"][name][row.get("column", "restored")]) for name in names]
        lines.append(f"| {row['label']} | " + " | ".join(cells) + " |")
    lines += ["", "Mean and bootstrap 95 % interval.", ""]
    lines += [f"- {METRICS[name].title}: {METRICS[name].protocol}" for name in names]
    lines += [f"- {line}" for line in _provenance(results)]
    if "note" in spec:
        lines += ["", spec["note"].strip()]
    return "\n".join(lines) + "\n"


def _cell(value: dict[str, float]) -> str:
    digits = 2 if abs(value["mean"]) >= 10 else 4
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
