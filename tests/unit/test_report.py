"""Tables are files computed from result files."""

import csv
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from idm.evaluation.engine import summarise_scores
from idm.evaluation.layout import Content, csv_text, markdown, parts, tex
from idm.evaluation.tables import comparison_content, comparison_table, render
from idm.io.atomic import sha256, write_json
from idm.restorers.saved import BUNDLED

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TABLES = sorted((EXPERIMENTS / "tables").glob("*.yaml"))
RESULTS = sorted((EXPERIMENTS / "results").glob("*/comparison.json"))


@pytest.mark.parametrize("spec", TABLES, ids=lambda path: path.stem)
def test_a_committed_table_is_what_its_files_give(spec: Path) -> None:
    texts = render(spec)
    assert set(texts) == {".md", ".tex", ".csv"}
    for suffix, text in texts.items():
        assert spec.with_suffix(suffix).read_text() == text, f"run: python -m idm.evaluation.tables {spec}"


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.parent.name)
def test_a_comparison_of_a_bundled_model_is_of_its_present_weights(result: Path) -> None:
    for row in json.loads(result.read_text())["rows"]:
        if row.get("name") in BUNDLED:
            weights = BUNDLED[row["name"]] / "denoiser" / "diffusion_pytorch_model.safetensors"
            assert row["weights_sha256"] == sha256(weights), f"{row['label']} is of a former model: measure it again"


def test_the_tables_of_the_page_of_experiments_are_the_committed_ones() -> None:
    """Each stands below the name of its file, as in <!-- compare128 -->."""
    readme = (TABLES[0].parents[1] / "README.md").read_text()
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
    return render(folder / "t.yaml")[".md"]


def test_a_row_shows_the_column_it_asks_for_with_its_interval(tmp_path: Path) -> None:
    name = write(tmp_path, "a.json")
    text = table(tmp_path, f"{{label: before, result: {name}, column: degraded}}", f"{{label: after, result: {name}}}")
    assert "| before | 23.00 [23.50, 24.50] |" in text
    assert "| after | 24.00 [23.50, 24.50] |" in text
    assert "0123456789ab" in text
    assert "`python -m idm.evaluation.tables t.yaml` makes this file." in text


def test_latex_and_csv_hold_the_numbers_of_the_markdown(tmp_path: Path) -> None:
    value = {"mean": -0.5, "low": -0.75, "high": 0.25, "n": 5}
    name = write(tmp_path, "a.json", metrics={"psnr": {"restored": value}})
    table(tmp_path, f"{{label: a_b & 50%, result: {name}}}")
    texts = render(tmp_path / "t.yaml")
    assert "| a_b & 50% | -0.5000 [-0.7500, 0.2500] |" in texts[".md"]
    assert r"    a\_b \& 50\% & $-$0.5000 {\scriptsize [$-$0.7500, 0.2500]} \\" in texts[".tex"]
    assert texts[".tex"].count(r"\begin{") == texts[".tex"].count(r"\end{") == 2
    rows = list(csv.reader(texts[".csv"].splitlines()))
    assert rows == [["row", "metric", "mean", "low", "high", "n"], ["a_b & 50%", "psnr", "-0.5", "-0.75", "0.25", "5"]]


def test_a_result_older_than_paired_differences_gets_them_from_its_scores() -> None:
    """The mean difference of two restorers on the same faces is that of their means."""
    result = json.loads((TABLES[0].parents[1] / "results" / "compare128" / "comparison.json").read_text())
    assert "differences" not in result
    means = {row["label"]: row["metrics"]["psnr"]["mean"] for row in result["rows"]}
    numbers = list(csv.DictReader(render(TABLES[0].parent / "compare128.yaml")[".csv"].splitlines()))
    [psnr] = [row for row in numbers if (row["row"], row["metric"]) == ("idm - gfpgan", "psnr")]
    assert float(psnr["mean"]) == pytest.approx(means["idm"] - means["gfpgan"])
    assert psnr["n"] == "130"


def test_latex_has_the_paired_differences_and_nothing_but_ascii() -> None:
    rows = [{"label": "a", "metrics": {"ssim": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 9}}}]
    difference = {"a": "a", "b": "b", "metrics": {"ssim": {"mean": -0.1, "low": None, "high": None, "n": 9}}}
    metadata = {"batch_size": 2, "num_images": 9, "data": "d", "seed": 1, "size": 16, "preset": "p", "commit": "c"}
    metadata |= {"machine": {"processor": "p", "threads": 1}, "versions": {}, "protocol": {"ssim": "as ever."}}
    content = comparison_content({"rows": rows, "differences": [difference], **metadata})
    text = tex("T", "made", content)
    assert r"    a $-$ b & 9 & $-$0.1000 \\" in text
    assert text.isascii()
    assert "a - b,ssim,-0.1,,,9\n" in csv_text(content)


