"""Procedural portraits with exact landmarks: for a first training run, for tests and for demonstrations.

No photograph and no network is involved: a face is a function of (seed, index), at any resolution.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from idm.data.portrait.canvas import Canvas, length
from idm.data.portrait.features import paint_brow, paint_eye, paint_glasses, paint_mouth, paint_nose
from idm.data.portrait.hair import haircut, paint_beard, paint_hair, paint_hair_behind, paint_scarf
from idm.data.portrait.head import head_outline, paint_ears, paint_head, paint_marks
from idm.data.portrait.person import draw_traits
from idm.data.portrait.scene import paint_backdrop, paint_body
from idm.data.portrait.traits import Frame, Traits

MIN_SIZE, MAX_SIZE = 16, 1024
_DOMAIN = 0x5FACE  # keeps these random numbers apart from others that are drawn from the same seed
_PARTS = (
    *("backdrop", "behind", "body", "head", "marks", "mouth", "beard", "hair"),
    *("eye -1", "eye 1", "brow -1", "brow 1"),
)


@dataclass(frozen=True)
class SyntheticFace:
    """A portrait and where its features are.

    ``image``: RGB, 0 to 255. ``landmarks``: (x, y) of left eye, right eye, nose tip, left and right mouth
    corner as seen in the picture, in pixels with pixel centres at integers; exact, and aligned as FFHQ is.
    """

    image: UInt8[np.ndarray, "size size 3"]
    landmarks: Float32[np.ndarray, "5 2"]


def synthetic_face(seed: int, index: int, size: int) -> SyntheticFace:
    """Face number `index` of the endless set `seed`, as a square picture of `size` pixels.

    The same (seed, index) is the same face at every size: landmarks scale as (x + 0.5) * s - 0.5. The result
    depends on the arguments only, not on earlier calls or any global generator.

    Raises ValueError for a size outside 16 to 1024 and for a negative seed or index.
    """
    if not MIN_SIZE <= size <= MAX_SIZE:
        raise ValueError(f"size must be from {MIN_SIZE} to {MAX_SIZE} pixels, got {size}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    who, *parts = np.random.SeedSequence([_DOMAIN, seed, index]).spawn(1 + len(_PARTS))
    traits = draw_traits(np.random.default_rng(who))
    # Small pictures are painted larger and averaged, as a camera does; large ones have thin enough edges.
    times = 1 if size >= 512 else max(2, -(-128 // size))
    canvas = _blank_canvas(traits.frame, size * times)
    _paint(canvas, traits, {name: np.random.default_rng(s) for name, s in zip(_PARTS, parts, strict=True)})
    picture = np.ascontiguousarray(np.moveaxis(canvas.rgb, 0, 2))
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    warm = 0.04 * traits.light.warmth
    picture *= np.array([1 + warm, 1, 1 - warm], np.float32)
    image = np.rint(np.clip(picture, 0, 1) * 255).astype(np.uint8)
    return SyntheticFace(image, _landmarks(traits.frame, size))


def _landmarks(frame: Frame, size: int) -> Float32[np.ndarray, "5 2"]:
    from_border = np.array(frame.landmarks) @ frame.pose[:, :2].T + frame.pose[:, 2]
    return (from_border * (size / 512) - 0.5).astype(np.float32)


def _blank_canvas(frame: Frame, size: int) -> Canvas:
    scale = size / 512
    to_pixel = frame.pose * scale - [[0, 0, 0.5], [0, 0, 0.5]]
    turn = np.linalg.inv(to_pixel[:, :2])
    back = np.column_stack([turn, -turn @ to_pixel[:, 2]]).tolist()
    row, col = np.mgrid[0:size, 0:size].astype(np.float32)
    x, y = (a * col + b * row + c for a, b, c in back)
    px = float(np.sqrt(np.linalg.det(turn)))
    return Canvas(np.zeros((3, size, size), np.float32), x, y, length(x, y), np.arctan2(x, -y), px, to_pixel)


def _paint(canvas: Canvas, traits: Traits, rng: dict[str, np.random.Generator]) -> None:
    """All layers from back to front; each has a generator of its own, so that none disturbs another."""
    border = head_outline(traits.skull, traits.frame.yaw)
    cut = haircut(traits)
    paint_backdrop(canvas, traits.scene, rng["backdrop"])
    paint_hair_behind(canvas, cut, traits, rng["behind"].uniform())
    paint_body(canvas, traits, border, rng["body"])
    paint_ears(canvas, traits)
    paint_head(canvas, traits, border, rng["head"].uniform())
    paint_marks(canvas, traits, border, rng["marks"])
    paint_nose(canvas, traits)
    for side in (-1, 1):
        paint_eye(canvas, traits, side, rng[f"eye {side}"])
        paint_brow(canvas, traits, side, rng[f"brow {side}"])
    paint_mouth(canvas, traits, rng["mouth"].uniform())
    paint_beard(canvas, traits, border, rng["beard"].uniform())
    if cut is None or not cut.behind:
        paint_hair(canvas, cut, traits, border, rng["hair"])
        paint_glasses(canvas, traits)
        return
    paint_glasses(canvas, traits)  # long hair and scarves hide the arms of the glasses
    if traits.hair.style == "scarf":
        paint_scarf(canvas, cut, traits, border, rng["hair"].uniform())
    else:
        paint_hair(canvas, cut, traits, border, rng["hair"])
