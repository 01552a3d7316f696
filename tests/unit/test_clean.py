"""The cleaning job: nothing lost, nothing twice, the same bytes whoever made them and however often they died."""

import json
import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from idm.data.huggingface import HuggingFaceFaces, StreamedFaces
from idm.data.sources import FolderFaces, SyntheticFaces
from idm.extrinsic.clean import Cleaning, CleanSettings, _ahead, face_seed, pixel_hash
from idm.extrinsic.gate import Gate
from idm.extrinsic.job import run_job
from idm.extrinsic.manifest import read_manifest, write_manifest
from idm.extrinsic.shards import CleanError, cleaned_faces
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet
from idm.io.image_writer import write_image

SIZE = 32
ANYONE = Gate(min_identity=None)
ANYTHING = Gate(None, 1.0, 1e9, 1e9, -1.0, -1e9, -1e9)
ALONE = SimpleNamespace(is_main_process=True, process_index=0, num_processes=1, wait_for_everyone=lambda: None)


@dataclass(frozen=True)
class Faked:
    """A restorer that does something known."""

    change: Callable[[Tensor, int], Tensor]
    seconds: float = 0.0

    @property
    def image_size(self) -> int:
        return SIZE

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        time.sleep(self.seconds)
        return torch.stack([self.change(face, seed) for face, seed in zip(lq, seeds, strict=True)]).clamp(0, 1)


def sharpen(face: Tensor, seed: int) -> Tensor:
    """Unsharp masking, its strength from the seed."""
    blurred = torch.nn.functional.avg_pool2d(face[None], 3, 1, 1, count_include_pad=False)[0]
    return face + (0.5 + seed % 7 / 10) * (face - blurred)


def blur(face: Tensor, seed: int) -> Tensor:
    return torch.nn.functional.avg_pool2d(face[None], 3, 1, 1, count_include_pad=False)[0]


def noise(face: Tensor, seed: int) -> Tensor:
    return face + 0.05 * torch.randn(face.shape, generator=torch.Generator().manual_seed(seed))


def job(output: Path, change: Callable[[Tensor, int], Tensor] = sharpen, **changes: Any) -> Cleaning:
    """20 faces in shards of 6 and batches of 4."""
    settings = CleanSettings(batch_size=4, shard_size=6)
    settings = replace(
        settings, **{k: changes.pop(k) for k in list(changes) if k in CleanSettings.__dataclass_fields__}
    )
    arguments = {
        "source": SyntheticFaces(20, 0, SIZE),
        "restorer": Faked(change),
        "gate": ANYONE,
        "identity": None,
        "metadata": {"model": "fake"},
        **changes,
    }
    return Cleaning(output=output, settings=settings, **arguments)


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def finished(tmp_path: Path) -> dict[str, bytes]:
    run_job(job(tmp_path / "finished"), ALONE)
    return content(tmp_path / "finished")


# -------------------------------------------------------------------------------------------- the gate


def test_a_restorer_that_returns_its_input_leaves_the_set_unchanged(tmp_path: Path) -> None:
    summary = run_job(job(tmp_path, lambda face, seed: face), ALONE)
    assert summary["accepted"] == 0
    assert summary["reasons"] == {"no better": 20}
    assert summary["drift"] == {"share": 0.0, "identity": 1.0, "psnr": None, "colour": [0.0, 0.0, 0.0]}
    source, cleaned = SyntheticFaces(20, 0, SIZE), cleaned_faces(tmp_path, SIZE)
    assert len(cleaned) == 20
    for i in range(20):
        np.testing.assert_array_equal(cleaned[i].image, source[i].image)
        np.testing.assert_allclose(cleaned[i].landmarks, source[i].landmarks)
        assert cleaned[i].key == source[i].key


@pytest.mark.parametrize(
    ("bad", "gate", "reason"),
    [
        (blur, ANYONE, "softer"),
        (noise, replace(ANYONE, max_sharpness_loss=1.0), "noisier"),  # clipped noise may soften a face, too
    ],
)
def test_a_bad_restorer_is_rejected_everywhere(
    tmp_path: Path, bad: Callable[[Tensor, int], Tensor], gate: Gate, reason: str
) -> None:
    summary = run_job(job(tmp_path, bad, gate=gate), ALONE)
    assert summary["reasons"] == {reason: 20}
    source, cleaned = SyntheticFaces(20, 0, SIZE), cleaned_faces(tmp_path, SIZE)
    assert all(np.array_equal(cleaned[i].image, source[i].image) for i in range(20))


