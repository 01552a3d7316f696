"""A cleaning that goes on with another source, or with damaged shards, must notice it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor

from idm.data.huggingface import HuggingFaceFaces, StreamedFaces, row_to_face
from idm.data.sources import FolderFaces, Part
from idm.data.synthetic import synthetic_face
from idm.extrinsic.clean import Cleaning, CleanSettings
from idm.extrinsic.gate import Gate
from idm.extrinsic.job import run_job
from idm.extrinsic.manifest import read_manifest
from idm.extrinsic.reading import face_digest
from idm.extrinsic.shards import CleanError
from idm.io.image_writer import write_image
from idm.io.images import ImageError

SIZE, NUM = 32, 10


class Alone:
    process_index, num_processes, is_main_process = 0, 1, True

    def wait_for_everyone(self) -> None:
        pass


class Same:
    image_size = SIZE

    def __init__(self) -> None:
        self.restored = 0

    def restore(self, lq: Tensor, seeds: Sequence[int]) -> Tensor:
        self.restored += len(lq)
        return lq


def folder_of(path: Path, order: Sequence[int]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for place, number in enumerate(order):
        write_image(path / f"{place}.png", synthetic_face(0, number, SIZE).image)
    return path


def rows(path: Path, order: Sequence[int]) -> dict[str, list[Any]]:
    files = sorted(folder_of(path, order).glob("*.png"))
    return {"image": [{"bytes": file.read_bytes(), "path": None} for file in files]}


def build(kind: str, folder: Path, order: Sequence[int]) -> Any:
    import datasets

    if kind in ("folder", "part"):
        faces = FolderFaces(folder_of(folder, order), SIZE)
        return Part(faces, range(NUM)) if kind == "part" else faces
    dataset = datasets.Dataset.from_dict(rows(folder, order)).cast_column("image", datasets.Image(decode=False))
    if kind == "indexed":
        return HuggingFaceFaces(dataset, "image", None, SIZE)
    return StreamedFaces(dataset.to_iterable_dataset(), NUM, "image", None, SIZE, 0)


def job(source: Any, output: Path) -> Cleaning:
    return Cleaning(
        source,
        Same(),
        output,
        settings=CleanSettings(batch_size=2, shard_size=2),
        gate=Gate(min_identity=None),
        identity=None,
        metadata={"source": "the same", "model": "the same"},
    )


@pytest.mark.parametrize("kind", ["folder", "part", "indexed", "streamed"])
def test_a_source_that_changed_between_two_runs_is_refused(tmp_path: Path, kind: str) -> None:
    first = job(build(kind, tmp_path / "in", range(NUM)), tmp_path / "out")
    first.claim()
    first.run([0, 1], lambda num_faces: None)
    with pytest.raises(CleanError, match="was made from other faces than the source has now"):
        run_job(job(build(kind, tmp_path / "in", range(NUM)[::-1]), tmp_path / "out"), Alone())
    run_job(job(build(kind, tmp_path / "in", range(NUM)), tmp_path / "out"), Alone())
    hashes = [entry.sha256 for entry in read_manifest(tmp_path / "out")]
    assert len(set(hashes)) == len(hashes) == NUM


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:99] + b"\0" + data[100:]])
def test_a_finished_shard_that_was_damaged_is_made_again(tmp_path: Path, damage: Any) -> None:
    source, out = FolderFaces(folder_of(tmp_path / "in", range(NUM)), SIZE), tmp_path / "out"
    run_job(job(source, out), Alone())
    shard = sorted((out / "data").glob("*.parquet"))[1]
    whole = shard.read_bytes()
    shard.write_bytes(damage(whole))
    again = job(source, out)
    run_job(again, Alone())
    assert shard.read_bytes() == whole
    assert again.restorer.restored == 2  # those of one shard


def test_a_job_with_unreadable_faces_resumes(tmp_path: Path) -> None:
    folder, out = folder_of(tmp_path / "in", range(NUM)), tmp_path / "out"
    (folder / "3.png").write_text("no picture")
    run_job(job(FolderFaces(folder, SIZE), out), Alone())
    shard = sorted((out / "data").glob("*.parquet"))[4]
    whole = shard.read_bytes()
    shard.unlink()
    assert run_job(job(FolderFaces(folder, SIZE), out), Alone())["unreadable"] == 1
    assert shard.read_bytes() == whole


def test_a_row_with_a_path_and_no_bytes_reads_no_file_of_this_machine(tmp_path: Path) -> None:
    write_image(tmp_path / "private.png", np.zeros((SIZE, SIZE, 3), np.uint8))
    row = {"image": {"bytes": None, "path": str(tmp_path / "private.png")}}
    with pytest.raises(ImageError, match="row: does not hold the bytes of a picture"):
        row_to_face(row, "image", None, SIZE, "row")


@pytest.mark.parametrize("points", [[[1.0, 2.0], [3.0]], "no points", [["x"]]])
def test_a_row_whose_landmarks_are_none_is_unreadable_and_costs_no_other(tmp_path: Path, points: Any) -> None:
    import datasets

    columns = rows(tmp_path / "in", range(NUM))
    five = [[1.0, 1.0], [9.0, 1.0], [5.0, 5.0], [2.0, 9.0], [8.0, 9.0]]
    good = five if isinstance(points, list) and points[0] != ["x"] else None
    dataset = datasets.Dataset.from_dict({**columns, "landmarks": [points, *[good] * (NUM - 1)]})
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    for source in (
        HuggingFaceFaces(dataset, "image", "landmarks", SIZE),
        StreamedFaces(dataset.to_iterable_dataset(), NUM, "image", "landmarks", SIZE, 0),
    ):
        out = tmp_path / type(source).__name__
        assert run_job(job(source, out), Alone())["unreadable"] == 1
        assert "holds no landmarks" in read_manifest(out)[0].reason
        assert run_job(job(source, out), Alone())["unreadable"] == 1


def test_the_digest_of_a_face_is_that_of_its_bytes_name_and_landmarks(tmp_path: Path) -> None:
    faces = FolderFaces(folder_of(tmp_path / "in", [0, 0, 1]), SIZE)
    plain = [face_digest(faces, index) for index in range(3)]
    assert len(set(plain)) == 3  # two of them differ in their names alone
    faces.landmarks["0.png"] = np.zeros((5, 2), np.float32)
    assert face_digest(faces, 0) != plain[0]
    assert face_digest(Part(faces, [2, 1]), 1) == plain[1]


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b"[]"])
def test_damaged_descriptions_of_a_job_are_named_or_written_again(tmp_path: Path, damage: bytes) -> None:
    source, out = FolderFaces(folder_of(tmp_path / "in", range(NUM)), SIZE), tmp_path / "out"
    run_job(job(source, out), Alone())
    whole = {name: (out / name).read_bytes() for name in ("summary.json", "manifest.jsonl")}
    (out / "summary.json").write_bytes(damage)
    run_job(job(source, out), Alone())
    assert {name: (out / name).read_bytes() for name in whole} == whole
    (out / "manifest.jsonl").write_bytes(whole["manifest.jsonl"] + damage + b"\n")
    with pytest.raises(CleanError, match=rf"manifest\.jsonl: line {NUM + 1} is damaged"):
        read_manifest(out)
    (out / "clean.json").write_bytes(damage)
    with pytest.raises(CleanError, match=r"clean\.json: is damaged"):
        run_job(job(source, out), Alone())
