"""Procedural portraits with exact landmarks, for a first training run, for tests and for demonstrations.

No photograph and no network is involved: a face is a function of (seed, index), at any resolution.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from idm.data.synthetic_canvas import Canvas
from idm.data.synthetic_hair import haircut, paint_beard, paint_hair, paint_hair_behind, paint_scarf
from idm.data.synthetic_head import head_outline, head_skin, paint_backdrop, paint_body, polar
from idm.data.synthetic_parts import (
    paint_brow,
    paint_ears,
    paint_eye,
    paint_glasses,
    paint_marks,
    paint_mouth,
    paint_nose,
)
from idm.data.synthetic_traits import Frame, Traits, draw_traits

DOMAIN = 0x1D3FACE  # keeps these random numbers apart from all others drawn from the same seed
MIN_SIZE, MAX_SIZE = 16, 1024
SKIN_SIZE = 192  # the skin is smooth: it is lit at this size and enlarged


@dataclass(frozen=True)
class SyntheticFace:
    image: UInt8[np.ndarray, "h w 3"]
    landmarks: Float32[np.ndarray, "5 2"]


def synthetic_face(seed: int, index: int, size: int) -> SyntheticFace:
    root = np.random.SeedSequence([DOMAIN, seed, index])
    traits_seed, *part_seeds = root.spawn(12)
    traits = draw_traits(np.random.default_rng(traits_seed))
    canvas = _blank(traits.frame, _painting_size(size))
    _paint(canvas, traits, [np.random.default_rng(s) for s in part_seeds])
    picture = np.ascontiguousarray(canvas.rgb.transpose(1, 2, 0))
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    image = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return SyntheticFace(image, landmarks(traits.frame, size))


def landmarks(frame: Frame, size: int) -> Float32[np.ndarray, "5 2"]:
    at_512 = np.array(frame.landmarks) @ frame.pose[:, :2].T + frame.pose[:, 2]
    return (at_512 * (size / 512) - 0.5).astype(np.float32)


def _painting_size(size: int) -> int:
    """Small pictures are painted larger and averaged, so that one pixel of them sees several of the canvas."""
    return size * max(1, min(8, round(256 / size))) if size < 256 else size


def _blank(frame: Frame, size: int) -> Canvas:
    scale = 512 / size
    to_pixel = frame.pose / scale
    to_pixel[:, 2] -= 0.5
    turn = np.linalg.inv(to_pixel[:, :2])
    back = np.column_stack([turn, -turn @ to_pixel[:, 2]])
    row, col = np.mgrid[0:size, 0:size].astype(np.float32)
    x, y = (np.float32(a) * col + np.float32(b) * row + np.float32(c) for a, b, c in back)
    px = scale / np.sqrt(np.linalg.det(frame.pose[:, :2]))
    return Canvas(np.zeros((3, size, size), np.float32), x, y, float(px), to_pixel)


def _paint(canvas: Canvas, traits: Traits, rngs: list[np.random.Generator]) -> None:
    """All layers from back to front."""
    border = head_outline(traits.skull, traits.frame.yaw)
    cut = haircut(traits)
    paint_backdrop(canvas, traits.scene, rngs[0])
    paint_hair_behind(canvas, cut, traits, rngs[1])
    paint_body(canvas, traits, border, rngs[2])
    paint_ears(canvas, traits)
    skin = head_skin(_blank(traits.frame, SKIN_SIZE), traits, border)
    radius, angle = polar(canvas)
    h, w = radius.shape
    large = np.stack([cv2.resize(p, (w, h), interpolation=cv2.INTER_CUBIC) for p in skin])
    canvas.paint(canvas.cover(radius - border.at(angle), 1.5), large)
    paint_marks(canvas, traits, border, rngs[3])
    paint_nose(canvas, traits)
    for side, rng in ((-1, rngs[4]), (1, rngs[5])):
        paint_eye(canvas, traits, side, rng)
    paint_mouth(canvas, traits, rngs[6])
    paint_beard(canvas, traits, border, rngs[7])
    for side, rng in ((-1, rngs[8]), (1, rngs[9])):
        paint_brow(canvas, traits, side, rng)
    if cut is not None and cut.behind:
        paint_glasses(canvas, traits)
    if traits.hair.style == "scarf" and cut is not None:
        paint_scarf(canvas, cut, traits, rngs[10])
    else:
        paint_hair(canvas, cut, traits, border, rngs[10])
    if cut is None or not cut.behind:
        paint_glasses(canvas, traits)
