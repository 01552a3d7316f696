"""Sources of faces, and how faces become pairs."""

import json
import pickle
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from idm.data.cache import Cached, SharedFaces
from idm.data.huggingface import HuggingFaceFaces, StreamedFaces
from idm.data.pairs import (
    Batch,
    FrozenPairs,
    IndexedPairs,
    Pairing,
    Partition,
    StreamedBatches,
    collate,
    epoch_order,
    mirror,
    shift,
    training_batches,
)
from idm.data.sources import Face, FolderFaces, Part, SyntheticFaces, balanced
from idm.degradation import GFPGAN
from idm.faces.template import five_of_68
from idm.io.errors import InvalidInput
from idm.io.image_writer import write_image
from idm.io.images import ImageError

SIZE = 32
PAIRING = Pairing(GFPGAN, seed=3, flip_probability=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten faces in nested folders, with landmarks for one."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(0)
    for i in range(10):
        rgb = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
        path = folder / ("ä b" if i % 2 else "") / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        write_image(path, rgb)
    row = {"file_name": "0.png", "landmarks": [[10, 20], [38, 20], [24, 28], [14, 38], [34, 38]]}
    (folder / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def dataset(num_faces: int = 12):
    datasets = pytest.importorskip("datasets")
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(num_faces)]
    from PIL import Image

    rows = {"image": [Image.fromarray(image) for image in images], "number": list(range(num_faces))}
    features = datasets.Features({"image": datasets.Image(), "number": datasets.Value("int32")})
    return datasets.Dataset.from_dict(rows, features=features), images


# ------------------------------------------------------------------------------------------ sources


def test_a_folder_is_read_with_its_subfolders_and_resized(folder: Path) -> None:
    faces = FolderFaces(folder, SIZE)
    assert len(faces) == 10
    assert {face.image.shape for face in faces} == {(SIZE, SIZE, 3)}
    assert len({face.key for face in faces}) == 10


def test_landmarks_scale_with_the_face_about_pixel_centres(folder: Path) -> None:
    faces = {face.key: face for face in FolderFaces(folder, 24)}
    np.testing.assert_allclose(faces["0.png"].landmarks[0], [(10.5 / 2) - 0.5, (20.5 / 2) - 0.5])
    assert faces["2.png"].landmarks is None


def test_a_face_that_is_not_square_is_refused_by_name(tmp_path: Path) -> None:
    write_image(tmp_path / "wide.png", np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(ImageError, match=r"wide\.png.*30x20.*square"):
        FolderFaces(tmp_path, SIZE)[0]


def test_a_broken_metadata_line_is_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "landmarks": [1, 2]}\n')
    with pytest.raises(ImageError, match=r"metadata\.jsonl: line 1 .*expected 5 or 68 points \(x, y\)"):
        FolderFaces(tmp_path, SIZE)


def test_metadata_that_are_not_utf_8_are_named_and_names_may_hold_other_line_ends(tmp_path: Path) -> None:
    write_image(tmp_path / "a\u2028.png", np.zeros((32, 32, 3), np.uint8))
    row = {"file_name": "a\u2028.png", "landmarks": [1.0] * 10}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", encoding="utf-8")
    assert FolderFaces(tmp_path, SIZE)[0].landmarks is not None
    (tmp_path / "metadata.jsonl").write_bytes(b'{"file_name": "caf\xe9.png"}\n')
    with pytest.raises(ImageError, match=r"metadata\.jsonl: line 1 is not a JSON object"):
        FolderFaces(tmp_path, SIZE)


def points_68() -> np.ndarray:
    """No two alike, within 48 px."""
    return np.random.default_rng(5).permutation(48 * 48)[:68, None] // [1, 48] % 48.0


def test_68_points_of_a_folder_are_kept_and_give_the_five(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((48, 48, 3), np.uint8))
    points = points_68()
    row = {"file_name": "a.png", "landmarks": points.tolist()}
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row) + "\n")
    faces = FolderFaces(tmp_path, 24)
    assert faces.has_landmarks
    scaled = (points + 0.5) / 2 - 0.5
    np.testing.assert_allclose(faces[0].points, scaled, rtol=1e-6)
    eyes = [scaled[36:42].mean(axis=0), scaled[42:48].mean(axis=0)]
    np.testing.assert_allclose(faces[0].landmarks, [*eyes, scaled[30], scaled[48], scaled[54]], rtol=1e-5)


