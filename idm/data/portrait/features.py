"""The features of a synthetic face: eyes, brows, nose, mouth and glasses."""

import math
from dataclasses import dataclass

import numpy as np

from idm.data.portrait.canvas import (
    Canvas,
    Colour,
    Numbers,
    Plane,
    Point,
    bump,
    length,
    mix,
    noise,
    rgb,
    rise,
    shaded,
)
from idm.data.portrait.traits import Brows, Eyes, Traits

WHITE, BLACK = rgb(1, 1, 1), rgb(0.05, 0.03, 0.03)


def paint_eye(canvas: Canvas, traits: Traits, side: int, rng: np.random.Generator) -> None:
    """One eye, its pupil on its landmark; `side` is -1 for the left of the picture and 1 for the right."""
    eyes = traits.eyes
    cx, cy = traits.frame.landmarks[0 if side < 0 else 1]
    eye = canvas.window(cx - 52, cy - 32, cx + 52, cy + 30)
    width = eyes.width * (1 - 0.05 * side * traits.frame.yaw)
    x, y = eye.x - cx, eye.y - cy
    t = (x - eyes.gaze) * side / width  # -1 at the inner corner, 1 at the outer
    above, below = _upper_lid(eyes, t) - y, y - _lower_lid(eyes, t)
    inside = eye.cover(np.maximum(np.maximum(above, below), (np.abs(t) - 1) * width), 1.2)
    _paint_lids(eye, traits, t, -above, below)
    shade = 0.92 - 0.35 * rise(above, -9, 1) - 0.30 * rise(np.abs(t), 0.45, 1.0)
    eye.paint(inside, shaded(mix(rgb(0.95, 0.93, 0.91), traits.colours.skin, 0.10), shade))
    tear_duct = bump(t, y, (-0.93, 2.0), (0.12, 4))
    eye.paint(0.85 * inside * tear_duct, traits.colours.skin * rgb(0.92, 0.58, 0.55))
    _paint_iris(eye, traits, (x, y), above, inside, rng.uniform())
    _paint_lashes(eye, traits, side, (cx + eyes.gaze, cy, width), rng)


def _upper_lid(eyes: Eyes, t: Numbers) -> Numbers:
    """Its edge relative to the pupil, along the eye from -1 (inner corner) to 1."""
    return 1 - eyes.tilt * t - (eyes.upper + 1) * np.clip(1 - t * t, 0, None) ** 0.62 * (1 - 0.14 * t)


def _lower_lid(eyes: Eyes, t: Numbers) -> Numbers:
    return 1 - eyes.tilt * t + eyes.lower * np.clip(1 - t * t, 0, None) ** 0.8 * (1 + 0.22 * t)


def _paint_lids(eye: Canvas, traits: Traits, t: Plane, under_top: Plane, under_bottom: Plane) -> None:
    """The fold above the eye, eye shadow, the wet rim and the bag below."""
    skin, makeup, near = traits.colours.skin, traits.person.makeup, rise(np.abs(t), 1.25, 0.8)
    shadow = mix(skin * rgb(0.48, 0.30, 0.27), rgb(0.35, 0.22, 0.24), 0.4 * makeup)
    crease = traits.eyes.lid * (0.25 * t * t - 1.05)
    lid = rise(under_top, -1.05 * traits.eyes.lid - 6, -1) * rise(under_top, 2, 0) * near
    eye.paint(0.45 * makeup * lid, shadow)
    eye.paint(0.62 * eye.line(np.abs(under_top - crease), 1.6, 3) * near, shadow)
    eye.paint(0.22 * bump(under_top, t, (-1.5, 0.1), (2.5, 0.7)), shadow)
    eye.paint(0.35 * eye.line(np.abs(under_bottom - 0.8), 1.4, 2.5) * near, skin * rgb(0.62, 0.40, 0.37))
    bag = eye.line(np.abs(under_bottom - 7 - 2 * t), 1.2, 5) * rise(np.abs(t + 0.25), 0.9, 0.4)
    eye.paint((0.08 + 0.3 * traits.person.age) * bag, shadow)


