"""P_X* on the disk: parquet shards that Hugging Face's ``datasets`` reads, each complete or absent. A shard holds the
faces of a fixed range of the source. Its bytes depend only on its rows, so a lost shard is written again with the same
bytes."""

import io
import json
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8
from PIL import Image

from idm.data.huggingface import HuggingFaceFaces
from idm.data.sources import Landmarks
from idm.io.atomic import CheckpointError, sha256, sync, write_json
from idm.io.errors import UserError
from idm.io.machine import num_usable_cores

DATA, RECORDS = "data", "records"
POLL_SECONDS = 1.0
"""Interval at which a process looks for files that others are writing, which may take longer than a barrier waits."""


class CleanError(UserError, RuntimeError):
    """A cleaning job cannot start or resume; the message says why and what to do."""


@dataclass(frozen=True)
class Entry:
    """One line of the manifest: the outcome of a face. Without ``seed`` the face could not be read.

    Attributes:
        id: the face's name in its source.
        index: its number there.
        sha256: of its pixels as read, at the model's size; equal for duplicates.
        seed: of the noise that gave x*.
        accepted: whether x* replaced it.
        reason: one of :data:`idm.extrinsic.gate.Reason`, or the fault of the file.
        identity: cosine of the embeddings of x and x*; None if not measured.
        psnr: of x* against x, in dB; None if they are equal.
        colour_shift: mean of x* minus mean of x, in R, G, B, in 1/255.
    """

    id: str
    index: int
    sha256: str | None
    seed: int | None
    accepted: bool
    reason: str
    identity: float | None = None
    psnr: float | None = None
    colour_shift: list[float] | None = None
    sharpness_before: float | None = None
    sharpness_after: float | None = None
    noise_before: float | None = None
    noise_after: float | None = None
    blockiness_before: float | None = None
    blockiness_after: float | None = None


@dataclass(frozen=True)
class CleanedFace:
    """A face of P_X*: x* where it was accepted, else x."""

    image: UInt8[np.ndarray, "s s 3"]
    landmarks: Landmarks | None
    entry: Entry


_TYPES = {"id": pa.string(), "index": pa.int64(), "sha256": pa.string(), "seed": pa.int64(), "accepted": pa.bool_()}
_TYPES |= {"reason": pa.string(), "colour_shift": pa.list_(pa.float64())}
_MANIFEST_TYPES = {field.name: _TYPES.get(field.name, pa.float64()) for field in fields(Entry)}
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
_LANDMARKS = pa.list_(pa.list_(pa.float32()))


def shard_path(folder: Path, number: int, total: int) -> Path:
    """Named as ``datasets`` names the shards of a split."""
    return folder / DATA / f"train-{number:05d}-of-{total:05d}.parquet"


def record_path(shard: Path) -> Path:
    """The path of a finished shard's record: its length, its sha256, and that of its source."""
    return shard.parent.with_name(RECORDS) / f"{shard.name}.json"


def read_record(shard: Path) -> dict[str, Any]:
    """The record of a finished shard. OSError where there is none, ValueError where it is not JSON."""
    return json.loads(record_path(shard).read_text())


def is_finished(shard: Path) -> bool:
    """Return whether a shard exists with the recorded length."""
    try:
        return shard.stat().st_size == read_record(shard)["num_bytes"]
    except (OSError, ValueError, LookupError, TypeError):
        return False


def is_whole(shard: Path) -> bool:
    """Return whether a shard exists with the recorded bytes."""
    return is_finished(shard) and sha256(shard) == read_record(shard).get("sha256")


def write_shard(
    path: Path,
    faces: Sequence[CleanedFace],
    unreadable: Sequence[Entry],
    image_format: str,
    source_sha256: str,
) -> None:
    """Write a shard with one rename, and then the record that marks it as finished.

    Raises:
        CleanError: it cannot be written, for example for lack of space; nothing is left of it.
    """
    with ThreadPoolExecutor(num_usable_cores()) as threads:
        images = list(threads.map(partial(_encode, image_format=image_format), faces))
    columns: dict[str, pa.Array] = {
        "image": pa.array(images, _IMAGE),
        "landmarks": pa.array([None if f.landmarks is None else f.landmarks.tolist() for f in faces], _LANDMARKS),
    }
    for name, kind in _MANIFEST_TYPES.items():
        columns[name] = pa.array([getattr(face.entry, name) for face in faces], kind)
    metadata = {"huggingface": _features(), "unreadable": json.dumps([asdict(entry) for entry in unreadable])}
    table = pa.table(columns).replace_schema_metadata(metadata)
    draft = path.with_name(f".unfinished-{uuid.uuid4().hex}-{path.name}")  # its own, if the job runs twice at once
    try:
        pq.write_table(table, draft, compression="none", use_dictionary=False)  # the images are compressed already
        sync(draft)
        record = {"num_bytes": draft.stat().st_size, "sha256": sha256(draft), "source_sha256": source_sha256}
        draft.replace(path)
        sync(path.parent)
        record_path(path).parent.mkdir(exist_ok=True)
        write_json(record_path(path), record)
    except (OSError, CheckpointError) as error:
        draft.unlink(missing_ok=True)
        raise CleanError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})") from error


def read_entries(path: Path) -> list[Entry]:
    """A shard's part of the manifest, in the source's order; the images are not read."""
    table = pq.read_table(path, columns=list(_MANIFEST_TYPES))
    unreadable = json.loads(pq.read_schema(path).metadata[b"unreadable"])
    rows = [*table.to_pylist(), *unreadable]
    return sorted((Entry(**row) for row in rows), key=lambda entry: entry.index)


def read_images(path: Path) -> Iterator[tuple[int, bytes]]:
    """(index in the source, image file) of each face in a shard."""
    table = pq.read_table(path, columns=["index", "image"])
    for row in table.to_pylist():
        yield row["index"], row["image"]["bytes"]


def cleaned_faces(output: Path, size: int) -> HuggingFaceFaces:
    """P_X* of a finished job."""
    import datasets

    files = sorted(str(path) for path in (output / DATA).glob("*.parquet"))
    dataset = datasets.load_dataset("parquet", data_files=files, split="train")
    return HuggingFaceFaces(dataset, "image", "landmarks", size, "id")


def _encode(face: CleanedFace, image_format: str) -> dict[str, Any]:
    file = io.BytesIO()
    if image_format == "png":
        # Runs alone: on photographs 1 to 2 % larger than zlib's default search, in a third of its time.
        Image.fromarray(face.image).save(file, "PNG", compress_type=zlib.Z_RLE)
    else:
        Image.fromarray(face.image).save(file, "JPEG", quality=95, subsampling=0)
    return {"bytes": file.getvalue(), "path": f"{face.entry.index:08d}.{image_format}"}


def _features() -> str:
    """The columns as ``datasets`` describes them, so that it decodes the images."""

    def feature(kind: pa.DataType) -> dict[str, Any]:
        if pa.types.is_list(kind):
            return {"feature": feature(kind.value_type), "_type": "List"}
        name = {"double": "float64", "float": "float32"}.get(str(kind), str(kind))
        return {"dtype": name, "_type": "Value"}

    features = {"image": {"_type": "Image"}, "landmarks": feature(_LANDMARKS)}
    features |= {name: feature(kind) for name, kind in _MANIFEST_TYPES.items()}
    return json.dumps({"info": {"features": features}})
