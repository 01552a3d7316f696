"""The features of a synthetic face: eyes, brows, nose, mouth, ears, marks of the skin and glasses."""

import math

import numpy as np

from idm.data.synthetic_canvas import Canvas, Plane, bump, mix, rgb, rise
from idm.data.synthetic_head import Outline, lit_skin, polar
from idm.data.synthetic_traits import Traits

WHITE, BLACK = rgb(1, 1, 1), rgb(0.05, 0.03, 0.03)


def paint_ears(canvas: Canvas, traits: Traits) -> None:
    for side in (-1, 1):
        near = 1 - 0.5 * side * traits.frame.yaw
        cx, cy, rx, ry = side * (traits.skull.cheek + 3) - 9 * traits.frame.yaw, -8.0, 10 + 7 * near, 37
        ear = canvas.window(cx - 35, cy - 50, cx + 35, cy + 50)
        x, y = (ear.x - cx - side * 0.12 * -(ear.y - cy)) * side / rx, (ear.y - cy) / ry
        r = np.hypot(x, y * (1 - 0.12 * y))
        lx = traits.light.towards[0]
        shade = traits.light.ambient + (1 - traits.light.ambient) * np.clip(0.62 + 0.4 * lx * side - 0.1 * y, 0, 1)
        shade = shade * (1 - 0.42 * bump(x, y, (0.10, 0.12), (0.26, 0.42)) - 0.35 * rise(-x, -0.2, 0.5))
        rim = (r - 0.70) * rx
        shade = shade * (1 - 0.4 * bump(rim, x, (0, 0.5), (1.6, 0.5)) + 0.15 * bump(rim, x, (3, 0.5), (1.5, 0.5)))
        shade = shade * (1 - 0.3 * bump(x, y, (0.25, -0.45), (0.22, 0.12)))
        skin = traits.colours.skin * rgb(1, 0.90, 0.88)
        ear.paint(ear.cover((r - 1) * min(rx, ry)), lit_skin(shade, skin, traits.light))


def paint_eye(canvas: Canvas, traits: Traits, side: int, rng: np.random.Generator) -> None:
    """One eye, its pupil exactly on its landmark; `side` is -1 for the left of the picture, 1 for the right."""
    eyes, person = traits.eyes, traits.person
    cx, cy = traits.frame.landmarks[0 if side < 0 else 1]
    eye = canvas.window(cx - 52, cy - 32, cx + 52, cy + 30)
    y = eye.y - cy
    width = eyes.width * (1 - 0.05 * side * traits.frame.yaw)
    t = (eye.x - cx - eyes.gaze) * side / width  # -1 at the inner corner, 1 at the outer
    arch = np.clip(1 - t * t, 0, None)
    base = -eyes.tilt * t + 1.0
    top = base - (eyes.upper + 1) * arch**0.62 * (1 - 0.14 * t)
    bottom = base + eyes.lower * arch**0.8 * (1 + 0.22 * t)
    beyond = (np.abs(t) - 1) * width
    gap = np.maximum(np.maximum(top - y, y - bottom), beyond)
    inside = eye.cover(gap, 1.2)
    _paint_lid(eye, traits, t, y - top, y - bottom)
    shade = 0.92 - 0.35 * rise(-(y - top), -9, 1) - 0.30 * rise(np.abs(t), 0.45, 1.0)
    ball = np.stack([c * shade for c in mix(rgb(0.95, 0.93, 0.91), traits.colours.skin, 0.10)])
    eye.paint(inside, ball)
    eye.paint(inside * bump(t, y, (-0.93, 2.0), (0.12, 4)) * 0.85, traits.colours.skin * rgb(0.92, 0.58, 0.55))
    _paint_iris(eye, traits, eye.x - cx, y, y - top, inside, rng)
    _paint_lashes(eye, traits, side, (cx + eyes.gaze, cy, width), rng)
    del person


