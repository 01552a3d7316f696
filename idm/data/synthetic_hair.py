"""Hair, headscarf and beard of a synthetic face."""

from dataclasses import dataclass

import numpy as np

from idm.data.synthetic_canvas import Canvas, Colour, Plane, bump, mix, rgb, rise
from idm.data.synthetic_head import Outline, outline, polar
from idm.data.synthetic_traits import Traits

Points = list[tuple[float, float]]
FAR = 990.0  # a hairline so far away that no hair grows in this direction


@dataclass(frozen=True)
class Cut:
    """A haircut: the region between two outlines and the way its strands run."""

    outer: Outline
    inner: Outline
    radial: float  # 1: strands point away from the face, 0: they run around it
    rough: float  # raggedness of the edges, face units
    curl: float = 0.0
    behind: bool = False  # hair falls behind the neck, too
    part: float | None = None  # direction of the parting


def haircut(traits: Traits) -> Cut | None:
    """The cut that goes with a style, fitted to the skull; None for a bald head."""
    style, vol, part = traits.hair.style, traits.hair.volume, traits.hair.part
    top, cheek, recede = traits.skull.crown_y, traits.skull.cheek, traits.hair.recede
    line = -163 - 30 * recede
    parting = float(np.arctan2(part * 0.5, -line))
    end: Points = [(cheek + 12, 25), (cheek + 60, 60), (200, 160), (0, FAR)]
    temple: Points = [(cheek - 24, -104), (cheek - 13, -68), (cheek - 6, -25), (cheek, 0)]
    natural: Points = [(0, line), (46, line + 6 - 14 * recede), (86 - 4 * recede, -143 - 20 * recede), *temple, *end]

    def cap(lift: float, sides: float) -> Points:
        return [
            (0, top - lift), (72, top + 8 - lift), (120 + sides * 0.6, top + 52 - lift * 0.6), (cheek + sides, -104),
            (cheek + 3 + sides, -45), (cheek + 2, -5), (cheek - 5, 30), (60, 60), (0, 60),
        ]  # fmt: skip

    def swept(away: float) -> Points:
        return [(0, line + 2 + 4 * away), (45, line + 6 + 18 * away), (88, -138 + 16 * away), *temple, *end]

    near, away = swept(0.1), swept(0.9)
    right, left = (near, away) if part > 0 else (away, near)
    match style:
        case "bald":
            return None
        case "buzz":
            return Cut(outline(cap(4, 2), cap(4, 2), 3), outline(natural, natural, 2), 1, 1.5)
        case "short":
            crown = cap(12 + 10 * vol, 5)
            return Cut(outline(crown, crown, 4), outline(right, left, 2), 0.8, 5)
        case "quiff":
            crown = cap(26 + 22 * vol, 3)
            return Cut(outline(crown, crown, 5), outline(natural, natural, 2), 0.95, 6)
        case "curly":
            lush = 30 + 26 * vol + 20 * (1 - traits.person.male)
            ball = [(0, top - lush), (100, top + 18 - lush), (168 + lush * 0.3, -150), (152 + lush, -60), (146 + lush, 10)]
            ball += [(cheek + 2 + 0.7 * lush, 62), (cheek + 4, 92), (0, 110)]
            brim = [*natural[:-4], (cheek - 2, 10), (cheek - 4, 50), (cheek - 2, 100), (90, 160), (0, FAR)]
            return Cut(outline(ball, ball, 6), outline(brim, brim, 2), 0.7, 7, curl=1.0)
        case "bun":
            return Cut(outline(cap(8, 1), cap(8, 1), 4), outline(natural, natural, 2), 1, 2.5)
        case "bob" | "fringe":
            lift, low = 18 + 10 * vol, 105 + 50 * traits.hair.wave
            bob = [(0, top - lift), (90, top + 14 - lift), (150, -150), (166 + 8 * vol, -60), (172 + 8 * vol, 30)]
            bob += [(166 + 6 * vol, low), (112, low + 22), (70, low + 10), (0, low)]
            side = [(112, -45), (117, 10), (110, 70), (100, low - 15), (88, low + 40), (0, FAR)]
            bangs = [(0, -104), (40, -102), (80, -96), (104, -80), *side]
            inner = outline(bangs, bangs, 1.5) if style == "fringe" else outline(*_parted(part, line, side), 2.5)
            return Cut(outline(bob, bob, 5), inner, 0.9 if style == "fringe" else 0.1, 6, behind=True, part=None if style == "fringe" else parting)
        case "long" | "wavy" | "scarf":
            wide = 10 * vol + (14 if style == "wavy" else 0)
            fall = [(0, top - 16 - 8 * vol), (88, top - 4), (146, -150), (160 + wide, -50), (172 + wide, 60), (190 + wide, 160)]
            fall += [(215 + wide, 300), (0, 700)]
            side = [(112, -45), (118, 10), (112, 70), (100, 125), (96, 180), (110, 320), (0, FAR)]
            return Cut(outline(fall, fall, 5), outline(*_parted(part, line, side), 2.5), 0.05, 7, behind=True, part=parting)


