"""``idm report``: one page that needs no host, with the numbers of its comparisons."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from idm.apps.cli import main as cli
from idm.evaluation.statistics import paired_differences, summarise_column
from idm.io.atomic import write_csv, write_json
from idm.io.images import write_image

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
    write_image(folder / "grid.png", np.zeros((4, 4, 3), np.uint8))
    return folder


def page(folder: Path, *options: str) -> str:
    output = folder.parent / "report.html"
    assert cli.run(cli.build_parser().parse_args(["report", str(folder), "-o", str(output), *options])) == 0
    return output.read_text()


def test_the_page_has_the_tables_plots_and_worst_cases_and_asks_no_host(results: Path) -> None:
    text = page(results)
    assert not re.search(r"https?:|//|<script|<link|@import|url\(", text)
    mean = json.loads((results / "comparison.json").read_text())["rows"][1]["metrics"]["psnr"]["mean"]
    assert f"{mean:.2f} [" in text
    assert "&lt;idm&gt; − gfpgan" in text
    assert "<idm>" not in text
    assert "LPIPS: not measured: no weights." in text
    gains = np.subtract(SCORES["gfpgan"]["psnr"], SCORES["degraded"]["psnr"])
    worst = text.partition("Worst cases of gfpgan")[2]
    assert re.findall(r"face\d+", worst)[0] == f"face{gains.argmin()}"
    assert "<img" not in text
    assert "<img alt='faces before and after' src='data:image/png;base64," in page(results, "--images")


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


def test_a_folder_without_a_comparison_is_one_line(tmp_path: Path, capsys) -> None:
    parsed = cli.build_parser().parse_args(["report", str(tmp_path), "-o", str(tmp_path / "report.html")])
    assert cli.run(parsed) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: is not a finished comparison")
    assert not (tmp_path / "report.html").exists()