def test_a_wide_table_becomes_parts_with_the_labels_and_the_rows_that_have_numbers() -> None:
    rows = [["all", *"12345678"], ["late", *"––––1–––"], ["none", *"––––––––"], ["early", *"1–––", *[""] * 4]]
    assert parts((["", *"abcdefgh"], rows)) == [
        (["", *"abcd"], [["all", *"1234"], ["none", *"––––"], ["early", *"1–––"]]),
        (["", *"efgh"], [["all", *"5678"], ["late", *"1–––"], ["none", *"––––"]]),
    ]
    narrow = (["", *"abcdef"], [["x", *"123456"]])
    assert parts(narrow) == [narrow]
    assert [header for header, _ in parts((["", "n", *"abcdefg"], []), num_labels=2)] == [
        ["", "n", *"abcd"],
        ["", "n", *"efg"],
    ]
    gaps = (["", *"abcdefgh"], [["x", *"1234––––"], ["y", *"1234––––"]])
    assert parts(gaps)[1] == (["", *"efgh"], [["x", *"––––"], ["y", *"––––"]])


def test_the_parts_of_a_table_stand_below_each_other_in_every_format() -> None:
    wide = (["", *"abcdefg"], [["x", *"1234567"]])
    content = Content(wide, "I.", (["", "faces", *"abcdefg"], [["x − y", "9", *"1234567"]]), [], [])
    below = "| | a | b | c | d |\n|---|---|---|---|---|\n| x | 1 | 2 | 3 | 4 |\n\n| | e | f | g |\n|---|---|---|---|\n"
    assert markdown(content).startswith(below)
    assert "| | faces | e | f | g |\n|---|---|---|---|---|\n| x − y | 9 | 5 | 6 | 7 |\n" in markdown(content)
    text = tex("T", "made", content)
    assert re.findall(r"begin{tabular}{(l\w+)}", text) == ["lrrrr", "lrrr", "lrrrrr", "lrrrr"]
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    assert text.count(r"\end{tabular}") == 4
    assert r"    x $-$ y & 9 & 5 & 6 & 7 \\" in text


def test_all_means_of_a_column_have_the_same_number_of_decimals() -> None:
    def row(label: str, **means: float) -> dict:
        interval = {"low": None, "high": None, "n": 9}
        return {"label": label, "metrics": {name: {"mean": mean, **interval} for name, mean in means.items()}}

    methods = [row("a", niqe=12.3456, ssim=0.5, kernel=-0.0017), row("b", niqe=7.6543, ssim=0.25, kernel=0.00002)]
    header, rows = comparison_table({"rows": methods})
    assert header[1:4] == ["SSIM ↑", "NIQE ↓", "Kernel ↓"]
    assert [cells[:4] for cells in rows] == [["a", "0.5000", "12.35", "-0.001700"], ["b", "0.2500", "7.65", "0.000020"]]


@pytest.mark.parametrize("change", [{"data": "others"}, {"seed": 2}, {"num_images": 6}, {"interval": "other"}])
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
    write_json(
        tmp_path / "m.json", summarise_scores([({"psnr": 20.0}, {"psnr": 30.0}), ({"psnr": 20.0}, {"psnr": 32.0})])
    )
    read = json.loads((tmp_path / "m.json").read_text(), parse_constant=pytest.fail)
    assert read["psnr"]["restored"] == {"mean": 31, "low": None, "high": None, "n": 2}
    assert read["psnr"]["gain"]["mean"] == 11
    name = write(tmp_path, "a.json", metrics=read)
    assert "| after | 31.00 |" in table(tmp_path, f"{{label: after, result: {name}}}")


def script(name: str) -> ModuleType:
    """A script of the experiments, which is in no package."""
    spec = importlib.util.spec_from_file_location(name.replace("/", "_"), TABLES[0].parents[1] / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_flicker_is_that_of_its_result_file() -> None:
    flicker = script("flicker")
    result = json.loads(flicker.RESULT.read_text())
    assert flicker.TABLE.read_text() == flicker.render(result), "run: python experiments/flicker.py --table"