def _parted(part: float, line: float, side: Points) -> tuple[Points, Points]:
    """Hairlines right and left of a parting: the hair falls from it to both sides of the forehead."""
    shift = part * 0.5

    def half(start: float) -> Points:
        return [(start, line), (start + 0.45 * (100 - start), line + 26), (100, -100), *side]

    return [p for p in half(max(shift, 1)) if p[0] > 0 or p[1] > 0], half(max(-shift, 1))


def strands(canvas: Canvas, across: Plane, along: Plane, offset: float, size: float = 1.0) -> Plane:
    """Locks, strands and single hairs; about unit variance at full resolution."""
    across = across + 5 * size * canvas.noise(across, along, 60 * size, 90 * size, offset + 0.7)
    return (
        0.55 * canvas.noise(across, along, 16 * size, 130 * size, offset)
        + 0.55 * canvas.noise(across, along, 6 * size, 90 * size, offset + 0.31)
        + 0.45 * canvas.noise(across, along, 2.6 * size, 60 * size, offset + 0.53)
    )


def paint_hair_behind(canvas: Canvas, cut: Cut | None, traits: Traits, rng: np.random.Generator) -> None:
    offset = rng.uniform()
    if traits.hair.style == "bun":
        bun = canvas.window(-90, -330, 90, -180)
        x, y = bun.x - traits.hair.part * 0.3, bun.y - traits.skull.crown_y + 8
        r = np.hypot(x, y * 1.1)
        grain = strands(bun, r, np.arctan2(y, x) * 30, offset)
        value = 0.75 - 0.35 * y / 50 + 0.22 * grain
        bun.paint(bun.cover(r - 46 + 2 * grain, 4), _dye(value, traits.colours.hair))
    if cut is None or not cut.behind:
        return
    radius, angle = polar(canvas)
    grain = strands(canvas, canvas.x, canvas.y, offset)
    edge = radius - cut.outer.at(angle)
    if traits.hair.style == "scarf":
        canvas.paint(canvas.cover(radius - cut.outer.at(angle)), traits.scene.accent * np.float32(0.45))
        return
    canvas.paint(canvas.cover(edge + 3, 4), _dye(0.30 + 0.12 * grain, traits.colours.hair))


def paint_hair(canvas: Canvas, cut: Cut | None, traits: Traits, border: Outline, rng: np.random.Generator) -> None:
    """The hair in front of head and shoulders and its shadow on the skin."""
    offset, comb = rng.uniform(), rng.uniform(-0.9, 0.9)
    if cut is None:
        return
    radius, angle = polar(canvas)
    if traits.hair.style == "wavy":
        sway = 0.05 * np.sin(canvas.y / (17 + 8 * traits.hair.wave) + 2.5 * np.sign(canvas.x))
        angle = angle + (sway * rise(np.abs(angle), 0.9, 1.6)).astype(np.float32)
    inner, outer = cut.inner.at(angle), cut.outer.at(angle)
    depth = (radius - inner) / np.maximum(outer - inner, 50)
    if cut.curl:
        grain = _curls(canvas, radius, angle, offset)
    else:
        away = strands(canvas, angle * 170 + comb * (radius - 170), radius * 0.8, offset)
        lean = 0 if cut.part is None else 40 * np.tanh((angle - cut.part) * 60) * np.exp(-np.abs(angle - cut.part) * 3)
        around = strands(canvas, depth * 85 + lean, angle * 150, offset + 0.2)
        blend = cut.radial if cut.radial in (0, 1) else rise(np.abs(angle), 1.3, 0.7) * cut.radial
        grain = around + blend * (away - around)
    rough = cut.rough * (1 - 0.7 * rise(np.abs(angle), 1.0, 1.5))
    hole = inner - radius + 0.5 * rough * grain
    on_skin = canvas.cover(radius - border.at(angle), 4) * (inner < FAR / 3)
    canvas.tint(0.5 * on_skin * np.exp(-np.clip(hole, 0, None) / 9), rgb(0.60, 0.48, 0.45))
    edge = np.maximum(hole, radius - outer + rough * (0.08 + 0.42 * cut.radial) * grain)
    opacity = canvas.cover(edge, 2.5 + cut.rough * 0.5)
    if traits.hair.style == "buzz":
        u, v = 0.8 * canvas.x + 0.6 * canvas.y, 0.8 * canvas.y - 0.6 * canvas.x
        grain = 0.3 * canvas.noise(u, v, 2.4, 3.0, offset) + 0.15 * canvas.noise(u, v, 12, 12, offset)
        opacity = canvas.cover(hole, 22) * canvas.cover(radius - outer, 2) * np.clip(0.84 + 0.2 * grain, 0, 1)
    value = _hair_light(canvas, traits, depth, angle, grain)
    if cut.part is not None:
        beside = np.abs(angle - cut.part) * radius
        value *= 1 - 0.55 * np.exp(-beside / (4 + 10 * np.clip(depth, 0, 1))) * rise(depth, 1.0, 0.5)
    canvas.paint(np.clip(opacity, 0, 1), _dye(value, traits.colours.hair))


