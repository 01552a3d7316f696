"""``idm compare``: its files tell one story, and every mistake is one line."""

import csv
import json
import sys
from pathlib import Path

import pytest
import torch

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import save_gfpgan
from idm.apps.cli import main as cli
from idm.io.images import read_image


@pytest.fixture(scope="module")
def restorers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tiny networks of 16 and 32 px."""
    folder = tmp_path_factory.mktemp("restorers")
    torch.manual_seed(0)
    for size in (16, 32):
        save_gfpgan(GFPGAN(size, 8, 1, 1, 1 / 64), folder / f"{size}.safetensors")
    return folder


def run(*arguments: object) -> int:
    parsed = cli.build_parser().parse_args(["compare", "--device", "cpu", "--precision", "fp32", *map(str, arguments)])
    return cli.run(parsed)


def test_table_numbers_and_scores_are_of_the_same_faces(restorers: Path, tmp_path: Path, capsys) -> None:
    labelled = [f"small={restorers / '16.safetensors'}", f"large={restorers / '32.safetensors'}"]
    assert run(*labelled, "--num-images", 9, "--batch-size", 4, "-o", tmp_path) == 0
    methods = ["degraded", "bicubic", "small", "large"]
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert (result["num_images"], result["size"]) == (9, 16)  # at the smallest restorer's size
    assert [row["label"] for row in result["rows"]] == methods
    assert [row.get("image_size") for row in result["rows"]] == [None, None, 16, 32]
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len({line["name"] for line in lines}) == 9
    for row in result["rows"]:
        for name in ("psnr", "ssim"):
            scores = [float(line[f"{name}_{row['label']}"]) for line in lines]
            assert sum(scores) / 9 == pytest.approx(row["metrics"][name]["mean"])
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:] == methods
    height, width, _ = read_image(tmp_path / "grid.png").rgb.shape
    assert width > 5 * 16  # four methods and the original
    assert height > 8 * 16  # of the first eight faces


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a=16.safetensors", "a=32.safetensors"], "a=32.safetensors': every restorer needs a label of its own"),
        (["original=16.safetensors"], "every restorer needs a label of its own"),
        (["16.safetensors"], "give label and path"),
        (["a="], "give label and path"),
        (["a=absent.pth"], "absent.pth: no such file or folder"),
        (["a=broken.pth"], "broken.pth: is no plain weights file"),
        (["a=GFPGANv1.pth"], "GFPGANv1.pth: is no GFP-GAN of the clean architecture"),
        (["a=16.safetensors", "--size", "0"], "size must be from 16"),
        (["a=16.safetensors", "--num-images", "0"], "--num-images must be at least 1"),
        (["a=16.safetensors", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["a=16.safetensors", "--metrics", "psrn"], "--metrics: 'psrn' is unknown"),
        (["a=16.safetensors", "-o", "16.safetensors"], "16.safetensors"),
    ],
)
def test_a_mistake_is_one_line(restorers: Path, capsys, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(restorers)
    Path("broken.pth").write_bytes(b"cut short")
    torch.save({"params_ema": {"conv_body_first.0.weight": torch.zeros(16, 3, 1, 1)}}, "GFPGANv1.pth")
    assert run("-o", "out", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out/comparison.json").exists()


def test_a_broken_file_is_said_to_be_broken_without_spandrel_too(restorers: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.chdir(restorers)
    Path("broken.pth").write_bytes(b"cut short")
    torch.save({"encoder.weight": torch.zeros(1)}, "whole.pth")
    assert run("a=broken.pth", "-o", "out") == 1
    assert "broken.pth: is no plain weights file" in capsys.readouterr().err
    assert run("a=whole.pth", "-o", "out") == 1
    assert "whole.pth: needs spandrel: pip install 'idm-face-restoration[spandrel]'" in capsys.readouterr().err