def _paint_iris(eye: Canvas, traits: Traits, x: Plane, y: Plane, below_lid: Plane, inside: Plane, rng) -> None:
    iris, colour = traits.eyes.iris, traits.colours.iris
    r = np.hypot(x, y)
    angle = np.arctan2(y, x)
    fibres = eye.noise(angle * 14, r * 0.3, 0.8, 2.0, rng.uniform()) * min(1.0, 2 / eye.px)
    lx, ly, _ = traits.light.towards
    caustic = 0.85 - 0.45 * (x * lx + y * ly) / iris  # light that entered at one side leaves the iris at the other
    value = (caustic + 0.16 * fibres + 0.35 * bump(r, r * 0, (5.5, 0), (2.2, 1))) * (1 - 0.65 * rise(r, iris - 3.5, iris))
    value = value * (1 - 0.55 * rise(-below_lid, -9, 0))
    eye.paint(inside * eye.cover(r - iris, 1.5), np.stack([c * value for c in colour * 1.15]))
    eye.paint(inside * eye.cover(r - 0.40 * iris, 1.2), rgb(0.02, 0.02, 0.025))
    gx, gy = math.copysign(4.6 * min(1, 0.4 + abs(lx)), lx), -4.4
    eye.paint(inside * eye.cover(np.hypot(x - gx, (y - gy) * 0.9) - 2.6, 1.4) * 0.96, WHITE)
    eye.paint(inside * bump(x, y, (-gx * 0.9, 5.2), (2.6, 1.6)) * 0.35, WHITE)


def _paint_lid(eye: Canvas, traits: Traits, t: Plane, below_top: Plane, below_bottom: Plane) -> None:
    """The fold above the eye, the shadow of the lids, the wet rim and the bag below."""
    skin, near = traits.colours.skin, rise(-np.abs(t), -1.25, -0.8)
    crease = -traits.eyes.lid * (1.05 - 0.25 * t * t)
    shadow = mix(skin * rgb(0.48, 0.30, 0.27), rgb(0.35, 0.22, 0.24), 0.4 * traits.person.makeup)
    eye.paint(0.45 * traits.person.makeup * rise(below_top, crease.min() - 6, -1) * rise(-below_top, -2, 0) * near, shadow)
    eye.paint(0.62 * eye.line(np.abs(below_top - crease), 1.6, 3) * near, shadow)
    eye.paint(0.22 * bump(below_top, t, (-1.5, 0.1), (2.5, 0.7)), shadow)
    eye.paint(0.35 * eye.line(np.abs(below_bottom - 0.8), 1.4, 2.5) * near, skin * rgb(0.62, 0.40, 0.37))
    fold = eye.line(np.abs(below_bottom - 7 - 2 * t), 1.2, 5) * rise(-np.abs(t + 0.25), -0.9, -0.4)
    eye.paint((0.08 + 0.3 * traits.person.age) * fold, shadow)


def _paint_lashes(eye: Canvas, traits: Traits, side: int, where: tuple[float, float, float], rng) -> None:
    cx, cy, width = where
    eyes, makeup = traits.eyes, traits.person.makeup
    long = 4 + 4 * (1 - traits.person.male) + 3 * makeup
    t = np.linspace(-0.85, 1.04, 40) + rng.normal(0, 0.02, 40)
    arch = np.clip(1 - t * t, 0, None)
    root_y = -eyes.tilt * t + 1.0 - (eyes.upper + 1) * arch**0.62 * (1 - 0.14 * t)
    start = np.stack([cx + side * t * width, cy + root_y], axis=-1)
    lean = 0.15 + 0.75 * t
    size = long * (0.65 + 0.35 * t) * rng.uniform(0.6, 1.1, 40)
    end = start + np.stack([side * lean * size, -np.sqrt(np.clip(1 - 0.7 * lean**2, 0.1, 1)) * size], axis=-1)
    dark = mix(traits.colours.hair * np.float32(0.4), BLACK, 0.6 + 0.4 * makeup)
    eye.paint((0.45 + 0.45 * makeup) * eye.strokes(start, end, 0.9), dark)
    tt = (eye.x - cx) * side / width
    bow = np.clip(1 - tt * tt, 0, None)
    top = -eyes.tilt * tt + 1.0 - (eyes.upper + 1) * bow**0.62 * (1 - 0.14 * tt)
    thick = (1.4 + 1.3 * makeup + 0.7 * (1 - traits.person.male)) * (0.75 + 0.35 * tt)
    eye.paint(0.92 * eye.line(np.abs(eye.y - cy - top), thick, 1.2) * (np.abs(tt) < 1.02), dark)
    t = np.linspace(-0.3, 0.95, 14) + rng.normal(0, 0.02, 14)
    low = -eyes.tilt * t + 1.0 + eyes.lower * np.clip(1 - t * t, 0, None) ** 0.8 * (1 + 0.22 * t)
    start = np.stack([cx + side * t * width, cy + low], axis=-1)
    size = 0.45 * long * rng.uniform(0.6, 1.0, 14)
    end = start + np.stack([side * (0.2 + 0.5 * t) * size, size], axis=-1)
    eye.paint((0.25 + 0.3 * makeup) * eye.strokes(start, end, 0.7), dark)


