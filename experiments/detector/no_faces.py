"""Pictures without faces from sources in every installation: scikit-image's pictures and procedural scenes.

Half of the pictures are views of scikit-image's pictures without people, at any rotation and 0.25 to 4 times as large,
with the degradations of faces. They are not held out: most of them were scenes in the training of the bundled weights.
The other half are procedural and new to the detector: textures of several scales, cells, stripes, shapes with spots,
gratings, and text. The coins among scikit-image's pictures show heads in relief. There are no typical photographs of
rooms, animals or crowds.
"""

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.random import Generator, default_rng
from skimage import data

from idm.degradation import PRESETS, degrade
from idm.faces.align import to_unit
from idm.io.ranges import to_uint8

SIZE = (480, 640)
PICTURES = (
    *("brick", "cat", "cell", "checkerboard", "clock", "coffee", "coins", "colorwheel", "grass", "gravel", "horse"),
    *("hubble_deep_field", "immunohistochemistry", "logo", "microaneurysms", "moon", "page", "retina", "rocket"),
    *("shepp_logan_phantom", "text"),
)

Pixels = np.ndarray


def pictures(number: int, seed: int) -> Iterator[tuple[str, Pixels]]:
    """Yield (kind, uint8 RGB picture), alternately a view of a picture and a procedural scene."""
    given = [_colour(getattr(data, name)()) for name in PICTURES]
    scenes = (_texture, _cells, _stripes, _spotted_shapes, _grating, _text)
    for index in range(number):
        rng = default_rng([seed, index])
        if index % 2 == 0:
            kind, picture = "scikit-image", _view(given[index // 2 % len(given)], rng)
        else:
            scene: Callable[[Generator], Pixels] = scenes[index // 2 % len(scenes)]
            kind, picture = scene.__name__.removeprefix("_"), scene(rng)
        if rng.random() < 0.5:
            recipe = PRESETS["mild" if rng.random() < 0.5 else "gfpgan"]
            picture = to_uint8(degrade(to_unit(picture), recipe, rng))
        yield kind, picture


def _colour(picture: Pixels) -> Pixels:
    """Convert a picture to uint8 RGB."""
    if picture.dtype != np.uint8:
        picture = (255 * picture.astype(np.float64) / picture.max()).astype(np.uint8)
    return np.repeat(picture[..., None], 3, axis=2) if picture.ndim == 2 else np.ascontiguousarray(picture[..., :3])


def _view(picture: Pixels, rng: Generator) -> Pixels:
    """Return part of a picture, at any rotation and between 1/4 and 4 times as large."""
    height, width = SIZE
    scale, angle = float(np.exp(rng.uniform(np.log(0.25), np.log(4)))), rng.uniform(0, 360)
    if scale < 1:  # area interpolation avoids aliasing
        picture, scale = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), 1.0
    x, y = rng.uniform(0, picture.shape[1]), rng.uniform(0, picture.shape[0])
    matrix = cv2.getRotationMatrix2D((x, y), angle, scale)
    matrix[:, 2] += (width / 2 - x, height / 2 - y)
    return cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


def _texture(rng: Generator) -> Pixels:
    """Noise of several octaves between two colours."""
    height, width = SIZE
    field = np.zeros(SIZE, np.float32)
    for octave in range(2, 8):
        coarse = rng.normal(size=(max(2, height >> octave), max(2, width >> octave))).astype(np.float32)
        field += float(2 ** (octave * rng.uniform(0.5, 1))) * cv2.resize(
            coarse, (width, height), interpolation=cv2.INTER_CUBIC
        )
    return _between(field, rng)


def _cells(rng: Generator) -> Pixels:
    """Voronoi cells with dark borders."""
    points = rng.uniform(0, 1, (rng.integers(20, 300), 2)) * SIZE[::-1]
    seeds = np.ones(SIZE, np.uint8)
    seeds[points[:, 1].astype(int), points[:, 0].astype(int)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    colours = rng.integers(0, 256, (labels.max() + 1, 3))
    shade = 1 - 0.7 * (distance / distance.max())[..., None]
    return (colours[labels] * shade).astype(np.uint8)


def _stripes(rng: Generator) -> Pixels:
    """Bent stripes, like wood or cloth."""
    ys, xs = np.mgrid[: SIZE[0], : SIZE[1]].astype(np.float32)
    bend = rng.uniform(5, 40) * np.sin(xs / rng.uniform(30, 150) + ys / rng.uniform(60, 300))
    return _between(np.sin((ys + bend) / rng.uniform(2, 20)), rng)


def _spotted_shapes(rng: Generator) -> Pixels:
    """Skin-coloured and other ellipses and boxes, each with dark and bright spots at random."""
    picture = np.full((*SIZE, 3), rng.integers(0, 256, 3), np.uint8)
    for _ in range(rng.integers(3, 12)):
        centre, axes = rng.integers(0, SIZE[::-1]), rng.integers(12, 140, 2)
        colour = (220, 170, 140) if rng.random() < 0.5 else rng.integers(0, 256, 3).tolist()
        cv2.ellipse(picture, centre.tolist(), axes.tolist(), rng.uniform(0, 360), 0, 360, colour, -1, cv2.LINE_AA)
        for _ in range(rng.integers(0, 9)):
            spot = (centre + rng.uniform(-0.7, 0.7, 2) * axes).astype(int)
            radius, level = int(max(1, axes.min() * rng.uniform(0.03, 0.2))), int(rng.choice((30, 240)))
            cv2.circle(picture, spot.tolist(), radius, (level,) * 3, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 4))


def _grating(rng: Generator) -> Pixels:
    """Windows, tiles or bricks: a grid of blocks of nearly one colour."""
    rows, columns = rng.integers(4, 24, 2)
    blocks = rng.normal(rng.uniform(60, 200, 3), rng.uniform(3, 40), (rows, columns, 3)).clip(0, 255).astype(np.uint8)
    picture = cv2.resize(blocks, SIZE[::-1], interpolation=cv2.INTER_NEAREST)
    for axis, number in ((0, rows), (1, columns)):
        at = (np.arange(number) * SIZE[axis] / number).astype(int)
        picture[at if axis == 0 else slice(None), slice(None) if axis == 0 else at] //= 3
    return picture


def _text(rng: Generator) -> Pixels:
    """Lines of random letters, in several sizes."""
    picture = np.full((*SIZE, 3), rng.integers(120, 256, 3), np.uint8)
    y = 0
    while y < SIZE[0]:
        scale = rng.uniform(0.4, 3)
        y += int(30 * scale)
        letters = "".join(rng.choice(list("abcdegmoqsuvwxABDOQ08&@%:.,"), 60))
        cv2.putText(
            picture,
            letters,
            (int(rng.uniform(-20, 20)), y),
            int(rng.integers(0, 8)),
            scale,
            (20, 20, 20),
            1 + int(scale),
            cv2.LINE_AA,
        )
    return picture


def _between(field: np.ndarray, rng: Generator) -> Pixels:
    """Map the values of a field to mixtures of two colours."""
    share = ((field - field.min()) / np.ptp(field))[..., None]
    low, high = rng.integers(0, 256, (2, 3))
    return (low + share * (high - low)).astype(np.uint8)
