"""Write the published numbers as Markdown: ``python experiments/published/table.py``.

Each YAML file in this folder is one table: title, protocol, columns, sources by abbreviation, and rows. A row has the
method, the source, and a value for each column as the source prints it, or "" if the source has none.
"""

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
TABLE = FOLDER.parent / "tables" / "published.md"
ORDER = (
    "gfpgan_rerun",
    "celeba_test_gfpgan",
    "celeba_test_daefr",
    "celeba_test_difface",
    "celeba_test_others",
    "real_world_fid",
    "no_reference_lfw",
    "no_reference_wider",
    "no_reference_webphoto",
    "speed",
)


def render() -> str:
    """Return all tables as Markdown."""
    head = (
        "# Published numbers\n\n`python experiments/published/table.py` writes this file. None of these numbers was "
        "measured by us, and none can be compared with ours: test sets, references and implementations differ.\n"
    )
    return head + "".join(_render(yaml.safe_load((FOLDER / f"{name}.yaml").read_text())) for name in ORDER)


def _render(table: dict[str, Any]) -> str:
    lines = ["", f"## {table['title']}", "", table["protocol"].strip(), ""]
    header = ["method", "source", *table["columns"]]
    lines += [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    lines += [f"| {' | '.join(value or '–' for value in row)} |" for row in table["rows"]]
    lines += ["", *(f"- {name}: {source}." for name, source in table["sources"].items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    TABLE.write_text(render())
    print(TABLE)