class Brightness(IdentityNet):
    """Embeds a face by its brightness: the brighter, the more another person."""

    def __init__(self) -> None:
        super().__init__(MobileFaceNet())

    def embed(self, images: Sequence[np.ndarray], landmarks: Any) -> np.ndarray:
        turns = np.array([image.mean() * np.pi / 2 for image in images], np.float32)
        return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def test_a_stranger_is_rejected_everywhere(tmp_path: Path) -> None:
    gate = replace(ANYTHING, min_identity=0.99)
    summary = run_job(job(tmp_path, lambda f, s: torch.ones_like(f), gate=gate, identity=Brightness()), ALONE)
    assert summary["reasons"] == {"identity": 20}
    assert summary["drift"]["identity"] == 1.0  # of the pool, which did not change


def test_what_is_accepted_is_stored_and_its_drift_reported(tmp_path: Path) -> None:
    brighter = lambda face, seed: face + 2 / 255  # noqa: E731
    summary = run_job(job(tmp_path, brighter, gate=replace(ANYTHING, min_identity=-1.0), identity=Brightness()), ALONE)
    assert summary["accepted"] == 20
    assert summary["drift"]["colour"] == pytest.approx([2.0, 2.0, 2.0], abs=0.3)  # white stays white
    assert summary["drift"]["identity"] == pytest.approx(np.cos(2 / 255 * np.pi / 2), abs=1e-3)
    assert summary["drift"]["psnr"] == pytest.approx(-20 * np.log10(2 / 255), abs=0.5)
    x, x_new = SyntheticFaces(20, 0, SIZE)[5].image, cleaned_faces(tmp_path, SIZE)[5].image
    np.testing.assert_array_equal(x_new, np.minimum(x.astype(int) + 2, 255))


def test_of_several_samples_the_accepted_one_with_the_best_identity_counts(tmp_path: Path) -> None:
    seeds = [face_seed(0, 3, sample) for sample in range(4)]
    shift = dict(zip(seeds, [4, 1, 2, 3], strict=True))

    def brighter(face: Tensor, seed: int) -> Tensor:
        return face + shift.get(seed, 5) / 255

    run_job(job(tmp_path, brighter, samples=4, gate=replace(ANYTHING, min_identity=0.0), identity=Brightness()), ALONE)
    assert read_manifest(tmp_path)[3].seed == seeds[1]


# ------------------------------------------------------------------------------------------ the sources


