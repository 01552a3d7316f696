"""A checkpoint is complete or not there."""

import errno
import json
import os
from pathlib import Path

import pytest

from idm.io import atomic, run_folder


def write(folder: Path, step: int, text: str = "weights") -> Path:
    run_folder.write_draft(folder, step, lambda draft: fill(draft, text))
    return run_folder.finish_checkpoint(folder, step)


def fill(draft: Path, text: str = "weights") -> None:
    (draft / "pipeline").mkdir()
    (draft / "pipeline" / "model.bin").write_text(text)
    (draft / "progress.json").write_text('{"step": 0}')


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def no_space(*arguments, **settings):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# Complete or not there


def test_a_finished_checkpoint_holds_what_was_written(tmp_path):
    final = write(tmp_path, 30, "the weights")
    assert final == tmp_path / "step_00000030"
    assert (final / "pipeline" / "model.bin").read_text() == "the weights"
    assert names(tmp_path) == ["step_00000030"]
    assert run_folder.step_of(final) == 30


def test_a_draft_is_not_listed(tmp_path):
    write(tmp_path, 10)
    run_folder.write_draft(tmp_path, 20, fill)
    assert run_folder.list_checkpoints(tmp_path) == [tmp_path / "step_00000010"]
    run_folder.finish_checkpoint(tmp_path, 20)
    assert run_folder.list_checkpoints(tmp_path) == [tmp_path / "step_00000010", tmp_path / "step_00000020"]


def test_checkpoints_are_listed_by_number_not_by_letter(tmp_path):
    for step in (100_000_000, 2, 99_999_999):
        write(tmp_path, step)
    assert [run_folder.step_of(path) for path in run_folder.list_checkpoints(tmp_path)] == [2, 99_999_999, 100_000_000]


def test_no_folder_has_no_checkpoints(tmp_path):
    assert run_folder.list_checkpoints(tmp_path / "absent") == []


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), RuntimeError("SafetensorError: I/O error")]
)
def test_a_write_error_leaves_no_file_and_gives_its_reason(tmp_path, error):
    write(tmp_path, 10)

    def fail(draft: Path) -> None:
        fill(draft)
        raise error

    with pytest.raises(atomic.CheckpointError, match=r"step_00000020: checkpoint not written: .*(No space left|I/O)"):
        run_folder.write_draft(tmp_path, 20, fail)
    assert names(tmp_path) == ["step_00000010"]


def test_a_folder_that_cannot_be_made_is_a_checkpoint_error(tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(atomic.CheckpointError, match="not written"):
        run_folder.write_draft(tmp_path / "checkpoints", 20, fill)


def test_a_kill_while_writing_leaves_a_draft_that_the_next_start_removes(tmp_path):
    write(tmp_path, 10)

    def killed(draft: Path) -> None:
        (draft / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_folder.write_draft(tmp_path, 20, killed)
    assert [path.name for path in run_folder.list_checkpoints(tmp_path)] == ["step_00000010"]
    run_folder.prune(tmp_path, keep=10**9)
    assert names(tmp_path) == ["step_00000010"]


def test_everything_is_on_the_disk_before_the_name_appears(tmp_path, monkeypatch):
    done = []
    real_sync, real_replace = run_folder.sync, os.replace
    monkeypatch.setattr(run_folder, "sync", lambda path: (done.append(path.name), real_sync(path)))
    monkeypatch.setattr(atomic.os, "replace", lambda a, b: (done.append("RENAME"), real_replace(a, b)))
    write(tmp_path, 20)
    before, after = done[: done.index("RENAME")], done[done.index("RENAME") + 1 :]
    assert sorted(before) == [".unfinished-step_00000020", "hashes.json", "model.bin", "pipeline", "progress.json"]
    assert after == [tmp_path.name]


def test_a_disk_that_is_full_only_when_synced_is_a_checkpoint_error(tmp_path, monkeypatch):
    run_folder.write_draft(tmp_path, 20, fill)
    monkeypatch.setattr(atomic.os, "fsync", no_space)
    with pytest.raises(atomic.CheckpointError, match="No space left"):
        run_folder.finish_checkpoint(tmp_path, 20)


# Damage


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:3])


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGES = {
    "cut": (cut, "pipeline/model.bin is not as it was written"),
    "emptied": (lambda path: path.write_bytes(b""), "pipeline/model.bin is not as it was written"),
    "a flipped bit": (flip_a_bit, "pipeline/model.bin is not as it was written"),
    "deleted": (Path.unlink, "pipeline/model.bin is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_and_the_checkpoint_before_it_counts(tmp_path, damage):
    good, bad = write(tmp_path, 10), write(tmp_path, 20)
    assert run_folder.newest_intact(tmp_path) == (bad, {})
    hurt, reason = DAMAGES[damage]
    hurt(bad / "pipeline" / "model.bin")
    assert run_folder.damage(bad) == reason
    assert run_folder.newest_intact(tmp_path) == (good, {bad: reason})


def test_damage_outside_of_what_is_looked_at_does_not_count(tmp_path):
    final = write(tmp_path, 10)
    cut(final / "pipeline" / "model.bin")
    assert run_folder.damage(final, "progress.json") is None
    assert run_folder.damage(final, "pipeline/") is not None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pipeline/model.bin": 5}', None])
def test_broken_hashes_are_damage(tmp_path, text):
    final = write(tmp_path, 10)
    (final / "hashes.json").write_text(text if text is not None else "null")
    assert run_folder.damage(final) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "{}"])