def _paint_iris(
    eye: Canvas, traits: Traits, at: tuple[Plane, Plane], above: Plane, inside: Plane, offset: float
) -> None:
    x, y = at
    size, r = traits.eyes.iris, length(x, y)
    lx, ly, _ = traits.light.towards
    around = np.arctan2(y, x) * 14
    fibres = 0.7 * noise(around, r * 0.3, 1.1, 2.0, offset) + 0.8 * noise(around, r * 0.5, 2.4, 3.0, offset)
    crossing = 0.85 - 0.45 * (x * lx + y * ly) / size  # light that enters on one side leaves on the other
    value = crossing + 0.12 * fibres + 0.35 * np.exp(-0.5 * ((r - 5.5) / 2.2) ** 2)
    value *= (1 - 0.65 * rise(r, size - 3.5, size)) * (1 - 0.55 * rise(above, -9, 0))
    eye.paint(inside * eye.cover(r - size, 1.5), shaded(traits.colours.iris * np.float32(1.15), value))
    eye.paint(inside * eye.cover(r - 0.40 * size, 1.2), rgb(0.02, 0.02, 0.025))
    glint = math.copysign(4.6 * min(1, 0.4 + abs(lx)), lx)
    eye.paint(0.96 * inside * eye.cover(length(x - glint, 0.9 * (y + 4.4)) - 2.6, 1.4), WHITE)
    eye.paint(0.35 * inside * bump(x, y, (-0.9 * glint, 5.2), (2.6, 1.6)), WHITE)


def _paint_lashes(
    eye: Canvas, traits: Traits, side: int, where: tuple[float, float, float], rng: np.random.Generator
) -> None:
    """Lashes and the dark line at their roots; `where` is the middle of the eye and its half width."""
    cx, cy, width = where
    eyes, makeup, female = traits.eyes, traits.person.makeup, 1 - traits.person.masculine
    dark = mix(traits.colours.hair * np.float32(0.4), BLACK, 0.6 + 0.4 * makeup)
    size = 4 + 4 * female + 3 * makeup

    t = np.linspace(-0.85, 1.04, 40) + rng.normal(0, 0.02, 40)
    start = np.stack([cx + side * t * width, cy + _upper_lid(eyes, t)], axis=-1)
    lean, long = 0.15 + 0.75 * t, size * (0.65 + 0.35 * t) * rng.uniform(0.6, 1.1, 40)
    up = np.stack([side * lean * long, -np.sqrt(np.clip(1 - 0.7 * lean**2, 0.1, 1)) * long], axis=-1)
    eye.paint((0.45 + 0.45 * makeup) * eye.strokes(start, start + up, 0.9), dark)

    t = np.linspace(-0.3, 0.95, 14) + rng.normal(0, 0.02, 14)
    start = np.stack([cx + side * t * width, cy + _lower_lid(eyes, t)], axis=-1)
    long = 0.45 * size * rng.uniform(0.6, 1.0, 14)
    down = np.stack([side * (0.2 + 0.5 * t) * long, long], axis=-1)
    eye.paint((0.25 + 0.3 * makeup) * eye.strokes(start, start + down, 0.7), dark)

    t = (eye.x - cx) * side / width
    thick = (1.4 + 1.3 * makeup + 0.7 * female) * (0.75 + 0.35 * t)
    edge = eye.line(np.abs(eye.y - cy - _upper_lid(eyes, t)), thick, 1.2)
    eye.paint(0.92 * edge * (np.abs(t) < 1.02), dark)


