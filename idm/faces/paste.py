"""Paste restored faces into their photograph: exact pixel centres, soft weights, other pixels unchanged."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Integer

from idm.faces.align import Matrix, apply_matrix, invert, to_unit, warp

_TILE = 512  # pixels per side of what is composed at once

# The weight falls from 1 to 0 between these radii, in half sides of the crop (our choice): inside lies the
# whole face with its chin, and the crop's last pixels, where networks pad, are never used.
_INNER, _OUTER = 0.75, 0.97


@dataclass(frozen=True, eq=False)
class Patch:
    """One face to paste. ``value`` is the restored crop in [0, 1] or, if ``is_change``, the change to add to the
    picture; ``to_crop`` maps pixel indices of the picture to those of the crop. ``kept`` is the share of the picture
    that stays at each pixel of the crop; None is 0.
    """

    value: Float32[np.ndarray, "s s 3"]
    to_crop: Matrix
    is_change: bool = False
    kept: Float32[np.ndarray, "s s"] | None = None


def blend_weights(points: Float[np.ndarray, "h w 2"], size: int) -> Float32[np.ndarray, "h w"]:
    """Return the weight of a crop of ``size`` pixels at its points (x, y): 1 on the face, 0 at the border and beyond.

    A smoothstep of the radius of a superellipse of fourth degree, which is a square with round corners.
    """
    u = (2 * points + 1) / size - 1
    radius = np.sqrt(np.sqrt(np.square(u * u).sum(axis=-1)))
    t = np.clip((_OUTER - radius) / (_OUTER - _INNER), 0, 1)
    return (t * t * (3 - 2 * t)).astype(np.float32)


def crop_weights(size: int) -> Float32[np.ndarray, "s s"]:
    """:func:`blend_weights` at the pixels of the crop itself."""
    indices = np.arange(size, dtype=np.float64)
    return blend_weights(np.stack(np.meshgrid(indices, indices), axis=-1), size)


def paste_faces(picture: Integer[np.ndarray, "h w 3"], patches: Sequence[Patch]) -> None:
    """Blend restored faces into a uint8 or uint16 picture, in place.

    Pixels in which no face has weight keep their exact levels. Where faces overlap, each counts by the square of
    its weight over the weights' sum, so that the order does not matter. Works in tiles: the memory needed does
    not grow with the picture.
    """
    height, width = picture.shape[:2]
    corners = [corners_of(patch.to_crop, len(patch.value)) for patch in patches]
    for top, left in _tiles(corners, height, width):
        tile = picture[top : top + _TILE, left : left + _TILE]
        low, high = np.array([left, top]), np.array([left + _TILE, top + _TILE])
        near = [p for p, (a, b) in zip(patches, corners, strict=True) if (a < high).all() and (b >= low).all()]
        _paste_into_tile(tile, low, near)


def corners_of(to_crop: Matrix, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and largest (x, y) of the picture that a crop of ``size`` pixels per side reaches."""
    last = size - 0.5
    square = np.array([(-0.5, -0.5), (last, -0.5), (-0.5, last), (last, last)])
    points = apply_matrix(invert(to_crop), square)
    return points.min(axis=0), points.max(axis=0)


def _tiles(corners: Sequence[tuple[np.ndarray, np.ndarray]], height: int, width: int) -> Iterator[tuple[int, int]]:
    """Top and left of every tile that a face may reach, each once."""
    found = set()
    for low, high in corners:
        first = np.maximum(np.floor(low), 0).astype(int) // _TILE
        last = np.minimum(np.ceil(high), (width - 1, height - 1)).astype(int) // _TILE
        found |= {(y, x) for y in range(first[1], last[1] + 1) for x in range(first[0], last[0] + 1)}
    for y, x in sorted(found):
        yield y * _TILE, x * _TILE


def _paste_into_tile(tile: Integer[np.ndarray, "h w 3"], origin: np.ndarray, patches: Sequence[Patch]) -> None:
    height, width = tile.shape[:2]
    xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1) + origin
    weights = [blend_weights(apply_matrix(patch.to_crop, xy), len(patch.value)) for patch in patches]
    total = np.sum(weights, axis=0)
    touched = total > 0
    if not touched.any():
        return
    base = to_unit(tile)
    change = np.zeros_like(base)
    for patch, weight in zip(patches, weights, strict=True):
        to_tile = invert(patch.to_crop)
        to_tile[:, 2] -= origin
        value = warp(patch.value, to_tile, (height, width), "bicubic")
        share = np.divide(weight**2, total, out=np.zeros_like(total), where=touched)
        if patch.kept is not None:
            share *= 1 - warp(patch.kept[..., None], to_tile, (height, width))[..., 0]
        change += share[..., None] * (value if patch.is_change else value.clip(0, 1) - base)
    levels = np.rint((base + change).clip(0, 1) * np.iinfo(tile.dtype).max)
    tile[touched] = levels[touched].astype(tile.dtype)
