"""Procedural portraits with exact landmarks: for a first training run, for tests and for demonstrations.

No photograph and no network is involved: a face is a function of (seed, index), at any resolution. Lengths below are
pixels of a 512 px picture; x points right, y down, and the origin lies between the eyes.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from idm.io.errors import InvalidInput

_DOMAIN = 0x5FACE  # keeps these random numbers apart from others that are drawn from the same seed
_ORIGIN = np.array([256.5, 240.6])
# FFHQ's five points as every face restorer aligns to them, from the origin, pixel borders at integers.
_TEMPLATE = np.array([[192.98, 239.95], [318.90, 240.19], [256.63, 314.02], [201.26, 371.41], [313.09, 371.15]]) + 0.5
_SKIN = np.array([[0.97, 0.82, 0.73], [0.90, 0.71, 0.58], [0.78, 0.57, 0.43], [0.58, 0.39, 0.28], [0.38, 0.25, 0.18]])
_HAIR = np.array([[0.10, 0.08, 0.08], [0.24, 0.15, 0.1], [0.42, 0.27, 0.16], [0.72, 0.55, 0.32], [0.55, 0.25, 0.12]])
_IRIS = np.array([[0.22, 0.13, 0.08], [0.34, 0.22, 0.11], [0.25, 0.38, 0.50], [0.28, 0.38, 0.26], [0.38, 0.41, 0.44]])

Field = Float32[np.ndarray, "n n"]
Colour = np.ndarray  # (3,), or (n, n, 3) where it varies
Length = float | int


@dataclass(frozen=True)
class SyntheticFace:
    """A portrait and where its features are.

    ``image``: RGB, 0 to 255. ``landmarks``: (x, y) of left eye, right eye, nose tip, left and right mouth
    corner as seen in the picture, in pixels with pixel centres at integers; exact, and aligned as FFHQ is.
    """

    image: UInt8[np.ndarray, "size size 3"]
    landmarks: Float32[np.ndarray, "5 2"]


def check_size(size: int) -> None:
    """Raises ValueError for a size outside 16 to 1024 pixels."""
    if not 16 <= size <= 1024:
        raise InvalidInput(f"size must be from 16 to 1024 pixels, got {size}")


def synthetic_face(seed: int, index: int, size: int) -> SyntheticFace:
    """Face number `index` of the endless set `seed`, as a square picture of `size` pixels.

    The same (seed, index) is the same face at every size: landmarks scale as (x + 0.5) * s - 0.5. The result
    depends on the arguments only, not on earlier calls or any global generator.

    Raises ValueError for a size outside 16 to 1024 and for a negative seed or index.
    """
    check_size(size)
    if seed < 0 or index < 0:
        raise InvalidInput(f"seed and index must not be negative, got {seed} and {index}")
    person = _Person(np.random.default_rng(np.random.SeedSequence([_DOMAIN, seed, index])))
    times = 1 if size >= 512 else max(2, -(-128 // size))  # small pictures are painted larger and averaged
    canvas = _Canvas(person, size * times)
    for layer in (_backdrop, _body, _head, _nose, _eye, _mouth, _beard, _hair, _glasses):
        layer(canvas, person)
    picture = cv2.resize(np.clip(canvas.rgb, 0, 1), (size, size), interpolation=cv2.INTER_AREA)
    points = np.array(person.landmarks) @ person.pose[:, :2].T + person.pose[:, 2]
    landmarks = (points * (size / 512) - 0.5).astype(np.float32)
    return SyntheticFace(np.rint(255 * picture).astype(np.uint8), landmarks)


class _Person:
    """Everything that is drawn by chance. Normal numbers end at two deviations: faces vary, but none is a monster."""

    def __init__(self, rng: np.random.Generator) -> None:
        def normal(mean: float, spread: float) -> float:
            return mean + spread * float(np.clip(rng.standard_normal(), -2, 2))

        self.rng, self.normal = rng, normal
        self.masculine, self.age = rng.random() < 0.5, rng.random() ** 1.4
        self.yaw, tone = normal(0.0, 0.4), 4 * rng.random()
        self.skin = np.array([np.interp(tone, range(5), _SKIN[:, c]) for c in range(3)]) * [1, normal(1.0, 0.02), 1]
        dark = tone > 2 or rng.random() < 0.4
        grey = rng.random() < 2 * (self.age - 0.5)
        self.hair = (np.full(3, 0.68) if grey else _HAIR[rng.integers(2 if dark else 5)]) * normal(1.0, 0.12)
        self.iris = _IRIS[rng.integers(2 if dark else 5)]
        self.cloth, self.near, self.far = (self._hue() for _ in range(3))
        self.skin, self.hair, self.iris = (c.astype(np.float32) for c in (self.skin, self.hair, self.iris))
        light = np.array([rng.uniform(-0.8, 0.8), -rng.uniform(0.2, 0.7), 0.85])
        self.light: list[float] = (light / np.linalg.norm(light)).tolist()
        self.cheek = normal(122.0 + 4 * self.masculine, 4.0)
        self.chin = normal(203.0 + 8 * self.masculine, 5.0)
        self.square = normal(2.15 + 0.5 * self.masculine, 0.15)
        self._place()
        styles = ("bald", "short", "short", "quiff") if self.masculine else ("bob", "long", "fringe", "curly")
        self.style = styles[rng.integers(4)]
        self.bearded, self.glasses = self.masculine * (rng.random() < 0.4) * rng.uniform(0.5, 1), rng.random() < 0.25
        self.waves = rng.uniform(0, 2 * np.pi, (3, 16)).astype(np.float32)

    def _hue(self) -> Colour:
        """Any hue, muted as in clothes and rooms."""
        wheel = 0.5 + 0.5 * np.cos(2 * np.pi * (self.rng.random() - np.arange(3) / 3))
        return (self.rng.uniform(0.2, 0.85) * (1 - 0.6 * self.rng.random() * (1 - wheel))).astype(np.float32)

    def _place(self) -> None:
        """Landmarks and pose, with the scatter of aligned photographs."""
        points, normal = _TEMPLATE - _ORIGIN, self.normal
        eyes, mouth = (normal(0.0, 1.6), normal(0.0, 1.6)), (normal(0.0, 3.0), normal(0.0, 3.0))
        for row, side, (gap, down) in ((0, -1, eyes), (1, 1, eyes), (3, -1, mouth), (4, 1, mouth)):
            points[row] += [side * gap + (2 * self.yaw if row > 2 else 0), down + normal(0.0, 0.7)]
        points[2] += [16 * self.yaw + normal(0.0, 1.0), normal(0.0, 3.5)]
        angle, scale = np.deg2rad(normal(0.0, 1.2)), normal(1.0, 0.012)
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.landmarks: list[list[float]] = points.tolist()
        self.pose = np.column_stack([turn, _ORIGIN + np.array([normal(0.0, 1.5), normal(0.0, 1.5)])])


class _Canvas:
    """A square picture, `rgb`, and the face coordinates of its pixels, `x` and `y`."""

    def __init__(self, person: _Person, size: int) -> None:
        grid = (np.mgrid[0:size, 0:size][::-1].astype(np.float32) + 0.5) * (512 / size)
        turn, shift = person.pose[:, :2].astype(np.float32), person.pose[:, 2:, None].astype(np.float32)
        self.person, self.size = person, size
        self.x, self.y = np.tensordot(np.linalg.inv(turn), grid - shift, 1)
        self.rgb = np.zeros((size, size, 3), np.float32)
        self.skull = self.head()

    def paint(self, distance: Field, colour: Colour, alpha: Length | Field = 1.0, soft: Length = 0.0) -> None:
        """Cover where the signed distance is negative; the edge is `soft`, or a pixel wide."""
        cover = np.clip(0.5 - distance / max(soft, 512 / self.size), 0, 1) * alpha
        self.rgb += cover[..., None] * (np.asarray(colour, np.float32) - self.rgb)

    def shade(self, amount: Field) -> None:
        """Multiply the light by 1 + amount."""
        self.rgb *= 1 + amount[..., None]

    def ellipse(self, x: Length, y: Length, rx: Length, ry: Length) -> Field:
        return (np.hypot((self.x - x) / rx, (self.y - y) / ry) - 1) * min(rx, ry)

    def spot(self, x: Length, y: Length, sx: Length, sy: Length) -> Field:
        """A Gaussian of height 1."""
        return np.exp(-0.5 * (((self.x - x) / sx) ** 2 + ((self.y - y) / sy) ** 2))

    def strands(self, angle: Field, count: int, row: int) -> Field:
        """Stripes of many frequencies along a coordinate, within about -1 to 1."""
        waves = enumerate(self.person.waves[row, :5])
        return sum(np.sin(angle * count * (1 + 0.37 * i) + wave) for i, wave in waves) / 3

    def head(self, wider: Length = 0, crown: Length = 170) -> Field:
        """Signed distance to the outline of the head: half an ellipse above, the jaw below."""
        wide, person = self.person.cheek + wider, self.person
        down, up = np.maximum(self.y, 0) / (person.chin + wider), np.maximum(-self.y, 0) / (crown + wider)
        return 0.9 * wide * (np.sqrt((self.x / wide) ** 2 + down**person.square + up**2.6) - 1)


def _backdrop(c: _Canvas, person: _Person) -> None:
    ramp = np.clip((c.y + 240) / 512 + 0.3 * np.sin(c.x / 150 + person.waves[0, 0]), 0, 1)[..., None]
    c.rgb[:] = person.near * (1 - ramp) + person.far * ramp
    for wave_x, wave_y, wave in person.waves.T[:9].tolist():
        x, y = 300 * math.sin(wave_x), 280 * math.sin(wave_y) - 20
        c.paint(c.ellipse(x, y, 16 + 5 * wave, 16 + 5 * wave), 0.5 * person.near + 0.5, 0.16, soft=6 + 3 * wave)


def _body(c: _Canvas, person: _Person) -> None:
    if person.style == "curly":
        cloud = c.ellipse(0, -10, person.cheek + 62, 205) + 8 * c.strands(np.arctan2(c.x, 60 - c.y), 6, 0)
        c.paint(cloud, _hair_colour(c, person) * 0.75)
    elif person.style in ("long", "bob", "fringe"):
        wide, lock = person.cheek + 18 + 0.1 * (c.y + 40), 330.0 if person.style == "long" else 150.0
        edge = np.maximum(np.abs(c.x) - wide, c.y - lock - 5 * c.strands(c.x / 9, 1, 2))
        c.paint(np.where(c.y > -40, edge, 99.0), _hair_colour(c, person) * 0.75)
    c.paint(np.maximum(np.abs(c.x) - 66 - 14 * person.masculine, 60 - c.y), person.skin * 0.62)
    c.paint(c.skull - 14, person.skin * 0.45, np.clip(c.y / 100, 0, 1) * 0.5, soft=40)  # the shadow of the chin
    cloth = person.cloth * (1 + 0.12 * c.strands(c.x / 30 + c.y / 90, 1, 2))[..., None]
    c.paint(np.maximum(c.ellipse(0, 430, 290, 190), -c.ellipse(0, 225, 76, 62)), cloth)


def _head(c: _Canvas, person: _Person) -> None:
    for side in (-1, 1):
        c.paint(c.ellipse(side * (person.cheek + 3), 34, 17, 36), person.skin * 0.82)
    nx, ny = (c.x - 12 * person.yaw) / (person.cheek + 14), (c.y - 10) / 235
    nz = np.sqrt(np.clip(1 - nx**2 - ny**2, 0.03, 1))
    lit = 0.42 + 0.72 * np.clip(nx * person.light[0] + ny * person.light[1] + nz * person.light[2], 0, 1)
    c.paint(c.skull, person.skin * lit[..., None])
    grain = c.strands(c.x / 5 + np.sin(c.y / 4), 1, 0) * c.strands(c.y / 5 + np.sin(c.x / 6), 1, 1)
    c.shade(0.035 * grain * (c.skull < 0))
    for side in (-1, 1):
        c.rgb *= 1 + c.spot(side * 72, 82, 26, 22)[..., None] * np.array([0.05, -0.04, -0.03], np.float32)
        fold = (c.x - side * (38 + 0.3 * (c.y - 80))) / 4
        c.shade(-0.25 * person.age * np.exp(-(fold**2) - ((c.y - 105) / 22) ** 2))
    for line in range(3):
        bend = (c.y + 74 + 15 * line + 4 * np.cos(c.x / 40)) / 2.2
        c.shade(-0.28 * max(person.age - 0.3, 0) * np.exp(-(bend**2)) * np.clip((75 - np.abs(c.x)) / 30, 0, 1))


def _nose(c: _Canvas, person: _Person) -> None:
    x, y = person.landmarks[2]
    ridge = x * np.clip(c.y / y, 0, 1)
    between = np.clip((c.y + 25) / 25, 0, 1) * np.clip((y + 8 - c.y) / 20, 0, 1)
    c.shade(0.13 * between * np.exp(-(((c.x - ridge) / 9) ** 2)))
    c.shade(-0.20 * between * np.exp(-(((c.x - ridge + math.copysign(19, person.light[0])) / 10) ** 2)))
    c.shade(-0.25 * c.spot(x, y + 22, 26, 6))
    for side in (-1, 1):
        wing = np.abs(c.ellipse(x + side * 19, y + 6, 13, 13)) / 2.5
        c.shade(-0.30 * np.exp(-(wing**2)) * (side * (c.x - x) > 18))
        c.paint(c.ellipse(x + side * 13.6, y + 14.6, 8.0, 4.6), person.skin * 0.16, 0.95, soft=3)
    c.shade(0.30 * c.spot(x, y, 9, 8))


def _eye(c: _Canvas, person: _Person) -> None:
    width, upper, lower = person.normal(31.0, 1.2), person.normal(11.5, 0.9), person.normal(9.0, 0.7)
    raised, thick = person.normal(33.0, 2.5), person.normal(7.0 + 3 * person.masculine, 1.2)
    arch = person.normal(8.0, 2.0)
    for side, (x, y) in zip((-1, 1), person.landmarks[:2], strict=True):
        across = side * (c.x - x) / width
        bow = np.clip(1 - across**2, -1, 1)
        top, bottom = y - upper * bow - 1.5 * across, y + lower * bow - 1.5 * across
        c.shade(-0.28 * c.spot(x - side * 10, y - 10, 34, 17))
        opening = np.maximum(top - c.y, c.y - bottom)
        c.paint(opening, np.array([0.90, 0.88, 0.86]) * (1 - 0.35 * c.spot(x, y - upper, 40, 7))[..., None])
        inside = np.clip(0.5 - opening / 2, 0, 1)
        radius = c.ellipse(x, y, 12.4, 12.4)
        c.paint(radius, person.iris * (0.75 + 0.25 * np.clip(-radius / 6, 0, 1))[..., None], inside)
        c.paint(np.abs(radius + 1) - 1.3, person.iris * 0.4, inside)
        c.paint(c.ellipse(x, y, 6.2, 6.2), np.full(3, 0.03), inside)
        c.paint(c.ellipse(x + 4, y - 4.5, 2.4, 2.4), np.full(3, 0.97), inside * 0.9)
        lid = np.maximum(np.abs(c.y - top) - 1.6 - 1.2 * np.clip(across, 0, 1), np.abs(across) * width - width - 1)
        c.paint(lid, person.skin * 0.18, 0.9, soft=2)
        c.paint(np.maximum(np.abs(c.y - bottom) - 0.8, np.abs(c.x - x) - width), person.skin * 0.45, 0.6, soft=2)
        c.shade(-0.2 * np.exp(-(((c.y - top + 8) / 2) ** 2)) * np.clip(bow, 0, 1))
        c.shade(-0.25 * (0.3 + person.age) * np.exp(-(((c.y - bottom - 9) / 4) ** 2)) * np.clip(bow, 0, 1))
        along = side * (c.x - x) / 42
        middle = y - raised - arch * (1 - (along - 0.3) ** 2) + 4
        half = thick * np.clip(0.75 - 0.45 * along, 0.1, 1.0)
        brow = np.maximum(np.abs(c.y - middle) - half, (np.abs(along) - 0.95) * 42)
        hairs = (1 + 0.5 * c.strands(c.x / 2.6 + side * c.y / 5, 1, 2))[..., None]
        c.paint(brow + 1.5 * c.strands(c.x / 3, 1, 1), np.minimum(person.hair, 0.5) * 0.7 * hairs, 0.85, soft=4)


def _mouth(c: _Canvas, person: _Person) -> None:
    (left, left_y), (right, right_y) = person.landmarks[3:]
    across = (2 * c.x - left - right) / (right - left)
    bow, within = np.clip(1 - across**2, 0, 1), (np.abs(across) - 1) * (right - left) / 2
    smile, open_by = abs(person.normal(5.0, 4.0)), max(0.0, person.normal(0.0, 8.0))
    line = left_y + (right_y - left_y) * (across + 1) / 2 + smile * bow
    full = person.normal(1.0, 0.15) - 0.25 * person.masculine - 0.2 * person.age
    top = line - 15 * full * bow * (1 - 0.3 * np.exp(-((across / 0.16) ** 2))) - 1
    bottom = line + (19 * full + open_by) * bow**0.8 + 1
    lips = person.skin * np.array([0.80, 0.54, 0.55]) + 0.10 * person.rng.random() * np.array([1.0, 0.0, 0.1])
    sheen = 1 + 0.25 * np.exp(-(((c.y - line - 9 * full - open_by) / 4) ** 2)) * bow - 0.22 * (c.y < line)
    c.shade(-0.2 * c.spot((left + right) / 2, left_y + smile + 32 * full + open_by, 30, 7))
    c.paint(np.maximum(np.maximum(top - c.y, c.y - bottom), within), lips * sheen[..., None], 0.9, soft=3)
    teeth = np.maximum(np.maximum(line - c.y, c.y - line - open_by * bow), within)
    c.paint(teeth, np.array([0.93, 0.91, 0.87]) * (0.65 + 0.35 * bow)[..., None], min(open_by / 4, 1.0))
    c.paint(np.maximum(np.abs(c.y - line) - 1.5, within), person.skin * 0.16, 0.9, soft=2.5)


def _beard(c: _Canvas, person: _Person) -> None:
    (left, _), (right, y) = person.landmarks[3:]
    lips = c.ellipse((left + right) / 2, y + 6, 50, 20)
    chin = np.maximum(c.skull - 6, 55 + 0.55 * (person.cheek - np.abs(c.x)) - c.y)
    moustache = np.maximum(c.ellipse((left + right) / 2, y - 12, 62, 17), c.y - y + 4)
    texture = (1 + 0.45 * c.strands(c.x / 4 + np.sin(c.y / 12), 1, 0))[..., None]
    edge = np.minimum(np.maximum(chin, -lips), moustache) + 3 * c.strands(c.x / 6, 1, 1)
    c.paint(edge, person.hair * 0.8 * texture, person.bearded, soft=10)
    for x, y in person.landmarks[3:]:  # the corners of the mouth
        c.shade(-0.5 * c.spot(x, y, 5, 4))


def _hair(c: _Canvas, person: _Person) -> None:
    if person.style == "bald":
        return
    volume = {"short": 10.0, "quiff": 24.0, "bob": 22.0, "long": 20.0, "fringe": 22.0, "curly": 50.0}[person.style]
    outline = c.head(volume, 188 if person.style == "quiff" else 174)
    outline += (9.0 if person.style == "curly" else 1.5) * c.strands(np.arctan2(c.x, 60 - c.y), 9, 0)
    start = {"fringe": -62.0}.get(person.style, -108.0 - 24 * person.age * person.masculine)
    reach = {"short": 70.0, "quiff": 60.0}.get(person.style, 300.0)
    side = np.abs(c.x - 14 * person.yaw) / person.cheek
    line = start + reach * np.clip(side, 0, 1.3) ** 4 + 4 * c.strands(c.x / 9, 1, 2)
    c.paint(np.maximum(c.skull, c.y - line - 14), person.skin * 0.4, 0.35, soft=16)  # the shadow of the hair
    c.paint(np.maximum(outline, c.y - np.minimum(line, 40 if reach < 100 else 150)), _hair_colour(c, person))


def _hair_colour(c: _Canvas, person: _Person) -> Colour:
    """Strands that run from the crown, with a band of gloss."""
    x, y = c.x - 60 * math.sin(person.waves[2, 0]), c.y + 235
    bend, length = (0.14, 13) if person.style == "curly" else (0.03, 40)
    angle = np.arctan2(x, y) + bend * np.sin(np.hypot(x, y) / length + person.waves[2, 1] + 3 * x / 90)
    gloss = 0.45 * np.exp(-(((np.hypot(x, y) - 95) / 34) ** 2)) * (0.6 + person.light[0] * np.sign(c.x) * 0.4)
    return person.hair * (1 + 0.38 * c.strands(angle, 34, 1) + gloss)[..., None] + 0.02


def _glasses(c: _Canvas, person: _Person) -> None:
    if not person.glasses:
        return
    frame, power = person.cloth * 0.4, 4 if person.waves[2, 2] > 3 else 2
    for side, (x, y) in zip((-1, 1), person.landmarks[:2], strict=True):
        lens = ((np.abs(c.x - x - side * 3) / 47) ** power + (np.abs(c.y - y - 3) / 37) ** power) ** (1 / power)
        c.paint(np.abs(lens - 1) * 40 - 2.4, frame)
        c.paint(np.maximum(np.abs(c.y - y + 8) - 2.4, np.abs(c.x - x - side * 66) - 17), frame)
    (left, y), (right, _) = person.landmarks[:2]
    c.paint(np.maximum(np.abs(c.y - y + 4 - 5 * np.cos(c.x / 12)) - 2.2, np.abs(c.x - (left + right) / 2) - 17), frame)