def paint_brow(canvas: Canvas, traits: Traits, side: int, rng: np.random.Generator) -> None:
    """A brow of single hairs that rise near the nose and lie flat at the temple."""
    brows, count = traits.brows, 150
    cx, cy = traits.frame.landmarks[0 if side < 0 else 1]
    cx, cy = cx + side * 2, cy - brows.y
    half = 42 * (1 - 0.05 * side * traits.frame.yaw)
    brow = canvas.window(cx - 62, cy - 26, cx + 62, cy + 26)
    colour = mix(traits.colours.hair * np.float32(0.62), rgb(0.14, 0.09, 0.07), 0.35)

    t = (brow.x - cx) * side / half
    middle, thick = _brow_curve(brows, t)
    body = rise(np.abs(brow.y - cy - middle) - 0.5 * thick, 3.5, -3.5) * rise(np.abs(t), 1.12, 0.75)
    brow.paint((0.45 + 0.15 * traits.person.masculine) * body, colour)

    t = np.linspace(-1, 1, count) + rng.normal(0, 0.03, count)
    middle, thick = _brow_curve(brows, t)
    start = np.stack([cx + side * half * t, cy + middle + rng.uniform(-0.5, 0.5, count) * thick], axis=-1)
    heading = np.deg2rad(np.interp(t, [-1, -0.5, 0.3, 1], [-72, -38, -6, 24]) + rng.normal(0, 8, count))
    long = 8.5 * rng.uniform(0.6, 1.2, count)
    hairs = np.stack([side * np.cos(heading) * long, np.sin(heading) * long], axis=-1)
    brow.paint(0.55 * brow.strokes(start, start + hairs, 1.15), colour * np.float32(0.85))


def _brow_curve(brows: Brows, t: Numbers) -> tuple[Numbers, Numbers]:
    """Height and thickness along a brow, from -1 at the nose to 1 at the temple."""
    middle = 3 + brows.tilt * t - brows.arch * (0.9 - (t - 0.3) ** 2 / np.where(t < 0.3, 2.6, 0.6))
    taper = 1.05 - 0.55 * np.clip(t, 0, 1.2) ** 1.5 - 0.3 * np.clip(-t - 0.6, 0, 1)
    return middle.astype(t.dtype), brows.thick * np.clip(taper, 0.2, 1)


def paint_nose(canvas: Canvas, traits: Traits) -> None:
    """Nostrils, wings and the shine of the tip, which is a landmark; the head's relief has the volume."""
    tip_x, tip_y = traits.frame.landmarks[2]
    skin, half = traits.colours.skin, traits.nose.width
    nose = canvas.window(tip_x - 60, tip_y - 40, tip_x + 60, tip_y + 40)
    x, y = nose.x - tip_x, nose.y - tip_y
    dark, fold = skin * rgb(0.24, 0.13, 0.12), skin * rgb(0.52, 0.34, 0.30)
    for side in (-1, 1):
        out = x * side / (1 - 0.18 * side * traits.frame.yaw)
        hole = length((out - 0.46 * half) / 8.0, (y - 14.5 + 0.2 * (out - 14)) / 3.3)
        nose.paint(0.55 * bump(out, y, (0.46 * half, 15), (9, 4.2), -0.25), fold)
        nose.paint(0.88 * nose.cover((hole - 1) * 4, 4), dark)
        wing = np.abs(length((out - half + 11) / 11, (y - 6) / 12.5) - 1) * 11
        nose.paint(0.6 * nose.line(wing, 1.8, 4.5) * rise(out, half - 9, half - 1) * rise(y, -8, 6), fold)
        nose.paint(0.35 * nose.line(wing, 1.8, 5) * rise(y, 10, 17) * rise(out, 4, 14), fold)
    nose.paint(0.28 * bump(x, y, (0, 21), (13, 3.5)), fold)
    nose.paint(0.26 * bump(x, y, (3 * traits.light.towards[0], -3), (5.5, 4.5)), mix(skin, WHITE, 0.7))


@dataclass(frozen=True)
class _Lips:
    """A mouth along `t` from -1 (left corner) to 1: the borders of the lips, from top to bottom."""

    t: Plane
    top: Plane
    over: Plane
    under: Plane
    bottom: Plane