def test_ffhqs_own_file_gives_the_points_of_the_face_of_the_same_number(tmp_path: Path) -> None:
    (tmp_path / "00000").mkdir()
    for number in (7, 8):
        write_image(tmp_path / "00000" / f"{number:05d}.png", np.zeros((48, 48, 3), np.uint8))
    points = points_68() * 1024 / 48
    (tmp_path / "ffhq-dataset-v2.json").write_text(json.dumps({"7": {"image": {"face_landmarks": points.tolist()}}}))
    faces = FolderFaces(tmp_path, SIZE)
    assert faces.has_landmarks
    np.testing.assert_allclose(faces[0].points, (points + 0.5) * SIZE / 1024 - 0.5, rtol=1e-5, atol=1e-5)
    assert faces[1].points is faces[1].landmarks is None


@pytest.mark.parametrize("text", ["{", "[]", '{"7": {}}', '{"7": {"image": {"face_landmarks": [[1, 2]]}}}'])
def test_a_broken_file_of_ffhqs_landmarks_is_named(tmp_path: Path, text: str) -> None:
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    (tmp_path / "ffhq-dataset-v2.json").write_text(text)
    with pytest.raises(ImageError, match=r"ffhq-dataset-v2\.json: is not FFHQ's file of landmarks"):
        FolderFaces(tmp_path, SIZE)


def test_a_hugging_face_data_set_gives_its_own_pixels() -> None:
    rows, images = dataset()
    faces = HuggingFaceFaces(rows, "image", None, SIZE)
    assert len(faces) == len(images)
    for face, image in zip(faces, images, strict=True):
        np.testing.assert_array_equal(face.image, image)


def test_a_wrong_column_is_named_with_those_there_are() -> None:
    with pytest.raises(ImageError, match=r"'photo'.*image, number"):
        HuggingFaceFaces(dataset()[0], "photo", None, SIZE)


def test_a_column_of_something_else_than_pictures_is_refused() -> None:
    rows, images = dataset()
    for source in (
        lambda: HuggingFaceFaces(rows, "number", None, SIZE),
        lambda: StreamedFaces(rows.to_iterable_dataset(), len(images), "number", None, SIZE, 0),
    ):
        with pytest.raises(ImageError, match="the column 'number' holds int32, not pictures"):
            source()


def test_a_cache_and_a_part_give_the_same_faces() -> None:
    source = SyntheticFaces(6, seed=0, size=SIZE)
    part = Cached(Part(source, [4, 1]))
    for _ in range(2):
        np.testing.assert_array_equal(part[0].image, source[4].image)
        np.testing.assert_array_equal(part[1].image, source[1].image)


# -------------------------------------------------------------------------------------------- pairs


def test_an_epoch_visits_every_face_once_and_the_next_in_another_order() -> None:
    orders = [epoch_order(0, epoch, 50).tolist() for epoch in range(2)]
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(50))
    assert orders[0] != orders[1]


def test_a_pair_depends_on_seed_and_position_only() -> None:
    source = SyntheticFaces(5, seed=0, size=SIZE)
    one, other = IndexedPairs(source, PAIRING), IndexedPairs(Cached(source), PAIRING)
    later = other[17]  # asked for first
    for position in (3, 17, 4):
        np.testing.assert_array_equal(one[position].lq, other[position].lq)
        np.testing.assert_array_equal(one[position].hq, other[position].hq)
    np.testing.assert_array_equal(later.lq, one[17].lq)