def test_corrupt_files_are_listed_skipped_and_counted_and_odd_names_survive(tmp_path: Path) -> None:
    folder, faces = tmp_path / "in", SyntheticFaces(4, 0, SIZE)
    names = ["Zoë 日本.png", "nested/deep/a.png", "nested/b.png", "duplicate.png"]
    for name, i in zip(names, (0, 1, 2, 0), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(folder / name, faces[i].image)
    (folder / "nested" / "cut.png").write_bytes((folder / "nested" / "b.png").read_bytes()[:300])
    (folder / "empty.png").touch()
    (folder / "text.jpg").write_text("no picture")
    write_image(folder / "wide.png", faces[0].image[:16])
    source = FolderFaces(folder, SIZE)
    summary = run_job(job(tmp_path / "out", source=source, shard_size=3), ALONE)
    assert (summary["num_faces"], summary["unreadable"], summary["duplicates"]) == (8, 4, 1)
    entries = read_manifest(tmp_path / "out")
    assert [entry.index for entry in entries] == list(range(8))
    assert {entry.id for entry in entries if entry.seed is not None} == set(names)
    unreadable = [entry for entry in entries if entry.seed is None]
    for entry, name in zip(unreadable, ("empty.png", "cut.png", "text.jpg", "wide.png"), strict=True):
        assert name in entry.reason
    cleaned = cleaned_faces(tmp_path / "out", SIZE)
    assert sorted(cleaned[i].key for i in range(len(cleaned))) == sorted(names)
    hashes = {entry.id: entry.sha256 for entry in entries}
    assert hashes["Zoë 日本.png"] == hashes["duplicate.png"] == pixel_hash(faces[0].image)


def test_names_that_are_not_utf_8_or_hold_line_separators_survive_in_the_manifest(tmp_path: Path) -> None:
    folder, faces = tmp_path / "in", SyntheticFaces(2, 0, SIZE)
    folder.mkdir()
    write_image(folder / "two\u2028lines\x85.png", faces[0].image)
    write_image(folder / os.fsdecode(b"latin-\xe9.png"), faces[1].image)
    (folder / os.fsdecode(b"broken-\xe9.png")).write_text("no picture")
    metadata = {"model": "fake", "source": {"path": os.fsdecode(b"in-\xe9")}}
    summary = run_job(job(tmp_path / "out", source=FolderFaces(folder, SIZE), metadata=metadata), ALONE)
    assert summary["unreadable"] == 1
    broken, latin, lines = read_manifest(tmp_path / "out")
    assert "broken-\\xe9.png" in broken.reason
    assert (latin.id, lines.id) == ("latin-\\xe9.png", "two\u2028lines\x85.png")


def test_a_blank_picture_stays_as_it_is_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "black.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    summary = run_job(job(tmp_path / "out", source=FolderFaces(tmp_path / "in", SIZE)), ALONE)
    assert summary["reasons"] == {"no better": 1}


def test_landmarks_that_cannot_be_aligned_are_listed_with_the_faces_name(tmp_path: Path) -> None:
    folder, faces = tmp_path / "in", SyntheticFaces(3, 0, SIZE)
    folder.mkdir()
    rows = []
    for i, landmarks in enumerate((faces[0].landmarks.tolist(), [[5, 5]] * 5, [[float("nan")] * 2] * 5)):
        write_image(folder / f"{i}.png", faces[i].image)
        rows.append({"file_name": f"{i}.png", "landmarks": landmarks})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    gate = replace(ANYTHING, min_identity=0.0)
    changes = {"source": FolderFaces(folder, SIZE), "gate": gate, "identity": Brightness()}
    summary = run_job(job(tmp_path / "out", **changes), ALONE)
    assert (summary["unreadable"], summary["accepted"]) == (2, 1)
    _, coincide, not_a_number = read_manifest(tmp_path / "out")
    assert coincide.reason.startswith("1.png: landmarks coincide")
    assert not_a_number.reason.startswith("2.png: landmarks must be finite")


def test_faces_are_read_ahead_but_not_all_at_once() -> None:
    class Immediate(Executor):
        def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
            done: Future[Any] = Future()
            done.set_result(function(*arguments, **named))
            return done

    read: list[int] = []
    for number, (index, _) in enumerate(_ahead(Immediate(), read.append, range(30), 8)):
        assert index == number
        assert len(read) == min(number + 9, 30)


def test_a_source_of_nothing_but_corrupt_files_gives_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no picture")
    summary = run_job(job(tmp_path / "out", source=FolderFaces(tmp_path / "in", SIZE)), ALONE)
    assert (summary["unreadable"], summary["accepted"]) == (1, 0)


def test_a_stream_gives_the_same_faces_as_the_data_set_that_can_be_indexed(tmp_path: Path) -> None:
    import datasets

    run_job(job(tmp_path / "first", lambda face, seed: face), ALONE)
    files = str(tmp_path / "first" / "data" / "*.parquet")
    indexed = datasets.load_dataset("parquet", data_files=files, split="train")
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    run_job(job(tmp_path / "a", source=HuggingFaceFaces(indexed, "image", "landmarks", SIZE)), ALONE)
    run_job(job(tmp_path / "b", source=StreamedFaces(streamed, 20, "image", "landmarks", SIZE, 0)), ALONE)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_stream_that_ends_too_early_is_an_error(tmp_path: Path) -> None:
    import datasets

    run_job(job(tmp_path / "first"), ALONE)
    files = str(tmp_path / "first" / "data" / "*.parquet")
    streamed = datasets.load_dataset("parquet", data_files=files, split="train", streaming=True)
    with pytest.raises(CleanError, match="ended before face 20"):
        run_job(job(tmp_path / "b", source=StreamedFaces(streamed, 30, "image", None, SIZE, 0)), ALONE)


def test_every_line_of_the_manifest_names_model_and_sampler(tmp_path: Path) -> None:
    model = {"weights_sha256": "ab" * 32, "sampler": "DDIMScheduler", "num_steps": 4}
    run_job(job(tmp_path, metadata={"model": model}), ALONE)
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["model"] for line in lines] == [model] * 20
    assert len(read_manifest(tmp_path)) == 20


