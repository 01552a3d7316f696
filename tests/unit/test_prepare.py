"""``idm data prepare``: aligned faces from any folder, without copies, split by person, resumable."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from idm.apps.cli import main as cli
from idm.apps.photo import prepare
from idm.apps.photo.people import person_of
from idm.apps.photo.prepare import (
    SAME,
    FoundFace,
    PrepareSettings,
    build_photo_reader,
    find_faces,
    split,
    without_copies,
    write_splits,
)
from idm.data.sources import FolderFaces
from idm.data.synthetic import synthetic_face
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image
from idm.io.images import read_image, resize_image

SETTINGS = PrepareSettings(size=32, aligned=True, people="auto", val=0.2, test=0.2, seed=0)


def run(*arguments: object) -> int:
    return cli.run(cli.build_parser().parse_args(["data", "prepare", *map(str, arguments)]))


def fill(folder: Path, people: int = 6, photos: int = 2) -> Path:
    """LFW's layout: a folder for each person."""
    for person in range(people):
        (folder / f"Person_{person}").mkdir(parents=True)
        for i in range(photos):
            face = synthetic_face(person, i, 48).image
            write_image(folder / f"Person_{person}" / f"Person_{person}_{i + 1:04d}.png", face)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_of_photographs_becomes_a_data_set(tmp_path: Path, capsys) -> None:
    lfw, out = fill(tmp_path / "lfw"), tmp_path / "out"
    write_image(lfw / "Person_5" / "copy.jpg", synthetic_face(1, 1, 48).image)
    (lfw / "Person_0" / "broken.png").write_bytes(b"no picture")
    write_image(lfw / "Person_0" / "tiny.png", synthetic_face(9, 9, 16).image)
    assert run(lfw, "-o", out, "--aligned", "--size", 32, "--val", 0.1, "--test", 0.1) == 1  # one is unreadable
    captured = capsys.readouterr()
    assert "broken.png" in captured.err
    assert "15 photographs -> 8 train, 2 val, 2 test" in captured.out
    summary = json.loads((out / "prepare.json").read_text())
    assert summary["left_out"] == {"unreadable": 1, "copies": 1, "too small": 1}
    assert summary["people"] == {"train": 4, "val": 1, "test": 1}
    people = {}
    for part in ("train", "val", "test"):
        faces = FolderFaces(out / part, 32)
        assert faces.has_landmarks
        assert all(face.image.shape == (32, 32, 3) for face in faces)
        np.testing.assert_allclose(faces[0].landmarks, ffhq_landmarks(32), atol=1e-3)
        rows = [json.loads(line) for line in (out / part / "metadata.jsonl").read_text().splitlines()]
        assert [row["file_name"] for row in rows] == [path.name for path in faces.paths]
        people[part] = {row["person"] for row in rows}
        for row in rows:
            photo = read_image(tmp_path / row["photo"]).rgb
            np.testing.assert_array_equal(read_image(out / part / row["file_name"]).rgb, resize_image(photo, (32, 32)))
    assert not people["train"] & people["val"] | people["train"] & people["test"] | people["val"] & people["test"]
    card = (out / "README.md").read_text()
    assert "12 aligned faces of 32 px from 15 photographs of lfw" in card
    assert "| train | 8 | 4 |" in card
    assert str(tmp_path) not in card
    assert {path.name for path in out.iterdir()} == {"train", "val", "test", "README.md", "prepare.json"}


def test_a_killed_preparation_resumes_to_the_same_bytes(tmp_path: Path, monkeypatch) -> None:
    lfw = fill(tmp_path / "lfw", people=3)
    arguments = (lfw, "--aligned", "--size", 32, "--val", 0.3, "--test", 0)
    assert run(*arguments, "-o", tmp_path / "whole" / "set") == 0
    align, seen = prepare._align, []

    def killed(number, *others):
        seen.append(number)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return align(number, *others)

    monkeypatch.setattr(prepare, "_align", killed)
    with pytest.raises(KeyboardInterrupt):
        run(*arguments, "-o", tmp_path / "resumed" / "set")
    journal = tmp_path / "resumed" / "set" / ".work" / "journal.jsonl"
    with journal.open("a") as file:
        file.write('{"photo": "lfw/cut sho')
    assert run(*arguments, "--seed", 1, "-o", tmp_path / "resumed" / "set") == 1  # other settings
    assert run(*arguments, "-o", tmp_path / "resumed" / "set") == 0
    assert seen == [0, 1, 2, 3, 3, 4, 5]
    assert files(tmp_path / "whole") == files(tmp_path / "resumed")


