"""The ``idm`` command on good and on bad files of aligned faces, and measuring."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idm.apps.cli import main as cli
from idm.apps.photo.files import restore_files
from idm.apps.photo.plan import plan
from idm.data.synthetic import synthetic_face
from idm.evaluation.metrics import METRICS
from idm.io.image_writer import write_image
from idm.io.images import ImageError, read_image

SIZE = 32


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Every kind of picture that people have, in nested folders."""
    folder = tmp_path / "faces"
    (folder / "sub").mkdir(parents=True)
    face = Image.fromarray(synthetic_face(0, 0, 64).image)
    face.save(folder / "plain.jpg")
    face.convert("L").save(folder / "grey.png")
    face.convert("CMYK").save(folder / "cmyk.jpg")
    Image.fromarray(np.asarray(face.convert("L")).astype(np.uint16) * 257).save(folder / "sixteen.png")
    face.resize((9, 9)).save(folder / "tiny.png")
    face.resize((1500, 1500)).save(folder / "sub" / "huge.png")
    with_alpha = face.copy()
    with_alpha.putalpha(Image.linear_gradient("L").resize((64, 64)))
    with_alpha.save(folder / "sub" / "ä alpha.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter
    face.save(folder / "rotated.jpg", exif=exif)
    return folder


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "idm", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """A subcommand without the price of a new process: (exit code, stdout, stderr)."""
    code = cli.run(cli.build_parser().parse_args([str(a) for a in arguments]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_broken_files_are_named_and_cost_no_other_file(model: Path, faces: Path, tmp_path: Path) -> None:
    (faces / "corrupt.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (faces / "truncated.jpg").write_bytes((faces / "plain.jpg").read_bytes()[:600])
    (faces / "text.png").write_text("no picture")
    Image.new("RGB", (40, 30)).save(faces / "wide.png")
    Image.new("RGB", (4, 4)).save(faces / "dot.png")
    out = tmp_path / "out"
    done = run("restore", "--aligned", faces, "-o", out, "--model", model)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 5, done.stderr
    for name in ("corrupt.png", "truncated.jpg", "text.png", "wide.png", "dot.png"):
        assert sum(name in error for error in errors) == 1, name
    assert "Traceback" not in done.stderr
    assert "8 restored" in done.stdout
    assert "5 failed" in done.stdout
    written = sorted(path.relative_to(out).as_posix() for path in out.rglob("*.*") if path.name != "status.json")
    assert written == sorted(
        [f"{n}.png" for n in ("plain", "grey", "cmyk", "sixteen", "tiny", "rotated", "sub/huge", "sub/ä alpha")]
    )
    assert all(read_image(out / name).rgb.shape == (SIZE, SIZE, 3) for name in written)


def test_transparency_and_the_input_size_are_kept_on_request(model, faces, tmp_path, capsys) -> None:
    source = faces / "sub" / "ä alpha.png"
    code, _, _ = in_process(
        capsys, "restore", "--aligned", source, "-o", tmp_path, "--model", model, "--output-size", "input"
    )
    restored = read_image(tmp_path / "ä alpha.png")
    assert code == 0
    assert restored.rgb.shape == (64, 64, 3)
    np.testing.assert_array_equal(restored.alpha, read_image(source).alpha)


def test_a_face_is_restored_the_same_alone_and_in_company(model, faces, tmp_path, capsys) -> None:
    common = ("--model", model, "--precision", "fp32")
    in_process(capsys, "restore", "--aligned", faces, "-o", tmp_path / "all", *common)
    in_process(capsys, "restore", "--aligned", faces / "grey.png", "-o", tmp_path / "one", *common, "--batch-size", 1)
    alone, company = (read_image(tmp_path / f / "grey.png").rgb.astype(int) for f in ("one", "all"))
    assert np.abs(alone - company).max() <= 1  # the sums of a batch may round differently


def test_another_seed_gives_another_face_and_the_same_seed_the_same(model, faces, tmp_path, capsys) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        in_process(
            capsys, "restore", "--aligned", faces / "plain.jpg", "-o", tmp_path / name, "--model", model, "--seed", seed
        )
    a, b, c = (read_image(tmp_path / name / "plain.png").rgb for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


def test_what_is_already_there_can_be_skipped(model, faces, tmp_path, capsys) -> None:
    arguments = ("restore", "--aligned", faces, "-o", tmp_path / "out", "--model", model, "--skip-existing")
    assert in_process(capsys, *arguments)[0] == 0
    code, out, _ = in_process(capsys, *arguments)
    assert code == 0
    assert "0 restored" in out
    assert "8 already there" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["restore", "--aligned", "nowhere.png"], "nowhere.png"),
        (["restore", "--aligned", "EMPTY"], "empty"),
        (["restore", "--aligned", "FACES", "--model", "nowhere"], "nowhere: no such file or folder"),
        (["restore", "--aligned", "FACES", "--model", "FACES"], "does not hold a model"),
        (["restore", "--aligned", "FACES", "--steps", "0"], "number of steps must be at least 1"),
        (["restore", "--aligned", "FACES", "--steps", "2001"], "1..2000"),
        (["restore", "--aligned", "FACES", "--strength", "0.5"], "start_from='degraded'"),
        (["restore", "--aligned", "FACES", "--batch-size", "0"], "--batch-size"),
        (["restore", "--aligned", "FACES", "--device", "warp"], "warp"),
        (["evaluate", "--metrics", "psnr,beauty"], "'beauty' is unknown"),
        (["evaluate", "--preset", "rain"], "--preset: degradation.preset: Input should be 'gfpgan', "),
        (["evaluate", "--data", "nowhere"], "nowhere"),
    ],
)
def test_each_wrong_request_gives_one_clear_message(arguments, message, model, faces, tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    named = {"FACES": faces, "EMPTY": tmp_path / "empty"}
    arguments = [named.get(a, a) for a in arguments]
    if "--model" not in arguments:
        arguments += ["--model", model]
    code, _, err = in_process(capsys, *arguments, "-o", tmp_path / "out")
    assert code == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not list((tmp_path / "out").rglob("*.png")) if (tmp_path / "out").exists() else True


def test_a_full_disk_costs_its_file_only_and_the_job_continues(model, faces, tmp_path, capsys, monkeypatch) -> None:
    calls = []

    def full_once(path: Path, *arguments: object, **options: object) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise ImageError(f"{path}: cannot be written (No space left on device)")
        write_image(path, *arguments, **options)

    monkeypatch.setattr("idm.apps.photo.files.write_image", full_once)
    code, out, err = in_process(capsys, "restore", "--aligned", faces, "-o", tmp_path / "out", "--model", model)
    assert code == 1
    assert "No space left" in err
    assert "7 restored" in out
    assert len(list((tmp_path / "out").rglob("*.*"))) == 7 + 1  # and the status


def test_inputs_are_never_overwritten(model, faces, tmp_path, capsys) -> None:
    before = (faces / "grey.png").read_bytes()
    code, _, err = in_process(capsys, "restore", "--aligned", faces, "-o", faces, "--model", model)
    assert code == 1
    assert "would be overwritten" in err
    assert (faces / "grey.png").read_bytes() == before


def test_two_inputs_of_one_name_become_two_files(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    targets, _ = plan([tmp_path], tmp_path / "out")
    assert {source.name: path.name for source, path in targets.items()} == {"a.jpg": "a_jpg.png", "a.png": "a.png"}


def test_a_restorer_that_changes_nothing_gives_back_the_pixels(faces: Path, tmp_path: Path) -> None:
    class Identity:
        image_size = 64

        def restore(self, lq, seeds):
            return lq

    report = restore_files(Identity(), [faces / "grey.png"], tmp_path)
    np.testing.assert_array_equal(read_image(report.written[0]).rgb, read_image(faces / "grey.png").rgb)


# ------------------------------------------------------------------------------------------- evaluate


def test_evaluation_writes_numbers_that_its_own_table_repeats(model, tmp_path, capsys) -> None:
    code, _, err = in_process(capsys, "evaluate", "--num-images", 5, "-o", tmp_path, "--model", model)
    assert code == 0, err
    result = json.loads((tmp_path / "metrics.json").read_text())
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == result["num_images"] == 5
    mean = np.mean([float(row["psnr_restored"]) for row in rows])
    assert mean == pytest.approx(result["metrics"]["psnr"]["restored"]["mean"])
    assert {"commit", "machine", "protocol", "model", "seed"} <= result.keys()
    assert (tmp_path / "grid.png").exists()


def test_evaluation_measures_whole_sets_before_and_after(model, tmp_path, capsys, monkeypatch) -> None:
    class Contrast:
        num_features = None

        def features(self, image):
            return image.std()

        def compare(self, restored, originals):
            return float(np.mean(restored) / np.mean(originals))

    monkeypatch.setitem(METRICS, "frechet", replace(METRICS["frechet"], build=lambda networks: Contrast()))
    common = ("evaluate", "--num-images", 3, "--metrics", "psnr,frechet", "--model", model)
    assert in_process(capsys, *common, "-o", tmp_path)[0] == 0
    summary = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["frechet"]
    assert summary["degraded"]["mean"] < 1
    assert summary["restored"]["mean"] != summary["degraded"]["mean"]
    assert in_process(capsys, *common, "-o", tmp_path, "--preset", "clean")[0] == 0
    clean = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["frechet"]
    assert clean["degraded"] == {"mean": 1, "low": None, "high": None, "n": 3, "d": None}
    assert "frechet" not in (tmp_path / "scores.csv").read_text()


def test_two_folders_are_measured_as_sets_too(tmp_path, capsys, monkeypatch) -> None:
    class Brightness:
        num_features = None

        def features(self, image):
            return image.mean()

        def compare(self, restored, originals):
            return float(np.mean(restored) - np.mean(originals))

    monkeypatch.setitem(METRICS, "fid", replace(METRICS["fid"], build=lambda networks: Brightness()))
    for folder, value in (("hq", 100), ("restored", 110)):
        (tmp_path / folder).mkdir()
        for i in range(2):
            write_image(tmp_path / folder / f"{i}.png", np.full((16, 16, 3), value + i, np.uint8))
    pairs = (tmp_path / "restored", tmp_path / "hq")
    assert in_process(capsys, "evaluate", "--pairs", *pairs, "--metrics", "psnr,fid", "-o", tmp_path)[0] == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["fid"]["restored"]["mean"] == 10


@pytest.mark.parametrize(
    ("names", "message"),
    [("frechet", "add a metric of single faces, such as psnr"), ("psnr,mse", "'mse' is unknown; known: psnr")],
)
def test_metrics_that_cannot_be_are_one_line(names, message, model, tmp_path, capsys) -> None:
    code, _, err = in_process(capsys, "evaluate", "--metrics", names, "--model", model, "-o", tmp_path / "out")
    assert (code, len(err.splitlines())) == (1, 1)
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_undegraded_face_is_measured_against_itself(model, tmp_path, capsys) -> None:
    arguments = ("evaluate", "--num-images", 3, "-o", tmp_path, "--model", model, "--preset", "clean")
    assert in_process(capsys, *arguments)[0] == 0
    summary = json.loads((tmp_path / "metrics.json").read_text())["metrics"]["psnr"]
    smallest = 1 / 255**2 / (SIZE * SIZE * 3)
    assert summary["degraded"]["mean"] == pytest.approx(-10 * np.log10(smallest))
    assert summary["restored"]["mean"] < summary["degraded"]["mean"]


def test_a_metric_that_is_missing_is_a_gap_and_the_others_are_measured(model, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    code, _, err = in_process(
        capsys, "evaluate", "--num-images", 2, "--metrics", "psnr,identity,niqe", "--model", model, "-o", tmp_path
    )
    assert code == 0
    missing = "its weights are missing; `idm weights fetch mobilefacenet_casia.safetensors` gets them"
    assert f"identity is not measured: {missing}" in err
    result = json.loads((tmp_path / "metrics.json").read_text())
    assert list(result["metrics"]) == ["psnr"]
    assert result["missing"]["niqe"] == "needs faces of 192 px or more"


def test_the_list_of_metrics_has_every_name_and_protocol(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.build_parser().parse_args(["evaluate", "--list-metrics"])
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown and metric.protocol in shown for name, metric in METRICS.items())


def test_two_folders_are_compared_by_name(tmp_path, capsys) -> None:
    for folder, value in (("hq", 100), ("restored", 110)):
        for name in ("a.png", "b.png"):
            path = tmp_path / folder / name
            path.parent.mkdir(exist_ok=True)
            write_image(path, np.full((16, 16, 3), value, np.uint8))
    write_image(tmp_path / "restored" / "alone.png", np.zeros((16, 16, 3), np.uint8))
    code, _, err = in_process(
        capsys, "evaluate", "--pairs", tmp_path / "restored", tmp_path / "hq", "-o", tmp_path / "out"
    )
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert code == 1
    assert "alone.png" in err
    assert result["num_images"] == 2
    assert result["metrics"]["psnr"]["restored"]["mean"] == pytest.approx(20 * np.log10(255 / 10))


def test_help_is_fast_and_imports_nothing_heavy() -> None:
    program = (
        "import sys, contextlib, idm.apps.cli.main\n"
        "with contextlib.suppress(SystemExit): idm.apps.cli.main.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'diffusers', 'pyiqa', 'facexlib', 'lpips', 'cv2'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_restoring_imports_no_metric_and_no_detector() -> None:
    program = (
        "import sys, idm.apps.cli.restore\n"
        "heavy = {'pyiqa', 'facexlib', 'lpips', 'datasets', 'skimage'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
