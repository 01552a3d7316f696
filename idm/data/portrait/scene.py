"""What surrounds a synthetic face: the backdrop, the neck and the clothes."""

import cv2
import numpy as np

from idm.data.portrait.canvas import Canvas, Outline, Plane, bump, length, mix, noise, rgb, rise, shaded
from idm.data.portrait.head import lit_skin
from idm.data.portrait.traits import Scene, Traits

BACKDROP_SIZE = 96  # nothing in it is sharp, so it is painted small


def paint_backdrop(canvas: Canvas, scene: Scene, rng: np.random.Generator) -> None:
    """A place out of focus."""
    y, x = (np.mgrid[0:BACKDROP_SIZE, 0:BACKDROP_SIZE].astype(np.float32) + 0.5) / BACKDROP_SIZE
    from_corner = length(x - rng.uniform(-0.3, 1.3), y - rng.uniform(-0.3, 1.3))
    share = rise(from_corner, 0.1, 1.3)
    picture = shaded(scene.near, 1 - share) + shaded(scene.far, share)
    for _ in range({"studio": 2, "lights": 26, "room": 9, "garden": 40}[scene.kind]):
        cx, cy = rng.uniform(-0.1, 1.1, 2).tolist()
        size, depth, shine = rng.uniform(size=3).tolist()
        colour = mix(scene.accent, scene.far, depth)
        match scene.kind:
            case "studio":
                shape = bump(x, y, (cx, cy), (0.3, 0.3))
            case "lights":
                shape = rise(length(x - cx, y - cy), 0.03 + 0.08 * size, 0.01 + 0.08 * size)
                colour = mix(colour, rgb(1, 0.95, 0.85), 0.5)
            case "room":
                half = 0.03 + 0.15 * size
                shape = rise(np.abs(x - cx), half + 0.03, half)
                shape *= rise(np.abs(y - cy), 2 * half + 0.2, 2 * half)
                colour = mix(colour, mix(scene.near, rgb(0, 0, 0), 0.7), shine)
            case "garden":
                shape = bump(x, y, (cx, cy), (0.03 + 0.08 * size, 0.03 + 0.06 * size))
                colour = mix(colour, rgb(0.30, 0.42, 0.20), 0.7) * np.float32(0.6 + 0.8 * shine)
        picture += (0.15 + 0.4 * depth) * shape * (colour[:, None, None] - picture)
    picture *= 1 - 0.25 * rise(length(x - 0.5, y - 0.45), 0.35, 0.85)
    h, w = canvas.x.shape
    for plane, small in zip(canvas.rgb, picture, strict=True):
        plane[:] = cv2.resize(small, (w, h), interpolation=cv2.INTER_CUBIC)


def paint_body(canvas: Canvas, traits: Traits, border: Outline, rng: np.random.Generator) -> None:
    """Neck, shoulders and clothes; `border` is the outline of the head, whose shadow falls on the neck."""
    body = canvas.window(-999, 90, 999, 999)
    x, y = body.x + 5 * traits.frame.yaw, body.y
    half = traits.skull.neck + 0.0035 * np.clip(y - 120, 0, None) ** 2
    side = np.clip(x / half, -1, 1)
    lx, _, lz = traits.light.towards
    shade = _ambient(traits, np.clip(lz * np.sqrt(1 - side**2) + lx * side, 0, 1))
    shade *= 1 - 0.62 * np.exp(-np.clip(body.radius - border.at(body.angle), 0, None) / 26)
    shade -= 0.05 * bump(x, y, (0, 210), (9, 16))
    for sign in (-1, 1):
        shade -= 0.06 * bump(x, y, (44 * sign, 200), (8, 40), 0.35 * sign)
    slope = 165 + rng.uniform(-3, 4) + 46 * (np.clip(np.abs(x) - 62, 0, None) / 130) ** 0.8
    skin = body.cover(np.minimum(np.abs(x) - half, slope - y))
    body.paint(skin, lit_skin(shade, traits.colours.skin))
    _paint_clothes(body, traits, slope, rng.uniform())


def _paint_clothes(body: Canvas, traits: Traits, slope: Plane, offset: float) -> None:
    x, y, neck = body.x + 5 * traits.frame.yaw, body.y, traits.skull.neck
    match traits.scene.neckline:
        case "v" | "shirt":
            hole = np.abs(x) - (neck + 6) * (252 - y) / 78
        case "high":
            hole = y - 168 - 16 * np.sqrt(np.clip(1 - (x / (neck + 14)) ** 2, 0, 1))
        case "crew":
            hole = 50 * (length(x / (neck + 12), (y - 150) / 54) - 1)
    cloth = np.maximum(slope - 3 - y, -hole)
    skin = body.cover(np.maximum(np.abs(x) - neck - 14, slope - y))
    body.tint(0.35 * skin * body.cover(cloth - 5, 12), rgb(0.4, 0.3, 0.3))
    folds = noise(x + 0.6 * y, y, 30, 70, offset) + 0.5 * noise(x - 0.5 * y, y, 16, 60, offset)
    seam = body.line(np.abs(hole - 6), 1.2, 2)
    lx, _, lz = traits.light.towards
    light = _ambient(traits, np.clip(lz + lx * x / 260, 0, 1))
    light *= (0.85 + 0.06 * folds + 0.03 * body.grain(2.4, offset)) * (1 - 0.25 * seam)
    body.paint(body.cover(cloth), shaded(traits.colours.cloth, light))
    if traits.scene.neckline == "shirt":
        collar = np.maximum(np.maximum(-hole, slope - 5 - y), np.abs(x) - (neck + 24) * (262 - y) / 94)
        body.tint(0.4 * body.cover(cloth) * body.cover(collar - 4, 8), rgb(0.4, 0.4, 0.45))
        body.paint(body.cover(collar), shaded(traits.colours.cloth, light * 1.12))


def _ambient(traits: Traits, direct: Plane) -> Plane:
    return traits.light.ambient + (1 - traits.light.ambient) * direct
