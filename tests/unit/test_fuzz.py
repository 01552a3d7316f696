"""A bounded, seeded part of the fuzzing that `python tests/fuzz.py` does at length, and oracles that see faults."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idm.io.images import ImageError

pytest.importorskip("av", reason="videos need PyAV: pip install av")

import fuzz
import fuzz_images
import fuzz_states
import fuzz_videos
from fuzz_damage import UnexplainedError

from idm.apps.photo import video
from idm.apps.photo.files import restore_photos

# Pictures


def test_what_pil_opens_is_restored_and_all_else_is_refused_by_name() -> None:
    counts = fuzz_images.run(600, seed=1)
    assert counts.total() == 600
    assert counts["restored"] >= 60
    assert counts["refused, as by PIL"] >= 60
    assert counts["restored, metadata dropped and named"] + counts["restored, though PIL stops at its metadata"] >= 1


def test_the_oracle_sees_a_reader_that_refuses_sound_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise ImageError(f"{path}: is broken")

    monkeypatch.setattr(fuzz_images, "read_photo", refuse)
    sound = fuzz_images.seeds(np.random.default_rng(0))[4]
    with pytest.raises(UnexplainedError, match="PIL opens what is refused"):
        fuzz_images.outcome(sound, tmp_path / "a.png")


# Videos


def test_a_video_that_pyav_decodes_is_restored_and_all_else_is_refused_by_name() -> None:
    counts = fuzz_videos.run(60, seed=1)
    assert counts.total() == 60
    assert counts["restored"] >= 5
    assert counts["refused, as by PyAV"] >= 5


def test_the_oracle_sees_a_result_with_other_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = fuzz_videos.seeds(tmp_path)
    monkeypatch.setattr(fuzz_videos, "damaged", lambda data, rng: data)
    assert fuzz_videos.outcome(files, tmp_path, np.random.default_rng(0)) == "restored"
    add = video.SegmentWriter.add
    monkeypatch.setattr(video.SegmentWriter, "add", lambda self, image: image.pts and add(self, image))
    with pytest.raises(UnexplainedError, match="the result has 9 frames where PyAV decodes 10"):
        fuzz_videos.outcome(files, tmp_path, np.random.default_rng(0))


# States and models


def test_damaged_states_and_models_are_refused_by_name_or_made_again() -> None:
    counts = fuzz_states.run(64, seed=1)
    assert counts.total() == 64
    assert counts["refused by name"] >= 10
    assert counts["result as of undamaged files"] >= 10


def test_the_oracle_sees_segments_whose_damage_is_not_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_digest", lambda segment, state: "")
    monkeypatch.setattr(fuzz_states, "STATES", [s for s in fuzz_states.STATES if s.name == "segments of a video"])
    with pytest.raises(UnexplainedError, match="segments of a video"):
        fuzz_states.run(60, seed=1)


# A folder of everything

NAMES = [os.fsdecode(b"caf\xe9"), "a b", "-o", "\u00fc\u2028", "new\nline", "x" * 200, "%s", "a..b"]
SUFFIXES = [".png", ".jpg", ".JPEG", ".tif", ".webp", ".bmp", ".gif"]


def mixed_folder(folder: Path) -> dict[Path, bytes]:
    """220 pictures, sound and damaged, of odd names and with suffixes that may be another kind's; and nine files of
    other sorts. Gives the pictures."""
    rng = np.random.default_rng(2)
    sound = fuzz_images.seeds(rng)
    pictures = {}
    for number in range(220):
        data = sound[number % len(sound)]
        path = folder / str(number % 5) / f"{NAMES[number % len(NAMES)]}{number}{SUFFIXES[number % len(SUFFIXES)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures[path] = data if number < 2 * len(sound) else fuzz_images.damaged(data, rng)
        path.write_bytes(pictures[path])
    (folder / "gone.png").symlink_to("nowhere")
    (folder / "linked").symlink_to(folder / "0")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "text.mp4").write_text("no video")
    for name in ("notes.txt", "notes", ".hidden.png", "Thumbs.db", os.fsdecode(b"notes.\xe9")):
        (folder / name).touch()
    return pictures


def test_of_a_folder_of_229_files_each_is_restored_or_named_with_what_is_wrong(tmp_path: Path) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    pictures = mixed_folder(source)
    report = restore_photos(fuzz_videos.PARTS, [source], out, fuzz_videos.SETTINGS)
    entries = json.loads((out / "status.json").read_text())["files"]
    others = {str(source / name) for name in ("gone.png", "linked", "pipe.jpg", "text.mp4")}
    assert entries.keys() == {str(path) for path in pictures} | others
    for path, entry in entries.items():
        assert "traceback" not in entry, entry
        opens = path not in others and fuzz_images.pil_opens(pictures[Path(path)])
        if entry["state"] == "failed":
            result = str(out / Path(path).relative_to(source))
            assert entry["error"].startswith((path, result))  # of what cannot be written the result is named
            reasons = (*fuzz_images.EXPLAINED, "cannot hold alpha", "only PNG")  # a PNG with the name of a JPEG
            assert not opens or any(reason in entry["error"] for reason in reasons)
    written = [name for entry in entries.values() if entry["state"] != "failed" for name in entry["writes"]]
    assert len(set(written)) == len(written) == len(report.written)
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {*written, "status.json"}
    assert len(report.failed) >= 60
    assert report.states["restored"] >= 60


# The table


def test_the_table_counts_all_cases_and_replaces_what_stands_between_the_marks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{fuzz.FIRST}\nan old table\n{fuzz.LAST}after\n")
    monkeypatch.setattr(fuzz, "PAGE", page)
    fuzz.write(fuzz.table({"pictures": Counter(restored=1200, refused=34)}, 7, "abc"))
    assert page.read_text() == (
        f"before\n{fuzz.FIRST}\nCommit abc, seed 7.\n\n| tried | outcome | cases |\n|---|---|---|\n"
        f"| 1,234 pictures | restored | 1200 |\n|  | refused | 34 |\n|  | not explained | 0 |\n\n{fuzz.LAST}after\n"
    )
    marks = (fuzz.ROOT / "docs" / "security.md").read_text()
    assert marks.index(fuzz.FIRST) < marks.index(fuzz.LAST)