def paint_brow(canvas: Canvas, traits: Traits, side: int, rng: np.random.Generator) -> None:
    brows, person = traits.brows, traits.person
    cx, cy = traits.frame.landmarks[0 if side < 0 else 1]
    cx, cy = cx + side * 2, cy - brows.y
    brow = canvas.window(cx - 62, cy - 26, cx + 62, cy + 26)
    half, n = 42 * (1 - 0.05 * side * traits.frame.yaw), 150
    t = np.linspace(-1, 1, n) + rng.normal(0, 0.03, n)
    place = rng.uniform(-0.5, 0.5, n)

    def spine(t):
        return 3 + brows.tilt * t - brows.arch * (0.9 - (t - 0.3) ** 2 / np.where(t < 0.3, 2.6, 0.6))

    def height(t):
        return brows.thick * np.clip(1.05 - 0.55 * np.clip(t, 0, None) ** 1.5 - 0.3 * np.clip(-t - 0.6, 0, 1), 0.2, 1)

    start = np.stack([cx + side * half * t, cy + spine(t) + place * height(t)], axis=-1)
    heading = np.deg2rad(np.interp(t, [-1, -0.5, 0.3, 1], [-72, -38, -6, 24]) + rng.normal(0, 8, n))
    size = 8.5 * rng.uniform(0.6, 1.2, n)
    end = start + np.stack([side * np.cos(heading) * size, np.sin(heading) * size], axis=-1)
    tt = (brow.x - cx) * side / half
    off = np.abs(brow.y - cy - spine(tt)) - 0.5 * height(tt)
    body = rise(-off, -3.5, 3.5) * rise(-np.abs(tt), -1.12, -0.75)
    colour = mix(traits.colours.hair * np.float32(0.62), rgb(0.14, 0.09, 0.07), 0.35)
    brow.paint((0.45 + 0.15 * person.male) * body, colour)
    brow.paint(0.55 * brow.strokes(start, end, 1.15), colour * np.float32(0.85))


def paint_nose(canvas: Canvas, traits: Traits) -> None:
    """Nostrils, wings and the lights of the nose; its volume is part of the head's relief."""
    tip_x, tip_y = traits.frame.landmarks[2]
    yaw, skin, half = traits.frame.yaw, traits.colours.skin, traits.nose.width
    nose = canvas.window(tip_x - 60, tip_y - 70, tip_x + 60, tip_y + 40)
    x, y = nose.x - tip_x, nose.y - tip_y
    dark = skin * rgb(0.24, 0.13, 0.12)
    fold = skin * rgb(0.52, 0.34, 0.30)
    for side in (-1, 1):
        near = 1 - 0.18 * side * yaw
        sx = x * side / near
        nose.paint(0.55 * bump(sx, y, (0.46 * half, 15), (9, 4.2), -0.25), fold)
        nose.paint(0.88 * nose.cover((np.hypot((sx - 0.46 * half) / 8.0, (y - 14.5 + 0.2 * (sx - 14)) / 3.3) - 1) * 4, 4), dark)
        wing = np.hypot((sx - half + 11) / 11, (y - 6) / 12.5)
        arc = nose.line(np.abs(wing - 1) * 11, 1.8, 4.5) * rise(sx, half - 9, half - 1) * rise(y, -8, 6)
        nose.paint(0.6 * arc, fold)
        nose.paint(0.35 * nose.line(np.abs(wing - 1) * 11, 1.8, 5) * rise(y, 10, 17) * rise(sx, 4, 14), fold)
    nose.paint(0.28 * bump(x, y, (0, 21), (13, 3.5)), fold)
    lx = traits.light.towards[0]
    shine = mix(skin, WHITE, 0.7)
    nose.paint(0.26 * bump(x, y, (3 * lx, -3), (5.5, 4.5)), shine)
    nose.paint(0.05 * bump(x, y, (2 * lx - tip_x * 0.35, -36), (3.6, 22)), shine)


