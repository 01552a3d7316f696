"""Photographs to try the page with: drawn by code, or in the public domain and shipped with scikit-image."""

from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32

from idm.data.synthetic import synthetic_face
from idm.degradation.operations import add_gaussian_noise, jpeg, resize, to_grey
from idm.io.image_writer import write_image
from idm.io.ranges import from_uint8, to_uint8

RGB = Float32[np.ndarray, "h w 3"]

_PEOPLE = (3, 11, 17)  # numbers of drawn faces that differ well


def write_examples(folder: Path) -> list[Path]:
    """Write three degraded photographs: a small one, an old grey one, and a drawn group.

    The first two are scikit-image's astronaut (Eileen Collins; NASA, public domain).
    """
    from skimage.data import astronaut

    rng = np.random.default_rng(0)
    portrait = cv2.resize(from_uint8(astronaut()[:384, 64:448]), (288, 288), interpolation=cv2.INTER_AREA)
    small = jpeg(add_gaussian_noise(_lose_detail(portrait, 4.0), 6.0, rng), 60)
    grey = add_gaussian_noise(to_grey(_lose_detail(portrait, 3.0)), 16.0, rng)
    group = jpeg(add_gaussian_noise(_lose_detail(_group(), 3.0), 5.0, rng), 70)
    paths = []
    for name, image in (("astronaut", small), ("old_print", grey), ("drawn_group", group)):
        paths.append(folder / f"{name}.png")
        write_image(paths[-1], to_uint8(image))
    return paths


def _lose_detail(image: RGB, factor: float) -> RGB:
    height, width = image.shape[:2]
    size = (round(width / factor), round(height / factor))
    return resize(cv2.resize(image, size, interpolation=cv2.INTER_AREA), height, width, "bicubic")


def _group() -> RGB:
    people = [from_uint8(synthetic_face(7, number, 126).image) for number in _PEOPLE]
    return np.concatenate(people, axis=1)
