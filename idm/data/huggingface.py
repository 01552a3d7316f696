"""Hugging Face data sets as sources of faces: indexed, and streamed."""

from collections.abc import Iterator, Mapping
from itertools import count, islice
from typing import Any

from idm.data.sources import Face, fit_face, parse_points
from idm.io.errors import InvalidInput
from idm.io.images import ImageError, decode_image


class HuggingFaceFaces:
    """A Hugging Face data set that can be indexed; faces are named by ``id_column``, or by their numbers."""

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

    It cannot be indexed. Its files are divided into parts, which provide ``TURN`` faces each in turn, so that a process
    or worker reads only the parts of its own faces. Every part provides the same number of faces in an epoch.

    Raises:
        InvalidInput: there are fewer files than parts.
    """

    TURN = 8
    buffer_size = 1000

    def __init__(
        self,
        dataset: Any,
        num_faces: int,
        image_column: str,
        landmarks_column: str | None,
        size: int,
        seed: int,
        parts: int = 1,
    ) -> None:
        self.in_order = _undecoded(dataset, image_column)
        if parts > self.in_order.num_shards:
            raise InvalidInput(f"data.source.parts: {parts}, but the stream has only {self.in_order.num_shards} files")
        self.num_faces, self.size, self.seed, self.parts = num_faces, size, seed, parts
        self.image_column, self.landmarks_column = image_column, landmarks_column
        self.share = num_faces // parts

    def place(self, position: int) -> tuple[int, int]:
        """(part, number of the part's face) of the sample at a position of the run."""
        turn, within = divmod(position, self.TURN)
        own_turn, part = divmod(turn, self.parts)
        return part, own_turn * self.TURN + within

    def rows(self, part: int, number: int) -> Iterator[tuple[int, int, Mapping[str, Any]]]:
        """(epoch, index in the epoch, undecoded row) from a part's face ``number`` on, without end.

        It replays exactly, but reads the part's epoch from its start.
        """
        first, start = divmod(number, self.share)
        for epoch in count(first):
            for index, row in islice(enumerate(self._epoch(part, epoch)), start, None):
                yield epoch, part * self.share + index, row
            start = 0

    def _epoch(self, part: int, epoch: int) -> Iterator[Mapping[str, Any]]:
        """One epoch of a part, which is read again if it has fewer faces than others."""
        files, found = self.in_order.shard(self.parts, part, contiguous=True), 0
        for again in count():
            dataset = files.shuffle(seed=self.seed + part, buffer_size=self.buffer_size)
            dataset.set_epoch(epoch + (again << 32))
            # .iter, because plain iteration deals a stream's shards out to the loader's workers by itself
            for batch in islice(dataset.iter(batch_size=1), self.share - found):
                yield {column: values[0] for column, values in batch.items()}
                found += 1
            if found == self.share:
                return
            if self.parts == 1 or 2 * found < self.share:
                raise ImageError(
                    f"the stream ended after {found} faces, but num_faces is {self.num_faces}"
                    + (f" in {self.parts} parts" if self.parts > 1 else "")
                )

    def count_rows(self, part: int) -> int:
        """The number of rows that a part holds; it is read once, and no row is decoded."""
        tables = self.in_order.shard(self.parts, part, contiguous=True).with_format("arrow").iter(batch_size=1000)
        return sum(len(table) for table in tables)

    def rows_in_order(self, part: int) -> Iterator[Mapping[str, Any]]:
        """The undecoded rows of a part as they are stored; the parts one after another make the whole stream."""
        for batch in self.in_order.shard(self.parts, part, contiguous=True).iter(batch_size=1):
            yield {column: values[0] for column, values in batch.items()}

    def face(self, row: Mapping[str, Any], key: str) -> Face:
        """The face of an undecoded row; ``key`` names it. ImageError where the row does not hold one."""
        return row_to_face(row, self.image_column, self.landmarks_column, self.size, key)


def row_to_face(row: Mapping[str, Any], image_column: str, landmarks_column: str | None, size: int, key: str) -> Face:
    """Decode one row of a Hugging Face data set whose image column was left undecoded."""
    for column in filter(None, (image_column, landmarks_column)):
        if column not in row:
            raise ImageError(f"{key}: the data set has no column {column!r}, only {', '.join(row)}")
    data = row[image_column]
    if not data or not data.get("bytes"):  # a path alone would be a file of this machine, whatever it is
        raise ImageError(
            f"{key}: does not hold the bytes of a picture; use a source 'folder' for pictures beside a data set"
        )
    picture = decode_image(data["bytes"], key)
    points = row[landmarks_column] if landmarks_column else None
    try:
        return fit_face(picture, None if points is None else parse_points(points), size, key, key)
    except (ValueError, TypeError) as error:
        raise ImageError(f"{key}: the column {landmarks_column!r} holds no landmarks ({error})") from error


def _undecoded(dataset: Any, image_column: str) -> Any:
    """Keep the files' own bytes: one decoder of ours serves all sources, and a skipped row costs nothing."""
    import datasets

    columns = dataset.column_names
    if columns is not None and image_column not in columns:
        raise ImageError(f"the data set has no column {image_column!r}, only {', '.join(columns)}")
    kind = (dataset.features or {}).get(image_column)
    if isinstance(kind, datasets.Value) and not kind.dtype.endswith(("string", "binary")):
        raise ImageError(f"the column {image_column!r} holds {kind.dtype}, not pictures")
    return dataset.cast_column(image_column, datasets.Image(decode=False))
