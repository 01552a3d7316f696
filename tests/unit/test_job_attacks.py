"""What a job must not do, whatever lies in its folders: stop at a name, replace a foreign file, lose one silently."""

import json
import os
import signal
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from idm.apps.photo import status as status_module
from idm.apps.photo.files import restore_files, restore_photos
from idm.apps.photo.job import Job
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.plan import plan
from idm.apps.photo.settings import PhotoSettings
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image, write_whole
from idm.io.images import ImageError
from idm.io.lock import LOCK, FolderInUse, locked

ODD = os.fsdecode(b"caf\xe9")  # is no UTF-8
FOREIGN = b"the only copy of something else"


class Inverts:
    image_size = 16

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return 1 - lq


class OneFace:
    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return [DetectedFace(np.array([0, 0, 30, 30.0]), ffhq_landmarks(32), 0.9)]


PARTS = PhotoRestorer(Inverts(), OneFace())
PLAIN = PhotoSettings(change="full")
MAPS = PhotoSettings(change="full", samples=2, pick="median", uncertainty=True)


def pictures(folder: Path, *names: str, level: int = 90) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / f"{number}.png", np.full((32, 32, 3), level + number, np.uint8))
        (folder / f"{number}.png").rename(folder / name)  # whatever its suffix: PIL looks at the content
    return folder


def status_of(folder: Path) -> dict:
    return json.loads((folder / "status.json").read_text(encoding="utf-8"))


def restore(source: Path, output: Path, settings: PhotoSettings = PLAIN, **options):
    return restore_photos(PARTS, [source], output, settings, **options)


# ------------------------------------------------------------------------------------------- names


def test_a_name_that_is_not_utf_8_is_restored_like_any_other(tmp_path: Path) -> None:
    source = pictures(tmp_path / ODD, *(f"{i}.jpg" for i in range(6)), f"{ODD}.jpg")
    (source / f"notes.{ODD}").touch()
    report = restore(source, tmp_path / "out")
    assert not report.failed
    assert len(report.written) == 7
    assert (tmp_path / "out" / f"{ODD}.jpg").is_file()
    status = status_of(tmp_path / "out")
    assert status["files"][str(source / f"{ODD}.jpg")]["state"] == "restored"  # JSON gives the same path back
    assert status["passed_over"] == {f".{ODD}": 1}
    assert len(restore(source, tmp_path / "out", skip_existing=True).skipped) == 7


# ------------------------------------------------------------------------------------------- foreign files


@pytest.mark.parametrize("name", ["a.png", "a.uncertainty.png"])
def test_a_file_that_no_job_wrote_is_replaced_on_request_only(tmp_path: Path, name: str) -> None:
    source = pictures(tmp_path, "a.tif") / "a.tif"
    (tmp_path / name).write_bytes(FOREIGN)
    for skips in (False, True):
        with pytest.raises(ImageError, match=rf"{name}: already exists, .*--overwrite"):
            restore(source, tmp_path, MAPS, skip_existing=skips)
        assert (tmp_path / name).read_bytes() == FOREIGN
    assert {path.name for path in tmp_path.iterdir()} == {"a.tif", name}  # nothing was begun
    assert restore(source, tmp_path, MAPS, overwrite=True).states == {"restored": 1}
    assert (tmp_path / name).read_bytes() != FOREIGN
    assert restore(source, tmp_path, MAPS).states == {"restored": 1}  # it is a job's now