def paint_mouth(canvas: Canvas, traits: Traits, offset: float) -> None:
    """Lips between two corners that are landmarks; a wide smile shows teeth."""
    left, right = traits.frame.landmarks[3:]
    mouth = canvas.window(left[0] - 22, left[1] - 40, right[0] + 22, left[1] + 70)
    lips = _lips(mouth, traits, left, right)
    _paint_lips(mouth, traits, lips, offset)
    if traits.mouth.gap > 2:
        _paint_teeth(mouth, traits, lips)
    between = mouth.line(np.abs(mouth.y - lips.over), 2.2 - 1.2 * np.abs(lips.t), 2.0) * (np.abs(lips.t) < 1)
    mouth.paint(0.8 * between, traits.colours.lips * rgb(0.30, 0.22, 0.22))
    for corner in (left, right):
        dimple = bump(mouth.x, mouth.y, corner, (4.5, 3.5))
        mouth.paint(0.55 * dimple, traits.colours.skin * rgb(0.45, 0.28, 0.25))


def _lips(canvas: Canvas, traits: Traits, left: Point, right: Point) -> _Lips:
    mouth = traits.mouth
    half, middle = (right[0] - left[0]) / 2, (left[0] + right[0]) / 2
    t = (canvas.x - middle) / half
    u = t - 0.10 * traits.frame.yaw
    arch = np.clip(1 - t * t, 0, None)
    between = left[1] + (right[1] - left[1]) * (t + 1) / 2 + mouth.smile * arch
    pout = 0.8 * np.exp(-((u / 0.16) ** 2)) - 0.64 * np.exp(-(((np.abs(u) - 0.4) / 0.2) ** 2))
    over = between - 0.30 * mouth.gap * arch + pout
    under = between + 0.70 * mouth.gap * arch**0.8 + (pout if mouth.gap < 2 else 0)
    bow = 1 - 0.17 * np.exp(-((u / 0.13) ** 2)) + 0.04 * np.exp(-(((np.abs(u) - 0.26) / 0.16) ** 2))
    return _Lips(t, over - mouth.upper * arch**0.85 * bow, over, under, under + mouth.lower * arch**0.72)


def _paint_lips(canvas: Canvas, traits: Traits, lips: _Lips, offset: float) -> None:
    y, t, colour, makeup = canvas.y, lips.t, traits.colours.lips, traits.person.makeup
    soft, beyond = 2.2 - 0.8 * makeup, (np.abs(t) - 1) * 50
    upper = canvas.cover(np.maximum(np.maximum(lips.top - y, y - lips.over - 0.7), beyond), soft)
    lower = canvas.cover(np.maximum(np.maximum(lips.under - 0.7 - y, y - lips.bottom), beyond), soft)
    lx = traits.light.towards[0]
    creases = 0.03 * noise(t * 56, y, 2.6, 14, offset) * (1 - 0.5 * makeup)
    common = 0.3 * traits.light.ambient + creases + 0.12 * lx * t - 0.1 * np.abs(t)
    down = (y - lips.top) / np.maximum(lips.over - lips.top, 1)
    canvas.paint(0.92 * upper, shaded(colour, common + 0.72 - 0.26 * down))
    down = (y - lips.under) / np.maximum(lips.bottom - lips.under, 1)
    full = 0.82 + 0.22 * np.exp(-(((down - 0.42) / 0.3) ** 2)) - 0.22 * down
    canvas.paint(0.92 * lower, shaded(colour, common + full))
    gloss = bump(t, down, (0.25 * lx, 0.38), (0.30, 0.15)) * (0.22 + 0.3 * makeup) * (1 + 6 * creases)
    canvas.paint(lower * np.clip(gloss, 0, 1), WHITE)
    rim = canvas.line(np.abs(y - lips.top + 1.2), 1.0, 2.5) * rise(np.abs(t), 0.8, 0.3)
    canvas.paint(0.22 * rim, mix(traits.colours.skin, WHITE, 0.5))


