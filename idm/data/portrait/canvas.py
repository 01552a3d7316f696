"""The canvas and the brushes that a synthetic face is painted with.

Face coordinates: x to the right, y down, origin between the nose and the eyes of an upright face, unit =
one pixel of a 512 px picture. A shape is a signed distance in these units, negative inside; `Canvas.cover`
turns it into an opacity with an edge one pixel wide, so that a face looks the same at every resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

Plane = Float32[np.ndarray, "h w"]
Numbers = Float[np.ndarray, "..."]  # planes, or a row and a column that span one, or a list
Picture = Float32[np.ndarray, "3 h w"]  # plane by plane, because that is what numpy blends fast
Colour = Float32[np.ndarray, " 3"]
Scalar = float | int
Point = tuple[Scalar, Scalar]

NOISE_CELLS = 256  # the noise repeats after so many cells
NOISE_TEXELS = 4  # per cell, because OpenCV interpolates in steps of 1/32 texel
ANGLES = 1024  # directions in which an outline is smoothed
FINER = 4  # entries of its table per direction: the nearest entry is then exact to a fraction of a pixel


@dataclass(frozen=True)
class Canvas:
    """A picture being painted, with the place of every pixel on the face.

    ``x, y`` are the face coordinates of the pixel centres, ``radius, angle`` the same in polar form (0 is up,
    positive to the right), ``px`` the width of a pixel, ``to_pixel`` the affine map from face coordinates to
    (column, row). A window is a canvas that shares the memory.
    """

    rgb: Picture
    x: Plane
    y: Plane
    radius: Plane
    angle: Plane
    px: float
    to_pixel: Float64[np.ndarray, "2 3"]

    def box(self, left: Scalar, top: Scalar, right: Scalar, bottom: Scalar) -> tuple[slice, slice]:
        """Rows and columns of the pixels that a box in face coordinates may touch (there may be none)."""
        corners = np.array([[left, left, right, right], [top, bottom, top, bottom], [1, 1, 1, 1]])
        col, row = self.to_pixel @ corners
        h, w = self.x.shape
        first_col, last_col = (min(max(int(c), 0), w) for c in (col.min(), col.max() + 2))
        first_row, last_row = (min(max(int(r), 0), h) for r in (row.min(), row.max() + 2))
        return slice(first_row, last_row), slice(first_col, last_col)

    def window(self, left: Scalar, top: Scalar, right: Scalar, bottom: Scalar) -> "Canvas":
        """The part of the canvas that contains a box in face coordinates."""
        rows, cols = self.box(left, top, right, bottom)
        x, y, radius, angle = (plane[rows, cols] for plane in (self.x, self.y, self.radius, self.angle))
        shift = np.array([[0, 0, cols.start], [0, 0, rows.start]])
        return Canvas(self.rgb[:, rows, cols], x, y, radius, angle, self.px, self.to_pixel - shift)

    def paint(self, opacity: Plane, colour: Colour | Picture) -> None:
        """Blend a colour over the picture."""
        for plane, value in zip(self.rgb, colour, strict=True):
            plane += opacity * (value - plane)

    def tint(self, opacity: Plane, factor: Colour) -> None:
        """Multiply the picture by a factor where the opacity is one: a glaze or a shadow."""
        for plane, value in zip(self.rgb, factor, strict=True):
            plane *= 1 - opacity * (1 - value)

    def cover(self, distance: Plane, soft: Scalar = 0.0) -> Plane:
        """Opacity of a shape given by its signed distance; ``soft`` is the width of its edge."""
        t = clamp(0.5 - distance / max(self.px, soft))
        return t * t * (3 - 2 * t)

    def line(self, distance: Numbers, width: Numbers | Scalar, soft: Scalar = 0.0) -> Numbers:
        """Opacity of a line given by the distance from its middle: the thinner, the fainter."""
        edge, half = max(self.px, soft), 0.5 * width
        return clamp(0.5 + (half - distance) / edge) - clamp(0.5 - (half + distance) / edge)

    def grain(self, cell: Scalar, offset: Scalar) -> Plane:
        """Noise without a direction; its grid is turned, so that none shows."""
        return noise(0.8 * self.x + 0.6 * self.y, 0.8 * self.y - 0.6 * self.x, cell, cell, offset)

    def strokes(self, start: Float64[np.ndarray, "n 2"], end: Float64[np.ndarray, "n 2"], width: Scalar) -> Plane:
        """Opacity of a bundle of straight strokes that taper from `width` to a point."""
        bare = np.ones_like(self.x)
        order = np.argsort(start[:, 0])
        crowd = 8 * max(1.0, self.px) ** 2  # strokes that share a window: many where a window is few pixels
        for group in np.array_split(order, -(-len(order) // int(crowd))):
            both = np.concatenate([start[group], end[group]])
            rows, cols = self.box(*(both.min(axis=0) - width), *(both.max(axis=0) + width))
            x, y = start[group].astype(np.float32).T[..., None, None]
            dx, dy = (end - start)[group].astype(np.float32).T[..., None, None]
            u, v = self.x[rows, cols] - x, self.y[rows, cols] - y
            along = clamp((u * dx + v * dy) / (dx * dx + dy * dy))
            distance = length(u - along * dx, v - along * dy)
            bare[rows, cols] *= np.prod(1 - self.line(distance, width * (1.1 - along)), axis=0)
        return 1 - bare


def noise(u: Plane, v: Plane, cell_u: Scalar, cell_v: Scalar, offset: Scalar) -> Plane:
    """Smooth noise of unit variance at (u, v), with cells of the given size."""
    column = u * (NOISE_TEXELS / cell_u) + 397.0 * offset
    row = v * (NOISE_TEXELS / cell_v) + 661.0 * offset
    return cv2.remap(_noise_table(), column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)


@lru_cache(maxsize=1)
def _noise_table() -> Plane:
    """White noise made smooth and periodic; all faces share it and differ in where they look."""
    white = np.random.default_rng(2307_08996).standard_normal((NOISE_CELLS, NOISE_CELLS)).astype(np.float32)
    margin = 4
    padded = np.pad(white, margin, mode="wrap")
    smooth = cv2.resize(padded, None, fx=NOISE_TEXELS, fy=NOISE_TEXELS, interpolation=cv2.INTER_CUBIC)
    inner = slice(margin * NOISE_TEXELS, -margin * NOISE_TEXELS)
    return np.ascontiguousarray(smooth[inner, inner] / smooth.std())


@dataclass(frozen=True)
class Outline:
    """A closed curve around the origin: a radius for every direction."""

    radii: Float32[np.ndarray, " angles"]

    def at(self, angle: Plane) -> Plane:
        """The radius in these directions; 0 is up, a quarter turn is right."""
        index = ((angle + np.float32(np.pi)) * np.float32(len(self.radii) / (2 * np.pi))).astype(np.int32)
        return np.take(self.radii, index, mode="wrap")


def outline(right: Sequence[Point], left: Sequence[Point], smooth: Scalar) -> Outline:
    """The rounded polygon through the points of a right half, top to bottom, and of a left half, mirrored.

    ``smooth`` is the width in degrees of the blur that rounds the corners.
    """
    points = np.array([*right, *((-x, y) for x, y in reversed(left))], np.float64)
    share = np.arange(0, len(points), 1 / 32)
    x, y = (np.interp(share, np.arange(len(points) + 1), np.append(p, p[0])) for p in points.T)
    grid = (np.arange(ANGLES) + 0.5) * (2 * np.pi / ANGLES) - np.pi
    angle = np.arctan2(x, -y)
    order = np.argsort(angle)
    radii = np.interp(grid, angle[order], np.hypot(x, y)[order], period=2 * np.pi).astype(np.float32)
    blurred = cv2.GaussianBlur(np.pad(radii, 128, mode="wrap")[None], (0, 0), smooth * ANGLES / 360)
    finer = cv2.resize(blurred, None, fx=FINER, fy=1, interpolation=cv2.INTER_LINEAR)
    return Outline(finer[0, 128 * FINER : -128 * FINER])


def clamp(x: Numbers) -> Numbers:
    """To [0, 1]; several times faster than np.clip on small arrays."""
    return np.minimum(np.maximum(x, 0), 1)


def length(x: Numbers, y: Numbers) -> Numbers:
    return np.sqrt(x * x + y * y)


def bump(x: Numbers, y: Numbers, at: Point, radius: Point, lean: Scalar = 0.0) -> Numbers:
    """exp(-r^2 / 2) around a point: a soft hill with its own radii, turned clockwise by `lean` radians."""
    dx, dy = x - at[0], y - at[1]
    if lean:
        c, s = float(np.cos(lean)), float(np.sin(lean))
        dx, dy = dx * c + dy * s, dy * c - dx * s
    return np.exp(dx * dx * (-0.5 / radius[0] ** 2)) * np.exp(dy * dy * (-0.5 / radius[1] ** 2))


def rise(x: Numbers, low: Scalar, high: Scalar) -> Numbers:
    """Smooth step from 0 at ``low`` to 1 at ``high``, which may be the smaller of the two."""
    t = clamp((x - low) * (1 / (high - low)))
    return t * t * (3 - 2 * t)


def rgb(red: Scalar, green: Scalar, blue: Scalar) -> Colour:
    return np.array([red, green, blue], np.float32)


def mix(a: Colour, b: Colour, share: Scalar) -> Colour:
    return (a + (b - a) * share).astype(np.float32)


def shaded(colour: Colour, value: Plane) -> Picture:
    """A colour under a brightness that varies."""
    return np.stack([c * value for c in colour])
