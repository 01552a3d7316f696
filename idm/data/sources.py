"""P_X: where faces come from. Every source gives the same thing: square RGB faces of one size, by index."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from idm.data.synthetic import synthetic_face
from idm.io.find import find_images
from idm.io.images import ImageError, Picture, decode_image, read_image, resize_image

Landmarks = Float32[np.ndarray, "5 2"]


@dataclass(frozen=True)
class Face:
    """An aligned face.

    Attributes:
        image: RGB, square.
        landmarks: (x, y) of left eye, right eye, nose, left and right mouth corner as seen in the image, in
            pixels with pixel centres at integers; None if unknown.
        key: a name that is unique in its source.
    """

    image: UInt8[np.ndarray, "s s 3"]
    landmarks: Landmarks | None
    key: str


@runtime_checkable
class FaceSource(Protocol):
    """Faces by index; reading one twice gives the same face."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Face: ...


class SyntheticFaces:
    """Procedural faces ``first .. first + num_faces`` of a seed."""

    def __init__(self, num_faces: int, seed: int, size: int) -> None:
        self.num_faces, self.seed, self.size = num_faces, seed, size

    def __len__(self) -> int:
        return self.num_faces

    def __getitem__(self, index: int) -> Face:
        face = synthetic_face(self.seed, index, self.size)
        return Face(face.image, face.landmarks, f"synthetic_{self.seed}_{index:06d}")


