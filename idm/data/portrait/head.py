"""The bare head of a synthetic face: a relief of soft hills, lit from one side, and the marks of its skin."""

import cv2
import numpy as np

from idm.data.portrait.canvas import (
    Canvas,
    Colour,
    Numbers,
    Outline,
    Picture,
    Plane,
    bump,
    length,
    mix,
    noise,
    outline,
    rgb,
    rise,
    shaded,
)
from idm.data.portrait.traits import Light, Skull, Traits

# The skin is smooth: it is lit on a coarse grid of face coordinates and enlarged.
LEFT, TOP, RIGHT, BOTTOM, STEP = -176.0, -272.0, 176.0, 210.0, 2.0


def head_outline(skull: Skull, yaw: float) -> Outline:
    """Crown, temples, cheekbones, jaw and chin."""
    half = [
        (0, skull.crown_y), (38, skull.crown_y + 3), (70, skull.crown_y + 14), (97, skull.crown_y + 35),
        (117, skull.crown_y + 66), (skull.cheek - 4, -104),
        (skull.cheek + 1, -45), (skull.cheek - 4, 5), (0.68 * skull.cheek + 0.32 * skull.jaw - 2, 58),
        (skull.jaw, 106), (0.5 * (skull.jaw + skull.chin), 38 + 0.6 * skull.chin_y),
        (skull.chin, skull.chin_y - 5), (0, skull.chin_y + 1),
    ]  # fmt: skip
    turn = -9 * yaw  # the features stay in the middle, so a turned head shows more of its near side
    return outline([(x + turn, y) for x, y in half], [(x - turn, y) for x, y in half], smooth=5)


