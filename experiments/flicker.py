"""Measure how much restored faces flicker, with and without fixed noise and smoothed landmarks.

    IDM_ASSETS=... python experiments/flicker.py        measures (a few minutes on a CPU) and writes the table
    python experiments/flicker.py --table               writes the table from the result file

The videos show scikit-image's astronaut (Eileen Collins; NASA, public domain) under three exactly known motions. Every
frame is degraded by the same blur and JPEG compression, and by its own noise. Because the motion is known, restored and
clean frames can be warped to the same aligned crop. Flicker is the change of their difference from frame to frame.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from idm.apps.photo.face import Subject
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.degradation.kernels import gaussian_taps
from idm.degradation.operations import add_gaussian_noise, blur, jpeg
from idm.faces.align import Matrix, apply_matrix, warp
from idm.faces.detect import DetectedFace
from idm.faces.detector.load import load_detector
from idm.faces.paste import crop_weights
from idm.faces.template import ffhq_landmarks, umeyama
from idm.faces.track import DEGREE, REACH, Sighting, smooth
from idm.io.machine import provenance
from idm.io.ranges import from_uint8, to_uint8
from idm.restorers.saved import load_idm

FOLDER = Path(__file__).parent
RESULT, TABLE = FOLDER / "results" / "flicker.json", FOLDER / "tables" / "flicker.md"

HEIGHT, WIDTH, FPS, FRAMES = 240, 320, 25, 40
FACE = np.array([223.0, 122.0])  # centre of the face in the portrait
MODEL = "idm-faces-128"
BLUR, NOISE, JPEG = 1.5, 10.0, 60
FITS = {
    f"{shape}, {reach} frames ahead": (reach, degree)
    for degree, shape in ((1, "line"), (2, "parabola"))
    for reach in (2, 4, 8)
}

Picture = np.ndarray
Landmarks = list[np.ndarray]


# ------------------------------------------------------------------------------------------- the video


def sway(i: int) -> tuple[float, float, float, float]:
    """A slow motion in position, scale and rotation: (x, y, scale, angle in degrees) of frame i."""
    return 160 + 12 * np.sin(i / 8), 120 + 8 * np.cos(i / 9), 0.75 + 0.08 * np.sin(i / 12), 6 * np.sin(i / 10)


def pan(i: int) -> tuple[float, float, float, float]:
    """A steady, fast motion to the right: 5 pixels per frame, a twentieth of the face."""
    return 60 + 5.0 * i, 120.0, 0.75, 0.0


def nod(i: int) -> tuple[float, float, float, float]:
    """Up and down twice per second, about the fastest motion of a head: it reverses within six frames."""
    return 160.0, 120 + 10 * np.sin(2 * np.pi * i / 12), 0.75, 0.0


MOTIONS = {motion.__name__: motion for motion in (sway, pan, nod)}


def matrix_of(motion: Callable[[int], tuple[float, float, float, float]], i: int) -> Matrix:
    """Return the 2x3 matrix from pixels of the portrait to those of frame i."""
    x, y, scale, angle = motion(i)
    turn = np.deg2rad(angle)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return np.column_stack([linear, np.array([x, y]) - linear @ FACE])


def degrade(picture: Picture, i: int) -> Picture:
    softened = blur(from_uint8(picture), gaussian_taps(BLUR, 5))
    return to_uint8(jpeg(add_gaussian_noise(softened, NOISE, np.random.default_rng(i)), JPEG))


# ------------------------------------------------------------------------------------------- landmarks


def follow(found: Sequence[DetectedFace], reach: int, degree: int) -> Landmarks:
    """Smooth the landmarks of every frame as idm.faces.track does; a reach of 0 keeps the detected ones."""
    sightings = [Sighting(i, i / FPS, face) for i, face in enumerate(found)]
    near = [sightings[max(0, i - reach) : i + reach + 1] for i in range(len(found))]
    return [smooth(some, i, i / FPS, reach, degree).landmarks for i, some in enumerate(near)]


def one_euro(found: Sequence[DetectedFace], min_cutoff: float, beta: float) -> Landmarks:
    """The causal 1 euro filter (Casiez, Roussel, Vogel, CHI 2012, algorithm 1; derivatives at 1 Hz)."""

    def weight(cutoff: np.ndarray) -> np.ndarray:
        return 1 / (1 + FPS / (2 * np.pi * cutoff))

    value, speed = found[0].landmarks, np.zeros((5, 2))
    filtered = [value]
    for face in found[1:]:
        a = weight(np.array(1.0))
        speed = a * (face.landmarks - filtered[-1]) * FPS + (1 - a) * speed
        a = weight(min_cutoff + beta * np.abs(speed))
        value = a * face.landmarks + (1 - a) * value
        filtered.append(value)
    return filtered


def landmark_errors(landmarks: Landmarks, to_crop: Sequence[Matrix]) -> dict[str, float]:
    """Root mean square of the error without its mean, and of its change per frame, in pixels of the aligned crop."""
    placed = np.stack([apply_matrix(m, points) for m, points in zip(to_crop, landmarks, strict=True)])
    errors = placed - placed.mean(axis=0)
    return {"error": _rms(errors), "jitter": _rms(np.diff(errors, axis=0))}


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt((values**2).sum(axis=-1).mean()))


# ------------------------------------------------------------------------------------------- flicker


def restore(parts: PhotoRestorer, pictures: Sequence[Picture], landmarks: Landmarks, fixed: bool) -> list[Picture]:
    settings, restored = PhotoSettings(grayscale="off", change="full", grain=0.0), []
    for i, (picture, points) in enumerate(zip(pictures, landmarks, strict=True)):
        subject = Subject(0, DetectedFace(np.zeros(4), points, 1.0), keeps_chroma=False)
        [(after, _)] = parts.restore_frames([picture], [[subject]], settings if fixed else replace(settings, seed=i))
        restored.append(after)
    return restored


def flicker(
    video: Sequence[Picture], clean: Sequence[Picture], to_crop: Sequence[Matrix], size: int
) -> dict[str, float]:
    """Measure the difference from the clean video inside the face, aligned by the true motion, in levels of 255.

    Returns:
        The mean absolute change from frame to frame, that of the second difference, and the mean square as PSNR in dB.
    """
    inside = crop_weights(size) > 0.5
    aligned = [
        255 * (warp(a, m, (size, size), "bicubic") - warp(b, m, (size, size), "bicubic"))[inside]
        for a, b, m in zip(video, clean, to_crop, strict=True)
    ]
    errors = np.stack(aligned)
    return {
        "flicker": float(np.abs(np.diff(errors, axis=0)).mean()),
        "second_difference": float(np.abs(np.diff(errors, 2, axis=0)).mean()),
        "psnr": float(10 * np.log10(255**2 / (errors**2).mean())),
    }


def measure() -> dict[str, Any]:
    from skimage.data import astronaut

    portrait = astronaut()
    detector = load_detector()
    pipeline = load_idm(Path(MODEL), torch.device("cpu"), torch.float32)
    parts = PhotoRestorer(pipeline, detector)
    true = detector.detect(portrait)[0].landmarks
    result: dict[str, Any] = {"landmarks": {}, "flicker": {}}
    for name, motion in MOTIONS.items():
        matrices = [matrix_of(motion, i) for i in range(FRAMES)]
        clean = [
            cv2.warpAffine(portrait, m, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
            for m in matrices
        ]
        degraded = [degrade(picture, i) for i, picture in enumerate(clean)]
        found = [max(detector.detect(picture), key=lambda face: face.size) for picture in degraded]
        template = ffhq_landmarks(pipeline.image_size)
        to_crop = [umeyama(apply_matrix(m, true), template) for m in matrices]

        ways = {"raw": follow(found, 0, 0)}
        ways |= {label: follow(found, reach, degree) for label, (reach, degree) in FITS.items()}
        ways |= {
            f"1 euro, {cutoff:g} Hz, {beta:g}": one_euro(found, cutoff, beta)
            for cutoff in (0.5, 1, 2, 4)
            for beta in (0.0, 0.01, 0.03, 0.1, 0.3)
        }
        print(f"{name}: landmarks found", flush=True)
        result["landmarks"][name] = {way: landmark_errors(points, to_crop) for way, points in ways.items()}

        videos = {"degraded": degraded}
        for noise in ("drawn per frame", "fixed"):
            for way in ("raw", "smoothed"):
                points = ways["raw"] if way == "raw" else follow(found, REACH, DEGREE)
                videos[f"noise {noise}, landmarks {way}"] = restore(parts, degraded, points, noise == "fixed")
        result["flicker"][name] = {
            label: flicker(video, clean, to_crop, pipeline.image_size) for label, video in videos.items()
        }
    setting = {"frames": FRAMES, "blur": BLUR, "noise": NOISE, "jpeg": JPEG, "model": MODEL}
    return {**result, "setting": setting, **provenance()}


# ------------------------------------------------------------------------------------------- the table


def render(result: dict[str, Any]) -> str:
    motions = list(result["flicker"])
    best = min(
        (way for way in result["landmarks"][motions[0]] if way.startswith("1 euro")),
        key=lambda way: sum(result["landmarks"][motion][way]["error"] for motion in motions),
    )
    labels = list(result["flicker"][motions[0]])
    ways = [way for way in result["landmarks"][motions[0]] if not way.startswith("1 euro") or way == best]
    versions, machine = result["versions"], result["machine"]
    setting = result["setting"]
    return "\n".join(
        [
            "# Flicker of restored faces",
            "",
            "`python experiments/flicker.py` measures it; `--table` writes this file from `results/flicker.json`.",
            "",
            "Mean absolute change from frame to frame of the difference from the clean video, inside the face and",
            "after the known motion was undone, in levels of 255 (lower is better). In brackets: PSNR in dB.",
            "",
            *_rows("", motions, labels, result["flicker"], lambda cell: f"{cell['flicker']:.2f} ({cell['psnr']:.1f})"),
            "",
            "Landmarks: root mean square of the error without its mean, and of its change per frame (jitter), in",
            "pixels of the aligned crop of 128 px. The 1 euro filter has the best of 20 settings on these same videos.",
            "",
            *_rows(
                "", motions, ways, result["landmarks"], lambda cell: f"{cell['error']:.2f}, jitter {cell['jitter']:.2f}"
            ),
            "",
            f"- Three videos of {setting['frames']} frames of one portrait: `sway` is slow, `pan` moves 5 pixels per "
            "frame, `nod` moves up and down twice per second.",
            f"- Every frame has blur (sigma {setting['blur']}), its own noise (sigma {setting['noise']:g} of 255) and "
            f"JPEG {setting['jpeg']}, and is restored by {setting['model']} in float32.",
            f"- Commit {result['commit'][:12]}; {machine['processor']}; torch {versions['torch']}.",
            "",
        ]
    )


def _rows(
    corner: str,
    columns: Sequence[str],
    rows: Sequence[str],
    cells: dict[str, dict[str, dict[str, float]]],
    format_cell: Callable[[dict[str, float]], str],
) -> list[str]:
    lines = [[corner, *columns], ["---"] * (1 + len(columns))]
    lines += [[row, *(format_cell(cells[column][row]) for column in columns)] for row in rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write only the table, from the result file")
    arguments = parser.parse_args()
    if not arguments.table:
        RESULT.write_text(json.dumps(measure(), indent=2) + "\n")
    TABLE.write_text(render(json.loads(RESULT.read_text())))


if __name__ == "__main__":
    main()
