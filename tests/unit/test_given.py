"""Degraded faces that are given: LQ/HQ pairs and LQ faces without originals, through the real commands."""

import csv
import json
import subprocess
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import save_gfpgan
from idm.apps.cli import main as cli
from idm.data.given import GivenFaces, read_pairs
from idm.data.sources import FolderFaces
from idm.data.synthetic import synthetic_face
from idm.evaluation import metrics as metrics_module
from idm.evaluation.frechet import frechet_distance
from idm.evaluation.metric import Metric
from idm.evaluation.metrics import METRICS, psnr
from idm.evaluation.sets import FeatureDistance
from idm.faces import recognition
from idm.faces.mobilefacenet import MobileFaceNet
from idm.io.image_writer import write_image
from idm.io.images import read_image
from idm.io.ranges import from_uint8

SIZE = 16
NAMES = ("a", "a.t", "deep/c")  # by path, a.t.webp comes before a.webp, but a.t.png after a.png


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pairs of 16 px, of which one lies deeper, and a tiny restorer."""
    rng = np.random.default_rng(0)
    for i, name in enumerate(NAMES):
        face = synthetic_face(5, i, SIZE).image
        noisy = np.clip(face + rng.normal(0, 20 * (i + 1), face.shape), 0, 255).astype(np.uint8)
        for path, image in ((tmp_path / "hq" / f"{name}.png", face), (tmp_path / "lq" / f"{name}.webp", noisy)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_image(path.with_suffix(".png"), image)
            path.with_suffix(".png").rename(path)  # the content tells the format
    torch.manual_seed(0)
    save_gfpgan(GFPGAN(SIZE, 8, 1, 1, 1 / 64), tmp_path / "tiny.safetensors")
    return tmp_path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return forked.run(["-m", "idm", *map(str, arguments), "--device", "cpu", "--precision", "fp32"])


def run(*arguments: object) -> int:
    parsed = cli.build_parser().parse_args([*map(str, arguments), "--device", "cpu", "--precision", "fp32"])
    return cli.run(parsed)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_given_pairs_are_measured_as_they_are(folder: Path) -> None:
    data = f"pairs:{folder}"
    done = command("compare", f"tiny={folder / 'tiny.safetensors'}", "--data", data, "-o", folder / "out")
    assert done.returncode == 0, done.stderr
    lines = rows(folder / "out" / "scores.csv")
    assert [line["name"] for line in lines] == [f"{name}.png" for name in NAMES]
    for line in lines:
        name = line["name"]
        lq, hq = (read_image(path).rgb for path in (folder / "lq" / name.replace("png", "webp"), folder / "hq" / name))
        assert float(line["psnr_degraded"]) == pytest.approx(psnr(from_uint8(lq), from_uint8(hq)))
    result = json.loads((folder / "out" / "comparison.json").read_text())
    assert [row["label"] for row in result["rows"]] == ["degraded", "tiny"]  # nobody knows the small face
    assert (result["preset"], result["originals"]) == (None, True)
    table = (folder / "out" / "table.md").read_text()
    assert "All at 16 px, degraded as given;" in table
    assert f"3 faces of `{data}`, noise from seed 1234." in table


def test_evaluate_reads_the_same_pairs(folder: Path) -> None:
    data = ("--data", f"pairs:{folder}")
    assert run("compare", f"tiny={folder / 'tiny.safetensors'}", *data, "-o", folder / "one") == 0
    assert run("evaluate", "--model", folder / "tiny.safetensors", *data, "-o", folder / "other") == 0
    one, other = rows(folder / "one" / "scores.csv"), rows(folder / "other" / "scores.csv")
    assert [line["ssim_tiny"] for line in one] == [line["ssim_restored"] for line in other]
    assert [line["ssim_degraded"] for line in one] == [line["ssim_degraded"] for line in other]
    assert json.loads((folder / "other" / "metrics.json").read_text())["preset"] is None


@pytest.fixture
def brightness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A metric without reference that needs no weights, in place of NIQE."""
    row = Metric("niqe", "NIQE", "lower", "single", "Mean.", lambda networks: lambda image, _: float(image.mean()))
    monkeypatch.setitem(metrics_module.METRICS, "niqe", row)


