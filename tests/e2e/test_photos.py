"""Photographs from files to files: the command itself, and a job of 200 that is killed twice."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
from forked import run, started
from PIL import ExifTags, Image

from idm.apps.cli import main as cli
from idm.apps.cli.model import load
from idm.apps.cli.options.restore import RestoreOptions
from idm.apps.cli.options.shared import read
from idm.io.photo_writer import write_photo
from idm.io.photos import Photo, read_photo


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()[:260, 100:360].copy()


def restore(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run(cli.build_parser().parse_args(["restore", *map(str, arguments)]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def entry(folder: Path, name: str = "status.json") -> dict:
    (only,) = json.loads((folder / name).read_text())["files"].values()
    return only


@pytest.fixture
def weights(assets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IDM_ASSETS", str(assets))


def test_a_machine_without_any_weights_of_others_restores_a_photograph(
    model, astronaut, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    for name in ("0.png", "2.png"):
        Image.fromarray(astronaut).save(tmp_path / name)
    out = tmp_path / "out"
    options = ("-o", out, "--model", model, "--change", "full")
    code, printed, err = restore(capsys, tmp_path / "0.png", tmp_path / "2.png", *options)
    assert code == 0
    assert "0 failed" in printed
    assert [line.count("`idm weights fetch`") for line in err.splitlines()] == [1, 1]  # each said once, not per file
    status = json.loads((out / "status.json").read_text())
    assert status["settings"]["detector"][0] == "builtin"
    assert "missing" in status["settings"]["identity"]
    for file in status["files"].values():
        (face,) = file["faces"]
        assert face["state"] == "restored"
    assert not (tmp_path / "home").exists()
    options = ("-o", out, "--model", model, "--min-identity", 0.3)
    code, _, err = restore(capsys, tmp_path / "0.png", *options)
    assert code == 1
    assert "idm weights fetch mobilefacenet_casia.safetensors" in err


@pytest.mark.usefixtures("weights")
def test_a_photograph_comes_back_larger_with_all_that_came_with_it(model, astronaut, tmp_path, capsys) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Artist] = "NASA"
    exif[ExifTags.Base.Orientation] = 8
    sideways = np.rot90(astronaut, -1)
    Image.fromarray(np.ascontiguousarray(sideways)).save(tmp_path / "a.jpg", quality=95, exif=exif)
    out = tmp_path / "out"
    code, printed, err = restore(
        capsys, tmp_path / "a.jpg", "-o", out, "--model", model, "--upscale", 1.5, "--change", "full"
    )
    assert code == 0, err
    assert "1 restored, 0 failed" in printed
    photo = read_photo(out / "a.jpg")
    assert photo.pixels.shape == (390, 390, 3)
    back = Image.Exif()
    back.load(photo.exif or b"")
    assert (back[ExifTags.Base.Artist], back[ExifTags.Base.Orientation]) == ("NASA", 1)
    status = entry(out)
    (face,) = status["faces"]
    assert (status["state"], face["state"]) == ("restored", "restored")
    assert -1 <= face["identity"] <= 1
    assert "was restored at 32 px" in face["note"]
    upright = np.asarray(Image.fromarray(astronaut).resize((390, 390), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(photo.pixels - upright).mean() < 6


@pytest.mark.usefixtures("weights")
def test_sixteen_bits_and_alpha_survive_and_the_guard_keeps_the_face(model, astronaut, tmp_path, capsys) -> None:
    deep = astronaut.astype(np.uint16) * 257 + 3
    write_photo(tmp_path / "a.png", Photo(deep, deep[..., 0].copy()))
    out = tmp_path / "out"
    options = ("--min-identity", 1, "--samples", 2, "--uncertainty", "--faces", "largest")
    code, _, err = restore(capsys, tmp_path / "a.png", "-o", out, "--model", model, *options)
    assert code == 0, err
    back = read_photo(out / "a.png")
    np.testing.assert_array_equal(back.pixels, deep)
    np.testing.assert_array_equal(back.alpha, deep[..., 0])
    assert entry(out)["faces"][0]["state"] == "kept"
    assert read_photo(out / "a.uncertainty.png").pixels.max() == 0


@pytest.mark.usefixtures("weights")
def test_a_photograph_without_faces_is_written_and_reported(model, tmp_path, capsys) -> None:
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "a.bmp")
    code, printed, _ = restore(capsys, tmp_path / "a.bmp", "-o", tmp_path / "out", "--model", model, "--upscale", 2)
    assert (code, entry(tmp_path / "out")["state"]) == (0, "no face")
    assert printed.startswith("0 restored, 1 without a face, 0 failed -> ")
    assert Image.open(tmp_path / "out" / "a.png").size == (160, 120)


@pytest.mark.usefixtures("weights")
def test_a_photograph_in_which_nothing_changes_stays_the_same_file(model, astronaut, tmp_path, capsys) -> None:
    Image.fromarray(astronaut).save(tmp_path / "face.jpg", quality=80)
    Image.new("RGB", (80, 60), "teal").save(tmp_path / "none.jpg", quality=80)
    out = tmp_path / "out"
    code, printed, _ = restore(capsys, tmp_path, "-o", out, "--model", model, "--min-identity", 1)
    assert code == 0
    assert printed.splitlines()[0] == f"0 restored, 1 without a face, 1 kept as given, 0 failed -> {out}"
    assert "faces: 0 restored, 1 kept as given; " in printed
    for name in ("face.jpg", "none.jpg"):
        assert (out / name).read_bytes() == (tmp_path / name).read_bytes()
    printed = restore(capsys, tmp_path / "face.jpg", "-o", out, "--model", model, "--min-face", 500)[1]
    assert printed.startswith("0 restored, 1 with no face chosen, 0 failed")
    assert (out / "face.jpg").read_bytes() == (tmp_path / "face.jpg").read_bytes()
    restore(capsys, tmp_path / "face.jpg", "-o", out, "--model", model, "--min-identity", 1, "--upscale", 2)
    assert Image.open(out / "face.jpg").size == (520, 520)
    assert (
        "without a face"
        not in restore(capsys, tmp_path / "face.jpg", "-o", out, "--model", model, "--change", "full")[1]
    )
    assert (out / "face.jpg").read_bytes() != (tmp_path / "face.jpg").read_bytes()


@pytest.mark.usefixtures("weights")
def test_faces_that_may_have_been_missed_are_reported(model, tmp_path, capsys) -> None:
    Image.new("RGB", (400, 60), "teal").save(tmp_path / "a.png")
    (tmp_path / "b.nef").touch()
    options = ("-o", tmp_path / "out", "--model", model, "--detect-side", 200)
    printed = restore(capsys, tmp_path, *options)[1]
    assert "of up to 400 px were searched in copies of 200 px, where faces below about 24 px are missed" in printed
    assert "--detect-side 400" in printed
    assert "1 .nef" in printed
    assert json.loads((tmp_path / "out" / "status.json").read_text())["settings"]["detector"] == [
        "retinaface",
        0.8,
        200,
    ]
    assert "note" not in restore(capsys, tmp_path / "a.png", *options[:-1], 201)[1]


@pytest.mark.usefixtures("weights")
def test_a_preview_restores_nothing_and_numbers_the_faces(model, astronaut, tmp_path, capsys) -> None:
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    out = tmp_path / "out"
    code, printed, _ = restore(capsys, tmp_path / "a.png", "-o", out, "--model", model, "--preview")
    assert code == 0
    assert "1 previewed" in printed
    assert sorted(path.name for path in out.iterdir()) == ["a.preview.png", "preview.json"]
    status = entry(out, "preview.json")
    assert status["faces_chosen"] == [0]
    (face,) = status["faces"]
    assert face["number"] == 0
    assert face["score"] > 0.8
    left, top, right, bottom = face["box"]
    assert 0 < left < right < 260
    assert 0 < top < bottom < 260


@pytest.mark.parametrize(("fidelity", "strength"), [(0, 1), (0.25, 0.75), (0.5, 0.5), (0.97, 0.1), (1, 0.1)])
def test_fidelity_is_the_share_of_the_chain_that_is_not_run_from_the_degraded_face(model, fidelity, strength) -> None:
    options = ["restore", "a.png", "-o", "out", "--model", str(model), "--steps", "10", "--fidelity", str(fidelity)]
    asked = read(RestoreOptions, cli.build_parser().parse_args(options))
    chain = load(asked).restorer.chain
    assert chain.start_from == ("degraded" if fidelity else "noise")
    assert chain.strength == pytest.approx(strength)


def test_more_steps_than_the_model_is_made_for_give_a_warning(model, tmp_path, capsys) -> None:
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    for steps, is_warned in ((2, False), (3, True)):
        options = ("-o", tmp_path / "out", "--model", model, "--aligned", "--steps", steps)
        code, _, err = restore(capsys, tmp_path / "a.png", *options)
        assert code == 0
        assert ("this model is made for 2 steps; 3 take longer" in err) == is_warned


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--aligned", "--upscale", "2"], "--upscale is for photographs"),
        (["--aligned", "--preview"], "--preview is for photographs"),
        (["--output-size", "input"], "--output-size is for aligned faces"),
        (["--upscale", "0.5"], "upscale must lie in 1..16"),
        (["--fidelity", "2"], "fidelity must lie in [0, 1]"),
        (["--fidelity", "0.5", "--strength", "0.5"], "give it or them"),
        (["--uncertainty"], "needs at least 2 samples"),
        (["--min-score", "0"], "must lie in (0, 1)"),
        (["--detector", "retinaface", "--weights-dir", "EMPTY"], "idm weights fetch detection_mobilenet0.25_Final.pth"),
        (["--background", "nowhere.pth"], "nowhere.pth: no such weights file"),
    ],
)
@pytest.mark.usefixtures("weights")
def test_each_wrong_request_gives_one_clear_message(options, message, model, astronaut, tmp_path, capsys) -> None:
    Image.fromarray(astronaut).save(tmp_path / "a.png")
    options = [str(tmp_path) if option == "EMPTY" else option for option in options]
    code, _, err = restore(capsys, tmp_path / "a.png", "-o", tmp_path / "out", "--model", model, *options)
    assert code == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_wrong_numbers_of_faces_are_a_wrong_command_line() -> None:
    for text in ("first", "1,,2", ""):
        with pytest.raises(SystemExit, match="2"):
            cli.build_parser().parse_args(["restore", "a.png", "-o", "out", "--faces", text])
    assert cli.build_parser().parse_args(["restore", "a", "-o", "b", "--faces", "0,2"]).faces == (0, 2)


# ------------------------------------------------------------------------------------------- many files

# A job with a detector that finds one face in the middle and a restorer that brightens it, chokes on red, dies on blue.
JOB = """
import sys, time
from pathlib import Path
import numpy as np
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.files import restore_photos