def test_previews_and_a_status_of_something_else_are_not_replaced_either(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.jpg")
    for name, preview in (("a.preview.png", True), ("preview.json", True), ("status.json", False)):
        out = tmp_path / f"{name}-{preview}"
        out.mkdir()
        (out / name).write_bytes(FOREIGN)
        with pytest.raises(ImageError, match=name):
            restore(source, out, preview=preview)
        assert [path.read_bytes() for path in out.iterdir()] == [FOREIGN]
        assert not restore(source, out, preview=preview, overwrite=True).failed


def test_inputs_are_not_overwritten_even_on_request(tmp_path: Path) -> None:
    source = pictures(tmp_path, "a.png", "b.png")
    with pytest.raises(ImageError, match="would be overwritten"):
        restore(source, source, overwrite=True)
    (source / "out").mkdir()
    (source / "a.png").rename(source / "out" / "b.uncertainty.png")
    with pytest.raises(ImageError, match=r"b\.uncertainty\.png: would be overwritten"):
        restore_photos(PARTS, [source / "b.png", source / "out" / "b.uncertainty.png"], source / "out", MAPS)


def test_results_of_earlier_jobs_are_known_after_others_and_after_a_kill(tmp_path: Path) -> None:
    a, b = pictures(tmp_path / "a", "a.jpg"), pictures(tmp_path / "b", "b.jpg")
    out = tmp_path / "out"
    restore(a, out, MAPS)
    restore(b, out)
    restore(a, out)  # without a map: the one there stays a job's
    restore(a, out, MAPS)
    assert set(status_of(out)["files"]) == {str(a / "a.jpg"), str(b / "b.jpg")}
    with suppress(KeyboardInterrupt), Job([b], tmp_path / "new", settings={}) as job:
        (source,) = job
        job.make_folder(source).write_bytes(b"was written before it was noted")
        raise KeyboardInterrupt
    with Job([b], tmp_path / "new", settings={}, skip_existing=True) as job:
        assert (list(job.todo), job.report.skipped) == ([], [tmp_path / "new" / "b.png"])


def test_a_kill_at_any_place_costs_no_finished_file_and_hides_no_unfinished_one(tmp_path: Path) -> None:
    """Killed before a file is written, after it, and after it was noted but not yet in the status."""
    source, out = pictures(tmp_path / "in", "a.png", "b.png", "c.png"), tmp_path / "out"
    restore(source / "c.png", out, PhotoSettings(seed=1))  # there from before, with another seed
    child = os.fork()
    if child == 0:
        job = Job([source], out, settings={})
        with job:
            job.status.write_in_time = lambda: None  # no time for it
            for path in job:
                if path.name == "c.png":
                    os.kill(os.getpid(), signal.SIGKILL)
                write_whole(job.make_folder(path), b"done")
                if path.name == "a.png":
                    job.wrote(path, details={"faces_found": 2})
    os.waitpid(child, 0)
    assert {entry["state"] for entry in status_of(out)["files"].values()} == {"waiting"}
    with Job([source], out, settings={}, skip_existing=True) as again:
        assert [path.name for path in again.todo] == ["c.png"]
    states = {Path(path).name: entry["state"] for path, entry in status_of(out)["files"].items()}
    assert states == {"a.png": "restored", "b.png": "already there", "c.png": "waiting"}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_no_two_writes_of_a_job_are_to_one_file(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.jpg", "a.png", "a.uncertainty.png")
    report = restore(source, tmp_path / "out", MAPS)
    assert len(report.written) == 3
    entries = status_of(tmp_path / "out")["files"].values()
    writes = [name for entry in entries for name in entry["writes"]]
    assert len(writes) == len(set(writes)) == 6
    assert sorted(writes) == sorted(path.name for path in (tmp_path / "out").glob("*.[jp][pn]g"))


# ------------------------------------------------------------------------------------------- what is there already


def test_a_new_file_of_an_old_name_and_a_changed_one_are_restored(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", "same.png", "other.png"), tmp_path / "out"
    restore(source, out)
    assert len(restore(source, out, skip_existing=True).skipped) == 2
    pictures(source, "same.bmp", level=10)
    report = restore(source, out, skip_existing=True)
    assert [path.name for path in report.written] == ["same_bmp.png"]
    before = (out / "same.png").read_bytes()
    pictures(source, "same.png", level=200)
    assert [path.name for path in restore(source, out, skip_existing=True).written] == ["same.png"]
    assert (out / "same.png").read_bytes() != before


@pytest.mark.parametrize(
    "change", [{"settings": PhotoSettings(seed=1)}, {"metadata": {"restorer": {"weights_sha256": "another"}}}]
)
def test_other_settings_and_another_model_are_done_again(tmp_path: Path, change: dict) -> None:
    source, out = pictures(tmp_path / "in", "a.png"), tmp_path / "out"
    options = {"settings": PhotoSettings(), "metadata": {"restorer": {"weights_sha256": "one", "name": "runs/a"}}}
    restore(source, out, **options)
    assert restore(source, out, skip_existing=True, **options | change).written
    same = {"metadata": {"restorer": {"weights_sha256": "one", "name": "/moved/a"}}}
    restore(source, out, **options)
    assert restore(source, out, skip_existing=True, **options | same).skipped


# ------------------------------------------------------------------------------------------- two jobs at once


def test_a_second_job_in_a_folder_is_refused_and_the_first_continues(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", "a.png"), tmp_path / "out"
    with Job([source], out, settings={}) as first:
        with pytest.raises(ImageError, match="another job works in this folder"):
            restore_files(Inverts(), [source], out)
        (path,) = first
        first.failed(path, ImageError("it was the first that wrote this"))
    assert status_of(out)["files"][str(path)]["error"] == "it was the first that wrote this"
    assert [path.name for path in out.iterdir()] == ["status.json"]
    assert restore_files(Inverts(), [source], out).written


def test_a_lock_dies_with_its_process(tmp_path: Path) -> None:
    ready, read = os.pipe()[::-1]
    child = os.fork()
    if child == 0:
        with locked(tmp_path):
            os.write(ready, b"x")
            signal.pause()
    os.read(read, 1)
    with pytest.raises(FolderInUse), locked(tmp_path):
        pytest.fail("two hold the lock")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert (tmp_path / LOCK).exists()
    with locked(tmp_path):
        pass
    assert not (tmp_path / LOCK).exists()


# ------------------------------------------------------------------------------------------- what cannot be read


def test_what_cannot_be_read_in_a_folder_is_named_fails_and_costs_no_other_file(tmp_path: Path) -> None:
    source = pictures(tmp_path / "in", "a.png", "locked/b.png")
    pictures(tmp_path / "elsewhere", "c.png")
    (source / "gone.png").symlink_to("nowhere")
    (source / "linked").symlink_to(tmp_path / "elsewhere")
    (source / "notes").symlink_to("nowhere")  # would be no picture anyway
    os.mkfifo(source / "pipe.jpg")
    listdir = os.scandir

    def refuse(path: object):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return listdir(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", refuse)  # chmod does not stop root
        report = restore(source, tmp_path / "out")
    assert [path.name for path in report.written] == ["a.png"]
    errors = {path: entry.get("error") for path, entry in status_of(tmp_path / "out")["files"].items()}
    assert "is a link to nothing" in errors[str(source / "gone.png")]
    assert "is a link to a folder" in errors[str(source / "linked")]
    assert "is not a regular file" in errors[str(source / "pipe.jpg")]
    assert "cannot be listed (Permission denied)" in errors[str(source / "locked")]
    assert len(report.failed) == len(errors) - 1 == 4


# ------------------------------------------------------------------------------------------- links, pipes and spellings


def test_a_pipe_that_is_named_by_itself_fails_and_costs_no_other_file(tmp_path: Path) -> None:
    source = pictures(tmp_path, "a.png")
    os.mkfifo(source / "pipe.png")
    inputs = [source / "pipe.png", source / "a.png"]
    assert list(plan(inputs, tmp_path / "out")[1].unusable) == inputs[:1]  # else the job would wait for a writer
    report = restore_photos(PARTS, inputs, tmp_path / "out", PLAIN)
    assert [path.name for path in report.written] == ["a.png"]
    assert [str(error) for error in report.failed] == [
        f"{source / 'pipe.png'}: is not a regular file; replace it by the picture"
    ]


def test_an_output_that_is_a_link_to_itself_is_a_file_in_the_way(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", "a.png"), tmp_path / "out"
    out.mkdir()
    (out / "a.png").symlink_to("a.png")
    with pytest.raises(ImageError, match=r"out/a\.png: already exists"):
        restore(source, out)
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ImageError, match="loop: this folder cannot be made"):
        restore(source, tmp_path / "loop")


def test_an_output_folder_that_is_a_link_within_the_inputs_is_not_an_input(tmp_path: Path) -> None:
    source, disk = pictures(tmp_path / "in", "a.png"), tmp_path / "disk"
    disk.mkdir()
    (source / "out").symlink_to(disk)
    assert not restore(source, source / "out").failed
    (disk / "gone.png").symlink_to("nowhere")
    report = restore(source, source / "out", skip_existing=True)
    assert (len(report.skipped), report.failed) == (1, [])
    report = restore(source, disk)  # then it is a folder of pictures like any other
    assert [str(error).split(": ")[1][:19] for error in report.failed] == ["is a link to a fold"]


def test_a_file_that_is_named_in_several_ways_is_restored_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = pictures(tmp_path / "in", "a.png", "b/c.png")
    (source / "link.png").symlink_to("a.png")  # is a file of its own
    (tmp_path / "linked").symlink_to(source)
    monkeypatch.chdir(tmp_path)
    inputs = [Path("in"), source, Path("linked"), Path("in/../in"), source / "b" / "c.png"]
    targets, _ = plan(inputs, tmp_path / "out")
    assert {target.relative_to(tmp_path / "out").as_posix() for target in targets.values()} == {
        "a.png",
        "b/c.png",
        "link.png",
    }


def test_names_that_only_some_file_systems_distinguish_give_separate_files(tmp_path: Path) -> None:
    e_acute = [unicodedata.normalize(form, "\u00e9.png") for form in ("NFC", "NFD")]
    one, two = pictures(tmp_path / "1", "A.png", e_acute[0]), pictures(tmp_path / "2", "a.png", e_acute[1])
    report = restore_photos(PARTS, [one, two], tmp_path / "out", PLAIN)
    assert len(report.written) == 4
    assert len({unicodedata.normalize("NFC", path.name.casefold()) for path in report.written}) == 4


def test_a_file_that_appears_during_the_job_is_not_replaced(tmp_path: Path) -> None:
    source, out = pictures(tmp_path / "in", "a.png", "s/b.png"), tmp_path / "out"
    for overwrites in (False, True):
        with Job([source], out, settings={}, overwrite=overwrites) as job:
            for path in job:
                (out / "s").mkdir(exist_ok=True)
                (out / "s" / "b.png").write_bytes(FOREIGN)  # as a job in the folder out/s would
                try:
                    job.make_folder(path).write_bytes(b"ours")
                except ImageError as error:
                    job.failed(path, error)
                else:
                    job.wrote(path)
        assert ((out / "s" / "b.png").read_bytes() == FOREIGN) is not overwrites
        assert [f"{out}/s/b.png: already exists" in str(error) for error in job.report.failed] == [True][overwrites:]
        (out / "s" / "b.png").unlink()


# ------------------------------------------------------------------------------------------- a full disk


def test_on_a_full_disk_the_status_still_names_the_last_photograph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    is_full = False

    def writes_if_there_is_space(path: Path, data: bytes) -> None:
        if is_full and (out / ".status.json.reserve").exists():
            raise ImageError(f"{path}: cannot be written (No space left on device)")
        write_whole(path, data)

    monkeypatch.setattr(status_module, "write_whole", writes_if_there_is_space)
    with Job([source], out, settings={}) as job:
        for path in job:
            job.make_folder(path).touch()
            is_full = True  # with the last photograph's last byte
            job.wrote(path)
    assert status_of(out)["counts"] == {"restored": 2}
    assert not job.report.failed
    assert not (out / ".status.json.reserve").exists()


@pytest.mark.parametrize(
    ("earlier", "room"), [(400, 300_000), *((0, 300_000 + step) for step in range(0, 14_000, 1000))]
)
def test_on_a_full_disk_no_photograph_takes_the_space_of_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, earlier: int, room: int
) -> None:
    source, out = pictures(tmp_path / "in", *(f"{number}.png" for number in range(40))), tmp_path / "out"
    out.mkdir()
    before = {f"/gone/{n}.png": {"state": "kept", "writes": [f"{n}.webp"], "note": "x" * 500} for n in range(earlier)}
    (out / "status.json").write_text(json.dumps({"files": before}, indent=1))
    capacity = room + 3 * (out / "status.json").stat().st_size

    def write(path: Path, data: bytes) -> None:
        if sum(file.stat().st_size for file in out.iterdir()) + len(data) > capacity:
            raise ImageError(f"{path}: cannot be written (No space left on device)")
        write_whole(path, data)

    monkeypatch.setattr(status_module, "write_whole", write)
    monkeypatch.setattr(status_module, "_STATUS_SHARE", float("inf"))  # written after every photograph
    with Job([source], out, settings={}) as job:
        for path in job:
            try:
                write(job.make_folder(path), bytes(14_000))
            except ImageError as error:
                job.failed(path, error)
            else:
                job.wrote(path)
    states = {Path(path).name: entry["state"] for path, entry in status_of(out)["files"].items() if path not in before}
    assert {name for name, state in states.items() if state == "restored"} == {path.name for path in out.glob("*.png")}
    assert 5 < len(job.report.written) < 35
    assert len(job.report.failed) + len(job.report.written) == 40  # none of them is the status


def test_a_status_that_cannot_be_written_at_all_stops_no_file_and_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = pictures(tmp_path / "in", "a.png", "b.png"), tmp_path / "out"
    with Job([source], out, settings={}) as job:
        for path in job:

            def fail(path: Path, data: bytes) -> None:
                raise ImageError(f"{path}: cannot be written (No space left on device)")

            monkeypatch.setattr(status_module, "write_whole", fail)
            job.wrote(path)
    assert len(job.report.written) == 2
    assert "No space left" in str(job.report.failed[0])
