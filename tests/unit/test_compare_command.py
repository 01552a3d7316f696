"""``idm compare`` and ``idm evaluate``: their files tell one story, and every mistake is one line."""

import csv
import json
import re
import sys
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import save_gfpgan
from idm.apps.cli import main as cli
from idm.apps.cli import task
from idm.data.synthetic import synthetic_face
from idm.faces import recognition
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet
from idm.io.image_writer import write_image
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
    with (tmp_path / "differences.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["a"], row["b"], row["metric"], row["n"]) for row in rows] == [
        ("small", "large", "psnr", "9"),
        ("small", "large", "ssim", "9"),
    ]
    assert float(rows[0]["mean"]) == result["differences"][0]["metrics"]["psnr"]["mean"]
    assert set(result["breakdown"]) == {"strength"}
    assert not (tmp_path / ".kept").exists()
    table = (tmp_path / "table.md").read_text()
    assert "| small − large | 9 |" in table
    assert table in capsys.readouterr().out
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:5] == methods
    height, width, _ = read_image(tmp_path / "grid.png").rgb.shape
    assert width > 5 * 16  # four methods and the original
    assert height > 8 * 16  # of the first eight faces
    shown = {
        f"{i:08d}_{label}.webp" for i in result["pictures"] for label in ("degraded", "small", "large", "original")
    }
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == shown
    assert set(range(8)) <= set(result["pictures"])
    gains = [float(line["psnr_large"]) - float(line["psnr_degraded"]) for line in lines]
    assert int(np.argmin(gains)) in result["pictures"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a=16.safetensors", "a=32.safetensors"], "a=32.safetensors': every restorer needs its own label"),
        (["original=16.safetensors"], "every restorer needs its own label"),
        (["16.safetensors"], "give label and path"),
        (["a="], "give label and path"),
        (["a=absent.pth"], "absent.pth: no such file or folder"),
        (["a=broken.pth"], "broken.pth: is not a plain weights file"),
        (["a=GFPGANv1.pth"], "GFPGANv1.pth: its weights do not fit the architecture"),
        (["a=16.safetensors", "--size", "0"], "size must be from 16"),
        (["a=16.safetensors", "--num-images", "0"], "--num-images must be at least 1"),
        (["a=16.safetensors", "--batch-size", "0"], "--batch-size must be at least 1"),
        (["a=16.safetensors", "--samples", "0"], "--samples must be at least 1, got 0"),
        (["a=16.safetensors", "--processes", "0"], "--processes must be at least 1, got 0"),
        (["a=16.safetensors", "--metrics", "psrn"], "--metrics: 'psrn' is unknown"),
        (["a=16.safetensors", "-o", "16.safetensors"], "16.safetensors: is a file, but the results need a folder"),
        (["a=16.safetensors", "-o", "16.safetensors/out"], "16.safetensors: is a file, but the results need a folder"),
        (["a=16.safetensors@4"], "16.safetensors@4: has no sampling chain"),
        (["stranger=16.safetensors"], "every restorer needs its own label"),
        (["a=16.safetensors", "--metrics", "identity"], "mobilefacenet_casia.safetensors: weights file not found"),
    ],
)
def test_a_mistake_is_one_line(restorers: Path, capsys, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(restorers)
    monkeypatch.setenv("IDM_HOME", str(restorers))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    Path("broken.pth").write_bytes(b"cut short")
    torch.save({"params_ema": {"conv_body_first.0.weight": torch.zeros(16, 3, 1, 1)}}, "GFPGANv1.pth")
    assert run("-o", "out", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not Path("out").exists()


@pytest.mark.parametrize("command", ["compare", "evaluate"])
def test_a_killed_command_resumes_to_the_same_files(command: str, restorers: Path, tmp_path: Path) -> None:
    model = restorers / "16.safetensors"
    chosen = {"compare": (f"a={model}", "--breakdown"), "evaluate": ("--model", model)}[command]
    options = ("--num-images", 24, "--batch-size", 2, "--device", "cpu", "--precision", "fp32")
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"

    def words(folder: Path) -> list[str]:
        return ["-m", "idm", command, *map(str, (*chosen, *options, "-o", folder))]

    forked.kill_when(words(resumed), resumed, ".kept/*/00000003_0.npz")
    assert {path.name for path in resumed.iterdir()} == {".kept"}
    kept = {path: path.stat().st_mtime_ns for path in resumed.rglob("0000000[01]_0.npz")}  # a whole batch
    assert len(kept) >= 2 * len({path.parent for path in kept}) >= 4  # of every method
    forked.kill_when(words(resumed), resumed, ".kept/*/00000010_0.npz")
    assert kept == {path: path.stat().st_mtime_ns for path in kept}  # not restored again
    for folder in (resumed, whole):
        done = forked.run(words(folder))
        assert done.returncode == 0, done.stderr
    assert files(resumed) == files(whole)
    assert not list(whole.rglob("*.npz"))


def files(folder: Path) -> dict[str, bytes]:
    """The contents of all files but for the measured seconds, which differ from run to run."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: re.sub(rb'"seconds_per_image": [\d.e-]+|\d+\.\d{3} \| [\d.]+ M ', b"", found[name]) for name in found}


def pictures(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()}


def results(folder: Path) -> dict:
    """A comparison.json without what may differ from run to run."""
    result = json.loads((folder / "comparison.json").read_text())
    result.pop("processes")
    for row in result["rows"]:
        row.pop("seconds_per_image", None)
    return result


def test_two_processes_give_the_results_of_one(tmp_path: Path) -> None:
    arguments = ("small=idm-faces-128@1", "--size", 32, "--num-images", 5, "--batch-size", 2, "--samples", 2)
    for number in (1, 2):
        assert run(*arguments, "--processes", number, "-o", tmp_path / str(number)) == 0
    for name in ("scores.csv", "differences.csv", "grid.png"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    assert results(tmp_path / "1") == results(tmp_path / "2")
    assert pictures(tmp_path / "1") == pictures(tmp_path / "2")
    assert results(tmp_path / "1")["rows"][2]["diversity"]["mean"] > 0
    assert "| diversity |" in (tmp_path / "2" / "table.md").read_text()
    assert not (tmp_path / "2" / ".kept").exists()


def test_two_processes_evaluate_as_one_does(restorers: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(task.multiprocessing, "get_context", lambda method: forked.FORKSERVER)  # starts sooner
    arguments = ["--model", restorers / "16.safetensors", "--num-images", 5, "--batch-size", 2, "--device", "cpu"]
    for number in (1, 2):
        words = map(str, ("evaluate", *arguments, "--processes", number, "-o", tmp_path / str(number)))
        assert cli.run(cli.build_parser().parse_args(list(words))) == 0
    one, two = (files(tmp_path / number) for number in ("1", "2"))
    assert one["metrics.json"].replace(b'"processes": 1', b'"processes": 2') == two["metrics.json"]
    assert one | {"metrics.json": two["metrics.json"]} == two


def test_a_process_that_fails_is_one_line_and_loses_nothing(restorers: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setattr(task.multiprocessing, "get_context", lambda method: forked.FORKSERVER)
    arguments = (f"a={restorers / '16.safetensors'}", "--num-images", 4, "--processes", 2, "-o", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(task, "_work", fail)
        assert run(*arguments) == 1
    assert "error: a process of the measurement failed; the same command resumes it" in capsys.readouterr().err
    assert run(*arguments) == 0


def fail(options: object, prepare: object, rank: int) -> None:
    """In place of a process's work."""
    sys.exit(3 if rank else 0)


def test_a_split_that_shares_a_face_with_training_is_refused(restorers: Path, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("IDM_ASSETS", str(tmp_path))
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    for split, number in (("train", 3), ("val", 2)):
        (tmp_path / "faces256" / split).mkdir(parents=True)
        for i in range(number):
            write_image(tmp_path / "faces256" / split / f"{i}.png", synthetic_face(number, i, 32).image)
    arguments = (f"a={restorers / '16.safetensors'}", "--data", "assets:val", "-o", tmp_path / "out")
    assert run(*arguments) == 0
    result = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert result["splits"] == {"train": 3, "evaluated": 2, "shared": 0, "nearest": None}
    table = (tmp_path / "out" / "table.md").read_text()
    assert "None of the 2 faces" in table
    assert "embeddings were not compared: the identity network's weights are missing" in table
    (tmp_path / "faces256" / "val" / "9.png").write_bytes((tmp_path / "faces256" / "train" / "1.png").read_bytes())
    assert run(*arguments) == 1
    assert "assets:val: 1 of its faces are in assets:train, too, byte for byte; first 9.png" in capsys.readouterr().err


def test_a_training_face_in_another_file_is_refused(restorers: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    (tmp_path / "home" / "weights").mkdir(parents=True)
    save_file(MobileFaceNet().state_dict(), tmp_path / "home" / "weights" / recognition.MOBILEFACENET_WEIGHTS)
    colours = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3)).astype(np.uint8)
    for split, numbers in (("train", (0, 1, 2)), ("held_out", (3, 4))):
        (tmp_path / split).mkdir()
        for i in numbers:
            write_image(tmp_path / split / f"{i}.png", colours[i])
    arguments = (f"a={restorers / '16.safetensors'}", "--data", tmp_path / "held_out", "-o", tmp_path / "out")
    arguments += ("--training-data", tmp_path / "train")
    monkeypatch.setattr("idm.apps.cli.faces.COPY", 1.1)  # a random network finds all faces alike
    assert run(*arguments) == 0
    nearest = json.loads((tmp_path / "out" / "comparison.json").read_text())["splits"]["nearest"]
    assert nearest["cosine"] < 1 - 1e-5
    assert f"identity cosine of {nearest['cosine']:.3f}" in (tmp_path / "out" / "table.md").read_text()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "home" / "embeddings").iterdir()}
    assert len(kept) == 2  # one file for each folder
    monkeypatch.setattr("idm.apps.cli.faces.COPY", (1 + nearest["cosine"]) / 2)
    write_image(tmp_path / "held_out" / "5.tif", colours[1])
    assert run(*arguments) == 1
    assert "5.tif is 1.png of" in (error := capsys.readouterr().err)
    assert "in another file: their embeddings have a cosine of 1.000" in error
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_references_are_rows_and_each_face_has_its_nearest_stranger(restorers: Path, tmp_path: Path, monkeypatch):
    torch.manual_seed(0)
    network = IdentityNet(MobileFaceNet().eval())
    monkeypatch.setattr(recognition, "load_identity", lambda weights, device: network)
    arguments = (f"a={restorers / '16.safetensors'}", "--num-images", 4, "--metrics", "psnr,identity,frechet,kernel")
    assert run(*arguments, "--real", "synthetic", "--no-cache", "-o", tmp_path) == 0  # its weights have no file
    result = json.loads((tmp_path / "comparison.json").read_text())
    assert [row["label"] for row in result["rows"]] == ["degraded", "bicubic", "stranger", "real", "a"]
    stranger, real = result["rows"][2]["metrics"], result["rows"][3]["metrics"]
    assert stranger["identity"]["mean"] < 1
    assert set(real) == {"frechet", "kernel"}
    assert set(stranger) == {"psnr", "identity"}  # strangers are the originals of other faces: the same set
    assert real["frechet"]["n"] == 4
    assert real["frechet"]["mean"] > 1e-6  # other faces than the evaluated ones
    table = (tmp_path / "table.md").read_text()
    assert "Frechet cannot rank these rows: 4 faces do not determine the covariance of 256 features." in table
    assert "Kernel cannot rank" not in table
    assert "real: as many other real faces, of `synthetic`." in table