def paint_mouth(canvas: Canvas, traits: Traits, rng: np.random.Generator) -> None:
    """Lips between two corners that are landmarks; a wide smile shows teeth."""
    mouth, yaw = traits.mouth, traits.frame.yaw
    (lx, ly), (rx, ry) = traits.frame.landmarks[3:]
    lip = canvas.window(lx - 22, ly - 40, rx + 22, ly + 70)
    half, middle = (rx - lx) / 2, (lx + rx) / 2
    t = (lip.x - middle) / half
    arch = np.clip(1 - t * t, 0, None)
    mid = ly + (ry - ly) * (t + 1) / 2 + mouth.smile * arch
    u = t - 0.10 * yaw
    bow = 1 - 0.17 * np.exp(-((u / 0.13) ** 2)) + 0.04 * np.exp(-(((np.abs(u) - 0.26) / 0.16) ** 2))
    over = mid - 0.30 * mouth.gap * arch  # lower edge of the upper lip
    under = mid + 0.70 * mouth.gap * arch**0.8
    part = 1.0 * np.exp(-((u / 0.16) ** 2)) - 0.8 * np.exp(-(((np.abs(u) - 0.4) / 0.2) ** 2))
    over, under = over + part * 0.8, under + part * 0.8 * (1 if mouth.gap < 2 else 0)
    top = over - mouth.upper * arch**0.85 * bow
    bottom = under + mouth.lower * arch**0.72
    beyond = (np.abs(t) - 1) * half
    y = lip.y
    _paint_lips(lip, traits, (t, top, over, under, bottom), rng)
    if mouth.gap > 2:
        _paint_teeth(lip, traits, t, over, under)
    line = lip.line(np.abs(y - over), 2.2 - 1.2 * np.abs(t), 2.0) * (beyond < 1)
    lip.paint(0.8 * line, traits.colours.lips * rgb(0.30, 0.22, 0.22))
    for x in (lx, rx):
        lip.paint(0.55 * bump(lip.x, y, (x, ly if x == lx else ry), (4.5, 3.5)), traits.colours.skin * rgb(0.45, 0.28, 0.25))


def _paint_lips(lip: Canvas, traits: Traits, curves: tuple[Plane, Plane, Plane, Plane, Plane], rng) -> None:
    t, top, over, under, bottom = curves
    y, colour, person = lip.y, traits.colours.lips, traits.person
    edge = 2.2 - 0.8 * person.makeup
    beyond = (np.abs(t) - 1) * 50
    upper = lip.cover(np.maximum(np.maximum(top - y, y - over - 0.7), beyond), edge)
    lower = lip.cover(np.maximum(np.maximum(under - 0.7 - y, y - bottom), beyond), edge)
    ambient, lx = traits.light.ambient, traits.light.towards[0]
    creases = 0.03 * lip.noise(t * 56, y, 2.6, 14, rng.uniform()) * (1 - 0.5 * person.makeup)
    side = 0.12 * lx * t
    depth = (y - top) / np.maximum(over - top, 1)
    shade = ambient * 0.3 + 0.72 - 0.26 * depth + creases + side - 0.1 * np.abs(t)
    lip.paint(0.92 * upper, np.stack([c * shade for c in colour]))
    rise_ = (y - under) / np.maximum(bottom - under, 1)
    shade = ambient * 0.3 + 0.82 + 0.22 * np.exp(-(((rise_ - 0.42) / 0.3) ** 2)) - 0.22 * rise_ + creases + side - 0.1 * np.abs(t)
    lip.paint(0.92 * lower, np.stack([c * shade for c in colour]))
    gloss = lower * bump(t, rise_, (0.25 * lx, 0.38), (0.30, 0.15)) * (0.22 + 0.3 * person.makeup) * (1 + 6 * creases)
    lip.paint(np.clip(gloss, 0, 1), WHITE)
    rim = lip.line(np.abs(y - top + 1.2), 1.0, 2.5) * rise(-np.abs(t), -0.8, -0.3)
    lip.paint(0.22 * rim, mix(traits.colours.skin, WHITE, 0.5))


