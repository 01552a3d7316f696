"""The processes of a cleaning job read different files of a stream, and the result is that of a single reader."""

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from torch import Tensor

from idm.data.huggingface import HuggingFaceFaces, StreamedFaces
from idm.extrinsic import stream
from idm.extrinsic.clean import Cleaning, CleanSettings
from idm.extrinsic.gate import Gate
from idm.extrinsic.job import run_job, share
from idm.extrinsic.manifest import read_manifest
from idm.extrinsic.shards import RECORDS, CleanError
from idm.extrinsic.stream import StreamedRows, count_parts

SIZE = 24
FILES = (4, 2, 5, 1)  # faces of each file
NUM = sum(FILES)
ALONE = SimpleNamespace(is_main_process=True, process_index=0, num_processes=1, wait_for_everyone=lambda: None)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "POLL_SECONDS", 0.01)


class Same:
    image_size = SIZE

    def restore(self, lq: Tensor, seeds: Sequence[int]) -> Tensor:
        return lq


class Files:
    """A stream of files, which notes those that are opened."""

    def __init__(self, sizes: Sequence[int] = FILES) -> None:
        datasets = pytest.importorskip("datasets")
        self.opened: list[int] = []
        self.first = np.cumsum([0, *sizes])
        self.features = datasets.Features({"image": datasets.Image()})
        self.stream = datasets.IterableDataset.from_generator(
            self.rows, features=self.features, gen_kwargs={"file": list(range(len(sizes)))}
        )

    def rows(self, file: list[int]) -> Iterator[dict[str, Any]]:
        for number in file:
            self.opened.append(number)
            for face in range(self.first[number], self.first[number + 1]):
                image = np.random.default_rng(int(face)).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
                yield {"image": {"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None}}

    def faces(self, parts: int, num_faces: int = NUM) -> StreamedFaces:
        return StreamedFaces(self.stream, num_faces, "image", None, SIZE, seed=0, parts=parts)


def job(source: Any, output: Path) -> Cleaning:
    gate, settings = Gate(min_identity=None), CleanSettings(batch_size=2, shard_size=2)
    return Cleaning(source, Same(), output, settings=settings, gate=gate, identity=None, metadata={"model": None})


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("part-"))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def together(*calls: Callable[[], None]) -> None:
    """Each in a thread of its own, as processes of one job."""
    threads = [threading.Thread(target=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_the_parts_of_a_stream_change_nothing_about_the_result(tmp_path: Path) -> None:
    import datasets

    files = Files()
    rows = datasets.Dataset.from_list(list(files.rows([0, 1, 2, 3])), files.features)
    run_job(job(HuggingFaceFaces(rows, "image", None, SIZE), tmp_path / "indexed"), ALONE)
    for parts in (1, 3):
        run_job(job(files.faces(parts), tmp_path / str(parts)), ALONE)
        assert content(tmp_path / str(parts)) == content(tmp_path / "indexed")


def test_each_process_counts_and_cleans_its_own_files(tmp_path: Path) -> None:
    seen = [Files() for _ in range(2)]
    both = [job(files.faces(4), tmp_path / "out") for files in seen]
    both[0].claim()
    together(*(lambda rank=rank: both[rank].count_stream(rank, 2) for rank in range(2)))
    assert [set(files.opened) for files in seen] == [{0, 2}, {1, 3}]
    assert both[0].sizes == both[1].sizes == list(FILES)
    both[0].verify()
    todo = both[0].todo()
    for rank, files in enumerate(seen):
        files.opened.clear()
        both[rank].run(share(todo, rank, 2), lambda number: None)
    assert [set(files.opened) for files in seen] == [{0, 1}, {2, 3}]  # six faces each
    run_job(job(Files().faces(1), tmp_path / "alone"), ALONE)
    run_job(job(Files().faces(4), tmp_path / "out"), ALONE)
    assert content(tmp_path / "out") == content(tmp_path / "alone")


def test_shares_are_consecutive_of_nearly_equal_sizes_and_lose_no_shard() -> None:
    for number in (0, 1, 7, 64):
        for world in (1, 2, 3, 8):
            shares = [share(list(range(number)), rank, world) for rank in range(world)]
            assert [shard for each in shares for shard in each] == list(range(number))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_resumed_job_counts_only_what_was_not_counted_and_a_damaged_count_again(tmp_path: Path) -> None:
    files = Files()
    assert count_parts(files.faces(4), tmp_path, 0, 1) == list(FILES)
    files.opened.clear()
    assert count_parts(files.faces(4), tmp_path, 0, 1) == list(FILES)
    assert files.opened == []
    (tmp_path / "part-00001-of-00004.json").write_text("")
    (tmp_path / "part-00002-of-00004.json").write_text("{}")
    assert count_parts(files.faces(4), tmp_path, 0, 1) == list(FILES)
    assert files.opened == [1, 2]


def test_a_stream_may_hold_more_faces_than_are_asked_for_and_not_fewer(tmp_path: Path) -> None:
    for parts in (1, 4):
        run_job(job(Files().faces(parts, 7), tmp_path / str(parts)), ALONE)
        assert len(read_manifest(tmp_path / str(parts))) == 7
    with pytest.raises(CleanError, match="the stream has 12 faces, but num_faces is 13"):
        run_job(job(Files().faces(4, 13), tmp_path / "more"), ALONE)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [((4, 3, 5, 1), "part 1 of the stream has more faces than"), ((4, 1, 5, 1), "the stream ended before face 5")],
)
def test_files_that_changed_since_they_were_counted_are_noticed(sizes: tuple[int, ...], message: str) -> None:
    rows = StreamedRows(Files(sizes).faces(4), FILES)
    with pytest.raises(CleanError, match=message):
        list(map(rows.__getitem__, range(NUM)))


def test_rows_are_read_from_the_part_that_holds_them() -> None:
    files = Files()
    expected = list(files.rows([0, 1, 2, 3]))
    files.opened.clear()
    rows = StreamedRows(files.faces(2), [6, 6])
    for index in (7, 8, 11):
        assert rows[index]["image"]["bytes"] == expected[index]["image"]["bytes"]
    assert set(files.opened) == {2, 3}


def test_a_job_keeps_its_counts_beside_the_records_of_its_shards(tmp_path: Path) -> None:
    run_job(job(Files().faces(4), tmp_path), ALONE)
    assert len(list((tmp_path / RECORDS).glob("part-*-of-00004.json"))) == 4
