"""The rows of a streamed source by index, read part by part.

The index of a part's first row follows from the sizes of the parts before it. The processes of a job therefore count
the parts first, each its own, and keep the sizes in the job's folder. A process then reads only the parts of its own
faces, and the parts have no influence on the result.
"""

import time
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from idm.data.huggingface import StreamedFaces
from idm.extrinsic.shards import POLL_SECONDS, CleanError
from idm.io.atomic import CheckpointError, read_json, write_json


def count_parts(source: StreamedFaces, folder: Path, rank: int, world: int) -> list[int]:
    """The number of faces in each part of a stream.

    This process counts the parts ``rank``, ``rank + world``, ... that have no file in ``folder`` yet, and waits for the
    others. A stream of one part is not counted: its faces are the first ``num_faces``.

    Raises:
        CleanError: all parts together have fewer than ``num_faces`` faces.
    """
    if source.parts == 1:
        return [source.num_faces]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"part-{part:05d}-of-{source.parts:05d}.json" for part in range(source.parts)]
    for part in range(rank, source.parts, world):
        if _read_size(paths[part]) is None:
            write_json(paths[part], source.count_rows(part))
    while len(sizes := [size for path in paths if (size := _read_size(path)) is not None]) < source.parts:
        time.sleep(POLL_SECONDS)
    if sum(sizes) < source.num_faces:
        raise CleanError(f"the stream has {sum(sizes)} faces, but num_faces is {source.num_faces}")
    return sizes


def _read_size(path: Path) -> int | None:
    try:
        size = read_json(path)
    except (CheckpointError, OSError):
        return None
    return size if isinstance(size, int) else None


class StreamedRows:
    """The undecoded rows of a stream, to be asked for by rising index.

    Args:
        sizes: of the stream's parts, see :func:`count_parts`.
    """

    def __init__(self, source: StreamedFaces, sizes: Sequence[int]) -> None:
        self.source, self.ends = source, list(accumulate(sizes))
        self.part: int | None = None
        self.rows: Iterator[tuple[int, Mapping[str, Any]]] = iter(())

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        part = bisect_right(self.ends, index)
        if part != self.part:
            self.part = part
            self.rows = enumerate(self.source.rows_in_order(part), self.ends[part - 1] if part else 0)
        for number, row in self.rows:
            if number == index:
                self._require_end(part, index)
                return row
        raise CleanError(f"the stream ended before face {index}, but num_faces is {self.source.num_faces}")

    def _require_end(self, part: int, index: int) -> None:
        """Reject a part that has grown since it was counted."""
        if self.source.parts > 1 and index + 1 == self.ends[part] and next(self.rows, None) is not None:
            raise CleanError(
                f"part {part} of the stream has more faces than when it was counted; restore the source, or choose "
                "another output folder"
            )
