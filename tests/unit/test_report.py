"""Tables are files computed from result files."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from idm.evaluation.engine import summarise
from idm.evaluation.tables import render
from idm.io.atomic import write_json

TABLES = sorted((Path(__file__).parents[2] / "experiments" / "tables").glob("*.yaml"))


@pytest.mark.parametrize("spec", TABLES, ids=lambda path: path.stem)
def test_a_committed_table_is_what_its_files_give(spec: Path) -> None:
    assert spec.with_suffix(".md").read_text() == render(spec)


def test_the_tables_of_the_readme_are_the_committed_ones() -> None:
    """Each stands below the name of its file, as in <!-- compare128 -->."""
    readme = (TABLES[0].parents[2] / "README.md").read_text()
    shown = re.findall(r"<!-- (\w+) -->\n(\| \| .*?)\n\n", readme, re.DOTALL)
    assert shown
    for name, table in shown:
        assert f"\n{table}\n\n" in (TABLES[0].parent / f"{name}.md").read_text()


def write(folder: Path, name: str, **changes: object) -> str:
    value = {"mean": 24.0, "low": 23.5, "high": 24.5}
    result = {
        "metrics": {"psnr": {"degraded": {**value, "mean": 23.0}, "restored": value}},
        "protocol": {"psnr": "one protocol"},
        "data": "faces",
        "num_images": 5,
        "seed": 1,
        "seconds_per_image": 0.5,
        "commit": "0123456789abcdef",
        "machine": {"processor": "a processor", "threads": 2},
        "versions": {"torch": "2.15"},
        **changes,
    }
    (folder / name).write_text(json.dumps(result))
    return name


def table(folder: Path, *rows: str) -> str:
    lines = "".join(f"  - {row}\n" for row in rows)
    (folder / "t.yaml").write_text(f"title: T\nmetrics: [psnr]\nrows:\n{lines}")
    return render(folder / "t.yaml")


def test_a_row_shows_the_column_it_asks_for_with_its_interval(tmp_path: Path) -> None:
    name = write(tmp_path, "a.json")
    text = table(tmp_path, f"{{label: before, result: {name}, column: degraded}}", f"{{label: after, result: {name}}}")
    assert "| before | 23.00 [23.50, 24.50] |" in text
    assert "| after | 24.00 [23.50, 24.50] |" in text
    assert "0123456789ab" in text


@pytest.mark.parametrize("change", [{"data": "others"}, {"seed": 2}, {"num_images": 6}])
def test_numbers_of_different_data_never_stand_in_one_column(tmp_path: Path, change: dict) -> None:
    rows = [f"{{label: x, result: {write(tmp_path, name, **c)}}}" for name, c in (("a.json", {}), ("b.json", change))]
    with pytest.raises(ValueError, match="differ"):
        table(tmp_path, *rows)


def test_numbers_of_different_protocols_never_stand_in_one_column(tmp_path: Path) -> None:
    other = {"protocol": {"psnr": "another"}}
    rows = [f"{{label: x, result: {write(tmp_path, name, **c)}}}" for name, c in (("a.json", {}), ("b.json", other))]
    with pytest.raises(ValueError, match="protocols of psnr"):
        table(tmp_path, *rows)


def test_a_mean_whose_interval_cannot_be_had_stands_alone_and_is_strict_json(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", summarise([({"psnr": 20.0}, {"psnr": 30.0}), ({"psnr": 20.0}, {"psnr": 32.0})]))
    read = json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail)
    assert read["psnr"]["restored"] == {"mean": 31, "low": None, "high": None, "n": 2}
    assert read["psnr"]["gain"]["mean"] == 11
    name = write(tmp_path, "a.json", metrics=read)
    assert "| after | 31.00 |" in table(tmp_path, f"{{label: after, result: {name}}}")


def test_the_table_of_flicker_is_that_of_its_result_file() -> None:
    path = TABLES[0].parents[1] / "flicker.py"
    spec = importlib.util.spec_from_file_location("flicker", path)
    assert spec is not None
    assert spec.loader is not None
    flicker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flicker)
    result = json.loads(flicker.RESULT.read_text())
    assert flicker.TABLE.read_text() == flicker.render(result), "run: python experiments/flicker.py --table"