def test_datasets_reads_the_result_with_its_manifest(tmp_path: Path) -> None:
    import datasets

    run_job(job(tmp_path), ALONE)
    rows = datasets.load_dataset("parquet", data_files=str(tmp_path / "data" / "*.parquet"), split="train")
    assert rows[0]["image"].size == (SIZE, SIZE)
    assert [row["accepted"] for row in rows] == [entry.accepted for entry in read_manifest(tmp_path)]
    assert "x* = f_theta(x)" in (tmp_path / "README.md").read_text()


def test_jpeg_shards_are_near_their_faces_and_png_shards_equal(tmp_path: Path) -> None:
    source = SyntheticFaces(20, 0, SIZE)
    run_job(job(tmp_path, lambda face, seed: face, image_format="jpg"), ALONE)
    difference = cleaned_faces(tmp_path, SIZE)[0].image.astype(int) - source[0].image
    assert 0 < np.abs(difference).mean() < 3


# ------------------------------------------------------------------------------- killed, shared, refused


def _run_killed(output: Path, seconds: float) -> bool:
    """Run the job in a process of its own, killed after some time; whether it lived to the end."""

    def run() -> None:
        torch.set_num_threads(1)  # the threads of OpenMP do not live on in a fork: two or more wait for ever
        tqdm.set_lock(threading.RLock())  # a fork shares tqdm's own, which nobody releases if it is killed with it
        run_job(job(output, restorer=Faked(sharpen, seconds=0.02), shard_size=2, batch_size=2), ALONE)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join(seconds)
    if process.is_alive():
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def test_killed_ten_times_at_random_the_result_is_that_of_an_uninterrupted_job(tmp_path: Path) -> None:
    assert _run_killed(tmp_path / "whole", 60)
    expected = content(tmp_path / "whole")
    rng, kills = random.Random(0), 0
    output = tmp_path / "killed"
    while kills < 10:
        if _run_killed(output, rng.uniform(0.0, 0.12)):
            finished_shards = sorted((output / "data").glob("*.parquet"))
            for shard in finished_shards[rng.randrange(len(finished_shards)) :]:
                shard.unlink()  # done too soon: go on killing
        else:
            kills += 1
    assert _run_killed(output, 60)
    assert content(output) == expected
    assert [entry.index for entry in read_manifest(output)] == list(range(20))


def test_a_shard_that_was_being_written_counts_for_nothing(tmp_path: Path, finished: dict[str, bytes]) -> None:
    output = tmp_path / "out"
    shutil.copytree(tmp_path / "finished", output)
    shard = output / "data" / "train-00001-of-00004.parquet"
    shard.rename(shard.with_name(f".unfinished-{shard.name}"))
    (output / "summary.json").unlink()
    run_job(job(output), ALONE)
    assert content(output) == finished


def test_two_processes_equal_one(tmp_path: Path, finished: dict[str, bytes]) -> None:
    output = tmp_path / "out"
    both = [job(output), job(output)]
    both[0].claim()
    todo = both[0].todo()
    for rank in (1, 0):
        both[rank].run(todo[rank::2], lambda num_faces: None)
    write_manifest(output, both[0].paths, both[0].metadata)
    assert content(output) == finished