def test_the_same_face_is_degraded_anew_in_each_epoch() -> None:
    pairs = IndexedPairs(SyntheticFaces(1, seed=0, size=SIZE), Pairing(GFPGAN, 0, 0.0))
    np.testing.assert_array_equal(pairs[0].hq, pairs[1].hq)
    assert not np.array_equal(pairs[0].lq, pairs[1].lq)


def test_frozen_pairs_never_change() -> None:
    source = SyntheticFaces(3, seed=0, size=SIZE)
    one, other = FrozenPairs(source, GFPGAN, 7), FrozenPairs(source, GFPGAN, 7)
    np.testing.assert_array_equal(one[2].lq, other[2].lq)
    np.testing.assert_array_equal(one[2].hq, source[2].image)
    assert not np.array_equal(one[2].lq, FrozenPairs(source, GFPGAN, 8)[2].lq)


def test_mirroring_moves_each_landmark_to_its_mirrored_pixel_under_its_new_name() -> None:
    image = np.zeros((9, 9, 3), np.uint8)
    landmarks = np.array([[1, 2], [6, 3], [4, 4], [2, 7], [5, 8]], np.float32)
    for value, (x, y) in enumerate(landmarks.astype(int), start=1):
        image[y, x] = value
    flipped = mirror(Face(image, landmarks, "f"))
    found = [int(flipped.image[y, x, 0]) for x, y in flipped.landmarks.astype(int)]
    assert found == [2, 1, 3, 5, 4]  # what was the right eye in the image is now the left one
    np.testing.assert_array_equal(mirror(flipped).image, image)
    np.testing.assert_array_equal(mirror(flipped).landmarks, landmarks)


def test_mirroring_swaps_the_68_points_of_the_two_sides() -> None:
    """A face that is its own mirror image keeps its points, each under its own number."""
    points = (points_68() % [20, 48]).astype(np.float32)  # left of the middle, 23.5
    pairs = [(i, 16 - i) for i in range(8)] + [(17 + i, 26 - i) for i in range(5)] + [(31, 35), (32, 34)]
    pairs += [(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)]
    pairs += [(48, 54), (49, 53), (50, 52), (59, 55), (58, 56), (60, 64), (61, 63), (67, 65)]
    for left, mirrored in pairs:
        points[mirrored] = [47 - points[left, 0], points[left, 1]]
    points[[8, 27, 28, 29, 30, 33, 51, 57, 62, 66], 0] = 23.5
    face = Face(np.zeros((48, 48, 3), np.uint8), five_of_68(points), "f", points)
    flipped = mirror(face)
    np.testing.assert_allclose(flipped.points, points)
    np.testing.assert_allclose(flipped.landmarks, face.landmarks, rtol=1e-6)


def test_points_move_with_the_face_and_come_with_its_batch() -> None:
    points = points_68().astype(np.float32)
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    marked, plain = Face(image, five_of_68(points), "a", points), Face(image, None, "b")
    moved = shift(marked, 3, -2)
    np.testing.assert_allclose(moved.points, points + np.float32([3, -2]))
    np.testing.assert_allclose(moved.landmarks, marked.landmarks + np.float32([3, -2]), rtol=1e-6)
    pairing = Pairing(GFPGAN, seed=3, flip_probability=0.0)
    batch = collate([pairing(face, 0, i, i) for i, face in enumerate((marked, plain))])
    np.testing.assert_array_equal(batch.points[0], points)
    assert batch.points[1].isnan().all()
    assert collate([pairing(plain, 0, 0, 0)]).points is None