class FolderFaces:
    """The images of a folder and its subfolders, sorted by path.

    ``metadata.jsonl`` beside them, one object a line with ``file_name`` and ``landmarks``, is optional.

    Raises:
        ImageError: if the folder holds no image; on access, for a file that is no square image.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.paths = find_images([folder])
        self.landmarks, self.groups = _read_metadata(folder / "metadata.jsonl")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Face:
        path = self.paths[index]
        key = path.relative_to(self.folder).as_posix()
        return _fit(read_image(path), self.landmarks.get(key), self.size, str(path), key)


class HuggingFaceFaces:
    """A Hugging Face data set that can be indexed; ``id_column`` names its faces, else their numbers do."""

    def __init__(
        self, dataset: Any, image_column: str, landmarks_column: str | None, size: int, id_column: str | None = None
    ) -> None:
        self.dataset = _undecoded(dataset, image_column)
        self.image_column, self.landmarks_column, self.size = image_column, landmarks_column, size
        self.id_column = id_column

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Face:
        row = self.dataset[index]
        key = f"{index:08d}" if self.id_column is None else str(row[self.id_column])
        return row_to_face(row, self.image_column, self.landmarks_column, self.size, key)


class StreamedFaces:
    """A streamed Hugging Face data set, shuffled through a buffer; ``num_faces`` make an epoch.

    It cannot be indexed. :meth:`rows` replays exactly, at the price of reading the epoch from its start.
    """

    buffer_size = 1000

    def __init__(
        self, dataset: Any, num_faces: int, image_column: str, landmarks_column: str | None, size: int, seed: int
    ) -> None:
        self.in_order = _undecoded(dataset, image_column)
        self.dataset = self.in_order.shuffle(seed=seed, buffer_size=self.buffer_size)
        self.num_faces, self.size = num_faces, size
        self.image_column, self.landmarks_column = image_column, landmarks_column

    def rows(self, position: int) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """(epoch, index in the epoch, undecoded row) from a global position on, without end."""
        epoch, start = divmod(position, self.num_faces)
        while True:
            self.dataset.set_epoch(epoch)
            index = start
            # .iter, because plain iteration deals a stream's shards out to the loader's workers by itself
            for batch in islice(self.dataset.iter(batch_size=1), start, self.num_faces):
                yield epoch, index, {column: values[0] for column, values in batch.items()}
                index += 1
            if index < self.num_faces:
                raise ImageError(f"the stream ended after {index} faces, but num_faces is {self.num_faces}")
            epoch, start = epoch + 1, 0

    def rows_in_order(self) -> Iterator[Mapping[str, Any]]:
        """The undecoded rows of one epoch as they are stored."""
        for batch in islice(self.in_order.iter(batch_size=1), self.num_faces):
            yield {column: values[0] for column, values in batch.items()}

    def face(self, row: Mapping[str, Any], key: str) -> Face:
        return row_to_face(row, self.image_column, self.landmarks_column, self.size, key)


class Part:
    """Some of another source's faces."""

    def __init__(self, source: FaceSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Face:
        return self.source[self.indices[index]]


def balanced(source: FaceSource, folder: FolderFaces, most: int = 3) -> Part:
    """The faces of a folder, read from ``source``. Those of a rarer group come round(sqrt(largest / own size)) times,
    at most ``most``.

    Faces without a group form one of their own.
    """
    groups = [folder.groups.get(path.relative_to(folder.folder).as_posix()) for path in folder.paths]
    sizes = Counter(groups)
    times = {group: min(most, round((max(sizes.values()) / size) ** 0.5)) for group, size in sizes.items()}
    return Part(source, [index for index, group in enumerate(groups) for _ in range(times[group])])


class Cached:
    """Another source's faces, kept in memory once they were read (in each worker process its own)."""

    def __init__(self, source: FaceSource) -> None:
        self.source = source
        self.faces: dict[int, Face] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Face:
        if index not in self.faces:
            self.faces[index] = self.source[index]
        return self.faces[index]


def row_to_face(row: Mapping[str, Any], image_column: str, landmarks_column: str | None, size: int, key: str) -> Face:
    """Decode one row of a Hugging Face data set whose image column was left undecoded."""
    for column in filter(None, (image_column, landmarks_column)):
        if column not in row:
            raise ImageError(f"{key}: the data set has no column {column!r}, only {', '.join(row)}")
    data = row[image_column]
    if not data or not data.get("bytes"):  # a path alone would be a file of this machine, whatever it is
        raise ImageError(f"{key}: holds no bytes of a picture; pictures beside a data set are a source 'folder'")
    picture = decode_image(data["bytes"], key)
    points = row[landmarks_column] if landmarks_column else None
    landmarks = None if points is None else np.asarray(points, np.float32)
    return _fit(picture, landmarks, size, key, key)


def _undecoded(dataset: Any, image_column: str) -> Any:
    """Keep the files' own bytes: one decoder of ours serves all sources, and a skipped row costs nothing."""
    import datasets

    columns = dataset.column_names
    if columns is not None and image_column not in columns:
        raise ImageError(f"the data set has no column {image_column!r}, only {', '.join(columns)}")
    return dataset.cast_column(image_column, datasets.Image(decode=False))


def _fit(picture: Picture, landmarks: Landmarks | None, size: int, name: str, key: str) -> Face:
    """Resize an aligned face to the training size, with its landmarks."""
    height, width = picture.rgb.shape[:2]
    if height != width:
        raise ImageError(f"{name}: is {width}x{height}; an aligned face is square: align and crop it first")
    if landmarks is not None:
        landmarks = ((landmarks + 0.5) * (size / width) - 0.5).astype(np.float32)
    return Face(resize_image(picture.rgb, (size, size)), landmarks, key)


def _read_metadata(path: Path) -> tuple[dict[str, Landmarks], dict[str, str]]:
    """Landmarks and groups by file name, of those rows that have them."""
    landmarks: dict[str, Landmarks] = {}
    groups: dict[str, str] = {}
    if not path.exists():
        return landmarks, groups
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            row = json.loads(line)
            if "landmarks" in row:
                landmarks[row["file_name"]] = np.asarray(row["landmarks"], np.float32).reshape(5, 2)
            if row.get("group") is not None:
                groups[row["file_name"]] = str(row["group"])
        except (ValueError, KeyError, TypeError) as error:
            raise ImageError(f"{path}: line {number} is not a JSON object with file_name and landmarks") from error
    return landmarks, groups
