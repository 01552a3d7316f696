"""A data set of aligned faces from any photographs: found, aligned, without copies, split by person."""

import hashlib
import json
import os
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32
from PIL import Image

from idm.apps.photo.album import AlbumFace, detect_and_align
from idm.apps.photo.collect import MIN_SHARE, format_counts
from idm.apps.photo.people import person_of, read_people
from idm.data.sources import FolderFaces
from idm.faces.detect import Detector
from idm.faces.template import ffhq_landmarks
from idm.io.atomic import write_json, write_text
from idm.io.errors import InvalidInput
from idm.io.find import as_text
from idm.io.image_writer import write_image
from idm.io.images import ImageError
from idm.io.ranges import from_uint8, to_uint8

SPLITS = ("train", "val", "test")
SUMMARY, CARD = "prepare.json", "README.md"
SAME = 0.02  # mean difference of thumbnails, in [0, 1], up to which two faces are copies of one
_WORK, _JOURNAL = ".work", "journal.jsonl"
_THUMBNAIL = 16


Reader = Callable[[str, Path], list[AlbumFace]]  # (name, path) -> faces; ImageError for what cannot be read


class PrepareError(InvalidInput):
    """The data set cannot be prepared; the message says why."""


@dataclass(frozen=True)
class PrepareSettings:
    """The settings that determine the faces.

    Attributes:
        size: of the faces, in pixels.
        aligned: each image is one aligned face.
        people: see :func:`~idm.apps.photo.people.person_of`.
        val, test: shares of the faces.
        seed: of the split.
    """

    size: int
    aligned: bool
    people: str
    val: float
    test: float
    seed: int


@dataclass(frozen=True)
class FoundFace:
    """A face in the journal."""

    photo: str
    person: str
    file: str
    landmarks: list[list[float]]
    thumbnail: str  # hexadecimal

    @property
    def pixels(self) -> Float32[np.ndarray, " p"]:
        """The thumbnail, in [0, 1], by which duplicates are found."""
        return np.frombuffer(bytes.fromhex(self.thumbnail), np.uint8).astype(np.float32) / 255


def build_photo_reader(detector: Detector, size: int) -> Reader:
    """Build the reader of photographs: it finds the plausible faces of each, the largest first, and aligns them to
    ``size`` pixels."""

    def read(name: str, path: Path) -> list[AlbumFace]:
        unreadable: dict[Path, str] = {}
        faces = next(detect_and_align([path], detector, size, 0.0, unreadable), None)
        if faces is None:
            raise ImageError(unreadable[path])
        return faces

    return read


def build_aligned_reader(size: int) -> Reader:
    """Build the reader of images of one aligned face each, with the landmarks that lie beside them
    (:class:`~idm.data.sources.FolderFaces`), else those of FFHQ's template."""
    folders: dict[Path, tuple[FolderFaces, dict[Path, int]]] = {}

    def read(name: str, path: Path) -> list[AlbumFace]:
        root = path.parents[max(0, name.count("/") - 1)]  # the folder that was given
        if root not in folders:
            source = FolderFaces(root, size)
            folders[root] = source, {path: i for i, path in enumerate(source.paths)}
        source, index = folders[root]
        face = source[index[path]]
        with Image.open(path) as file:
            side = float(file.width)
        landmarks = ffhq_landmarks(size) if face.landmarks is None else face.landmarks
        return [AlbumFace(path, from_uint8(face.image), landmarks, side)]

    return read


def find_faces(photos: Mapping[str, Path], settings: PrepareSettings, read: Reader, output: Path) -> Iterator[None]:
    """Align the faces of all photographs into the journal of ``output``, one photograph a step; photographs that are
    already in it are skipped. From a photograph of a known person the largest face is taken, from others all plausible
    faces. Faces that would be enlarged by more than a third are left out.

    Raises:
        PrepareError: the folder was started with other settings.
    """
    work = output / _WORK
    work.mkdir(parents=True, exist_ok=True)
    done = {row["photo"] for row in _read_journal(work, settings)}
    known = read_people(settings.people)
    with (work / _JOURNAL).open("a") as journal:
        for number, (name, path) in enumerate(photos.items()):
            if name not in done:
                row = _align(number, name, path, person_of(name, settings.people, known), settings, read, work)
                journal.write(json.dumps(row) + "\n")
                journal.flush()
            yield


