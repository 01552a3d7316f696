"""Measure whether ``idm restore`` harms faces of `val` that need little change, using its whole pipeline.

    IDM_ASSETS=... python experiments/photos/harm.py -o experiments/photos/results/harm.json

Each face is degraded, pasted into a larger picture (with its own edge colours, blurred), detected, restored and pasted
back, with the restorer's full change and with the part that :mod:`idm.apps.photo.harm` applies. PSNR, SSIM and identity
are means over the square of the face, compared with the original; no grain is kept. Black-and-white portraits are not
degraded; their slope is the regression of the restored on the given lightness, band-passed between Gaussians of 2 and
20 pixels. Rotated photographs are rotated back and compared with the original.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.data.sources import FolderFaces, assets_folder
from idm.degradation import PRESETS, Recipe, degrade
from idm.evaluation.metrics import psnr, ssim
from idm.faces.detector.load import load_detector
from idm.faces.recognition import cosine_similarity, load_identity
from idm.io.atomic import write_json
from idm.io.machine import provenance
from idm.io.photos import Photo
from idm.io.ranges import from_uint8, to_uint8
from idm.restorers.load import load_restorer

SIZES = (256, 112)  # pixels per side of the aligned square of a face in its photograph
CHANGES = ("full", "auto")
LUMA = np.array([0.299, 0.587, 0.114], np.float32)

Pixels = np.ndarray


@dataclass(frozen=True)
class Case:
    """A photograph with one face: the given picture, the original face, and the square of the face in the picture."""

    given: Pixels
    original: Pixels
    square: tuple[slice, slice]
    landmarks: np.ndarray


def cases(size: int, recipe: Recipe | None, num_faces: int, seed: int, grey: bool = False) -> Iterator[Case]:
    """Yield photographs with faces of ``size`` pixels, degraded by ``recipe``; ``grey`` selects grey portraits."""
    faces = FolderFaces(assets_folder() / "faces256" / "val", size)
    chosen = np.random.default_rng(seed).permutation(len(faces))
    if grey:
        chosen = [i for i in chosen if faces[i].key.startswith("portrait")]
    for i in map(int, chosen[:num_faces]):
        face = faces[i]
        original = face.image
        if grey:
            original = np.repeat(to_uint8(from_uint8(original) @ LUMA)[..., None], 3, axis=2)
        given = from_uint8(original)
        if recipe:
            given = degrade(given, recipe, np.random.default_rng([seed, i]))
        margin = size // 2
        place = slice(margin, margin + size)
        yield Case(in_picture(to_uint8(given), margin), original, (place, place), face.landmarks.astype(np.float64))


def in_picture(face: Pixels, margin: int) -> Pixels:
    """Extend a face to a larger picture by repeating its border and blurring the extension."""
    padded = np.pad(face, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    picture = cv2.GaussianBlur(padded, (0, 0), margin / 8)
    picture[margin:-margin, margin:-margin] = face
    return picture


def measure(parts: PhotoRestorer, some: Iterator[Case], settings: PhotoSettings) -> dict[str, Any]:
    """Restore all photographs and return the means over the faces before and after."""
    assert parts.identity is not None
    before, after, kept, shares = [], [], 0, []
    for case in some:
        done = parts.restore(Photo(case.given), settings)
        kept += all(face.state != "restored" for face in done.faces)
        shares += [face.share for face in done.faces]
        original = from_uint8(case.original)
        pictures = [from_uint8(np.ascontiguousarray(x[case.square])) for x in (case.given, done.photo.pixels)]
        known, *others = parts.identity.embed([original, *pictures], [case.landmarks] * 3)
        cosines = cosine_similarity(np.stack([known] * 2), np.stack(others))
        for rows, picture, same in zip((before, after), pictures, cosines, strict=True):
            rows.append((psnr(picture, original), ssim(picture, original), float(same)))
    names = ("psnr", "ssim", "identity")
    means = [dict(zip(names, np.mean(rows, axis=0).round(4).tolist(), strict=True)) for rows in (before, after)]
    return {
        "before": means[0],
        "after": means[1],
        "faces": len(before),
        "kept": kept,
        "mean_share": round(float(np.mean(shares)), 4),
        "lose_more_than_0.3_dB": sum(a[0] < b[0] - 0.3 for a, b in zip(after, before, strict=True)),
    }


def slope(restored: Pixels, given: Pixels) -> float:
    """Return the slope of the restored on the given lightness, band-passed; 1 keeps the contrast."""
    bands = []
    for picture in (restored, given):
        luma = from_uint8(picture) @ LUMA
        bands.append(cv2.GaussianBlur(luma, (0, 0), 2) - cv2.GaussianBlur(luma, (0, 0), 20))
    return float((bands[0] * bands[1]).sum() / np.square(bands[1]).sum())


def tones(parts: PhotoRestorer, some: Iterator[Case], settings: PhotoSettings) -> dict[str, float]:
    slopes = [
        slope(parts.restore(Photo(case.given), settings).photo.pixels[case.square], case.given[case.square])
        for case in some
    ]
    return {"mean_slope": round(float(np.mean(slopes)), 4), "least_slope": round(min(slopes), 4)}


def turned(parts: PhotoRestorer, some: Iterator[Case], settings: PhotoSettings) -> dict[str, float]:
    """Return the mean PSNR of photographs rotated by 0, 90, 180 and 270 degrees."""
    scores: dict[str, list[float]] = {str(90 * k): [] for k in range(4)}
    for case in some:
        for k in range(4):
            photo = Photo(np.ascontiguousarray(np.rot90(case.given, k)))
            back = np.rot90(parts.restore(photo, settings).photo.pixels, -k)[case.square]
            scores[str(90 * k)].append(psnr(from_uint8(np.ascontiguousarray(back)), from_uint8(case.original)))
    return {angle: round(float(np.mean(some)), 3) for angle, some in scores.items()}


def build_parser(description: str | None, num_faces: int) -> argparse.ArgumentParser:
    """Build the parser of the arguments that all measurements of photographs take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="as for idm restore (default: the bundled model)")
    parser.add_argument("--num-faces", type=int, default=num_faces)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser


