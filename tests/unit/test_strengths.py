"""The committed tables of the strengths experiment are those of its result files, and the README shows one of them."""

import importlib.util
import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "strengths"

spec = importlib.util.spec_from_file_location("strengths_table", FOLDER / "table.py")
assert spec is not None
assert spec.loader is not None
table = importlib.util.module_from_spec(spec)
spec.loader.exec_module(table)


def test_the_table_is_up_to_date() -> None:
    assert (FOLDER / "table.md").read_text() == table.render(), "run: python experiments/strengths/table.py"


def test_the_readme_shows_the_bundled_models_table() -> None:
    shown = (ROOT / "README.md").read_text().partition("<!-- strengths -->\n")[2].partition("\n\n")[0]
    result = json.loads((FOLDER / "results" / "bundled_test.json").read_text())
    assert shown == table.strengths(result).strip()