def _align(
    number: int,
    name: str,
    path: Path,
    person: str | None,
    settings: PrepareSettings,
    read: Reader,
    work: Path,
) -> dict[str, Any]:
    """One photograph's line of the journal, after its faces were written."""
    row: dict[str, Any] = {"photo": name, "faces": [], "left_out": {}}
    try:
        faces = read(name, path)
    except ImageError as error:
        return {**row, "left_out": {"unreadable": 1}, "problem": as_text(str(error))}
    left_out = Counter[str]()
    if not faces:
        left_out["without a face"] = 1
    if person is not None and len(faces) > 1:
        left_out["beside a known person"] = len(faces) - 1
        faces = faces[:1]
    for k, face in enumerate(faces):
        if face.side < MIN_SHARE * settings.size:
            left_out["too small"] += 1
            continue
        file = f"{number:07d}_{k}.png"
        write_image(work / file, to_uint8(face.image))
        grey = cv2.resize(face.image.mean(axis=2), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
        thumbnail = to_uint8(grey).tobytes().hex()
        landmarks = np.round(face.landmarks, 3).tolist()
        row["faces"].append(asdict(FoundFace(name, person or name, file, landmarks, thumbnail)))
    return {**row, "left_out": dict(left_out)}


def _read_journal(work: Path, settings: PrepareSettings) -> list[dict[str, Any]]:
    """The finished photographs; a line that a kill cut short is dropped."""
    path = work / _JOURNAL
    head = {"settings": asdict(settings)}
    if not path.exists():
        write_text(path, json.dumps(head) + "\n")
        return []
    lines = path.read_text().splitlines(keepends=True)
    if not lines[-1].endswith("\n"):
        lines.pop()
        write_text(path, "".join(lines))
    try:
        first, *rows = map(json.loads, lines)
    except ValueError as error:
        raise PrepareError(f"{path}: is damaged ({error}); delete {work} and start again") from None
    if first != head:
        raise PrepareError(f"{work.parent}: was started with other settings; use those, or another output folder")
    return rows


def write_splits(output: Path, settings: PrepareSettings) -> dict[str, Any]:
    """Drop copies, split by person and write the folders ``train``, ``val`` and ``test``, the card and prepare.json.

    Returns:
        The content of prepare.json.

    Raises:
        PrepareError: no face was found.
    """
    rows = _read_journal(output / _WORK, settings)
    left_out = sum((Counter(row["left_out"]) for row in rows), Counter[str]())
    faces = [FoundFace(**face) for row in rows for face in row["faces"]]
    kept = without_copies(faces)
    left_out["copies"] = len(faces) - len(kept)
    if not kept:
        raise PrepareError(f"none of {len(rows)} photographs has a usable face ({format_counts(+left_out)})")
    parts = split(kept, settings)
    for name, part in parts.items():
        _write_part(output, name, part)
    summary = {
        **asdict(settings),
        "photographs": len(rows),
        "faces": {name: len(part) for name, part in parts.items()},
        "people": {name: len({face.person for face in part}) for name, part in parts.items()},
        "left_out": dict(+left_out),
        "unreadable": [row["problem"] for row in rows if "problem" in row],
    }
    write_text(output / CARD, _card(output.name, settings, summary, {row["photo"].split("/")[0] for row in rows}))
    write_json(output / SUMMARY, summary)
    rmtree(output / _WORK)
    return summary


def without_copies(faces: Iterable[FoundFace]) -> list[FoundFace]:
    """The faces whose thumbnail differs from that of every face before them."""
    kept: list[FoundFace] = []
    means: list[float] = []  # sorted; thumbnails that are near have means that are near
    pixels: list[Float32[np.ndarray, " p"]] = []  # in the order of the means
    for face in faces:
        own = face.pixels
        mean = float(own.mean())
        near = pixels[bisect_left(means, mean - SAME) : bisect_right(means, mean + SAME)]
        if near and np.abs(np.stack(near) - own).mean(axis=1).min() <= SAME:
            continue
        place = bisect_left(means, mean)
        means.insert(place, mean)
        pixels.insert(place, own)
        kept.append(face)
    return kept


def split(faces: Sequence[FoundFace], settings: PrepareSettings) -> dict[str, list[FoundFace]]:
    """The faces of each part, in their order. No person, and no photograph, is in two parts.

    People come in an order that depends on the seed and their names alone: they fill the test part, then the
    validation part, and the rest is for training.
    """
    sizes = Counter(face.person for face in faces)
    order = sorted(sizes, key=lambda person: hashlib.sha256(f"{settings.seed}:{person}".encode()).digest())
    part_of: dict[str, str] = {}
    taken = Counter[str]()
    wanted = {"test": settings.test * len(faces), "val": settings.val * len(faces)}
    for person in order:
        part = next((name for name, number in wanted.items() if taken[name] < number), "train")
        part_of[person] = part
        taken[part] += sizes[person]
    return {name: [face for face in faces if part_of[face.person] == name] for name in SPLITS}


def _write_part(output: Path, name: str, faces: Sequence[FoundFace]) -> None:
    """Write a folder of faces with metadata.jsonl, completely or not at all."""
    draft = output / f".{name}.part"
    for folder in (draft, output / name):
        rmtree(folder, ignore_errors=True)
    if not faces:
        return
    draft.mkdir()
    lines = []
    for face in faces:
        _link(output / _WORK / face.file, draft / face.file)
        row = {"file_name": face.file, "landmarks": face.landmarks, "photo": face.photo}
        lines.append(json.dumps(row | ({"person": face.person} if face.person != face.photo else {})) + "\n")
    write_text(draft / "metadata.jsonl", "".join(lines))
    draft.rename(output / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # the file system knows no links
        copyfile(source, target)


def _card(name: str, settings: PrepareSettings, summary: Mapping[str, Any], folders: Iterable[str]) -> str:
    rows = "\n".join(
        f"| {part} | {summary['faces'][part]} | {summary['people'][part]} |"
        for part in SPLITS
        if summary["faces"][part]
    )
    how = "taken as they are" if settings.aligned else "found, and aligned by their landmarks to FFHQ's template"
    left_out = format_counts(summary["left_out"]) or "nothing"
    return f"""# {name}

{sum(summary["faces"].values())} aligned faces of {settings.size} px from {summary["photographs"]} photographs of \
{", ".join(sorted(folders))}, made by `idm data prepare`. The faces were {how}.

| part | faces | people or photographs |
|---|---|---|
{rows}

No person whose name is known, and no photograph, is in two parts; the split follows from seed {settings.seed}. Left
out: {left_out}. Copies are faces whose thumbnails of {_THUMBNAIL} x {_THUMBNAIL} px differ by {SAME} or less on
average. `metadata.jsonl` in each part names each face's photograph and its five landmarks in pixels.

The terms of the photographs apply to these faces.
"""
