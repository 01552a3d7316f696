"""P_X, the sources of faces. Every source provides square RGB faces of one size, by index."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from idm.data.synthetic import check_size, synthetic_face
from idm.faces.template import five_of_68
from idm.io.errors import InvalidInput
from idm.io.find import find_images
from idm.io.images import ImageError, Picture, read_image, resize_image

Landmarks = Float32[np.ndarray, "5 2"]
Points68 = Float32[np.ndarray, "68 2"]


@dataclass(frozen=True)
class Face:
    """An aligned face.

    Attributes:
        image: RGB, square.
        landmarks: (x, y) of left eye, right eye, nose, left and right mouth corner as seen in the image, in
            pixels with pixel centres at integers; None if unknown.
        key: a name that is unique in its source.
        points: the 68 points of iBUG that determine ``landmarks``, if the source has them.
        original: the image whose degradation is the condition x_d, if it is not ``image``, the target.
    """

    image: UInt8[np.ndarray, "s s 3"]
    landmarks: Landmarks | None
    key: str
    points: Points68 | None = None
    original: UInt8[np.ndarray, "s s 3"] | None = None


@runtime_checkable
class FaceSource(Protocol):
    """Faces by index; reading one twice gives the same face."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Face: ...


def assets_folder() -> Path:
    """The folder named by the environment variable IDM_ASSETS.

    Raises:
        InvalidInput: it is not set.
    """
    named = os.environ.get("IDM_ASSETS")
    if not named:
        raise InvalidInput(
            "data.source.name=assets: the environment variable IDM_ASSETS is not set; it names a folder with "
            "faces256/train, faces256/val and faces256/test (aligned faces and metadata.jsonl)"
        )
    return Path(named)


class SyntheticFaces:
    """Procedural faces ``0 .. num_faces - 1`` of a seed.

    Raises:
        ValueError: a size outside 16 to 1024 pixels.
    """

    def __init__(self, num_faces: int, seed: int, size: int) -> None:
        check_size(size)
        self.num_faces, self.seed, self.size = num_faces, seed, size

    def __len__(self) -> int:
        return self.num_faces

    def __getitem__(self, index: int) -> Face:
        face = synthetic_face(self.seed, index, self.size)
        return Face(face.image, face.landmarks, f"synthetic_{self.seed}_{index:06d}")


class FolderFaces:
    """The images of a folder and its subfolders, sorted by path.

    ``metadata.jsonl`` beside them, one object a line with ``file_name`` and ``landmarks`` (5 or 68 points in pixels of
    the file), ``group`` and ``source``, is optional. It may be replaced by FFHQ's own ``ffhq-dataset-v2.json``, whose
    68 points are those of the 1024 px face of the same number, also if the files are smaller.

    Raises:
        ImageError: if the folder holds no image or its landmarks cannot be read; on access, for a file that is not a
            square image.
    """

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size = folder, size
        self.paths = find_images([folder])
        self.landmarks, self.groups, self.origins = _read_metadata(folder / "metadata.jsonl")
        self.ffhq_points = {} if self.landmarks else _read_ffhq(folder / "ffhq-dataset-v2.json")

    @property
    def has_landmarks(self) -> bool:
        """Whether any face has one."""
        return bool(self.landmarks or self.ffhq_points)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Face:
        path = self.paths[index]
        key = path.relative_to(self.folder).as_posix()
        picture = read_image(path)
        points = self.landmarks.get(key)
        if path.stem in self.ffhq_points:
            points = _scaled(self.ffhq_points[path.stem], picture.rgb.shape[1] / FFHQ_SIDE)
        return fit_face(picture, points, self.size, str(path), key)


class Part:
    """Some of another source's faces."""

    def __init__(self, source: FaceSource, indices: Sequence[int]) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Face:
        return self.source[self.indices[index]]


