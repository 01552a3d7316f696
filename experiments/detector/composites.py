"""Composites with known faces, generated on the fly: aligned faces pasted at any rotation into scenes without faces."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from idm.faces.align import apply_matrix
from idm.faces.detector.decode import FACE, FACE_CENTRE

_SIDE = 256  # side of the aligned faces on disk, in pixels
_LEVELS = 4  # copies of each face, each half as large as the previous one


@dataclass(frozen=True)
class Faces:
    """Aligned faces: ``levels[k]`` holds n faces of side ``side / 2**k``; ``landmarks`` are in units of the side."""

    levels: list[np.ndarray]
    landmarks: np.ndarray

    @property
    def side(self) -> int:
        return self.levels[0].shape[1]


@dataclass(frozen=True)
class Composite:
    """A picture and its faces.

    Attributes:
        pixels: (h, w, 3), uint8 RGB.
        landmarks, centres: (n, 5, 2) and (n, 2), in pixel indices.
        sizes: (n,), in pixels.
        hidden: (n,), True for faces covered by others or by the border; detecting or missing them is not an error.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    hidden: np.ndarray


@dataclass(frozen=True)
class CompositeConfig:
    """Settings of composites.

    Attributes:
        sizes: least and greatest size of a face in pixels.
        num_faces: numbers of faces, drawn with equal probability.
        upright: share of faces that are rotated by less than about 30 degrees.
        degraded: share of pictures with blur, noise or JPEG.
    """

    sizes: tuple[float, float]
    num_faces: tuple[int, ...] = (0, 1, 1, 2, 3)
    upright: float = 0.55
    degraded: float = 0.6


def load_faces(folder: Path, side: int, limit: int | None = None) -> Faces:
    """Read aligned faces with landmarks from a folder with metadata.jsonl.

    Args:
        side: side of the largest copies in pixels.
        limit: number of faces; None reads all.
    """
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()][:limit]
    images = [cv2.imread(str(folder / row["file_name"]))[..., ::-1] for row in rows]
    sides = [side >> level for level in range(_LEVELS)]
    levels = [np.stack([cv2.resize(image, (s, s), interpolation=cv2.INTER_AREA) for image in images]) for s in sides]
    landmarks = (np.array([row["landmarks"] for row in rows]) + 0.5) / _SIDE
    return Faces(levels, landmarks)


def load_scenes(folder: Path, held_out: bool) -> list[np.ndarray]:
    """Read the training or the held-out pictures of a folder; one in seven is held out.

    The pictures must not contain faces. RGB pictures are scenes, RGBA pictures are objects to paste.
    """
    paths = [path for number, path in enumerate(sorted(folder.glob("*.png"))) if (number % 7 == 0) == held_out]
    scenes = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in paths]
    scenes = [np.repeat(s[..., None], 3, axis=2) if s.ndim == 2 else s for s in scenes]
    return [cv2.cvtColor(s, cv2.COLOR_BGRA2RGBA if s.shape[2] == 4 else cv2.COLOR_BGR2RGB) for s in scenes]


