"""Published numbers: each has a source, and the page is that of the files."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

FOLDER = Path(__file__).parents[2] / "experiments" / "published"
TABLES = sorted(FOLDER.glob("*.yaml"))


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_every_row_has_a_source_and_a_number_or_a_gap_in_every_column(path: Path) -> None:
    table = yaml.safe_load(path.read_text())
    assert table.keys() == {"title", "protocol", "columns", "sources", "rows"}
    assert {row[1] for row in table["rows"]} == table["sources"].keys()
    for method, _, *values in table["rows"]:
        assert len(values) == len(table["columns"]), method
        assert any(values), method
        assert all(re.fullmatch(r"(below )?\d*\.?\d+|", value) for value in values), method
    assert not re.search("memory|unverified|not found", path.read_text(), re.IGNORECASE)


def test_the_page_of_published_numbers_is_that_of_its_files() -> None:
    spec = importlib.util.spec_from_file_location("published_table", FOLDER / "table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sorted(module.ORDER) == [path.stem for path in TABLES]
    assert module.TABLE.read_text() == module.render(), "run: python experiments/published/table.py"
