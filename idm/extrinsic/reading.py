"""Faces of a source, each with a hash of its file or row."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from idm.data.cache import Cached
from idm.data.huggingface import HuggingFaceFaces, StreamedFaces
from idm.data.sources import Face, FaceSource, FolderFaces, Part, SyntheticFaces
from idm.extrinsic.stream import StreamedRows
from idm.faces.recognition import IDENTITY_LANDMARKS
from idm.faces.template import umeyama
from idm.io.images import ImageError, image_error


class ReadFace(NamedTuple):
    """A face, or the reason why there is none; ``digest`` is a hash of its bytes, name and landmarks."""

    digest: str
    face: Face | ImageError


def build_reader(
    source: FaceSource | StreamedFaces, sizes: Sequence[int], must_be_alignable: bool
) -> Callable[[int], ReadFace]:
    """Build the function that reads a face by its index, which must rise from call to call.

    Args:
        sizes: of the parts, if the source is a stream.
        must_be_alignable: whether a face that cannot be aligned for the identity counts as unreadable.
    """
    rows = StreamedRows(source, sizes) if isinstance(source, StreamedFaces) else None

    def read(index: int) -> ReadFace:
        get: Callable[[str], Face]
        if isinstance(source, StreamedFaces):
            assert rows is not None
            row = rows[index]
            found, get = _row_digest(row, source.image_column, source.landmarks_column), partial(source.face, row)
        else:
            found, get = face_digest(source, index), lambda name: source[index]
        try:
            face = get(f"{index:08d}")
            if must_be_alignable:
                _require_alignable(face)
        except ImageError as error:
            return ReadFace(found, error)
        return ReadFace(found, face)

    return read


def _require_alignable(face: Face) -> None:
    if face.landmarks is not None:
        try:
            umeyama(face.landmarks, IDENTITY_LANDMARKS)
        except ValueError as error:
            raise image_error(face.key, str(error), "repair or remove its landmarks") from error


def face_digests(source: FaceSource | StreamedFaces, sizes: Sequence[int], indices: Iterable[int]) -> Iterator[str]:
    """Yield the digests of rising indices, without decoding a picture; ``sizes`` are as in :func:`build_reader`."""
    if isinstance(source, StreamedFaces):
        rows = StreamedRows(source, sizes)
        for index in indices:
            yield _row_digest(rows[index], source.image_column, source.landmarks_column)
    else:
        for index in indices:
            yield face_digest(source, index)


def face_digest(source: FaceSource, index: int) -> str:
    """A hash of the file or row of face ``index``, or of the face itself if its origin is not known."""
    match source:
        case Cached():
            return face_digest(source.source, index)
        case Part():
            return face_digest(source.source, source.indices[index])
        case FolderFaces():
            path = source.paths[index]
            key = path.relative_to(source.folder).as_posix()
            try:
                content = path.read_bytes()
            except OSError as error:
                content = str(error.strerror).encode()
            return _hash(content, key, source.landmarks.get(key))
        case HuggingFaceFaces():
            row = source.dataset[index]
            return _row_digest(row, source.image_column, source.landmarks_column, source.id_column)
        case SyntheticFaces():
            return _hash(b"", f"{source.seed}/{index}/{source.size}", None)
        case _:
            try:
                face = source[index]
            except ImageError as error:
                return _hash(b"", str(error), None)
            return _hash(np.ascontiguousarray(face.image).tobytes(), face.key, face.landmarks)


def _row_digest(row: Mapping[str, Any], image: str, landmarks: str | None, name: str | None = None) -> str:
    data = row.get(image) or {}
    points = None if landmarks is None else row.get(landmarks)
    return _hash(data.get("bytes") or b"", str(row.get(name)) if name else "", points)


def _hash(content: bytes, key: str, landmarks: Any) -> str:
    digest = hashlib.sha256(content)
    digest.update(key.encode("utf-8", "surrogateescape") + b"\0")
    digest.update(_landmark_bytes(landmarks))
    return digest.hexdigest()


def _landmark_bytes(landmarks: Any) -> bytes:
    """The bytes of landmarks, or of what a column holds instead, which reading the face reports."""
    try:
        return b"" if landmarks is None else np.asarray(landmarks, np.float32).tobytes()
    except (ValueError, TypeError):
        return repr(landmarks).encode("utf-8", "backslashreplace")