class Composer:
    """Draws composites of one look."""

    def __init__(self, faces: Faces, scenes: list[np.ndarray], config: CompositeConfig, rng: Generator) -> None:
        self.faces, self.config, self.rng = faces, config, rng
        self.scenes = [scene for scene in scenes if scene.shape[2] == 3]
        self.objects = [scene for scene in scenes if scene.shape[2] == 4]
        self.masks = [_mask(rng) for _ in range(96)]

    def draw(self, size: tuple[int, int]) -> Composite:
        """Draw a composite of (height, width) pixels."""
        rng = self.rng
        pixels = self._background(size)
        for _ in range(rng.integers(0, 3)):
            self._paste_distraction(pixels)
        found: list[np.ndarray] = []
        centres: list[np.ndarray] = []
        sizes: list[float] = []
        hidden: list[bool] = []
        for _ in range(rng.choice(self.config.num_faces)):
            length = float(np.exp(rng.uniform(*np.log(self.config.sizes))))
            centre = rng.uniform(0, size[::-1])
            if any(np.hypot(*(centre - c)) < 0.42 * (length + s) for c, s in zip(centres, sizes, strict=True)):
                continue
            points, mask = self._paste_face(pixels, length, centre)
            for k, other in enumerate(found):
                hidden[k] = hidden[k] or bool((_values(mask, other) > 0.3).sum() >= 1)
            found.append(points)
            centres.append(centre)
            sizes.append(length)
            hidden.append(bool((((points < 1) | (points > np.array(size[::-1]) - 2)).any(axis=1)).sum() >= 2))
        landmarks = np.array(found).reshape(-1, 5, 2)
        if rng.random() < 0.5:
            pixels = _colour(pixels, rng)
        if rng.random() < self.config.degraded:
            pixels = _degrade(pixels, rng)
        places = np.array(centres).reshape(-1, 2)
        return Composite(pixels, landmarks, places, np.array(sizes), np.array(hidden, bool))

    # --- background

    def _background(self, size: tuple[int, int]) -> np.ndarray:
        kind = self.rng.choice(5, p=(0.62, 0.14, 0.08, 0.08, 0.08))
        match kind:
            case 0:
                return self._scene(size)
            case 1:
                return self._part_of_portrait(size)
            case 2:
                return _gradient(size, self.rng)
            case 3:
                return _shapes(_gradient(size, self.rng), self.rng)
            case _:
                return _texture(size, self.rng)

    def _scene(self, size: tuple[int, int]) -> np.ndarray:
        scene = self.scenes[self.rng.integers(len(self.scenes))]
        whole = max(size[0] / scene.shape[0], size[1] / scene.shape[1])
        scale = float(np.exp(self.rng.uniform(np.log(min(whole, 1)), np.log(max(whole, 1.5)))))
        if scale < 0.6:
            scene = cv2.resize(scene, None, fx=2 * scale, fy=2 * scale, interpolation=cv2.INTER_NEAREST)
            scene, scale = cv2.resize(scene, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), 1.0
        angle = self.rng.normal(0, 0.2) + self.rng.choice((0, 0, 0, np.pi / 2, np.pi, -np.pi / 2))
        at = self.rng.uniform(0, 1, 2) * scene.shape[1::-1]
        matrix = _similarity(scale * self.rng.choice((-1, 1)), scale, angle, at, np.array(size[::-1]) / 2)
        return cv2.warpAffine(scene, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def _part_of_portrait(self, size: tuple[int, int]) -> np.ndarray:
        """Draw part of a face that is too large to be seen as a whole, or of the clothes below it."""
        rng = self.rng
        face = self.faces.levels[0][rng.integers(len(self.faces.landmarks))]
        side = len(face)
        if rng.random() < 0.4:
            face = face[int(0.88 * side) :]
            scale, at = rng.uniform(0.5, 3) * max(size) / side, rng.uniform(0, 1, 2) * face.shape[1::-1]
        else:
            scale, at = rng.uniform(2.2, 5) * max(size) / side, rng.uniform(0.2, 0.8, 2) * side
        matrix = _similarity(scale, scale, rng.uniform(0, 2 * np.pi), at, np.array(size[::-1]) / 2)
        return cv2.warpAffine(face, matrix, size[::-1], flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT_101)

    # --- foreground

    def _paste_distraction(self, pixels: np.ndarray) -> None:
        """Paste something other than a face, with the same kinds of edges as pasted faces."""
        rng, size = self.rng, np.array(pixels.shape[1::-1])
        side = float(np.exp(rng.uniform(np.log(24), np.log(0.9 * size.max()))))
        angle = rng.normal(0, 0.4)
        if self.objects and rng.random() < 0.6:
            thing = self.objects[rng.integers(len(self.objects))]
            scale = side / max(thing.shape[:2])
            if scale < 0.6:
                thing = cv2.resize(thing, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
                scale = 1.0
            middle = np.array(thing.shape[1::-1]) / 2
            matrix = _similarity(scale * rng.choice((-1, 1)), scale, angle, middle, rng.uniform(0, 1, 2) * size)
            warped = cv2.warpAffine(thing, matrix, tuple(map(int, size)), flags=cv2.INTER_LINEAR)
            _blend(pixels, warped[..., :3], warped[..., 3] * np.float32(1 / 255))
            return
        side = max(8, round(side))
        patch = self._background((side, side))
        mask = cv2.resize(self.masks[rng.integers(len(self.masks))], (side, side))
        matrix = _similarity(1, 1, angle, np.array([side, side]) / 2, rng.uniform(0, 1, 2) * size)
        shape = tuple(map(int, size))
        _blend(pixels, cv2.warpAffine(patch, matrix, shape), cv2.warpAffine(mask, matrix, shape))

    def _paste_face(self, pixels: np.ndarray, length: float, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Paste a face of ``length`` pixels around a centre, in place, and return its landmarks and its mask."""
        rng, shape = self.rng, pixels.shape[1::-1]
        number = rng.integers(len(self.faces.landmarks))
        wanted = length / FACE[1]  # the side of the pasted crop
        level = int(np.clip(np.floor(np.log2(self.faces.side / wanted)), 0, _LEVELS - 1))
        face = self.faces.levels[level][number]
        mirrored = rng.random() < 0.5
        scale, angle = wanted / len(face), _angle(self.config.upright, rng)
        matrix = _similarity(scale * (-1 if mirrored else 1), scale, angle, FACE_CENTRE * len(face) - 0.5, centre)
        border = cv2.BORDER_REPLICATE if rng.random() < 0.15 else cv2.BORDER_CONSTANT
        warped = cv2.warpAffine(face, matrix, shape, flags=cv2.INTER_LINEAR, borderMode=border)
        if border == cv2.BORDER_REPLICATE:
            mask = np.ones(shape[::-1], np.float32)
        else:
            mask = self.masks[rng.integers(len(self.masks))]
            grow = np.diag([len(mask) / len(face)] * 2 + [1.0])
            mask = cv2.warpAffine(mask, (np.vstack([matrix, [0, 0, 1]]) @ np.linalg.inv(grow))[:2], shape)
        if rng.random() < 0.2:
            warped = _colour(warped, rng)
        _blend(pixels, warped, mask)
        points = apply_matrix(matrix, self.faces.landmarks[number] * len(face) - 0.5)
        return points[[1, 0, 2, 4, 3]] if mirrored else points, mask


def _values(mask: np.ndarray, points: np.ndarray) -> np.ndarray:
    x, y = np.rint(points).astype(int).T
    return mask[y.clip(0, len(mask) - 1), x.clip(0, mask.shape[1] - 1)]


def _similarity(sx: float, sy: float, angle: float, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the 2x3 matrix that scales x and y, rotates by ``angle`` and maps ``source`` to ``target``."""
    c, s = np.cos(angle), np.sin(angle)
    linear = np.array([(c, -s), (s, c)]) @ np.diag([sx, sy])
    return np.column_stack([linear, target - linear @ source])


def _angle(upright: float, rng: Generator) -> float:
    kind = rng.random()
    if kind < upright:
        return float(rng.normal(0, 0.26))
    if kind < upright + (1 - upright) / 2:
        return float(rng.choice((0.5, 1, 1.5)) * np.pi + rng.normal(0, 0.15))
    return float(rng.uniform(0, 2 * np.pi))


def _blend(pixels: np.ndarray, front: np.ndarray, mask: np.ndarray) -> None:
    ys, xs = np.flatnonzero(mask.max(axis=1) > 0), np.flatnonzero(mask.max(axis=0) > 0)
    if not (len(ys) and len(xs)):
        return
    part = np.s_[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    weight = mask[part][..., None]
    behind = pixels[part].astype(np.float32)
    pixels[part] = behind + weight * (front[part] - behind) + 0.5


def _mask(rng: Generator, side: int = 96) -> np.ndarray:
    """Draw a blending mask: an ellipse around the head or the whole square, with a hard to very soft edge."""
    mask = np.zeros((side, side), np.float32)
    if rng.random() < 0.5:
        middle = (rng.normal((0.5, 0.53), 0.02) * side).astype(int).tolist()
        axes = (int(side * rng.uniform(0.28, 0.46)), int(side * rng.uniform(0.36, 0.46)))
        cv2.ellipse(mask, middle, axes, 0, 0, 360, 1.0, -1)
    else:
        left, top, right, bottom = (rng.integers(1, int(0.14 * side), 4)).tolist()
        mask[top : side - bottom, left : side - right] = 1
    soft = rng.choice((0, 0.8, 2, 5))
    return mask if soft == 0 else _inside(cv2.GaussianBlur(mask, (0, 0), float(soft)))


def _inside(mask: np.ndarray) -> np.ndarray:
    """Set the border of a mask, where a crop ends, to zero."""
    mask = mask.copy()
    mask[[0, -1]] = 0
    mask[:, [0, -1]] = 0
    return mask


# --- procedural scenes


def _gradient(size: tuple[int, int], rng: Generator) -> np.ndarray:
    corners = rng.integers(0, 256, (rng.integers(1, 4), rng.integers(1, 4), 3)).astype(np.float32)
    grown = cv2.resize(corners, size[::-1], interpolation=cv2.INTER_LINEAR)
    return grown.clip(0, 255).astype(np.uint8)


def _shapes(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    pixels = pixels.copy()
    for _ in range(rng.integers(2, 14)):
        colour = rng.integers(0, 256, 3).tolist()
        a, b = (rng.uniform(0, 1, (2, 2)) * (width, height)).astype(int).tolist()
        thick = int(rng.choice((-1, -1, 1, 3)))
        match rng.integers(3):
            case 0:
                axes = (rng.uniform(0.02, 0.3, 2) * max(height, width)).astype(int).tolist()
                cv2.ellipse(pixels, a, axes, float(rng.uniform(0, 360)), 0, 360, colour, thick, cv2.LINE_AA)
            case 1:
                cv2.rectangle(pixels, a, b, colour, thick)
            case _:
                cv2.line(pixels, a, b, colour, int(rng.integers(1, 6)), cv2.LINE_AA)
    return pixels


def _texture(size: tuple[int, int], rng: Generator) -> np.ndarray:
    """Draw noise of several scales between two colours."""
    height, width = size
    total = np.zeros(size, np.float32)
    for octave in range(7):
        small = rng.standard_normal((max(2, height >> octave), max(2, width >> octave))).astype(np.float32)
        total += cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC) * np.float32(
            rng.uniform(0.2, 1.6) ** octave
        )
    total = (total - total.min()) / (np.ptp(total) + 1e-6)
    low, high = rng.integers(0, 256, (2, 3)).astype(np.float32)
    return (low + total[..., None] * (high - low)).clip(0, 255).astype(np.uint8)


# --- degradations of photographs


def _colour(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    """Make a picture grey or sepia, or change its white balance; then change brightness, contrast and gamma."""
    x = pixels.astype(np.float32) * np.float32(1 / 255)
    kind = rng.random()
    if kind < 0.6:
        x = np.repeat((x @ np.array([0.299, 0.587, 0.114], np.float32))[..., None], 3, axis=2)
    if kind < 0.25 or kind > 0.6:
        x = x * rng.uniform(0.5, 1.35, 3).astype(np.float32)
    x = x.clip(1e-4, 1) ** np.float32(np.exp(rng.normal(0, 0.45)))
    if rng.random() < 0.6:
        low = rng.uniform(0, 0.45)
        high = rng.uniform(low + 0.25, 1.15)
        x = np.float32(low) + x * np.float32(high - low)
    return (255 * x).clip(0, 255).astype(np.uint8)


def _degrade(pixels: np.ndarray, rng: Generator) -> np.ndarray:
    height, width = pixels.shape[:2]
    if rng.random() < 0.4:
        pixels = cv2.GaussianBlur(pixels, (0, 0), float(rng.uniform(0.4, 2.2)))
    if rng.random() < 0.3:
        factor = float(rng.uniform(0.35, 0.9))
        small = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        pixels = cv2.resize(small, (width, height), interpolation=int(rng.choice((cv2.INTER_LINEAR, cv2.INTER_CUBIC))))
    if rng.random() < 0.4:
        channels = 1 if rng.random() < 0.4 else 3
        noise = rng.standard_normal((height, width, channels), np.float32) * np.float32(rng.uniform(2, 24))
        pixels = (pixels + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.4:
        quality = int(rng.uniform(20, 95))
        pixels = cv2.imdecode(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    return pixels