def _curls(canvas: Canvas, radius: Plane, angle: Plane, offset: float) -> Plane:
    """Ringlets: strands that swing from side to side as they leave the head."""
    arc = angle * 170
    phase = 3 * canvas.noise(arc, radius, 22, 40, offset)
    swing = 4 * np.sin(radius / 4.5 + phase)
    fine = strands(canvas, arc + swing, radius * 1.5, offset + 0.2)
    clumps = canvas.noise(arc + 0.5 * swing, radius, 20, 26, offset + 0.6)
    return 0.75 * fine + 0.6 * clumps + 0.4 * np.sin(radius / 4.5 + phase + 1)


def _hair_light(canvas: Canvas, traits: Traits, depth: Plane, angle: Plane, grain: Plane) -> Plane:
    lx, ly, lz = traits.light.towards
    nx, ny = np.clip(canvas.x / 230, -1, 1), np.clip(canvas.y / 260, -1, 1)
    nz = np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.05, 1))
    diffuse = np.clip(lx * nx + ly * ny + lz * nz, 0, 1)
    ring = np.exp(-(((depth - 0.52) / 0.2) ** 2)) * np.clip(np.cos(angle - np.arctan2(lx, -ly)), 0, 1) ** 2
    roots = 1 - 0.45 * np.exp(-np.clip(depth, 0, None) / 0.14) - 0.25 * rise(depth, 0.75, 1.0)
    return (0.30 + 0.55 * diffuse) * roots + (0.17 + 0.16 * ring) * grain + 0.20 * ring


def _dye(value: Plane, hair: Colour) -> np.ndarray:
    """Hair of a colour at a brightness: dark and saturated below, with a pale sheen above."""
    dark, bright = hair * np.float32(0.26 + 0.24 * float(hair.mean())), mix(hair * np.float32(1.35), rgb(1, 0.95, 0.88), 0.22)
    low, high = np.clip(value / 0.6, 0, 1), np.clip((value - 0.6) / 0.5, 0, 1)
    return np.stack([d + (h - d) * low + (b - h) * high for d, h, b in zip(dark, hair, bright, strict=True)])


