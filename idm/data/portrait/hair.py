"""Hair, headscarf and beard of a synthetic face."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from idm.data.portrait.canvas import (
    Canvas,
    Colour,
    Outline,
    Picture,
    Plane,
    Point,
    Scalar,
    bump,
    length,
    mix,
    noise,
    outline,
    rgb,
    rise,
    shaded,
)
from idm.data.portrait.traits import Traits

Points = Sequence[Point]
FAR = 990.0  # a hairline so far away that no hair grows in this direction


@dataclass(frozen=True)
class Cut:
    """A haircut: the region between two outlines and the way its strands run."""

    outer: Outline
    inner: Outline
    radial: Scalar  # 1: strands point away from the face, 0: they run around it
    rough: Scalar  # raggedness of the edges
    low: Scalar = 110  # no hair below this height
    behind: bool = False  # it falls behind the neck, too
    part: float | None = None  # direction of the parting


def haircut(traits: Traits) -> Cut | None:
    """The cut of a style, fitted to the skull; None for a bald head."""
    skull, hair = traits.skull, traits.hair
    top, cheek, lift = skull.crown_y, skull.cheek, hair.volume
    line = -163 - 30 * hair.recede
    beyond: Points = [(cheek + 12, 25), (cheek + 60, 60), (200, 160), (0, FAR)]
    temple: Points = [(cheek - 24, -104), (cheek - 13, -68), (cheek - 6, -25), (cheek, 0)]
    corner = (86 - 4 * hair.recede, -143 - 20 * hair.recede)
    natural: Points = [(0, line), (46, line + 6 - 14 * hair.recede), corner]
    whole = _even([*natural, *temple, *beyond], 2)
    match hair.style:
        case "bald":
            return None
        case "buzz":
            return Cut(_even(_cap(traits, 1.5, 0.5), 3), whole, radial=1, rough=1.5)
        case "short":
            combed = (0.1, 0.9) if hair.part > 0 else (0.9, 0.1)  # more hair on the side it is combed to
            right, left = ([(0, line + 4), (45, line + 6 + 18 * a), (88, -138 + 16 * a)] for a in combed)
            inner = outline([*right, *temple, *beyond], [*left, *temple, *beyond], 2)
            return Cut(_even(_cap(traits, 12 + 10 * lift, 5), 4), inner, radial=0.8, rough=5)
        case "quiff":
            return Cut(_even(_cap(traits, 26 + 22 * lift, 3), 5), whole, radial=0.95, rough=6)
        case "bun":
            return Cut(_even(_cap(traits, 8, 1), 4), whole, radial=1, rough=2.5)
        case "curly":
            lush = 30 + 26 * lift + 20 * (1 - traits.person.masculine)
            ball = [(0, top - lush), (100, top + 18 - lush), (168 + 0.3 * lush, -150), (152 + lush, -60)]
            ball += [(146 + lush, 0), (cheek + 0.85 * lush, 42), (cheek + 0.5 * lush, 66), (cheek + 4, 76)]
            brim = [*natural, *temple[:2], (cheek - 5, -25), (cheek - 4, 25), (cheek - 7, 70), (0, FAR)]
            return Cut(_even([*ball, (100, 80), (0, 80)], 3), _even(brim, 2), radial=0.7, rough=7)
    return _long_cut(traits, line)


def _long_cut(traits: Traits, line: float) -> Cut:
    """Hair, or a scarf, that covers the ears."""
    hair, top = traits.hair, traits.skull.crown_y
    lift = 16 + 9 * hair.volume
    part = float(np.arctan2(0.5 * hair.part, -line))
    if hair.style in ("bob", "fringe"):
        low, wide = 105 + 50 * hair.wave, 8 * hair.volume
        hang = [(0, top - lift), (90, top + 14 - lift), (150, -150), (166 + wide, -60), (172 + wide, 30)]
        outer = _even([*hang, (166 + 0.8 * wide, low), (112, low + 22), (70, low + 10), (0, low)], 5)
        side = [(112, -45), (117, 10), (110, 70), (100, low - 15), (88, low + 40), (0, FAR)]
        if hair.style == "bob":
            return Cut(outer, _parted(hair.part, line, side), 0.1, rough=6, low=999, behind=True, part=part)
        bangs = _even([(0, -104), (40, -102), (80, -96), (104, -80), *side], 1.5)
        return Cut(outer, bangs, radial=0.9, rough=6, low=999, behind=True)
    wide = 10 * hair.volume + (14 if hair.style == "wavy" else 0)
    fall = [(0, top - lift), (88, top + 20 - lift), (146, -150), (160 + wide, -50), (172 + wide, 60)]
    outer = _even([*fall, (190 + wide, 160), (215 + wide, 300), (0, 700)], 5)
    side = [(112, -45), (118, 10), (112, 70), (100, 125), (96, 180), (110, 320), (0, FAR)]
    inner = _parted(hair.part, line, side)
    return Cut(outer, inner, 0.05, rough=7, low=999, behind=True, part=part)


def _even(half: Points, smooth: Scalar) -> Outline:
    return outline(half, half, smooth)


def _cap(traits: Traits, lift: Scalar, side: Scalar) -> Points:
    """Short hair over the crown and down to the ears."""
    top, cheek = traits.skull.crown_y, traits.skull.cheek
    return [
        (0, top - lift), (38, top + 2 - lift), (72, top + 11 - 0.95 * lift), (100, top + 31 - 0.85 * lift),
        (121 + 0.6 * side, top + 60 - 0.6 * lift), (cheek + side, -104), (cheek + 3 + side, -45),
        (cheek + 2, -5), (cheek - 5, 30), (60, 60), (0, 60),
    ]  # fmt: skip


def _parted(part: float, line: float, side: Points) -> Outline:
    """Hairlines right and left of a parting, from which hair falls to both sides of the forehead."""
    starts = max(0.5 * part, 1.0), max(-0.5 * part, 1.0)
    right, left = ([(s, line), (s + 0.45 * (100 - s), line + 26), (100.0, -100.0), *side] for s in starts)
    return outline(right, left, 2.5)


def strands(across: Plane, along: Plane, offset: float, size: float = 1.0) -> Plane:
    """Locks, strands and single hairs, of about unit variance."""
    across = across + 5 * size * noise(across, along, 60 * size, 90 * size, offset + 0.7)
    return (
        0.55 * noise(across, along, 16 * size, 130 * size, offset)
        + 0.55 * noise(across, along, 6 * size, 90 * size, offset + 0.31)
        + 0.45 * noise(across, along, 2.6 * size, 60 * size, offset + 0.53)
    )


def paint_hair_behind(canvas: Canvas, cut: Cut | None, traits: Traits, offset: float) -> None:
    """What of the hair is behind head and neck."""
    if traits.hair.style == "bun":
        bun = canvas.window(-90, -340, 90, -160)
        x, y = bun.x - traits.hair.part * 0.3, bun.y - traits.skull.crown_y + 8
        grain = strands(length(x, y), np.arctan2(y, x) * 30, offset)
        value = 0.75 - 0.007 * y + 0.22 * grain
        bun.paint(bun.cover(length(x, 1.1 * y) - 46 + 2 * grain, 4), _dyed(value, traits.colours.hair))
    if cut is None or not cut.behind:
        return
    opacity = canvas.cover(canvas.radius - cut.outer.at(canvas.angle) + 3, 4)
    if traits.hair.style == "scarf":
        canvas.paint(opacity, traits.colours.scarf * np.float32(0.45))
    else:
        grain = strands(canvas.x, canvas.y, offset)
        canvas.paint(opacity, _dyed(0.30 + 0.12 * grain, traits.colours.hair))


def paint_hair(canvas: Canvas, cut: Cut | None, traits: Traits, border: Outline, rng: np.random.Generator) -> None:
    """The hair in front of head and shoulders, and its shadow on the skin."""
    offset, comb = rng.uniform(), rng.uniform(-0.9, 0.9)
    if cut is None:
        return
    mane = canvas.window(-999, -999, 999, cut.low)
    radius, angle = mane.radius, mane.angle
    if traits.hair.style == "wavy":
        sway = 0.05 * np.sin(mane.y / (17 + 8 * traits.hair.wave) + 2.5 * np.tanh(mane.x))
        angle = angle + sway * rise(np.abs(angle), 0.9, 1.6)
    inner, outer = cut.inner.at(angle), cut.outer.at(angle)
    depth = (radius - inner) / np.maximum(outer - inner, 50)
    grain = _grain(mane, cut, traits, angle, depth, (offset, comb))
    rough = cut.rough * (1 - 0.7 * rise(np.abs(angle), 1.0, 1.5)) * grain
    hole = inner - radius + 0.5 * rough
    on_skin = mane.cover(radius - border.at(angle), 4) * (inner < FAR / 3)
    mane.tint(0.5 * on_skin * np.exp(-np.clip(hole, 0, None) / 9), rgb(0.60, 0.48, 0.45))
    edge = np.maximum(hole, radius - outer + (0.08 + 0.42 * cut.radial) * rough)
    opacity = mane.cover(edge, 2.5 + 0.5 * cut.rough)
    if traits.hair.style == "buzz":
        opacity = mane.cover(hole, 22) * mane.cover(radius - outer, 2) * np.clip(0.84 + 0.2 * grain, 0, 1)
    mane.paint(opacity, _dyed(_hair_light(mane, cut, traits, angle, depth, grain), traits.colours.hair))


def _grain(mane: Canvas, cut: Cut, traits: Traits, angle: Plane, depth: Plane, where: tuple[float, float]) -> Plane:
    """The texture of a cut; `where` is an offset into the noise and the slant of the comb."""
    offset, comb = where
    arc, radius = angle * 170, mane.radius
    if traits.hair.style == "buzz":
        return 0.3 * mane.grain(2.6, offset) + 0.15 * mane.grain(12, offset)
    if traits.hair.style == "curly":  # ringlets: strands that swing as they leave the head
        turn = radius / 4.5 + 3 * noise(arc, radius, 22, 40, offset)
        swing = 4 * np.sin(turn)
        clumps = noise(arc + 0.5 * swing, radius, 20, 26, offset + 0.6)
        return 0.75 * strands(arc + swing, 1.5 * radius, offset) + 0.6 * clumps + 0.4 * np.sin(turn + 1)
    across = 85 * depth
    if cut.part is not None:
        away = angle - cut.part
        across = across + 40 * np.sign(away) * np.exp(-3 * np.abs(away))
    around = strands(across, angle * 150, offset + 0.2)
    if cut.radial < 0.5:
        return around
    outwards = strands(arc + comb * (radius - 170), 0.8 * radius, offset)
    blend = 1.0 if cut.radial == 1 else cut.radial * rise(np.abs(angle), 1.3, 0.7)
    return around + blend * (outwards - around)


def _hair_light(mane: Canvas, cut: Cut, traits: Traits, angle: Plane, depth: Plane, grain: Plane) -> Plane:
    """Brightness of hair: a round volume, dark roots and ends, and the ring of light on combed strands."""
    lx, ly, _ = traits.light.towards
    facing = np.cos(angle - math.atan2(lx, -ly))
    ring = np.exp(-(((depth - 0.52) / 0.2) ** 2)) * np.clip(facing, 0, 1) ** 2
    roots = 1 - 0.45 * np.exp(-np.clip(depth, 0, None) / 0.14) - 0.25 * rise(depth, 0.75, 1.0)
    value = (0.30 + 0.55 * _round_light(mane, traits)) * roots + (0.17 + 0.16 * ring) * grain + 0.20 * ring
    if cut.part is not None:
        beside = np.abs(angle - cut.part) * mane.radius
        value *= 1 - 0.5 * np.exp(-beside / (4 + 10 * np.clip(depth, 0, 1))) * rise(depth, 1.0, 0.5)
        value *= 1 - 0.6 * np.exp(-((beside / 2.5) ** 2)) * rise(depth, 1.1, 0.7)
    return value


def _round_light(canvas: Canvas, traits: Traits) -> Plane:
    """Light on a ball as large as the head with its hair."""
    lx, ly, lz = traits.light.towards
    nx, ny = np.clip(canvas.x / 230, -1, 1), np.clip(canvas.y / 260, -1, 1)
    return np.clip(lx * nx + ly * ny + lz * np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.05, 1)), 0, 1)


def _dyed(value: Plane, hair: Colour) -> Picture:
    """Hair of a colour at a brightness: dark and saturated below, with a pale sheen above."""
    dark = hair * np.float32(0.26 + 0.24 * float(hair.mean()))
    bright = mix(hair * np.float32(1.35), rgb(1, 0.95, 0.88), 0.22)
    low, high = np.clip(value / 0.6, 0, 1), np.clip((value - 0.6) / 0.5, 0, 1)
    return np.stack([d + (h - d) * low + (b - h) * high for d, h, b in zip(dark, hair, bright, strict=True)])


def paint_beard(canvas: Canvas, traits: Traits, border: Outline, offset: float) -> None:
    """Stubble, beard and moustache."""
    hair, mouth = traits.hair, traits.mouth
    face = canvas.window(-170, -40, 170, 240)
    x, y = face.x, face.y
    (_, ly), (rx, _) = traits.frame.landmarks[3:]
    outside = border.at(face.angle)
    side = np.abs(x) / traits.skull.cheek
    start = 86 - 48 * rise(side, 0.35, 0.85) - 60 * rise(side, 0.80, 0.98)  # the line over the cheeks
    lips_top, lips_bottom = ly - mouth.upper - 4, ly + mouth.smile + mouth.lower + mouth.gap + 3
    lips = length(x / (rx + 10), (y - 0.5 * (lips_top + lips_bottom)) / (0.5 * (lips_bottom - lips_top) + 2))
    if hair.stubble > 0.15 or hair.beard:
        zone = rise(y - start, -8, 26) * rise(lips, 0.9, 1.25) * rise(face.radius / outside, 1.02, 0.92)
        dots = np.clip(0.85 + 0.15 * face.grain(2.6, offset), 0, 1)
        strength = 0.42 * max(hair.stubble, 0.6 if hair.beard else 0)
        face.tint(strength * zone * dots, mix(rgb(0.42, 0.40, 0.42), traits.colours.hair, 0.3))
    colour = traits.colours.hair * np.float32(0.92)
    if hair.beard:
        grain = strands(np.arctan2(x, y + 160) * 320, y, offset, 0.6)
        edge = face.radius - outside - (4 + 22 * hair.beard) * rise(y, 60, 170)
        edge = np.maximum(np.maximum(start + 6 - y, (1.12 - lips) * 22), edge) + 2.5 * grain
        value = 0.52 + 0.10 * grain + 0.0016 * traits.light.towards[0] * x
        value -= 0.15 * rise(face.radius / outside, 0.95, 1.15)
        face.paint((0.80 + 0.17 * hair.beard) * face.cover(edge, 14), _dyed(value, colour))
    if hair.moustache:
        _paint_moustache(face, traits, colour, offset)


def _paint_moustache(face: Canvas, traits: Traits, colour: Colour, offset: float) -> None:
    (lx, ly), (rx, _) = traits.frame.landmarks[3:]
    _, tip = traits.frame.landmarks[2]
    lip = face.window(lx - 25, tip + 5, rx + 25, ly + 40)
    x, y = lip.x - 0.5 * (lx + rx), lip.y
    t = np.abs(x) / (0.5 * (rx - lx) + 8)
    grain = strands(x - 0.5 * (y - ly) * np.tanh(x / 4), y, offset + 0.5, 0.5)
    top, low = tip + 20 + (ly - tip - 24) * t**1.6, ly - 0.45 * traits.mouth.upper + 7 * t + 5 * t * t
    edge = np.maximum(np.maximum(top - y, y - low), 18 * (t - 1.02)) + 1.3 * grain
    edge += 2.5 * bump(x, y, (0, tip + 22), (4, 8))
    value = 0.50 + 0.11 * grain + 0.0016 * traits.light.towards[0] * x
    lip.paint(0.92 * lip.cover(edge, 8), _dyed(value, colour))


def paint_scarf(canvas: Canvas, cut: Cut, traits: Traits, border: Outline, offset: float) -> None:
    """A headscarf around face and neck."""
    chin, part = traits.skull.chin_y, traits.hair.part
    oval = [(0, -142), (60, -128), (100, -90), (116, -40), (118, 10), (108, 65), (84, 116)]
    inner = _even([*oval, (48, chin - 18), (0, chin - 4)], 4).at(canvas.angle)
    inner = np.minimum(inner, 0.97 * border.at(canvas.angle))  # it lies on the cheeks
    hole = inner - canvas.radius
    depth = -hole / 100
    canvas.tint(0.55 * np.exp(-np.clip(hole, 0, None) / 8), rgb(0.55, 0.45, 0.45))
    drape = 90 * depth + 25 * np.cos(canvas.angle) + 0.15 * part * np.sin(canvas.angle)
    along = 120 * np.abs(canvas.angle)
    folds = noise(drape, along, 22, 160, offset) + 0.5 * noise(drape, along, 9, 110, offset)
    ambient = 0.2 + 0.8 * traits.light.ambient  # cloth scatters more light than skin
    value = ambient + (1 - ambient) * _round_light(canvas, traits) + 0.07 * folds
    value *= 1 - 0.35 * np.exp(-np.clip(depth, 0, None) / 0.06)
    value *= 1 - 0.3 * bump(canvas.x, canvas.y, (0, chin + 20), (60, 18))
    shoulders = 140 + 0.4 * np.clip(np.abs(canvas.x) - 130, 0, None) - canvas.y
    shape = np.maximum(hole, np.minimum(canvas.radius - cut.outer.at(canvas.angle), shoulders))
    canvas.paint(canvas.cover(shape, 1.2), shaded(traits.colours.scarf, np.clip(value, 0, 1.15)))