def _paint_teeth(canvas: Canvas, traits: Traits, lips: _Lips) -> None:
    y, t, gap = canvas.y, lips.t, traits.mouth.gap
    side = np.abs(t)
    hole = canvas.cover(np.maximum(np.maximum(lips.over - y, y - lips.under), (side - 1) * 50), 1.2)
    canvas.paint(hole, rgb(0.20, 0.06, 0.06))
    long = min(max(0.86 * gap, 4), 13)
    edge = lips.over + long * np.sqrt(np.clip(1 - t * t, 0, None)) + 0.25 * np.cos(t * 40)
    count = 8.5 * np.arcsin(np.clip(t, -1, 1))  # the row turns away: teeth look narrower to the sides
    gaps = canvas.line(np.abs(count - np.round(count)) * 6.6, 0.8, 1.4)
    shade = (0.95 - 0.45 * rise(side, 0.35, 0.95) - 0.25 * rise(y - lips.over, 4, 0)) * (1 - 0.30 * gaps)
    ivory = mix(rgb(0.96, 0.94, 0.90), rgb(0.90, 0.84, 0.72), 0.7 * traits.person.age)
    teeth = hole * canvas.cover(y - edge, 1.5) * canvas.cover((side - 0.9) * 50, 3)
    canvas.paint(teeth, shaded(ivory, shade))


def paint_glasses(canvas: Canvas, traits: Traits) -> None:
    """Rims, bridge and arms, their shadow and a faint reflection."""
    match traits.extras.glasses:
        case "none":
            return
        case "round":
            rx, ry, power, width = 46.0, 42.0, 2.0, 3.6
        case "square":
            rx, ry, power, width = 50.0, 36.0, 4.0, 5.0
        case "thin":
            rx, ry, power, width = 47.0, 35.0, 2.8, 2.0
    level = traits.frame.landmarks[0][1]
    glass = canvas.window(-175, level - 70, 175, level + 75)
    x, y = glass.x, glass.y
    _, shadow = _spectacles(x, y - 5, traits, (rx, ry, power))
    glass.tint(0.30 * glass.line(shadow, width + 1, 5), traits.colours.skin * rgb(0.5, 0.4, 0.4))
    lens, metal = _spectacles(x, y, traits, (rx, ry, power))
    streaks = np.exp(-(((x - 0.7 * y + 30) / 14) ** 2)) + np.exp(-(((x - 0.7 * y - 96) / 14) ** 2))
    glass.paint((0.05 + 0.10 * streaks) * glass.cover(lens), WHITE)
    shade = 1 + 0.5 * rise(y - level, 40, 0)
    frame: Colour = np.minimum(traits.colours.frame, 0.66)
    glass.paint(0.96 * glass.line(metal, width, 1), shaded(frame, shade))


def _spectacles(x: Plane, y: Plane, traits: Traits, shape: tuple[float, float, float]) -> tuple[Plane, Plane]:
    """Signed distance of the lenses, and distance from the middle of the wire."""
    rx, ry, power = shape
    left, right = traits.frame.landmarks[:2]
    far = np.full_like(x, 1e3)
    lens, arms = far, far
    for side, eye in ((-1, left), (1, right)):
        wide = rx * (1 - 0.05 * side * traits.frame.yaw)
        u, v = np.abs(x - eye[0] - side * 3) / wide, np.abs(y - eye[1] - 5) / ry
        lens = np.minimum(lens, ((u**power + v**power) ** (1 / power) - 1) * min(wide, ry))
        beside = (x - eye[0]) * side - wide - 3
        arms = np.minimum(arms, np.where(beside > -2, np.abs(y - eye[1] + 8 + 0.06 * beside), far))
    arms = np.where(np.abs(x) < traits.skull.cheek + 4, arms, far)
    between = np.abs(x - 0.5 * (left[0] + right[0])) < (right[0] - left[0]) / 2 - rx + 8
    bridge = np.where(between & (lens > 0), np.abs(y - left[1] + 7 - 0.02 * x * x), far)
    return lens, np.minimum(np.minimum(np.abs(lens), arms), bridge)
