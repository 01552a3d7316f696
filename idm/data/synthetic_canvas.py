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
from jaxtyping import Float32, Float64

Plane = Float32[np.ndarray, "h w"]
Picture = Float32[np.ndarray, "3 h w"]  # plane by plane, because that is what numpy blends fast
Colour = Float32[np.ndarray, " 3"]
Point = tuple[float, float]

NOISE_CELLS = 256  # the noise repeats after so many cells
NOISE_TEXELS = 4  # per cell, because OpenCV interpolates in steps of 1/32 texel
ANGLES = 1024  # entries of an outline


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

    def box(self, left: float, top: float, right: float, bottom: float) -> tuple[slice, slice]:
        """Rows and columns of the pixels that a box in face coordinates may touch (there may be none)."""
        corners = np.array([[left, left, right, right], [top, bottom, top, bottom], [1, 1, 1, 1]])
        col, row = self.to_pixel @ corners
        h, w = self.x.shape
        first_col, last_col = (min(max(int(c), 0), w) for c in (col.min(), col.max() + 2))
        first_row, last_row = (min(max(int(r), 0), h) for r in (row.min(), row.max() + 2))
        return slice(first_row, last_row), slice(first_col, last_col)

    def window(self, left: float, top: float, right: float, bottom: float) -> "Canvas":
        """The part of the canvas that contains a box in face coordinates."""
        rows, cols = self.box(left, top, right, bottom)
        planes = (plane[rows, cols] for plane in (self.x, self.y, self.radius, self.angle))
        shift = np.array([[0, 0, cols.start], [0, 0, rows.start]])
        return Canvas(self.rgb[:, rows, cols], *planes, self.px, self.to_pixel - shift)

    def paint(self, opacity: Plane, colour: Colour | Picture) -> None:
        """Blend a colour over the picture."""
        for plane, value in zip(self.rgb, colour, strict=True):
            plane += opacity * (value - plane)

    def tint(self, opacity: Plane, factor: Colour) -> None:
        """Multiply the picture by a factor where the opacity is one: a glaze or a shadow."""
        for plane, value in zip(self.rgb, factor, strict=True):
            plane *= 1 - opacity * (1 - value)

    def cover(self, distance: Plane, soft: float = 0.0) -> Plane:
        """Opacity of a shape given by its signed distance; ``soft`` is the width of its edge."""
        t = np.clip(0.5 - distance / max(self.px, soft), 0, 1)
        return t * t * (3 - 2 * t)

    def line(self, distance: Plane, width: Plane | float, soft: float = 0.0) -> Plane:
        """Opacity of a line given by the distance from its middle: the thinner, the fainter."""
        edge, half = max(self.px, soft), 0.5 * width
        return np.clip(0.5 + (half - distance) / edge, 0, 1) - np.clip(0.5 - (half + distance) / edge, 0, 1)

    def noise(self, u: Plane, v: Plane, cell_u: float, cell_v: float, offset: float) -> Plane:
        """Smooth noise of unit variance with cells of the given size; it fades where pixels cannot show it."""
        visible = min(max(min(cell_u, cell_v) / self.px - 1, 0.0), 1.0)
        if visible == 0:
            return np.zeros_like(u)
        column = u * (NOISE_TEXELS / cell_u) + 397.0 * offset
        row = v * (NOISE_TEXELS / cell_v) + 661.0 * offset
        return visible * cv2.remap(_noise(), column, row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)

    def grain(self, cell: float, offset: float) -> Plane:
        """Noise without a direction; its grid is turned, so that none shows."""
        return self.noise(0.8 * self.x + 0.6 * self.y, 0.8 * self.y - 0.6 * self.x, cell, cell, offset)

    def strokes(
        self, start: Float64[np.ndarray, "n 2"], end: Float64[np.ndarray, "n 2"], width: float
    ) -> Plane:
        """Opacity of a bundle of straight strokes that taper from `width` to a point."""
        bare = np.ones_like(self.x)
        order = np.argsort(start[:, 0])
        crowd = 8 * max(1.0, self.px) ** 2  # strokes that share a window: many where a window is few pixels
        for group in np.array_split(order, -(-len(order) // int(crowd))):
            both = np.concatenate([start[group], end[group]])
            rows, cols = self.box(*(both.min(axis=0) - width), *(both.max(axis=0) + width))
            (x, y), (dx, dy) = (a.astype(np.float32).T[..., None, None] for a in (start[group], end[group] - start[group]))
            u, v = self.x[rows, cols] - x, self.y[rows, cols] - y
            along = np.clip((u * dx + v * dy) / (dx * dx + dy * dy), 0, 1)
            distance = length(u - along * dx, v - along * dy)
            bare[rows, cols] *= np.prod(1 - self.line(distance, width * (1.1 - along)), axis=0)
        return 1 - bare


@lru_cache(maxsize=1)
def _noise() -> Plane:
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
        index = ((angle + np.float32(np.pi)) * np.float32(ANGLES / (2 * np.pi))).astype(np.int32)
        return np.take(self.radii, index, mode="wrap")


def outline(right: Sequence[Point], left: Sequence[Point], smooth: float) -> Outline:
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
    return Outline(blurred[0, 128:-128])


def length(x: Plane, y: Plane) -> Plane:
    return np.sqrt(x * x + y * y)


def bump(x: Plane, y: Plane, at: Point, radius: Point, lean: float = 0.0) -> Plane:
    """exp(-r^2 / 2) around a point: a soft hill with its own radii, turned clockwise by an angle in radians."""
    dx, dy = x - at[0], y - at[1]
    if lean:
        c, s = float(np.cos(lean)), float(np.sin(lean))
        dx, dy = dx * c + dy * s, dy * c - dx * s
    return np.exp(dx * dx * (-0.5 / radius[0] ** 2)) * np.exp(dy * dy * (-0.5 / radius[1] ** 2))


def rise(x: Plane, low: float, high: float) -> Plane:
    """Smooth step from 0 at ``low`` to 1 at ``high``, which may be the smaller of the two."""
    t = np.clip((x - low) * (1 / (high - low)), 0, 1)
    return t * t * (3 - 2 * t)


def rgb(red: float, green: float, blue: float) -> Colour:
    return np.array([red, green, blue], np.float32)


def mix(a: Colour, b: Colour, share: float) -> Colour:
    return (a + (b - a) * share).astype(np.float32)


def shaded(colour: Colour, value: Plane) -> Picture:
    """A colour under a brightness that varies."""
    return np.stack([c * value for c in colour])
