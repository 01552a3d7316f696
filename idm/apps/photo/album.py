"""The faces of an album: photographs that are read but not restored, and faces that are already aligned."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from idm.faces.align import align_face, apply_matrix, scale_of
from idm.faces.detect import Detector, choose_faces
from idm.faces.template import ffhq_landmarks
from idm.faces.turns import detect_faces
from idm.io.images import ImageError, ImageLimits, image_error, read_image, resize_image
from idm.io.photos import read_photo
from idm.io.ranges import from_uint8

PHOTO_LIMITS = ImageLimits()


@dataclass(frozen=True, eq=False)
class AlbumFace:
    """An aligned face of a photograph.

    Attributes:
        source: the photograph.
        image: RGB in [0, 1].
        landmarks: its five (x, y) in pixels of ``image``.
        side: of the aligned square, in pixels of the photograph; below ``len(image)`` the face was enlarged.
    """

    source: Path
    image: Float32[np.ndarray, "s s 3"]
    landmarks: Float[np.ndarray, "5 2"]
    side: float


def detect_and_align(
    paths: Sequence[Path],
    detector: Detector,
    size: int,
    min_face: float,
    unreadable: dict[Path, str],
    limits: ImageLimits = PHOTO_LIMITS,
) -> Iterator[list[AlbumFace]]:
    """The plausible faces of each photograph, aligned to ``size`` pixels, the largest first.

    Args:
        min_face: faces whose box is smaller than this many pixels are left out.
        unreadable: receives the photographs that cannot be read, with the reason; they do not affect the others.
        limits: of a photograph.
    """
    for path in paths:
        try:
            pixels = read_photo(path, limits.max_pixels, limits.max_bytes).pixels
        except ImageError as error:
            unreadable[path] = str(error)
            continue
        found = detect_faces(detector, pixels, "auto")
        faces = []
        for number in choose_faces(found, min_face):
            image, to_crop = align_face(pixels, found[number].landmarks, size)
            landmarks = apply_matrix(to_crop, found[number].landmarks)
            faces.append(AlbumFace(path, image, landmarks, size / scale_of(to_crop)))
        yield faces


def read_aligned(paths: Sequence[Path], size: int, unreadable: dict[Path, str]) -> Iterator[list[AlbumFace]]:
    """The faces of files that each hold one aligned, square face, resized to ``size`` pixels.

    Args:
        unreadable: receives the files that cannot be used, with the reason; they do not affect the others.
    """
    for path in paths:
        try:
            rgb = read_image(path).rgb
            if rgb.shape[0] != rgb.shape[1]:
                problem = f"is {rgb.shape[1]}x{rgb.shape[0]}; an aligned face is square"
                raise image_error(path, problem, "leave out --aligned for whole photographs")
        except ImageError as error:
            unreadable[path] = str(error)
            continue
        image = from_uint8(resize_image(rgb, (size, size)))
        yield [AlbumFace(path, image, ffhq_landmarks(size), float(len(rgb)))]