def test_a_damaged_journal_is_an_error_that_names_it(tmp_path: Path, monkeypatch, capsys) -> None:
    arguments = (fill(tmp_path / "lfw", people=3), "--aligned", "--size", 32, "-o", tmp_path / "set")
    align = prepare._align

    def killed(number, *others):
        if number == 2:
            raise KeyboardInterrupt
        return align(number, *others)

    with monkeypatch.context() as patched:
        patched.setattr(prepare, "_align", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*arguments)
    journal = tmp_path / "set" / ".work" / "journal.jsonl"
    settings, first, second = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join([settings, first[: len(first) // 2] + "\n", second]))
    assert run(*arguments) == 1
    assert f"{journal}: is damaged" in capsys.readouterr().err


def test_a_kill_while_the_parts_are_written_costs_nothing(tmp_path: Path, monkeypatch) -> None:
    arguments = (fill(tmp_path / "lfw", people=3), "--aligned", "--size", 32, "--val", 0.3, "--test", 0)
    assert run(*arguments, "-o", tmp_path / "whole" / "set") == 0

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(prepare, "_card", killed)
        with pytest.raises(KeyboardInterrupt):
            run(*arguments, "-o", tmp_path / "resumed" / "set")
    monkeypatch.setattr(prepare, "_align", killed)  # nothing is aligned again
    assert run(*arguments, "-o", tmp_path / "resumed" / "set") == 0
    assert files(tmp_path / "whole") == files(tmp_path / "resumed")


class TwoFaces:
    """Finds a large and a small face in every picture."""

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return [
            DetectedFace(np.array([x, 0.0, x + side, side]), ffhq_landmarks(side) + np.array([x, 0]), 0.99)
            for x, side in ((0, 64), (70, 40))
        ]


def test_of_a_known_person_the_largest_face_is_taken_and_of_others_all(tmp_path: Path) -> None:
    photos = {}
    for i, name in enumerate(("set/Ann/Ann_0001.png", "set/Ann/party.png")):
        photos[name] = tmp_path / name
        photos[name].parent.mkdir(parents=True, exist_ok=True)
        picture = np.concatenate([synthetic_face(7 + i, k, 64).image for k in range(2)], axis=1)
        write_image(photos[name], picture)
    settings = PrepareSettings(size=32, aligned=False, people="auto", val=0.0, test=0.0, seed=0)
    out = tmp_path / "out"
    assert sum(1 for _ in find_faces(photos, settings, build_photo_reader(TwoFaces(), 32), out)) == 2
    summary = write_splits(out, settings)
    assert summary["faces"] == {"train": 3, "val": 0, "test": 0}
    assert summary["left_out"] == {"beside a known person": 1}
    rows = [json.loads(line) for line in (out / "train" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["photo"].rpartition("/")[2], row.get("person")) for row in rows] == [
        ("Ann_0001.png", "Ann"),
        ("party.png", None),
        ("party.png", None),
    ]


@pytest.mark.parametrize(
    ("name", "people", "person"),
    [
        ("lfw/Ann_Lee/Ann_Lee_0001.jpg", "auto", "Ann_Lee"),
        ("lfw/Ann_Lee/Ann_0001.jpg", "auto", None),
        ("ffhq/00000/00012.png", "auto", None),
        ("photos/img_0001.jpg", "auto", None),
        ("vgg/n000012/0001_01.jpg", "folders", "n000012"),
        ("lfw/Ann_Lee/Ann_Lee_0001.jpg", "none", None),
        ("celeba/000001.jpg", "identities.txt", "2880"),
        ("celeba/000002.jpg", "identities.txt", None),
    ],
)
def test_names_identify_the_person_shown(name: str, people: str, person: str | None) -> None:
    assert person_of(name, people, {"000001.jpg": "2880"}) == person


def found(thumbnail: np.ndarray, person: str = "p", file: str = "f") -> FoundFace:
    return FoundFace(person, person, file, [], thumbnail.astype(np.uint8).tobytes().hex())


def test_copies_are_found_as_by_comparing_all_with_all() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(60, 200, (40, 256))
    step = math.ceil(SAME * 255)
    thumbnails = np.concatenate([base, base + step - 2, base[:20] + step + 2, base[::-1]])
    faces = [found(thumbnail, file=str(i)) for i, thumbnail in enumerate(thumbnails)]
    wanted: list[FoundFace] = []
    for face in faces:
        if all(np.abs(face.pixels - other.pixels).mean() > SAME for other in wanted):
            wanted.append(face)
    assert [face.file for face in without_copies(faces)] == [face.file for face in wanted]
    assert 40 < len(wanted) < len(faces)


@pytest.mark.parametrize("seed", range(5))
def test_no_person_is_in_two_parts_and_the_parts_have_their_shares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    faces = [found(np.zeros(4), f"person {rng.integers(60)}", str(i)) for i in range(300)]
    settings = PrepareSettings(32, True, "auto", val=0.1, test=0.2, seed=seed)
    parts = split(faces, settings)
    assert sorted(face.file for part in parts.values() for face in part) == sorted(face.file for face in faces)
    people = {name: {face.person for face in part} for name, part in parts.items()}
    assert sum(map(len, people.values())) == len(set().union(*people.values()))
    largest = max(Counter(face.person for face in faces).values())
    for name, share in (("val", 0.1), ("test", 0.2)):
        assert share * 300 <= len(parts[name]) < share * 300 + largest
    shuffled = split([faces[i] for i in rng.permutation(300)], settings)
    assert {name: {face.person for face in part} for name, part in shuffled.items()} == people


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "absent: no such file or folder"),
        (["lfw", "--size", "8"], "--size must be at least 16, got 8"),
        (["lfw", "--val", "1"], "--val must be in [0, 1), got 1"),
        (["lfw", "--people", "people.txt"], "people.txt: 'three words here' is not a file name and a person"),
        (["lfw", "other/lfw"], "has the name lfw/Person_0/Person_0_0001.png"),
        (["lfw", "--size", "512"], "none of 1 photographs has a usable face (1 too small)"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, capsys, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("lfw"), 1, 1)
    fill(Path("other/lfw"), 1, 1)
    Path("people.txt").write_text("a.jpg 1\nthree words here\n")
    assert run("-o", "out", "--aligned", *arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
