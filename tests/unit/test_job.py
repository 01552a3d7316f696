"""Jobs over many files: names, what is done already, the status file."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from idm.apps.photo.job import Job, ProgressCallbacks
from idm.apps.photo.plan import as_preview, plan, same_suffix
from idm.io.images import ImageError


def pictures(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def status_of(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text())


def run(job: Job, failing: Sequence[str] = ()) -> None:
    """Every file of a job becomes a copy of itself, or fails."""
    with job:
        for path in job:
            if path.name in failing:
                job.failed(path, ImageError("broken"))
            else:
                job.make_folder(path).write_bytes(path.read_bytes())
                job.wrote(path, "restored", {"faces_found": 2})


def test_a_target_keeps_its_place_and_where_it_can_its_kind(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.JPG", "b/c.webp", "b/d.tif", "e.png")
    targets, _ = plan([source], tmp_path / "out", same_suffix((".jpg", ".webp", ".png")))
    assert {str(t.relative_to(tmp_path / "out")) for t in targets.values()} == {"a.JPG", "b/c.webp", "b/d.png", "e.png"}


def test_previews_have_names_of_their_own(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.jpg", "a.png")
    names = {target.name for target in plan([source], tmp_path, as_preview)[0].values()}
    assert names == {"a.preview.png", "a_png.preview.png"} or names == {"a.preview.png", "a_jpg.preview.png"}


def test_the_status_records_the_result_of_every_file(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.png", "b.png", "c.png")
    seen = []
    progress = ProgressCallbacks(seen.append, lambda path, error: seen.append((path.name, error and str(error))))
    with Job([source], tmp_path / "out", settings={"seed": 3}, progress=progress) as job:
        a, b, c = job.todo
        job.wrote(a, "no face", {"faces_found": 0})
        job.failed(b, ImageError("b: broken"))
        try:
            raise RuntimeError("out of memory")
        except RuntimeError as error:
            job.failed(c, error)
    status = status_of(tmp_path / "out")
    assert seen == [3, ("a.png", None), ("b.png", "b: broken"), ("c.png", "out of memory")]
    assert status["finished"]
    assert status["settings"] == {"seed": 3}
    assert status["counts"] == {"failed": 2, "no face": 1}
    entries = status["files"]
    written = {"output": str(tmp_path / "out" / "a.png"), "writes": ["a.png"]}
    assert entries[str(a)] == {"state": "no face", **written, "faces_found": 0}
    assert entries[str(b)] == {"state": "failed", "error": "b: broken", "writes": ["b.png"]}
    assert entries[str(c)]["error"] == "RuntimeError: out of memory"
    assert "test_job.py" in entries[str(c)]["traceback"]


def test_an_interrupted_job_leaves_the_status_interrupted(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.png", "b.png")
    job = Job([source], tmp_path / "out", settings={})
    a, b = job.todo
    with suppress(KeyboardInterrupt), job:
        job.wrote(a)
        raise KeyboardInterrupt
    status = status_of(tmp_path / "out")
    assert not status["finished"]
    assert {path: entry["state"] for path, entry in status["files"].items()} == {str(a): "restored", str(b): "waiting"}


def test_what_is_there_and_would_be_the_same_is_skipped_and_keeps_its_entry(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    run(Job([source], out, settings={}), failing=["b.png"])
    again = Job([source], out, settings={}, skip_existing=True)
    with again:
        a, b, c = source / "a.png", source / "b.png", source / "c.png"
        assert list(again) == [b]
        assert again.report.skipped == [out / "a.png", out / "c.png"]
        again.failed(b, ImageError("broken"))
    files = status_of(out)["files"]
    assert files[str(a)]["faces_found"] == 2
    with Job([source], out, settings={}) as anew:
        assert list(anew.todo) == [a, b, c]


@pytest.mark.parametrize("content", ["no json", "[]", "{}"])
def test_a_status_that_cannot_be_understood_is_not_overwritten_on_resuming(tmp_path: Path, content: str) -> None:
    source, out = pictures(tmp_path / "in", "a.png"), pictures(tmp_path / "out", "status.json")
    (out / "status.json").write_text(content)
    for skips in (False, True):
        with (
            pytest.raises(ImageError, match=r"status\.json: is not the status of a job"),
            Job([source], out, settings={}, skip_existing=skips),
        ):
            pytest.fail("the job began")
    assert (out / "status.json").read_text() == content


def test_the_status_is_written_often_but_not_at_any_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(1000))  # each look at the clock takes a second, so each write takes one
    monkeypatch.setattr("idm.apps.photo.status.time.monotonic", lambda: next(clock))
    writes = []

    def note(path: Path, data: bytes) -> None:
        if path.name == "status.json":
            writes.append(json.loads(data))

    monkeypatch.setattr("idm.apps.photo.status.write_whole", note)
    source = pictures(tmp_path / "in", *(f"{i}.png" for i in range(100)))
    with Job([source], tmp_path / "out", settings={}) as job:
        for path in job.todo:
            job.wrote(path)
    assert 4 <= len(writes) <= 8
    assert len(writes[-1]["files"]) == 100


def test_inputs_that_are_images_are_never_targets(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="would be overwritten"):
        Job([tmp_path], tmp_path, settings={})


def test_an_output_folder_within_the_inputs_is_not_an_input(tmp_path: Path) -> None:
    source = pictures(tmp_path, "a.png", "out/a.png", "out/b/c.png", "outside/d.png", "x/out/e.png")
    assert {str(path.relative_to(tmp_path)) for path in plan([source], tmp_path / "out")[0]} == {
        "a.png",
        "outside/d.png",
        "x/out/e.png",
    }
    assert set(plan([tmp_path / "out" / "b"], tmp_path / "out")[0]) == {tmp_path / "out" / "b" / "c.png"}  # asked for


def test_files_that_are_not_inputs_are_counted_by_their_suffix(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.png", "b/c.NEF", "b/d.nef", "notes.txt", ".hidden.raw", "README")
    with Job([source, source / "b"], tmp_path / "out", settings={}, suffixes=(".png", ".nef")) as job:
        pass
    assert job.report.passed_over == {".txt": 1, "": 1}
    with Job([source, source / "a.png"], tmp_path / "out", settings={}) as job:
        pass
    assert next(iter(job.report.passed_over.items())) == (".nef", 2)
    assert status_of(tmp_path / "out")["passed_over"] == {".nef": 2, ".txt": 1, "": 1}
    assert Job([tmp_path], tmp_path / "out", settings={}).report.passed_over == job.report.passed_over


def test_an_output_that_can_be_no_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", "a.png"), tmp_path / "file"
    out.touch()
    with pytest.raises(ImageError, match="file: this folder cannot be made"), Job([source], out, settings={}):
        pytest.fail("the job began")
