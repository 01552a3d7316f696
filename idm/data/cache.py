"""Faces that stay in memory after they were read once."""

import mmap
import multiprocessing
import pickle

import numpy as np

from idm.data.sources import Face, FaceSource


class Cached:
    """Another source's faces, kept in memory after they were read once.

    Args:
        size: side of the faces. If it is given, the workers of a data loader share one memory, see
            :class:`SharedFaces`; else each process keeps its own.

    Raises:
        OSError: there is not enough memory to share.
    """

    def __init__(self, source: FaceSource, size: int | None = None) -> None:
        self.source = source
        self.faces: dict[int, Face] | SharedFaces = {} if size is None else SharedFaces(len(source), size)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Face:
        face = self.faces.get(index)
        if face is None:
            face = self.source[index]
            self.faces[index] = face
        return face


class SharedFaces:
    """A mapping from numbers to faces, in memory that is shared with processes forked later. Unset faces take no
    memory. A face of another size, or with a very long name, is not kept. A process that is not forked has its own
    memory, empty at first.

    Args:
        number: of faces.
        size: their side in pixels.
    """

    RECORD_BYTES = 2048  # bytes for all of a face but its pixels

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size = number, size
        self.memory = mmap.mmap(-1, max(1, number * (3 * size**2 + self.RECORD_BYTES)))
        whole = np.frombuffer(self.memory, np.uint8)[: number * (3 * size**2 + self.RECORD_BYTES)]
        pixels, records = np.split(whole, [number * 3 * size**2])
        self.pixels, self.records = pixels.reshape(number, size, size, 3), records.reshape(number, self.RECORD_BYTES)
        self.lock = multiprocessing.Lock()  # a process that sees a face sees all of it

    def __reduce__(self) -> tuple[type["SharedFaces"], tuple[int, int]]:
        return SharedFaces, (self.number, self.size)

    def get(self, index: int) -> Face | None:
        """The face, whose pixels cannot be changed; None if it was not set."""
        with self.lock:
            length = int(self.records[index, :4].view(np.uint32)[0])
        if length == 0:
            return None
        landmarks, key, points = pickle.loads(self.records[index, 4 : 4 + length].tobytes())
        image = self.pixels[index]
        image.flags.writeable = False
        return Face(image, landmarks, key, points)

    def __setitem__(self, index: int, face: Face) -> None:
        record = pickle.dumps((face.landmarks, face.key, face.points))
        if (
            face.image.shape != self.pixels[index].shape
            or face.original is not None
            or len(record) > self.RECORD_BYTES - 4
        ):
            return
        self.pixels[index] = face.image
        self.records[index, 4 : 4 + len(record)] = np.frombuffer(record, np.uint8)
        with self.lock:
            self.records[index, :4].view(np.uint32)[0] = len(record)
