"""Measure the built-in detector against RetinaFace (MobileNet-0.25).

``python experiments/detector/evaluate.py --faces $IDM_ASSETS/faces256/val --scenes FOLDER
--photographs $IDM_ASSETS/wild/whole_imgs -o results.json``

Composites of held-out faces in held-out scenes have known landmarks. On photographs RetinaFace is the reference,
although its detections are not ground truth. Pictures without faces are the held-out scenes, the held-out objects on a
plain background, and composites without faces.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from composites import Composer, Composite, CompositeConfig, load_faces, load_scenes
from skimage.data import astronaut

from idm.degradation import PRESETS, degradation_rng, degrade
from idm.faces.align import to_unit
from idm.faces.detect import DetectedFace, Detector
from idm.faces.detector.load import load_detector
from idm.faces.template import umeyama
from idm.io.atomic import write_json
from idm.io.images import read_image
from idm.io.machine import provenance
from idm.io.ranges import to_uint8

SIZE = (480, 640)
CONFIG = CompositeConfig(sizes=(18, 260), num_faces=(1, 2, 3, 4))
SIZES = ((18, 24), (24, 40), (40, 80), (80, 400))
TURNS = {"upright": (0, 30), "tilted": (30, 60), "on its side": (60, 120), "upside down": (150, 180)}


def turn_of(landmarks: np.ndarray, template: np.ndarray) -> float:
    """Return the rotation of a face relative to the template, in degrees from 0 to 180."""
    matrix = umeyama(template, landmarks)
    return float(np.degrees(abs(np.arctan2(matrix[1, 0], matrix[0, 0]))))


def centre_of(landmarks: np.ndarray) -> np.ndarray:
    """Return the point midway between the middle of the eyes and the middle of the mouth corners."""
    return (landmarks[:2].mean(axis=0) + landmarks[3:].mean(axis=0)) / 2


def match(faces: Sequence[DetectedFace], centres: np.ndarray, sizes: np.ndarray) -> list[int | None]:
    """Return, for each known face, the index of the nearest detection within 0.3 of its size, or None."""
    pairs: list[int | None] = []
    for centre, size in zip(centres, sizes, strict=True):
        distances = [float(np.hypot(*(centre_of(face.landmarks) - centre))) for face in faces]
        best = int(np.argmin(distances)) if distances else None
        pairs.append(best if best is not None and distances[best] <= 0.3 * size else None)
    return pairs


def measure(detector: Detector, pictures: Iterable[Composite], template: np.ndarray) -> dict[str, Any]:
    """Measure recall by size and by rotation, false detections per picture, and the landmark error.

    The landmark error is in percent of the distance between the eyes.
    """
    rows: list[tuple[float, float, bool, float]] = []
    false = num = 0
    for picture in pictures:
        num += 1
        found = detector.detect(picture.pixels)
        pairs = match(found, np.array([centre_of(p) for p in picture.landmarks]).reshape(-1, 2), picture.sizes)
        false += len(set(range(len(found))) - set(pairs))
        for points, size, hidden, pair in zip(picture.landmarks, picture.sizes, picture.hidden, pairs, strict=True):
            if hidden:
                continue
            error = np.nan
            if pair is not None:
                distances = np.linalg.norm(found[pair].landmarks - points, axis=1)
                error = 100 * distances.mean() / np.hypot(*(points[1] - points[0]))
            rows.append((float(size), turn_of(points, template), pair is not None, float(error)))
    table = np.array(rows)
    size, turn, hit, error = table.T
    groups = {f"{low}-{high} px": (size >= low) & (size < high) for low, high in SIZES}
    groups |= {name: (turn >= low) & (turn < high) for name, (low, high) in TURNS.items()}
    return {
        "pictures": num,
        "faces": len(rows),
        "recall": hit.mean(),
        "false_finds_per_picture": false / num,
        "landmark_error_percent": float(np.nanmedian(error)),
        "groups": {
            name: {
                "faces": int(which.sum()),
                "recall": float(hit[which].mean()),
                "landmark_error_percent": float(np.nanmedian(error[which])) if hit[which].any() else None,
            }
            for name, which in groups.items()
            if which.any()
        },
    }


def degraded(pictures: Iterable[Composite], preset: str) -> Iterable[Composite]:
    for number, picture in enumerate(pictures):
        worse = degrade(to_unit(picture.pixels), PRESETS[preset], degradation_rng(0, 0, number))
        yield replace(picture, pixels=to_uint8(worse))


def without_faces(scenes: Sequence[np.ndarray], composer: Composer, num: int) -> list[np.ndarray]:
    pictures = []
    for number, scene in enumerate(scenes):
        if scene.shape[2] == 4:
            ground = np.full((*scene.shape[:2], 3), 40 * (number % 7), np.float32)
            weight = scene[..., 3:] / np.float32(255)
            scene = np.pad((ground + weight * (scene[..., :3] - ground)).astype(np.uint8), ((40, 40), (40, 40), (0, 0)))
        pictures.append(scene)
    return pictures + [composer.draw(SIZE).pixels for _ in range(max(0, num - len(pictures)))]


def on_photographs(detector: Detector, reference: Detector, photographs: dict[str, np.ndarray]) -> dict[str, Any]:
    result = {}
    for name, pixels in photographs.items():
        found, expected = detector.detect(pixels), reference.detect(pixels)
        pairs = match(found, np.array([centre_of(f.landmarks) for f in expected]), np.array([f.size for f in expected]))
        distances = [
            100
            * np.linalg.norm(found[k].landmarks - f.landmarks, axis=1).mean()
            / np.hypot(*(f.landmarks[1] - f.landmarks[0]))
            for k, f in zip(pairs, expected, strict=True)
            if k is not None
        ]
        result[name] = {
            "faces_of_reference": len(expected),
            "of_them_found": sum(k is not None for k in pairs),
            "others_found": len(set(range(len(found))) - set(pairs)),
            "landmarks_apart_percent": [round(float(d), 2) for d in distances],
            "scores": [round(face.score, 3) for face in found],
        }
    return result


def milliseconds(detector: Detector, pixels: np.ndarray, repeats: int = 9) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        detector.detect(pixels)
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--scenes", type=Path, required=True)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--num", type=int, default=60, help="composites of each kind (default 60)")
    parser.add_argument("--only", choices=["builtin", "retinaface"], help="measure only this one; keep other results")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    faces, scenes = load_faces(arguments.faces, 256), load_scenes(arguments.scenes, held_out=True)
    template = faces.landmarks.mean(axis=0)
    photographs = {path.name: read_image(path).rgb for path in sorted(arguments.photographs.iterdir())}
    photographs["astronaut"] = astronaut()
    reference = load_detector("retinaface")
    detectors: dict[str, Detector] = {"builtin": load_detector("builtin"), "retinaface": reference}

    def drawn(config: CompositeConfig, seed: int, num: int = arguments.num) -> list[Composite]:
        composer = Composer(faces, scenes, config, np.random.default_rng(seed))
        return [composer.draw(SIZE) for _ in range(num)]

    large = replace(CONFIG, sizes=(120, 300), num_faces=(1,), upright=1.0, degraded=0.0)
    sets = {
        "upright": drawn(replace(CONFIG, upright=1.0), 1),
        "any turn": drawn(replace(CONFIG, upright=0.0), 2),
        "large, gfpgan's degradation": list(degraded(drawn(large, 3, arguments.num // 2), "gfpgan")),
    }
    bare = without_faces(
        scenes, Composer(faces, scenes, replace(CONFIG, num_faces=(0,)), np.random.default_rng(4)), 200
    )
    results: dict[str, Any] = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for name, detector in detectors.items():
        if arguments.only not in (None, name):
            continue
        results[name] = {kind: measure(detector, pictures, template) for kind, pictures in sets.items()}
        finds = [len(detector.detect(pixels)) for pixels in bare]
        results[name]["without faces"] = {
            "pictures": len(bare),
            "pictures_with_finds": sum(n > 0 for n in finds),
            "false_finds": sum(finds),
        }
        results[name]["photographs"] = on_photographs(detector, reference, photographs)
        results[name]["cpu_ms_640x480"] = milliseconds(detector, sets["upright"][0].pixels)
        print(name, results[name], flush=True)
    data = {"faces": arguments.faces.name, "held_out_scenes": len(scenes), "composites": arguments.num}
    write_json(arguments.output, {**results, "data": data, **provenance()})


if __name__ == "__main__":
    main()
