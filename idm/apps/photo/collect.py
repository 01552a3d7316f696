"""The good faces of an album, kept in two folders: faces to train on, and held-out faces."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32

from idm.apps.photo.album import AlbumFace
from idm.extrinsic.quality import measure
from idm.io.atomic import write_json, write_text
from idm.io.errors import InvalidInput
from idm.io.image_writer import write_image
from idm.io.ranges import to_uint8

MIN_FACES = 10
MIN_HELD_OUT = 2
TRAIN, HELD_OUT, METADATA = "train", "held_out", "faces.json"

# Our choices. Of 80 held-out aligned faces of 128 and 256 px, 95 % have a sharpness above 1.13 and a noise below 1;
# after a mild degradation the median sharpness is 1.09 at 256 px, after GFP-GAN's 1.05.
MIN_SHARPNESS = 1.12
MAX_NOISE = 3.0
MIN_SHARE = 0.75  # of the model's side: smaller faces were enlarged
SAME = 0.03  # mean difference of thumbnails below which two faces come from one burst of photographs
_THUMBNAIL = 16


class TooFewFaces(InvalidInput):
    """There are not enough good faces to adapt a model."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Good faces, and why the others were left out: reasons with their numbers."""

    train: list[AlbumFace]
    held_out: list[AlbumFace]
    left_out: Counter[str] = field(default_factory=Counter)


def select_faces(photographs: Iterable[Sequence[AlbumFace]], min_sharpness: float = MIN_SHARPNESS) -> Collection:
    """Select the faces of an album that are good enough to train on, and hold some of them out for validation.

    A face is left out if it is much smaller than the model's faces, soft, noisy, or nearly the same as one before it.
    Blockiness is not checked, because alignment moves JPEG's blocks off the grid on which it is measured.

    The held-out photographs are spread evenly: a tenth of all but at least two, and up to ten as long as they are no
    more than a quarter. Faces of one photograph are never on both sides.

    Raises:
        TooFewFaces: fewer than ten faces remain, or there are too few photographs to hold some out.
    """
    left_out: Counter[str] = Counter()
    kept: list[AlbumFace] = []
    thumbnails: list[Float32[np.ndarray, "t t"]] = []
    for face in (face for faces in photographs for face in faces):
        thumbnail = _thumbnail(face)
        reason = _unfit(face, min_sharpness)
        if not reason and any(np.abs(thumbnail - other).mean() < SAME for other in thumbnails):
            reason = "nearly the same as another"
        if reason:
            left_out[reason] += 1
        else:
            kept.append(face)
            thumbnails.append(thumbnail)
    return Collection(*_split(kept, left_out), left_out)


def _unfit(face: AlbumFace, min_sharpness: float) -> str:
    if face.side < MIN_SHARE * len(face.image):
        return "too small"
    quality = measure(to_uint8(face.image))
    if quality.sharpness < min_sharpness:
        return "not sharp"
    return "noisy" if quality.noise > MAX_NOISE else ""


def _thumbnail(face: AlbumFace) -> Float32[np.ndarray, "t t"]:
    return cv2.resize(face.image.mean(axis=2), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)


def _split(faces: Sequence[AlbumFace], left_out: Counter[str]) -> tuple[list[AlbumFace], list[AlbumFace]]:
    """(faces to train on, held-out faces)."""
    photographs = list(dict.fromkeys(face.source for face in faces))
    number = len(photographs)
    wanted = max(MIN_HELD_OUT, -(-number // 10), min(10, number // 4))
    chosen = {photographs[i * number // wanted] for i in range(min(wanted, number))}
    train = [face for face in faces if face.source not in chosen]
    held_out = [face for face in faces if face.source in chosen]
    if len(faces) < MIN_FACES or len(train) < MIN_FACES - MIN_HELD_OUT or len(held_out) < MIN_HELD_OUT:
        others = f" ({format_counts(left_out)} left out)" if left_out else ""
        raise TooFewFaces(
            f"{len(faces)} good faces in {number} photographs{others}, and adapting needs {MIN_FACES} or more, in at "
            f"least {MIN_HELD_OUT + 1} photographs: give more photographs, or sharper ones"
        )
    return train, held_out


def format_counts(left_out: Mapping[str, int]) -> str:
    """Reasons with their numbers, as "3 too small, 1 noisy"."""
    return ", ".join(f"{number} {reason}" for reason, number in Counter(left_out).most_common())


def write_collection(collection: Collection, folder: Path, metadata: dict[str, Any]) -> None:
    """Write the faces to train on and the held-out faces, with their landmarks; ``folder`` appears only when it is
    complete."""
    draft = folder.with_name(f".{folder.name}.part")
    rmtree(draft, ignore_errors=True)
    for name, faces in ((TRAIN, collection.train), (HELD_OUT, collection.held_out)):
        (draft / name).mkdir(parents=True)
        rows = []
        for number, face in enumerate(faces):
            file = f"{number:05d}.png"
            write_image(draft / name / file, to_uint8(face.image))
            rows.append({"file_name": file, "landmarks": np.round(face.landmarks, 3).tolist()})
        write_text(draft / name / "metadata.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    counts = {"train": len(collection.train), "held_out": len(collection.held_out)}
    write_json(draft / METADATA, {**metadata, **counts, "left_out": dict(collection.left_out)})
    draft.rename(folder)