def test_a_finished_job_started_again_restores_nothing(tmp_path: Path, finished: dict[str, bytes]) -> None:
    def fail(face: Tensor, seed: int) -> Tensor:
        raise AssertionError("restored again")

    run_job(job(tmp_path / "finished", fail), ALONE)
    assert content(tmp_path / "finished") == finished


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"metadata": {"model": "another"}}, "model"),
        ({"seed": 1}, "settings.seed"),
        ({"samples": 2}, "settings.samples"),
        ({"gate": replace(ANYONE, max_noise_gain=3.0)}, "gate.max_noise_gain"),
        ({"source": SyntheticFaces(21, 0, SIZE)}, "num_faces"),
        ({"image_format": "jpg"}, "settings.image_format"),
    ],
)
def test_another_model_or_setting_never_mixes_into_an_existing_output(
    tmp_path: Path, finished: dict[str, bytes], changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(CleanError, match=f"another {named};"):
        run_job(job(tmp_path / "finished", **changes), ALONE)
    assert content(tmp_path / "finished") == finished


def test_a_folder_with_shards_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train-00000-of-00004.parquet").write_text("mine")
    with pytest.raises(CleanError, match="does not belong to this job"):
        run_job(job(tmp_path), ALONE)


@pytest.mark.parametrize("name", ["README.md", "report/index.html", "records/a.json"])
def test_a_file_of_something_else_is_never_overwritten(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(CleanError, match=rf"{name.split('/')[0]}: does not belong to this job"):
        run_job(job(tmp_path), ALONE)
    assert content(tmp_path) == {name: b"mine"}


def test_too_little_space_is_known_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20 * 3 * SIZE**2 - 1))
    with pytest.raises(CleanError, match="20 faces may need"):
        run_job(job(tmp_path), ALONE)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=20 * 3 * SIZE**2))
    run_job(job(tmp_path), ALONE)


def test_a_manifest_that_lacks_a_face_is_never_written(tmp_path: Path) -> None:
    made = job(tmp_path)
    made.claim()
    made.run([0, 1, 3], lambda num_faces: None)
    with pytest.raises(CleanError, match="exactly once"):
        write_manifest(tmp_path, [made.paths[n] for n in (0, 1, 3)], made.metadata)
    assert not (tmp_path / "manifest.jsonl").exists()


def test_the_manifest_records_the_decision_on_each_face_and_its_reason(tmp_path: Path) -> None:
    run_job(job(tmp_path), ALONE)
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    source, taken = SyntheticFaces(20, 0, SIZE), [line for line in lines if line["accepted"]]
    assert {line["reason"] for line in taken} == {"better"}
    assert len({line["seed"] for line in lines}) == 20
    assert 0 < len(taken) < 20
    for line in lines:
        face = source[line["index"]]
        assert (line["id"], line["sha256"]) == (face.key, pixel_hash(face.image))
        assert line["seed"] == face_seed(0, line["index"], 0)
    for line in taken:
        gains = (line["sharpness_after"] / line["sharpness_before"] - 1, line["noise_before"] - line["noise_after"])
        assert gains[0] >= 0.02 or gains[1] >= 0.5 or line["blockiness_before"] - line["blockiness_after"] >= 0.05


def test_progress_counts_other_processes_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rank 0 of two waits for the shards of rank 1, which another thread of the test makes."""
    output = tmp_path / "out"
    first, second = job(output), job(output)
    main = SimpleNamespace(is_main_process=True, process_index=0, num_processes=2, wait_for_everyone=lambda: None)

    def other() -> None:
        while not (output / "clean.json").exists():  # claimed
            time.sleep(0.01)
        time.sleep(0.3)
        second.run([2, 3], lambda num_faces: None)

    thread = threading.Thread(target=other)
    thread.start()
    summary = run_job(first, main)
    thread.join()
    assert summary["num_faces"] == 20
    assert "20/20" in capsys.readouterr().err


def test_a_shard_whose_writing_breaks_off_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    def full_disk(table: Any, where: Path, **options: Any) -> None:
        where.write_bytes(b"PAR1 half of it")
        raise OSError(28, "No space left on device")

    made = job(tmp_path)
    made.claim()
    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", full_disk)
        with pytest.raises(CleanError, match="No space left"):
            made.run([0], lambda num_faces: None)
    assert made.todo() == [0, 1, 2, 3]
    assert list((tmp_path / "data").iterdir()) == []


def test_a_shard_appears_only_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it writes: there is no time for tidying up."""
    import pyarrow.parquet as pq

    class Killed(BaseException):
        pass

    def killed(table: Any, where: Path, **options: Any) -> None:
        where.write_bytes(b"PAR1 half of it")
        raise Killed

    made = job(tmp_path)
    made.claim()
    with monkeypatch.context() as patched:
        patched.setattr(pq, "write_table", killed)
        with pytest.raises(Killed):
            made.run([0], lambda num_faces: None)
    assert made.todo() == [0, 1, 2, 3]