def test_faces_without_originals_have_the_metrics_that_need_none(folder: Path, brightness, capsys, monkeypatch) -> None:
    home = folder / "home"
    (home / "weights").mkdir(parents=True)
    save_file(MobileFaceNet().state_dict(), home / "weights" / recognition.MOBILEFACENET_WEIGHTS)
    monkeypatch.setenv("IDM_HOME", str(home))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    arguments = ("compare", f"tiny={folder / 'tiny.safetensors'}", "--data", f"lq:{folder / 'lq'}")
    metrics = ("--metrics", "psnr,identity,niqe,kernel")
    assert run(*arguments, *metrics, "--real", "synthetic", "-o", folder / "real") == 0
    result = json.loads((folder / "real" / "comparison.json").read_text())
    assert result["missing"] == dict.fromkeys(("psnr", "identity"), "needs the originals of the faces")
    assert [row["label"] for row in result["rows"]] == ["degraded", "tiny"]
    assert [set(row["metrics"]) for row in result["rows"]] == [{"niqe", "kernel"}] * 2
    assert result["rows"][0]["metrics"]["kernel"]["n"] == 3
    means = [read_image(path).rgb.mean() / 255 for path in sorted((folder / "lq").rglob("*.webp"))]
    assert result["rows"][0]["metrics"]["niqe"]["mean"] == pytest.approx(np.mean(means), abs=1e-6)
    assert "no originals: sets are compared with 64 faces of `synthetic`." in (folder / "real" / "table.md").read_text()
    capsys.readouterr()
    assert run(*arguments, *metrics, "-o", folder / "alone") == 0
    assert "kernel is not measured: needs originals, or other faces to compare with" in capsys.readouterr().err
    width = read_image(folder / "alone" / "grid.png").rgb.shape[1]
    assert width < read_image(folder / "real" / "grid.png").rgb.shape[1] + SIZE  # no column of originals