def test_shifting_moves_image_and_landmarks_by_whole_pixels_and_repeats_the_border() -> None:
    image = np.arange(5 * 5 * 3, dtype=np.uint8).reshape(5, 5, 3)
    landmarks = np.array([[1, 2], [3, 3], [2, 2], [1, 4], [3, 4]], np.float32)
    moved = shift(Face(image, landmarks, "f"), 2, -1)
    np.testing.assert_array_equal(moved.image[:4, 2:], image[1:, :3])
    np.testing.assert_array_equal(moved.image[:4, 0], image[1:, 0])
    np.testing.assert_array_equal(moved.image[4, 2:], image[4, :3])
    np.testing.assert_array_equal(moved.landmarks, landmarks + np.float32([2, -1]))


def test_the_original_is_degraded_and_moves_as_its_target_does() -> None:
    rng = np.random.default_rng(0)
    target, original = (rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(2))
    nothing = replace(GFPGAN, clean_probability=1.0)
    face = Face(target, None, "f", original=original)
    for seed in range(8):
        pair = Pairing(nothing, seed, 0.5, max_shift=2, grey_probability=0.5)(face, 0, 0, 0)
        alone = Pairing(nothing, seed, 0.5, max_shift=2, grey_probability=0.5)(Face(original, None, "f"), 0, 0, 0)
        np.testing.assert_array_equal(pair.lq, alone.hq)
        assert not np.array_equal(pair.hq, pair.lq)


def test_grey_pairs_are_grey_on_both_sides() -> None:
    source = SyntheticFaces(1, seed=0, size=SIZE)
    pair = Pairing(replace(GFPGAN, clean_probability=1.0), 0, 0.0, grey_probability=1.0)(source[0], 0, 0, 0)
    for image in (pair.hq, pair.lq):
        assert (image.max(axis=2) == image.min(axis=2)).all()