def _paint_teeth(lip: Canvas, traits: Traits, t: Plane, over: Plane, under: Plane) -> None:
    y, gap = lip.y, traits.mouth.gap
    hole = lip.cover(np.maximum(np.maximum(over - y, y - under), (np.abs(t) - 1) * 50), 1.2)
    lip.paint(hole, rgb(0.20, 0.06, 0.06))
    edge = over + np.clip(0.86 * gap, 4, 13) * np.clip(1 - t * t, 0, None) ** 0.5 + 0.25 * np.cos(t * 40)
    count = 8.5 * np.arcsin(np.clip(t, -1, 1))  # the dental arch turns away: teeth narrow to the sides
    split = np.abs(count - np.round(count)) / 8.5 * 56
    shade = 0.95 - 0.45 * rise(np.abs(t), 0.35, 0.95) - 0.25 * rise(-(y - over), -4, 0)
    shade = shade * (1 - 0.30 * lip.line(split, 0.8, 1.4))
    ivory = mix(rgb(0.96, 0.94, 0.90), rgb(0.90, 0.84, 0.72), 0.7 * traits.person.age)
    teeth = hole * lip.cover(y - edge, 1.5) * lip.cover((np.abs(t) - 0.9) * 50, 3)
    lip.paint(teeth, np.stack([c * shade for c in ivory]))


def paint_marks(canvas: Canvas, traits: Traits, border: Outline, rng: np.random.Generator) -> None:
    """Pores, blotches, freckles, moles and wrinkles."""
    face = canvas.window(-150, -200, 150, 185)
    x, y, extras, skin = face.x, face.y, traits.extras, traits.colours.skin
    radius, angle = polar(face)
    inner = rise(-radius / border.at(angle), -1.0, -0.9)
    u, v = 0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x  # so that no grid shows
    pores = face.noise(u, v, 2.6, 2.6, 0.2) + 0.8 * face.noise(u, v, 5.5, 5.5, 0.6)
    for plane, depth in zip(face.rgb, (0.011, 0.014, 0.014), strict=True):
        plane *= 1 + (depth * (0.7 + 0.8 * traits.person.age)) * pores * inner
    spots = int(150 * extras.freckles)
    for _ in range(spots):
        fx, fy = rng.normal(0, 48), rng.normal(8, 24)
        size, depth = rng.uniform(0.8, 2.2), rng.uniform(0.15, 0.5)
        spot = face.window(fx - 6, fy - 6, fx + 6, fy + 6)
        spot.paint(depth * spot.cover(np.hypot(spot.x - fx, spot.y - fy) - size, 2), skin * rgb(0.62, 0.42, 0.32))
    for _ in range(int(rng.integers(0, 3))):
        fx, fy = rng.uniform(-100, 100), rng.uniform(-140, 140)
        spot = face.window(fx - 6, fy - 6, fx + 6, fy + 6)
        spot.paint(0.7 * spot.cover(np.hypot(spot.x - fx, spot.y - fy) - rng.uniform(1, 2.4), 1.5), skin * rgb(0.4, 0.27, 0.22))
    _paint_wrinkles(face, traits, rng)