class Middle:
    def detect(self, pixels):
        return [DetectedFace(np.array([4., 4, 28, 28]), ffhq_landmarks(32), .9)]

class Brightens:
    image_size = 32
    def restore(self, lq, seeds):
        time.sleep(.01)
        r, g, b = lq.mean(dim=(0, 2, 3)).tolist()
        if b > .9 and r < .1:
            raise RuntimeError("no blue today")
        return lq * float("nan") if r > .9 and b < .1 else (lq + .2).clamp(max=1)

settings = PhotoSettings(min_face=0.0, detail="keep", color_fix="none", change="full", grain=0.0)
report = restore_photos(PhotoRestorer(Brightens(), Middle()), [Path(sys.argv[1])], Path(sys.argv[2]), settings,
                        skip_existing=True)
sys.exit(1 if report.failed else 0)
"""


def broken_in_ten_ways(folder: Path) -> list[str]:
    good = (folder / "0" / "0.png").read_bytes()
    files = {
        "empty.png": b"",
        "text.jpg": b"not a picture",
        "cut.png": good[: len(good) // 2],
        "header.png": good[:30],
        "noise.webp": bytes(range(256)),
        "flipped.png": good[:60] + bytes(byte ^ 255 for byte in good[60:]),
        "zeros.tif": b"II*\0" + bytes(40),
    }
    for name, content in files.items():
        (folder / "broken" / name).write_bytes(content)
    Image.fromarray(np.full((32, 32), np.nan, np.float32)).save(folder / "broken" / "nan.tif")
    for name, colour in (("red.png", "#ff0000"), ("blue.png", "#0000ff")):
        Image.new("RGB", (32, 32), colour).save(folder / "broken" / name)
    return [*files, "nan.tif", "red.png", "blue.png"]


def outputs(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.rglob("*.png")}


def test_of_two_hundred_files_killed_twice_none_is_lost_or_done_twice(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    rng = np.random.default_rng(0)
    for i in range(190):
        path = source / str(i % 7) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(40, 180, (32, 32, 3), dtype=np.uint8)).save(path)
    (source / "broken").mkdir()
    broken = broken_in_ten_ways(source)
    assert len(broken) == 10
    program = tmp_path / "job.py"
    program.write_text(JOB)
    command = [str(program), str(source), str(out)]

    done: dict[Path, int] = {}
    for wanted in (40, 110):
        with started(command) as ([job], _):
            deadline = time.monotonic() + 60
            while len(outputs(out)) < wanted:
                assert job.is_alive()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            job.kill()
        now = outputs(out)
        assert done.items() <= now.items()  # what was done before was not done again
        done = now
        assert len(done) < 190
        json.loads((out / "status.json").read_text())  # whole, whenever the job died

    last = run(command)
    assert last.returncode == 1, last.stderr
    final = outputs(out)
    assert done.items() <= final.items()
    status = json.loads((out / "status.json").read_text())
    assert status["finished"]
    assert len(status["files"]) == 200
    failed = {Path(name).name: entry for name, entry in status["files"].items() if entry["state"] == "failed"}
    assert failed.keys() == set(broken)
    assert all(entry["error"] for entry in failed.values())
    assert "no blue today" in failed["blue.png"]["traceback"]
    assert "outside [0, 1]" in failed["red.png"]["error"]
    whole = [entry for entry in status["files"].values() if entry["state"] in ("restored", "already there")]
    assert {Path(entry["output"]) for entry in whole} == set(final)
    assert len(final) == 190
    for path in list(final)[::19]:
        before = read_photo(source / path.relative_to(out)).pixels
        np.testing.assert_allclose(read_photo(path).pixels[16, 16], before[16, 16] + 51.0, atol=1)