def balanced(source: FaceSource, folder: FolderFaces, most: int = 3) -> Part:
    """The faces of a folder, read from ``source``. A face of a smaller group appears round(sqrt(largest / own size))
    times, at most ``most``.

    Faces without a group form one of their own.
    """
    groups = [folder.groups.get(path.relative_to(folder.folder).as_posix()) for path in folder.paths]
    sizes = Counter(groups)
    times = {group: min(most, round((max(sizes.values()) / size) ** 0.5)) for group, size in sizes.items()}
    return Part(source, [index for index, group in enumerate(groups) for _ in range(times[group])])


class OnOriginals:
    """Cleaned faces as targets, and their originals as the faces to degrade: (D(x), x*) instead of (D(x*), x*).

    Args:
        cleaned, originals: the same faces in the same order.
    """

    def __init__(self, cleaned: FaceSource, originals: FaceSource) -> None:
        if len(cleaned) != len(originals):
            raise InvalidInput(f"{len(cleaned)} cleaned faces, but {len(originals)} originals")
        self.cleaned, self.originals = cleaned, originals

    def __len__(self) -> int:
        return len(self.cleaned)

    def __getitem__(self, index: int) -> Face:
        return replace(self.cleaned[index], original=self.originals[index].image)


def fit_face(picture: Picture, landmarks: Landmarks | Points68 | None, size: int, name: str, key: str) -> Face:
    """Resize an aligned face to the training size, with its landmarks.

    Args:
        name: the file, for errors.

    Raises:
        ImageError: the picture is not square.
    """
    height, width = picture.rgb.shape[:2]
    if height != width:
        raise ImageError(f"{name}: is {width}x{height}; an aligned face is square: align and crop it first")
    image = resize_image(picture.rgb, (size, size))
    if landmarks is None:
        return Face(image, None, key)
    landmarks = _scaled(landmarks, size / width)
    return Face(image, landmarks, key) if len(landmarks) == 5 else Face(image, five_of_68(landmarks), key, landmarks)


def _scaled(points: Landmarks | Points68, factor: float) -> Landmarks | Points68:
    """Scale points like the resized image."""
    return ((points + 0.5) * factor - 0.5).astype(np.float32)


def parse_points(values: Any) -> Landmarks | Points68:
    """5 or 68 points (x, y), from pairs of numbers or from one list of them.

    Raises:
        ValueError, TypeError: other values.
    """
    points = np.asarray(values, np.float32)
    if points.shape in ((10,), (136,)):
        points = points.reshape(-1, 2)
    if points.shape not in ((5, 2), (68, 2)):
        raise InvalidInput(f"expected 5 or 68 points (x, y), got numbers of shape {points.shape}")
    return points


def _read_metadata(path: Path) -> tuple[dict[str, Landmarks | Points68], dict[str, str], dict[str, str]]:
    """Landmarks, groups and sources by file name, of those rows that have them."""
    landmarks: dict[str, Landmarks | Points68] = {}
    groups: dict[str, str] = {}
    origins: dict[str, str] = {}
    if not path.exists():
        return landmarks, groups, origins
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            if "landmarks" in row:
                landmarks[row["file_name"]] = parse_points(row["landmarks"])
            if row.get("group") is not None:
                groups[row["file_name"]] = str(row["group"])
            if row.get("source") is not None:
                origins[row["file_name"]] = str(row["source"])
        except (ValueError, KeyError, TypeError) as error:
            reason = f"is not a JSON object with file_name and landmarks ({error})"
            raise ImageError(f"{path}: line {number} {reason}") from error
    return landmarks, groups, origins


FFHQ_SIDE = 1024  # of the faces to which the landmarks of its file belong


def _read_ffhq(path: Path) -> dict[str, Points68]:
    """The landmarks of FFHQ's own file by the numbers of the faces, five digits; none without the file."""
    if not path.exists():
        return {}
    try:
        rows = json.loads(path.read_text())
        return {f"{int(number):05d}": parse_points(row["image"]["face_landmarks"]) for number, row in rows.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ImageError(f"{path}: is not FFHQ's file of landmarks ({error})") from error