def _paint_wrinkles(face: Canvas, traits: Traits, rng: np.random.Generator) -> None:
    x, y, w, skin = face.x, face.y, traits.extras.wrinkles, traits.colours.skin
    dark, pale = skin * rgb(0.55, 0.38, 0.34), mix(skin, WHITE, 0.4)

    def crease(distance: Plane, extent: Plane, strength: float, width: float) -> None:
        face.paint(strength * face.line(np.abs(distance), width, 2.2 * width) * extent, dark)
        face.paint(0.5 * strength * face.line(np.abs(distance - 2.2 * width), width, 2.2 * width) * extent, pale)

    tip, left, right = traits.frame.landmarks[2], traits.frame.landmarks[3], traits.frame.landmarks[4]
    for side, corner in ((-1, left), (1, right)):
        v = (y - tip[1] - 2) / (corner[1] - tip[1] + 8)
        bend = tip[0] + side * (traits.nose.width + 6) + v * (corner[0] + side * 10 - tip[0] - side * (traits.nose.width + 6))
        extent = rise(v, 0, 0.25) * rise(-v, -1.15, -0.75)
        crease(-(x - bend - side * 6 * np.sin(np.pi * v)) * side, extent, 0.06 + 0.35 * w + 0.008 * traits.mouth.smile, 3.0)
        if w > 0.15:
            eye = traits.frame.landmarks[0 if side < 0 else 1]
            for k in (-1, 0, 1):
                out = (x - eye[0]) * side - traits.eyes.width - 6
                crease(y - eye[1] - k * (4 + 0.35 * out), rise(out, 0, 6) * rise(-out, -26, -8), 0.4 * w, 1.1)
    if w > 0.1:
        for k in range(4):
            level = -108 - 17 * k + rng.uniform(-3, 3)
            wave = 3 * np.sin(x / 30 + rng.uniform(0, 6)) - 5 * np.exp(-((x / 50) ** 2))
            crease(y - level - wave, rise(-np.abs(x - rng.uniform(-8, 8)), -80, -40), 0.38 * w, 1.6)


def paint_glasses(canvas: Canvas, traits: Traits) -> None:
    kind, colour = traits.extras.glasses, traits.colours.frame
    if kind == "none":
        return
    left, right = traits.frame.landmarks[:2]
    rx, ry, power, width = {"round": (46, 42, 2.0, 3.6), "square": (50, 36, 4.0, 5.0), "thin": (47, 35, 2.8, 2.0)}[kind]
    glass = canvas.window(-175, left[1] - 70, 175, left[1] + 75)
    x, y = glass.x, glass.y
    rims, lens = np.full_like(x, 1e3), np.full_like(x, 1e3)
    for side, eye in ((-1, left), (1, right)):
        wide = rx * (1 - 0.05 * side * traits.frame.yaw)
        u, v = np.abs(x - eye[0] - side * 3) / wide, np.abs(y - eye[1] - 5) / ry
        norm = (u**power + v**power) ** (1 / power)
        distance = (norm - 1) * min(wide, ry)
        rims, lens = np.minimum(rims, np.abs(distance)), np.minimum(lens, distance)
        edge = eye[0] + side * (wide + 3)
        arm = np.where((x - edge) * side > -2, np.abs(y - eye[1] + 8 + 0.06 * (x - edge) * side), 1e3)
        rims = np.minimum(rims, np.where(np.abs(x) < traits.skull.cheek + 4, arm, 1e3))
    gap = np.abs(x) < (right[0] - left[0]) / 2 - rx + 8
    bridge = np.where(gap, np.abs(y - left[1] + 4 - 0.02 * x * x + 3), 1e3)
    rims = np.minimum(rims, np.where(lens > 0, bridge, 1e3))
    shift = 5
    shadow = np.roll(rims, round(shift / glass.px), axis=0) if glass.px < shift else rims
    glass.tint(0.30 * glass.line(shadow, width + 1, 5), traits.colours.skin * rgb(0.5, 0.4, 0.4))
    glass.paint(0.05 * glass.cover(lens), WHITE)
    streak = np.exp(-(((x - y * 0.7 + 30) / 14) ** 2)) + np.exp(-(((x - y * 0.7 - 96) / 14) ** 2))
    glass.paint(0.10 * glass.cover(lens) * streak, WHITE)
    shade = 1 + 0.5 * rise(-(y - left[1]), 0, 40)
    glass.paint(0.96 * glass.line(rims, width, 1), np.stack([np.clip(c * shade, 0, 1) for c in colour]))