def load_parts(arguments: argparse.Namespace) -> tuple[PhotoRestorer, dict[str, Any]]:
    """Load the restorer, and return it with the beginning of the result file."""
    torch.set_num_threads(1)
    loaded = load_restorer(arguments.model, torch.device("cpu"), torch.float32)
    parts = PhotoRestorer(loaded.restorer, load_detector(), load_identity())
    return parts, {"data": "assets:val", "restorer": loaded.metadata, "seed": arguments.seed}


def main() -> None:
    parser = build_parser(__doc__, num_faces=24)
    parser.add_argument("--num-portraits", type=int, default=16)
    parser.add_argument("--num-turned", type=int, default=6)
    arguments = parser.parse_args()
    parts, result = load_parts(arguments)
    seed = arguments.seed
    for size in SIZES:
        for change in CHANGES:
            settings = PhotoSettings(change=change, grain=0.0)
            row = {
                preset: measure(parts, cases(size, PRESETS[preset], arguments.num_faces, seed), settings)
                for preset in ("mild", "gfpgan")
            }
            row["grey portraits"] = tones(parts, cases(size, None, arguments.num_portraits, seed, True), settings)
            result[f"{size} px, change {change}"] = row
            print(size, change, row, flush=True)
    full = PhotoSettings(change="full", grain=0.0)
    result["turned, 256 px, gfpgan"] = turned(parts, cases(256, PRESETS["gfpgan"], arguments.num_turned, seed), full)
    print(result["turned, 256 px, gfpgan"])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, {**result, **provenance()})


if __name__ == "__main__":
    main()