SHIFT, OTHER = np.array([5, 0, 0]), np.array([10, 20, 30])


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Faces of one colour each: "hq", "lq" shifted by 5 in red, and "real", shifted by OTHER from "hq"; FID of these is
    that of their colours."""
    rng = np.random.default_rng(0)
    for i in range(6):
        colour = rng.integers(0, 200, 3)
        for part, shift in (("hq", 0), ("lq", SHIFT), ("real", OTHER)):
            (tmp_path / part).mkdir(exist_ok=True)
            pixels = np.broadcast_to(colour + shift, (SIZE, SIZE, 3)).astype(np.uint8)
            write_image(tmp_path / part / f"{i}.png", np.ascontiguousarray(pixels))
    distance = FeatureDistance(lambda image: image[0, 0].astype(np.float32), frechet_distance, 3)
    monkeypatch.setitem(METRICS, "fid", Metric("fid", "FID", "lower", "set", "Of colours.", lambda _: distance))
    return tmp_path


def squared(shift: np.ndarray) -> pytest.approx:
    """The Frechet distance of two sets that differ by a shift."""
    return pytest.approx(float((shift**2).sum()), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "column", "expected"),
    [
        ([], "original", {"restored": squared(SHIFT)}),
        (["--real", "REAL"], "original", {"restored": squared(SHIFT), "real": squared(OTHER)}),
        (
            ["--real", "REAL", "--reference", "real"],
            "real",
            {"restored": squared(OTHER - SHIFT), "original": squared(OTHER)},
        ),
    ],
)
def test_sets_are_compared_with_the_chosen_reference(colours: Path, options, column, expected) -> None:
    options = [str(colours / "real") if option == "REAL" else option for option in options]
    folders = ("--pairs", colours / "lq", colours / "hq")
    assert run("evaluate", *folders, "--metrics", "psnr,fid", *options, "-o", colours / "out") == 0
    result = json.loads((colours / "out" / "metrics.json").read_text())
    assert {name: value["mean"] for name, value in result["metrics"]["fid"].items()} == expected
    assert result["set_reference"] == column


def test_a_comparison_states_that_sets_are_compared_with_other_real_faces(folder: Path, colours: Path) -> None:
    (colours / "real" / "5.png").unlink()
    arguments = (
        "compare",
        f"tiny={folder / 'tiny.safetensors'}",
        "--data",
        f"pairs:{colours}",
        "--metrics",
        "psnr,fid",
    )
    real = ("--real", colours / "real", "--reference", "real")
    assert run(*arguments, *real, "-o", colours / "out") == 0
    result = json.loads((colours / "out" / "comparison.json").read_text())
    assert [row["label"] for row in result["rows"]] == ["degraded", "original", "tiny"]
    assert result["rows"][1]["metrics"].keys() == {"fid"}
    table = (colours / "out" / "table.md").read_text()
    assert f"Sets are compared with 5 faces of `{colours / 'real'}`, not with the originals." in table
    assert "original: the originals of the faces" in table
    (colours / "real" / "4.png").unlink()
    (colours / "real" / "3.png").unlink()
    assert run(*arguments, *real, "-o", colours / "out") == 0
    assert "FID cannot rank these rows: 3 faces do not" in (colours / "out" / "table.md").read_text()


def test_evaluate_takes_faces_without_originals(folder: Path, brightness) -> None:
    data = ("--data", f"lq:{folder / 'lq'}", "--metrics", "niqe,ssim", "--num-images", 2)
    assert run("evaluate", "--model", folder / "tiny.safetensors", *data, "-o", folder / "out") == 0
    result = json.loads((folder / "out" / "metrics.json").read_text())
    assert (set(result["metrics"]), result["num_images"], result["originals"]) == ({"niqe"}, 2, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "pairs:.", "--preset", "mild"], "--preset: the faces of pairs:. are degraded already"),
        (["--data", "lq:lq", "--preset", "clean"], "--preset: the faces of lq:lq are degraded already"),
        (["--data", "lq:lq"], "psnr: needs the originals of the faces; ssim: needs the originals"),
        (["--data", "pairs:lq"], "lq/lq: "),
        (["--data", "pairs:.", "--num-images", "4"], "--num-images: 4 faces are needed, and there are 3"),
        (["--reference", "real"], "--reference real: --real names the faces"),
        (["--reference", "originals", "--data", "lq:lq"], "--reference originals: the faces of lq:lq have none"),
        (["--real", "lq:lq"], "lq:lq: clean faces are needed"),
        (["--data", "pairs:.", "--real", "broken/hq"], "--real: 3 faces are needed, and there are 1"),
        (["--data", "pairs:broken"], "broken: 2 images are in one of lq and hq only; first a"),
        (["--data", "pairs:twice"], "hq: holds two images of the name a"),
    ],
)
def test_a_mistake_is_one_line(folder: Path, capsys, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(folder)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    for path in ("broken/lq/a.png", "broken/hq/b.png", "twice/lq/a.png", "twice/hq/a.png", "twice/hq/a.bmp.png"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        write_image(Path(path), image)
    Path("twice/hq/a.bmp.png").rename("twice/hq/a.bmp")
    assert run("compare", "tiny=tiny.safetensors", *arguments, "-o", "out") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


def test_pairs_are_found_by_name_whatever_their_order(folder: Path) -> None:
    pairs = read_pairs(folder, SIZE)
    for i, name in enumerate(NAMES):
        assert pairs[i].key == f"{name}.png"
        assert np.array_equal(pairs[i].lq, read_image(folder / "lq" / f"{name}.webp").rgb)
        assert np.array_equal(pairs[i].hq, read_image(folder / "hq" / f"{name}.png").rgb)
    faces = GivenFaces(FolderFaces(folder / "lq", SIZE))
    assert np.array_equal(faces[1].lq, faces[1].hq)
    assert METRICS["psnr"].full_reference