def paint_beard(canvas: Canvas, traits: Traits, border: Outline, rng: np.random.Generator) -> None:
    """Stubble, beard and moustache."""
    hair, skull = traits.hair, traits.skull
    face = canvas.window(-170, -40, 170, 240)
    x, y = face.x, face.y
    (lx, ly), (rx, ry) = traits.frame.landmarks[3:]
    radius, angle = polar(face)
    ratio = radius / border.at(angle)
    lip_top, lip_bottom = ly - traits.mouth.upper - 4, ly + traits.mouth.smile + traits.mouth.lower + traits.mouth.gap + 3
    side = np.abs(x) / skull.cheek
    cheek_line = 86 - 48 * rise(side, 0.35, 0.85) - 60 * rise(side, 0.80, 0.98)
    around = np.hypot(x / (rx + 10), (y - 0.5 * (lip_top + lip_bottom)) / (0.5 * (lip_bottom - lip_top) + 2))
    offset = rng.uniform()
    if hair.stubble > 0.15 or hair.beard:
        zone = rise(y - cheek_line, -8, 26) * rise(around, 0.9, 1.25) * rise(-ratio, -1.02, -0.92)
        dots = 0.8 + 0.25 * face.noise(0.8 * x + 0.6 * y, 0.8 * y - 0.6 * x, 2.2, 2.6, offset)
        strength = 0.42 * max(hair.stubble, 0.6 * (hair.beard > 0))
        face.tint(np.clip(strength * zone * dots, 0, 1), mix(rgb(0.42, 0.40, 0.42), traits.colours.hair, 0.3))
    if hair.beard:
        grain = strands(face, np.arctan2(x, y + 160) * 320, y, offset, 0.6)
        long = 4 + 22 * hair.beard
        edge = np.maximum(cheek_line + 6 - y, (1.12 - around) * 22)
        edge = np.maximum(edge, radius - border.at(angle) - long * rise(y, 60, 170))
        value = 0.52 + 0.12 * grain + 0.16 * traits.light.towards[0] * x / 100 - 0.15 * rise(ratio, 0.95, 1.15)
        opacity = (0.80 + 0.17 * hair.beard) * face.cover(edge + 3 * grain, 14)
        face.paint(np.clip(opacity, 0, 1), _dye(value, traits.colours.hair * np.float32(0.92)))
    if hair.moustache:
        _paint_moustache(face, traits, rng)


def _paint_moustache(face: Canvas, traits: Traits, rng: np.random.Generator) -> None:
    (lx, ly), (rx, _) = traits.frame.landmarks[3:]
    tip = traits.frame.landmarks[2]
    patch = face.window(lx - 25, tip[1] + 5, rx + 25, ly + 40)
    x, y = patch.x - (lx + rx) / 2, patch.y
    t = x / (0.5 * (rx - lx) + 8)
    grain = strands(patch, x - 0.5 * (y - ly) * np.sign(x), y, rng.uniform(), 0.5)
    top = tip[1] + 20 + (ly - tip[1] - 24) * np.abs(t) ** 1.6
    low = ly - 0.45 * traits.mouth.upper + 7 * np.abs(t) + 5 * t * t
    edge = np.maximum(np.maximum(top - y, y - low), 18 * (np.abs(t) - 1.02)) + 2.0 * grain
    edge = edge + 2.5 * bump(x, y, (0, tip[1] + 22), (4, 8))
    value = 0.50 + 0.16 * grain + 0.1 * traits.light.towards[0] * t
    patch.paint(0.92 * patch.cover(edge, 6), _dye(value, traits.colours.hair * np.float32(0.92)))


def paint_scarf(canvas: Canvas, cut: Cut, traits: Traits, rng: np.random.Generator) -> None:
    """A headscarf around face and neck."""
    offset = rng.uniform()
    chin = traits.skull.chin_y
    half = [(0, -142), (60, -128), (100, -90), (116, -40), (118, 10), (108, 65), (84, 116), (48, chin - 18), (0, chin - 4)]
    face = outline(half, half, 4)
    radius, angle = polar(canvas)
    inner = face.at(angle)
    depth = (radius - inner) / 100
    hole = inner - radius
    canvas.tint(0.55 * np.exp(-np.clip(hole, 0, None) / 8), rgb(0.55, 0.45, 0.45))
    drape = depth * 90 + 25 * np.cos(angle) + 0.15 * traits.hair.part * np.sin(angle)
    folds = canvas.noise(drape, np.abs(angle) * 120, 22, 160, offset)
    folds = folds + 0.5 * canvas.noise(drape, np.abs(angle) * 120, 9, 110, offset + 0.3)
    edge = np.maximum(hole, np.where(canvas.y > 150, -1, radius - cut.outer.at(angle)))
    lx, ly, lz = traits.light.towards
    nx, ny = np.clip(canvas.x / 240, -1, 1), np.clip(canvas.y / 280, -1, 1)
    diffuse = np.clip(lx * nx + ly * ny + lz * np.sqrt(np.clip(1 - nx * nx - ny * ny, 0.05, 1)), 0, 1)
    value = traits.light.ambient + (1 - traits.light.ambient) * diffuse + 0.09 * folds
    value = value * (1 - 0.35 * np.exp(-np.clip(depth, 0, None) / 0.06)) * (1 - 0.3 * bump(canvas.x, canvas.y, (0, chin + 20), (60, 18)))
    canvas.paint(canvas.cover(edge, 1.2), np.stack([c * np.clip(value, 0, 1.15) for c in traits.scene.accent]))
