"""``idm report``: one page that needs no host, with the numbers of its comparisons."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from idm.apps.cli import main as cli
from idm.evaluation.metric import Metric
from idm.evaluation.pictures import choose_pictures, picture_path, rank_gains, reference_metric, save_pictures
from idm.evaluation.plots import histogram
from idm.evaluation.statistics import paired_differences, summarise_column
from idm.io.atomic import write_csv, write_json
from idm.io.images import read_image

RNG = np.random.default_rng(0)
SCORES = {
    label: {"psnr": list(RNG.normal(mean, 1, 12)), "deg": list(RNG.normal(30, 3, 12))}
    for label, mean in (("degraded", 20), ("<idm>", 24), ("gfpgan", 25))
}


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    folder.mkdir()
    rows: list[dict] = [
        {"label": label, "metrics": {name: summarise_column(column) for name, column in columns.items()}}
        for label, columns in SCORES.items()
    ]
    for row in rows[1:]:
        row |= {"seconds_per_image": 0.1, "parameters": 10**6}
    comparison = {
        "num_images": 12,
        "pictures": choose_pictures(SCORES, ["<idm>", "gfpgan"], 12),
        "rows": rows,
        "differences": paired_differences(SCORES, ["<idm>", "gfpgan"]),
        "missing": {"lpips": "no weights"},
        "protocol": {"psnr": "as ever.", "deg": "as ever."},
        "interval": "Mean and interval",
        **{"data": "faces", "preset": "gfpgan", "seed": 1, "size": 32, "batch_size": 4, "commit": "0" * 40},
        "machine": {"processor": "p", "threads": 1},
        "versions": {"torch": "2"},
    }
    write_json(folder / "comparison.json", comparison)
    header = ["name", *(f"{name}_{label}" for label, columns in SCORES.items() for name in columns)]
    values = [column for columns in SCORES.values() for column in columns.values()]
    lines = ([f"face{i}", *(column[i] for column in values)] for i in range(12))
    write_csv(folder / "scores.csv", header, lines)
    labels = (*SCORES, "original")
    images = {label: np.full((8, 8, 3), 40 * i, np.uint8) for i, label in enumerate(labels)}
    save_pictures(folder, dict.fromkeys(comparison["pictures"], images))
    return folder


def page(folder: Path, *options: str) -> str:
    output = folder.parent / "report.html"
    assert cli.run(cli.build_parser().parse_args(["report", str(folder), "-o", str(output), *options])) == 0
    return output.read_text()


def without_pictures(text: str) -> str:
    return re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", text)


def worst_face(label: str) -> str:
    return f"face{np.subtract(SCORES[label]['psnr'], SCORES['degraded']['psnr']).argmin()}"


def test_the_page_has_the_tables_plots_and_worst_cases_and_asks_no_host(results: Path) -> None:
    text = without_pictures(page(results))
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", text)
    assert set(re.findall(r"(?:src|href)=('[^']*'|\S*)", text)) == {"''"}  # nothing but the pictures inside the page
    assert "default-src 'none'; img-src data:" in text
    mean = json.loads((results / "comparison.json").read_text())["rows"][1]["metrics"]["psnr"]["mean"]
    assert f"{mean:.2f} [" in text
    assert "&lt;idm&gt; − gfpgan" in text
    assert "<idm>" not in text
    assert "LPIPS: not measured: no weights." in text
    worst = text.partition("aria-label='Worst faces of gfpgan'")[2]
    assert re.findall(r"face\d+", worst)[0] == worst_face("gfpgan")


def test_the_worst_faces_are_shown_first_and_above_the_plots(results: Path) -> None:
    text = without_pictures(page(results))
    shown = re.findall(r"<img alt='(face\d+), degraded'", text)
    listed = json.loads((results / "comparison.json").read_text())["pictures"]
    assert sorted(shown) == sorted(f"face{i}" for i in listed)  # each of them once
    assert shown[0] == worst_face("<idm>")
    assert worst_face("gfpgan") in shown[:2]
    assert text.index(f"<img alt='{worst_face('gfpgan')}, degraded'") < text.index("<svg")
    first = text.partition("<figure>")[2].partition("</figure>")[0]
    assert re.findall(r"<option( selected)?>([^<]*)", first) == [
        (" selected", "&lt;idm&gt;"),
        ("", "gfpgan"),
        ("", "original"),
    ]
    after = re.findall(r"data-label='([^']*)'( hidden)?", first)
    assert after == [("&lt;idm&gt;", ""), ("gfpgan", " hidden"), ("original", " hidden")]
    assert "<strong>" + worst_face("<idm>") in first
    assert "one of the worst of &lt;idm&gt;" in first


def test_every_picture_has_a_text_and_every_control_a_name(results: Path) -> None:
    text = without_pictures(page(results))
    assert len(re.findall("<img ", text)) == len(re.findall(r"<img alt='face\d+, [^']+'", text)) > 0
    for control in ("input", "select"):
        found = re.findall(rf"<{control} [^>]*>", text)
        assert len(found) == text.count("<figure>")
        assert all("aria-label=" in tag for tag in found)


def test_a_result_without_pictures_gives_a_page_with_a_note(results: Path) -> None:
    whole = page(results)
    for path in (results / "pictures").iterdir():
        path.unlink()
    (results / "pictures").rmdir()
    for text in (page(results), page(results, "--no-images")):
        assert "<img" not in text
        assert text.count("There are no pictures of faces") == 1
        assert "aria-label='Worst faces of gfpgan'" in text
    assert "There are no pictures" not in whole


def test_a_gain_is_positive_where_the_restored_face_is_better() -> None:
    one = {"psnr": [20.0, 20.0, 20.0]}, {"psnr": [22.0, 19.0, 21.0]}
    assert rank_gains(dict(zip(("degraded", "a"), one, strict=True)), "a") == [(1, -1.0), (2, 1.0), (0, 2.0)]
    lower = {"degraded": {"deg": [30.0, 30.0]}, "a": {"deg": [20.0, 40.0]}}
    assert rank_gains(lower, "a") == [(1, -10.0), (0, 10.0)]
    ratio = {"degraded": {"sharpness": [0.5, 0.5]}, "a": {"sharpness": [1.25, 2.0]}}
    metric = reference_metric(ratio)
    assert isinstance(metric, Metric)
    assert metric.better == "one"
    assert rank_gains(ratio, "a") == [(1, -0.5), (0, 0.25)]
    assert rank_gains({"degraded": {"niqe": [1.0]}, "a": {"niqe": [2.0]}}, "a") == []


def test_pictures_are_small_and_lie_in_their_folder_whatever_the_label(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (700, 700, 3)).astype(np.uint8)
    save_pictures(tmp_path, {3: {"../a/b=%": image}})
    (path,) = (tmp_path / "pictures").iterdir()
    assert path == picture_path(tmp_path, 3, "../a/b=%")
    assert read_image(path).rgb.shape == (512, 512, 3)
    assert [*tmp_path.iterdir()] == [tmp_path / "pictures"]


def test_the_plots_are_sound_svg_inside_their_frame(results: Path) -> None:
    plots = [ElementTree.fromstring(plot) for plot in re.findall(r"<svg.*?</svg>", page(results))]
    assert len(plots) == 3  # perception and distortion, quality and seconds, differences
    first = plots[0].findall("circle")
    assert len(first) == 3
    xs = [float(circle.attrib["cx"]) for circle in first]
    assert xs == sorted(xs)  # as their PSNR
    bars = plots[2].findall("rect")
    heights = np.array([float(bar.attrib["height"]) for bar in bars])
    assert round(heights.sum() / heights.max() * max(1, round(12 * heights.max() / heights.sum()))) == 12
    assert all(float(bar.attrib["y"]) >= 0 for bar in bars)


def changed(folder: Path, **changes: object) -> str:
    """The page of a comparison.json with other entries."""
    path = folder / "comparison.json"
    write_json(path, json.loads(path.read_text()) | changes)
    return without_pictures(page(folder))


def test_a_gap_is_explained_below_the_table_and_its_command_is_code(results: Path) -> None:
    assert "– marks what was not measured; the notes give the reasons." in page(results)
    text = changed(results, missing={"lpips": "`idm weights fetch a<b.pth` gets them"})
    assert "not measured: <code>idm weights fetch a&lt;b.pth</code> gets them" in text
    assert "– marks" not in changed(results, missing={})


def test_plots_leave_out_strangers(results: Path) -> None:
    rows = json.loads((results / "comparison.json").read_text())["rows"]
    text = changed(results, rows=[*rows, {"label": "stranger", "metrics": rows[0]["metrics"]}])
    assert "<td>stranger" in text
    assert ">stranger<" not in text.partition("<svg")[2]


def test_the_axis_of_seconds_is_logarithmic_with_its_ends_in_seconds(results: Path) -> None:
    rows = json.loads((results / "comparison.json").read_text())["rows"]
    seconds = (0.1, 1.0, 10.0)
    timed = [row | {"seconds_per_image": each} for row, each in zip(rows, seconds, strict=True)]
    plot = ElementTree.fromstring(re.findall(r"<svg.*?</svg>", changed(results, rows=timed))[1])
    xs = [float(circle.attrib["cx"]) for circle in plot.findall("circle")]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert {f"{0.1 / 100**0.08:.3g}", f"{10 * 100**0.08:.3g}"} <= {text.text for text in plot.findall("text")}


def test_a_wide_table_has_its_parts_below_each_other_with_names_of_their_own(results: Path) -> None:
    rows = json.loads((results / "comparison.json").read_text())["rows"]
    value = rows[0]["metrics"]["psnr"]
    wide = [row | {"metrics": row["metrics"] | dict.fromkeys(("ssim", "ms_ssim", "psnr_y"), value)} for row in rows]
    protocol = dict.fromkeys(("psnr", "deg", "ssim", "ms_ssim", "psnr_y"), "as ever.")
    text = changed(results, rows=wide, protocol=protocol)
    assert re.findall("aria-label='(Means[^']*)'", text) == ["Means, 1 of 2", "Means, 2 of 2"]
    assert re.findall("aria-label='(Pairs[^']*)'", text) == ["Pairs"]
    assert "All at 32 px, preset <code>gfpgan</code>" in text.partition("<table>")[0]


def test_a_histogram_has_its_line_at_zero_where_all_differences_are_positive() -> None:
    plot = ElementTree.fromstring(histogram([1.0, 2.0], "t"))
    [line], [frame] = plot.findall("line"), plot.findall("path")
    left, right = float(frame.attrib["d"][1:].partition(" ")[0]), float(frame.attrib["d"].partition("H")[2])
    bars = [float(bar.attrib["x"]) for bar in plot.findall("rect") if float(bar.attrib["height"]) > 0]
    assert left < float(line.attrib["x1"]) < min(bars) < max(bars) < right


def test_a_folder_without_a_comparison_is_one_line(tmp_path: Path, capsys) -> None:
    parsed = cli.build_parser().parse_args(["report", str(tmp_path), "-o", str(tmp_path / "report.html")])
    assert cli.run(parsed) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: is not a finished comparison")
    assert not (tmp_path / "report.html").exists()


def test_a_result_that_lost_some_of_its_pictures_is_one_line(results: Path, capsys) -> None:
    path = picture_path(results, 0, "gfpgan")
    path.unlink()
    parsed = cli.build_parser().parse_args(["report", str(results), "-o", str(results.parent / "report.html")])
    assert cli.run(parsed) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {results}: is not a finished comparison")
    assert path.name in error