def test_a_checkpoint_from_before_there_were_hashes_needs_a_readable_progress(tmp_path, text):
    good, bad = (write(tmp_path, step) for step in (10, 20))
    for checkpoint in (good, bad):
        (checkpoint / "hashes.json").unlink()
    (good / "progress.json").write_text('{"step": 10}')
    (bad / "progress.json").write_text(text)
    intact, damaged = run_folder.newest_intact(tmp_path)
    assert intact == good
    assert list(damaged) == [bad]


def test_all_damaged_checkpoints_are_passed_over_down_to_the_newest_intact_one(tmp_path):
    oldest, *others = (write(tmp_path, step) for step in (10, 20, 30, 40))
    hurt = (cut, Path.unlink, lambda path: (path.parents[1] / "hashes.json").unlink())
    for checkpoint, damage in zip(others, hurt, strict=True):
        damage(checkpoint / "pipeline" / "model.bin")
    intact, damaged = run_folder.newest_intact(tmp_path)
    assert intact == oldest
    assert damaged == {
        others[2]: "hashes.json is missing",
        others[1]: "pipeline/model.bin is missing",
        others[0]: "pipeline/model.bin is not as it was written",
    }


def test_where_nothing_is_intact_nothing_is_found(tmp_path):
    final = write(tmp_path, 10)
    (final / "progress.json").unlink()
    assert run_folder.newest_intact(tmp_path) == (None, {final: "progress.json is missing"})


def test_a_damaged_checkpoint_gives_its_name_free(tmp_path):
    final = write(tmp_path, 10)
    for _ in range(2):  # again after the new one was damaged too
        aside = run_folder.set_aside(final)
        assert aside.name == "damaged-step_00000010"
        assert run_folder.list_checkpoints(tmp_path) == []
        write(tmp_path, 10)


# Pruning


def test_pruning_keeps_the_newest_and_the_best(tmp_path):
    for step in (10, 20, 30, 40, 50):
        write(tmp_path, step)
    run_folder.mark_best(tmp_path, 20, 25.5)
    run_folder.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["best.json", "step_00000020", "step_00000040", "step_00000050"]
    run_folder.mark_best(tmp_path, 50, 26.5)
    run_folder.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["best.json", "step_00000040", "step_00000050"]


def test_pruning_without_a_best_keeps_the_newest(tmp_path):
    for step in (10, 20, 30):
        write(tmp_path, step)
    run_folder.prune(tmp_path, keep=1)
    assert names(tmp_path) == ["step_00000030"]
    run_folder.prune(tmp_path, keep=5)
    assert names(tmp_path) == ["step_00000030"]


def test_the_best_is_remembered_with_its_score(tmp_path):
    assert run_folder.best_checkpoint(tmp_path) is None
    assert run_folder.best_score(tmp_path) == float("-inf")
    write(tmp_path, 20)
    run_folder.mark_best(tmp_path, 20, 25.5)
    assert run_folder.best_checkpoint(tmp_path) == tmp_path / "step_00000020"
    assert run_folder.best_score(tmp_path) == 25.5


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "x"}'])
def test_a_broken_mark_of_the_best_is_an_error_with_the_remedy(tmp_path, text):
    (tmp_path / "best.json").write_text(text)
    with pytest.raises(atomic.CheckpointError, match=r"best\.json: cannot be read.*delete"):
        run_folder.best_checkpoint(tmp_path)
    run_folder.unmark_best(tmp_path)
    assert run_folder.best_checkpoint(tmp_path) is None


# Small files


def test_a_text_is_replaced_as_a_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    atomic.write_text(path, "old\n")
    atomic.write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert names(tmp_path) == ["log.jsonl"]


@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_failed_replacement_leaves_the_old_text_and_no_draft(tmp_path, monkeypatch, where):
    path = tmp_path / "best.json"
    atomic.write_text(path, "old\n")

    def half(self: Path, content: bytes) -> None:
        with self.open("wb") as file:
            file.write(content[: len(content) // 2])
        no_space()

    with monkeypatch.context() as patch:
        if where == "write":
            patch.setattr(Path, "write_bytes", half)
        else:
            patch.setattr(atomic.os, where, no_space)
        with pytest.raises(atomic.CheckpointError, match=r"best\.json: cannot be written \(No space left on device\)"):
            atomic.write_text(path, "a new text\n")
    assert path.read_text() == "old\n"
    assert names(tmp_path) == ["best.json"]


def test_a_text_for_a_folder_that_is_not_there_is_a_checkpoint_error(tmp_path):
    with pytest.raises(atomic.CheckpointError, match="cannot be written"):
        atomic.write_text(tmp_path / "absent" / "log.jsonl", "")


def test_json_is_written_as_json(tmp_path):
    atomic.write_json(tmp_path / "a.json", {"psnr": 25.5, "names": ["ü"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"psnr": 25.5, "names": ["ü"]}


def test_a_folder_that_only_looks_like_a_checkpoint_is_left_alone(tmp_path):
    for name in ("step_00000010", "step_00000010_copy"):
        (tmp_path / name).mkdir()
    assert [path.name for path in run_folder.list_checkpoints(tmp_path)] == ["step_00000010"]
    run_folder.prune(tmp_path, 1)
    assert (tmp_path / "step_00000010_copy").is_dir()