def test_one_more_restorer_embeds_only_its_own_faces(restorers: Path, tmp_path: Path, monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    (tmp_path / "weights").mkdir()
    save_file(MobileFaceNet().state_dict(), tmp_path / "weights" / recognition.MOBILEFACENET_WEIGHTS)
    embedded = []
    embed = IdentityNet.embed
    monkeypatch.setattr(IdentityNet, "embed", lambda self, *faces: embedded.append(faces) or embed(self, *faces))

    def number(*arguments: str) -> int:
        embedded.clear()
        faces = ("--num-images", 2, "--size", 16, "--metrics", "identity")
        assert run(*arguments, *faces, "-o", tmp_path / "out") == 0
        return len(embedded)

    small, large = f"small={restorers / '16.safetensors'}", f"large={restorers / '32.safetensors'}"
    assert number(small) == 2 * 4  # original, degraded, bicubic, restored; strangers are originals
    assert number(small, large) == 2
    scores = (tmp_path / "out" / "scores.csv").read_bytes()
    assert number(small, large, "--no-cache") == 2 * 5
    assert (tmp_path / "out" / "scores.csv").read_bytes() == scores


def test_a_named_restorer_without_weights_is_a_row_of_gaps_with_the_command(
    restorers: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    monkeypatch.chdir(tmp_path)
    arguments = ("codeformer", f"a={restorers / '16.safetensors'}", "theirs=restoreformer", "--num-images", 3)
    assert run(*arguments, "-o", "out") == 0
    error = capsys.readouterr().err
    assert "warning: codeformer is not measured: `idm weights fetch codeformer.pth` gets its weights" in error
    result = json.loads(Path("out/comparison.json").read_text())
    assert result["absent"] == {"codeformer": "codeformer.pth", "theirs": "RestoreFormer.pth"}
    assert [row["label"] for row in result["rows"]] == ["degraded", "bicubic", "a"]
    table = Path("out/table.md").read_text()
    assert "| codeformer | – | – | – | – |\n| theirs | – | – | – | – |\n" in table
    assert "theirs: not measured: its weights are missing; `idm weights fetch RestoreFormer.pth` gets them." in table
    assert run("codeformer", "restoreformer", "-o", "none") == 1
    assert "RestoreFormer.pth: weights file not found" in capsys.readouterr().err
    assert run("codeformer", f"codeformer={restorers / '16.safetensors'}", "-o", "none") == 1
    assert "every restorer needs its own label" in capsys.readouterr().err
    assert not Path("none").exists()


def test_a_broken_file_is_reported_as_broken_without_spandrel_too(restorers: Path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel", None)
    monkeypatch.chdir(restorers)
    Path("broken.pth").write_bytes(b"cut short")
    torch.save({"encoder.weight": torch.zeros(1)}, "whole.pth")
    assert run("a=broken.pth", "-o", "out") == 1
    assert "broken.pth: is not a plain weights file" in capsys.readouterr().err
    assert run("a=whole.pth", "-o", "out") == 1
    assert "whole.pth: needs spandrel: pip install 'idm-face-restoration[spandrel]'" in capsys.readouterr().err


def test_evaluate_stops_at_a_training_face_too(restorers: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "faces").mkdir()
    write_image(tmp_path / "faces" / "a.png", synthetic_face(0, 0, 32).image)
    model = ("--model", restorers / "16.safetensors", "--device", "cpu")
    data = ("--data", tmp_path / "faces", "--training-data", tmp_path / "faces")
    parsed = cli.build_parser().parse_args(["evaluate", *map(str, (*model, *data, "-o", tmp_path / "out"))])
    assert cli.run(parsed) == 1
    assert "1 of its faces are in" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