def paint_head(canvas: Canvas, traits: Traits, border: Outline, offset: float) -> None:
    """The lit skin of the head, without features."""
    step = max(STEP, canvas.px)
    skin = np.ascontiguousarray(np.moveaxis(_skin(traits, border, step, offset), 0, 2))
    onto_grid = np.array([[step, 0, LEFT], [0, step, TOP], [0, 0, 1]])
    h, w = canvas.x.shape
    large = cv2.warpAffine(
        skin, canvas.to_pixel @ onto_grid, (w, h), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    canvas.paint(canvas.cover(canvas.radius - border.at(canvas.angle), 1.5), np.moveaxis(large, 2, 0))


def lit_skin(shade: Plane, skin: Colour) -> Picture:
    """Skin under more or less light: as it is translucent, its shadows turn red and its lights pale."""
    dark, bright = skin * rgb(0.40, 0.27, 0.24), mix(skin, rgb(1, 0.97, 0.93), 0.36)
    low, high = np.clip(shade / 0.62, 0, 1), np.clip((shade - 0.62) / 0.38, 0, 1.2)
    return np.stack([d + (s - d) * low + (b - s) * high for d, s, b in zip(dark, skin, bright, strict=True)])


def _skin(traits: Traits, border: Outline, step: float, offset: float) -> Picture:
    x = np.arange(LEFT, RIGHT, step).astype(np.float32)[None]
    y = np.arange(TOP, BOTTOM, step).astype(np.float32)[:, None]
    ratio = length(x, y) / border.at(np.arctan2(x, -y))
    shade, mirror = _light(_relief(x, y, traits, ratio), step, traits.light)
    hidden = _occlusion(x, y, traits, ratio)
    colours = lit_skin(shade * (1 - hidden), traits.colours.skin)
    tip = traits.frame.landmarks[2]
    red = 0.22 * bump(x, y, (tip[0], tip[1] + 2), (22, 18)) + 0.08 * bump(x, y, (0, 150), (40, 22))
    for side in (-1, 1):
        red += 0.30 * traits.extras.blush * bump(x, y, (80 * side, 28), (34, 26))
    red += 0.05 * noise(x + 0 * y, y + 0 * x, 46, 46, offset)
    for plane, loss in zip(colours, (0.06, 0.31, 0.26), strict=True):
        plane *= 1 - loss * red
        plane += (0.06 + 0.09 * traits.person.tone) * mirror * (1 - hidden)
    return colours


def _relief(x: Numbers, y: Numbers, traits: Traits, ratio: Plane) -> Plane:
    """Height of the face towards the viewer; `ratio` is 0 at the origin and 1 on the outline."""
    left, right, tip, mouth_l, mouth_r = traits.frame.landmarks
    nose, mouth = traits.nose, traits.mouth
    z = 125 * (1 - np.minimum(ratio, 1.3) ** 2.3)
    for side, eye in ((-1, left), (1, right)):
        z -= 13 * bump(x, y, (eye[0] - side * 6, eye[1] - 6), (31, 17))  # socket
        z += 9 * bump(x, y, (eye[0], eye[1] + 1), (25, 13))  # eyeball
        z += 5 * bump(x, y, (eye[0] - side * 2, eye[1] - traits.brows.y), (34, 9))
        z += 9 * bump(x, y, (side * 82, 22), (36, 30), side * -0.5)  # cheekbone
        z -= (1.2 + 0.24 * mouth.smile) * bump(x, y, (side * 50, 52), (6, 26), side * -0.45)
        z += 10 * bump(x, y, (tip[0] + side * (nose.width - 9), tip[1] + 4), (8, 9))  # wing of the nose
        z -= 6 * bump(x, y, (side * 80, 80), (18, 32))
        z += 5 * bump(x, y, (side * 38, -130), (34, 30))  # forehead
    root = 0.5 * (left[1] + right[1])
    along = np.clip((y - root + 12) / (tip[1] - root + 12), 0, 1)
    ridge = np.exp(-0.5 * ((x - tip[0] * along) / (nose.bridge + 2 + 4 * along**2)) ** 2)
    base = tip[1] + 15 - 5 * np.clip((x - tip[0]) / nose.width, -1.5, 1.5) ** 2
    profile = (0.22 + 0.78 * along**1.3) * rise(y, root - 55, root)
    z += nose.height * profile * ridge * rise(y - base, 6, -11)
    z += 7 * bump(x, y, (tip[0], tip[1] + 1), (11, 10))
    z += 9 * bump(x, y, (tip[0] * 0.4, mouth_l[1] - 4), (46, 30))
    lips = 0.5 * (mouth_l[1] + mouth_r[1]) + mouth.smile
    z += 6 * bump(x, y, (0, lips + 0.6 * mouth.lower), (30, 8))
    z -= 6 * bump(x, y, (0, lips + 1.75 * mouth.lower), (34, 8))
    return z + 13 * bump(x, y, (0, traits.skull.chin_y - 26), (24, 17))


def _light(height: Plane, step: float, light: Light) -> tuple[Plane, Plane]:
    """Diffuse light and mirror-like shine, both in [0, 1], of a relief."""
    dy, dx = np.gradient(height, np.float32(step))
    scale = 1 / np.sqrt(dx * dx + dy * dy + 1)
    lx, ly, lz = light.towards
    facing = np.clip(((lz - lx * dx - ly * dy) * scale + 0.4) / 1.4, 0, 1)  # soft: it reaches round corners
    halfway = 1 / float(np.sqrt(2 + 2 * lz))
    shine = np.clip(((lz + 1) - lx * dx - ly * dy) * scale * halfway, 0, 1) ** 24
    return light.ambient + (1 - light.ambient) * facing, shine


def _occlusion(x: Numbers, y: Numbers, traits: Traits, ratio: Plane) -> Plane:
    """How much light the hollows and the sides of the face lose."""
    left, right, tip, mouth_l, _ = traits.frame.landmarks
    hidden = 0.30 * rise(ratio, 0.70, 1.05) + 0.12 * rise(ratio, 0.8, 1.0) * rise(y, 60, 140)
    for side, eye in ((-1, left), (1, right)):
        hidden += 0.22 * bump(x, y, (eye[0] - side * 30, eye[1] - 10), (12, 13))
        hidden += 0.10 * bump(x, y, (eye[0], eye[1] - 18), (28, 8))
        hidden += (0.05 + 0.14 * traits.person.age) * bump(x, y, (eye[0] - side * 4, eye[1] + 20), (24, 6))
        hidden += 0.12 * bump(x, y, (tip[0] + side * (traits.nose.width + 4), tip[1] + 10), (5, 10))
    lx = traits.light.towards[0]
    hidden += 0.25 * abs(lx) * bump(x, y, (tip[0] - 30 * lx, tip[1] + 8), (14, 18))  # shadow of the nose
    hidden += 0.30 * bump(x, y, (tip[0], tip[1] + 22), (22, 7))
    chin_fold = mouth_l[1] + traits.mouth.smile + 1.6 * traits.mouth.lower
    return hidden + 0.16 * bump(x, y, (0, chin_fold), (28, 8))


def paint_ears(canvas: Canvas, traits: Traits) -> None:
    """Both ears, behind the head, and the rings in them."""
    lx = traits.light.towards[0]
    for side in (-1, 1):
        cx, cy = side * (traits.skull.cheek + 3) - 9 * traits.frame.yaw, -8.0
        rx, ry = 17 - 3.5 * side * traits.frame.yaw, 37.0
        ear = canvas.window(cx - 35, cy - 50, cx + 35, cy + 50)
        x, y = (ear.x - cx) * side / rx + 0.12 * (ear.y - cy) / rx, (ear.y - cy) / ry
        r = length(x, y * (1 - 0.12 * y))
        rim = (r - 0.70) * rx
        shade = 0.62 + 0.4 * lx * side - 0.1 * y
        shade = traits.light.ambient + (1 - traits.light.ambient) * np.clip(shade, 0, 1)
        shade *= 1 - 0.42 * bump(x, y, (0.10, 0.12), (0.26, 0.42)) - 0.35 * rise(x, 0.2, -0.5)
        shade *= 1 - 0.4 * bump(rim, x, (0, 0.5), (1.6, 0.5)) + 0.15 * bump(rim, x, (3, 0.5), (1.5, 0.5))
        shade *= 1 - 0.3 * bump(x, y, (0.25, -0.45), (0.22, 0.12))
        ear.paint(ear.cover((r - 1) * rx), lit_skin(shade, traits.colours.skin * rgb(1, 0.90, 0.88)))
        if traits.extras.earrings:
            x, y = ear.x - cx - side, ear.y - cy - ry + 3
            shine = 0.75 - 0.08 * y + 0.5 * bump(x, y, (3 * lx, -2), (1.6, 1.6))
            ear.paint(ear.cover(length(x, y) - 5, 1.5), shaded(traits.colours.earrings, shine))


def paint_marks(canvas: Canvas, traits: Traits, border: Outline, rng: np.random.Generator) -> None:
    """Pores, freckles, moles and wrinkles."""
    face = canvas.window(-150, -200, 150, 185)
    x, y, skin = face.x, face.y, traits.colours.skin
    inner = rise(face.radius / border.at(face.angle), 1.0, 0.9)
    pores = inner * (face.grain(3.0, rng.uniform()) + 0.8 * face.grain(7.0, rng.uniform()))
    roughness = 0.7 + 0.5 * traits.person.age
    for plane, depth in zip(face.rgb, (0.009, 0.012, 0.012), strict=True):
        plane *= 1 + depth * roughness * pores
    offset, moles = rng.uniform(), rng.uniform(-100, 100, (int(rng.integers(0, 3)), 2))
    if traits.extras.freckles:
        rare = 2.0 - 0.7 * traits.extras.freckles
        spots = rise(face.grain(4.2, offset), rare, rare + 0.7)
        across_nose = bump(x, y, (0, 10), (70, 24))
        face.paint(0.5 * spots * across_nose, skin * rgb(0.62, 0.42, 0.32))
    for mx, my in moles.tolist():
        mole = face.window(mx - 6, my - 6, mx + 6, my + 6)
        away = length(mole.x - mx, mole.y - my) - rng.uniform(1, 2.2)
        mole.paint(0.7 * mole.cover(away, 1.5), skin * rgb(0.4, 0.27, 0.22))
    _paint_wrinkles(canvas, traits, rng)


def _paint_wrinkles(canvas: Canvas, traits: Traits, rng: np.random.Generator) -> None:
    """Folds from nose to mouth, crow's feet and lines of the forehead."""
    deep, smile = traits.extras.wrinkles, traits.mouth.smile
    tip = traits.frame.landmarks[2]
    points = traits.frame.landmarks
    for side, eye, corner in zip((-1, 1), points[:2], points[3:], strict=True):
        fold = canvas.window(side * 60 - 45, tip[1] - 10, side * 60 + 45, corner[1] + 30)
        v = (fold.y - tip[1] - 2) / (corner[1] - tip[1] + 8)
        start, stop = tip[0] + side * (traits.nose.width + 6), corner[0] + side * 10
        off = side * (start + v * (stop - start) + side * 6 * np.sin(np.pi * v) - fold.x)
        extent = rise(v, 0, 0.25) * rise(v, 1.15, 0.75)
        _crease(fold, traits, off, (0.06 + 0.35 * deep + 0.008 * smile) * extent, 3.0)
        if deep > 0.15:
            feet = canvas.window(eye[0] + side * 48 - 26, eye[1] - 30, eye[0] + side * 48 + 26, eye[1] + 30)
            out = (feet.x - eye[0]) * side - traits.eyes.width - 6
            for spread in (-1, 0, 1):
                off = feet.y - eye[1] - spread * (4 + 0.35 * out)
                _crease(feet, traits, off, 0.4 * deep * rise(out, 0, 6) * rise(out, 26, 8), 1.1)
    for height in (-159, -142, -125, -108) if deep > 0.1 else ():
        phase, level, shift = rng.uniform(0, 6), height + rng.uniform(-3, 3), rng.uniform(-8, 8)
        brow = canvas.window(-90, level - 16, 90, level + 16)
        off = brow.y - level - 3 * np.sin(brow.x / 30 + phase) + 5 * np.exp(-((brow.x / 50) ** 2))
        _crease(brow, traits, off, 0.38 * deep * rise(np.abs(brow.x - shift), 80, 40), 1.6)


def _crease(skin: Canvas, traits: Traits, off: Plane, strength: Plane, width: float) -> None:
    """A dark line with a pale one below it, at a signed distance from its middle."""
    colour = traits.colours.skin
    skin.paint(strength * skin.line(np.abs(off), width, 2.2 * width), colour * rgb(0.55, 0.38, 0.34))
    below = np.abs(off - 2.2 * width)
    skin.paint(0.5 * strength * skin.line(below, width, 2.2 * width), mix(colour, rgb(1, 1, 1), 0.4))