def test_rare_groups_come_more_often_in_an_epoch(tmp_path: Path) -> None:
    rows = []
    for index, group in enumerate(["a"] * 9 + ["b"] * 2 + [None]):
        write_image(tmp_path / f"{index:02d}.png", np.full((SIZE, SIZE, 3), index, np.uint8))
        rows.append(json.dumps({"file_name": f"{index:02d}.png", "group": group}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(rows))
    folder = FolderFaces(tmp_path, SIZE)
    keys = [balanced(folder, folder)[i].key for i in range(len(balanced(folder, folder)))]
    counts = [keys.count(f"{index:02d}.png") for index in range(12)]
    assert counts == [1] * 9 + [2] * 2 + [3]  # sqrt(9 / 2) = 2.1, sqrt(9 / 1) = 3


def test_half_of_the_faces_are_mirrored() -> None:
    source = Cached(SyntheticFaces(1, seed=0, size=SIZE))
    pairs = IndexedPairs(source, PAIRING)
    flipped = [not np.array_equal(pairs[i].hq, source[0].image) for i in range(200)]
    assert 70 < sum(flipped) < 130


# ------------------------------------------------------------------------------------------ batches


def positions(source, partition: Partition, first: int, wanted: int, num_workers: int = 0) -> list[list[int]]:
    batches = training_batches(source, PAIRING, partition, first=first, num_workers=num_workers, pin=False)
    return [batch.positions for batch in islice(batches, wanted)]


def test_processes_share_the_positions_of_one_global_batch() -> None:
    source = SyntheticFaces(7, seed=0, size=SIZE)
    alone = positions(source, Partition(4), 2, 3)
    halves = [positions(source, Partition(2, rank, 2), 2, 3) for rank in range(2)]
    assert alone == [[8, 9, 10, 11], [12, 13, 14, 15], [16, 17, 18, 19]]
    assert [a + b for a, b in zip(*halves, strict=True)] == alone


@pytest.mark.parametrize("num_workers", [1, 2])
def test_workers_change_nothing_about_the_batches(num_workers: int) -> None:
    source = SyntheticFaces(7, seed=0, size=SIZE)
    plain, worked = (
        islice(training_batches(source, PAIRING, Partition(3), first=1, num_workers=n, pin=False), 4)
        for n in (0, num_workers)
    )
    for a, b in zip(plain, worked, strict=True):
        assert a.positions == b.positions
        assert torch.equal(a.lq, b.lq)
        assert torch.equal(a.landmarks, b.landmarks)


@pytest.mark.timeout(60)
def test_workers_start_beside_the_threads_of_opencv() -> None:
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        cv2.resize(np.zeros((2048, 2048, 3), np.uint8), (1000, 1000), interpolation=cv2.INTER_CUBIC)
        time.sleep(0.5)  # until its thread sleeps, too
        next(training_batches(SyntheticFaces(2, 0, SIZE), PAIRING, Partition(1), first=0, num_workers=1, pin=False))
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


class Counted:
    """Faces that note in a file when they are read, and OpenCV's threads in their first pixel."""

    def __init__(self, source: SyntheticFaces, path: Path) -> None:
        self.source, self.path = source, path

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Face:
        with self.path.open("a") as file:
            file.write(f"{index}\n")
        face = self.source[index]
        face.image[0, 0] = cv2.getNumThreads()
        return face


def test_workers_share_a_cache_and_its_faces_are_those_of_the_source(tmp_path: Path) -> None:
    plain = SyntheticFaces(12, seed=0, size=SIZE)
    cached = Cached(Counted(plain, tmp_path / "read"), SIZE)
    no_change = Pairing(GFPGAN, seed=3, flip_probability=0.0)
    batches = training_batches(cached, no_change, Partition(1), first=0, num_workers=2, pin=False)
    for epoch in range(4):
        for index, batch in zip(epoch_order(3, epoch, 12), islice(batches, 12), strict=True):
            assert torch.equal(batch.hq[0, :, 0, 0], torch.ones(3, dtype=torch.uint8))  # of its OpenCV's threads
            expected = collate([no_change(plain[int(index)], epoch, int(index), batch.positions[0])])
            assert torch.equal(batch.hq[..., 1:, :], expected.hq[..., 1:, :])
            assert torch.equal(batch.landmarks, expected.landmarks)
    assert 12 <= len((tmp_path / "read").read_text().split()) <= 18  # both may read a face at once; each alone: 24


def test_shared_faces_are_kept_whole_or_not_at_all() -> None:
    source = SyntheticFaces(2, seed=0, size=SIZE)
    points = np.arange(136, dtype=np.float32).reshape(68, 2)
    face = replace(source[0], points=points, key="one")
    shared = SharedFaces(3, SIZE)
    assert shared.get(0) is None
    shared[0] = face
    shared[1] = replace(face, key="x" * SharedFaces.RECORD_BYTES)
    shared[2] = replace(face, original=face.image)
    kept = shared.get(0)
    np.testing.assert_array_equal(kept.image, face.image)
    np.testing.assert_array_equal(kept.landmarks, face.landmarks)
    np.testing.assert_array_equal(kept.points, points)
    assert kept.key == "one"
    assert not kept.image.flags.writeable
    assert shared.get(1) is None
    assert shared.get(2) is None
    shared[1] = replace(face, landmarks=None, points=None)
    assert shared.get(1).landmarks is None
    assert pickle.loads(pickle.dumps(shared)).get(0) is None  # a process of its own begins without


def streamed(num_faces: int = 10, parts: int = 1) -> StreamedFaces:
    rows, _ = dataset()
    return StreamedFaces(rows.to_iterable_dataset(num_shards=3), num_faces, "image", None, SIZE, seed=0, parts=parts)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_face_of_a_stream_that_cannot_be_read_is_the_error_itself(num_workers: int, monkeypatch) -> None:
    def broken(stream: StreamedFaces, row: object, key: str) -> Face:
        raise ImageError(f"{key} is broken")

    monkeypatch.setattr(StreamedFaces, "face", broken)  # the workers are forked
    batches = training_batches(streamed(), PAIRING, Partition(3), first=0, num_workers=num_workers, pin=False)
    with pytest.raises(ImageError, match=r"^\d+ is broken$"):
        next(batches)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stream_resumes_at_its_position_with_any_number_of_workers(num_workers: int, parts: int) -> None:
    """From micro-batch 7 of 3 faces on: over the end of an epoch, into the next."""

    def batches(first: int, num_workers: int) -> Iterator[Batch]:
        source = streamed(parts=parts)
        return training_batches(source, PAIRING, Partition(3), first=first, num_workers=num_workers, pin=False)

    for a, b in zip(islice(batches(0, 0), 7, 15), batches(7, num_workers), strict=False):
        assert a.positions == b.positions
        assert torch.equal(a.hq, b.hq)
        assert torch.equal(a.lq, b.lq)


@pytest.mark.parametrize("parts", [1, 3])
def test_processes_share_a_stream(parts: int) -> None:
    alone, *halves = (
        list(islice(training_batches(streamed(parts=parts), PAIRING, partition, first=1, num_workers=0, pin=False), 5))
        for partition in (Partition(4), Partition(2, 0, 2), Partition(2, 1, 2))
    )
    for whole, *split in zip(alone, *halves, strict=True):
        assert torch.equal(torch.cat([half.hq for half in split]), whole.hq)


class Files:
    """A stream of eight files of 16 faces, which notes the files that are opened."""

    def __init__(self) -> None:
        datasets = pytest.importorskip("datasets")
        self.opened: set[int] = set()
        features = datasets.Features({"image": datasets.Image(), "number": datasets.Value("int32")})
        self.stream = datasets.IterableDataset.from_generator(
            self.rows, features=features, gen_kwargs={"file": list(range(8))}
        )

    def rows(self, file: list[int]) -> Iterator[dict[str, Any]]:
        for number in file:
            self.opened.add(number)
            for face in range(16):
                image = np.full((SIZE, SIZE, 3), 16 * number + face, np.uint8)
                yield {"image": {"bytes": cv2.imencode(".png", image)[1].tobytes(), "path": None}, "number": face}


def test_each_worker_of_each_process_opens_its_own_files_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Pairing(GFPGAN, seed=3, flip_probability=0.0)
    seen, opened = [], []
    for rank in range(2):
        for worker in range(2):
            files = Files()
            source = StreamedFaces(files.stream, 128, "image", None, SIZE, seed=0, parts=4)
            monkeypatch.setattr("idm.data.pairs.get_worker_info", lambda w=worker: SimpleNamespace(id=w, num_workers=2))
            batches = StreamedBatches(source, plain, Partition(8, rank, 2), first=0)
            for batch in islice(batches, 4):
                seen += batch.hq[:, 0, 0, 0].tolist()
            opened.append(files.opened)
    assert [len(each) for each in opened] == [2, 2, 2, 2]
    assert set().union(*opened) == set(range(8))
    assert sorted(seen) == list(range(128))  # the epoch: each face once


def test_a_smaller_part_of_a_stream_is_read_again_and_a_far_smaller_one_is_an_error() -> None:
    rows, _ = dataset(7)
    source = StreamedFaces(rows.to_iterable_dataset(num_shards=2), 7, "image", None, SIZE, seed=0, parts=2)
    source.share = 4  # the parts hold 4 and 3
    for part, number in ((0, 4), (1, 3)):
        found = [source.face(row, "").image for _, _, row in islice(source.rows(part, 0), 8)]
        assert len({image.tobytes() for image in found}) == number
        assert len({image.tobytes() for image in found[:4]}) == number
    source.share = 9
    with pytest.raises(ImageError, match="ended after 4 faces, but num_faces is 7 in 2 parts"):
        next(source.rows(0, 8))


def test_a_stream_of_fewer_files_than_parts_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"data\.source\.parts: 4, but the stream has only 3 files"):
        streamed(parts=4)


def test_a_stream_shorter_than_its_epoch_raises_an_error() -> None:
    with pytest.raises(ImageError, match="ended after 12 faces, but num_faces is 30"):
        for _ in islice(streamed(30).rows(0, 0), 31):
            pass
