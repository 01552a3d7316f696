"""Repeat the tests of the detector that need no folder of scenes: pictures without faces, photographs, rotated faces.

    IDM_ASSETS=... python experiments/detector/recheck.py -o experiments/detector/results/recheck.json

- Without faces: 200 pictures of :mod:`no_faces`, searched as in ``idm restore``: number of pictures with detections.
- Photographs: `wild/whole_imgs` and the astronaut, with the faces and landmarks of RetinaFace as the reference.
- Rotated faces: faces of `val` in a larger picture, rotated by 0 to 360 degrees: number of detections, and processor
time
  per picture, with one search and with a search in four rotations, even if the detector does not need it.

``--retinaface`` also measures RetinaFace.
"""

import argparse
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from evaluate import on_photographs
from no_faces import pictures
from skimage.data import astronaut

from idm.data.sources import FolderFaces, assets_folder
from idm.faces.align import apply_matrix
from idm.faces.detect import Detector
from idm.faces.detector.load import load_detector
from idm.faces.turns import detect_faces
from idm.io.atomic import write_json
from idm.io.images import read_image, resize_image
from idm.io.machine import provenance

SEED, SIZE = 0, (480, 640)


def without_faces(detector: Detector, number: int) -> dict[str, Any]:
    kinds: Counter[str] = Counter()
    finds: list[dict[str, Any]] = []
    for index, (kind, pixels) in enumerate(pictures(number, SEED)):
        kinds[kind] += 1
        for face in detect_faces(detector, pixels):
            finds.append({"picture": index, "kind": kind, "score": round(face.score, 3), "size": round(face.size)})
    with_finds = len({find["picture"] for find in finds})
    return {"pictures": dict(kinds), "pictures_with_finds": with_finds, "false_finds": len(finds), "finds": finds}


def turned_faces(number: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (picture, landmarks) of single faces of 40 to 300 pixels at any rotation, on their own blurred colours."""
    faces, rng = FolderFaces(assets_folder() / "faces256" / "val", 256), np.random.default_rng(SEED)
    found = []
    for index in rng.permutation(len(faces))[:number]:
        face = faces[int(index)]
        side = round(float(np.exp(rng.uniform(np.log(40), np.log(300)))))
        small = resize_image(face.image, (side, side))
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, rng.uniform(0, 360), 1.0)
        matrix[:, 2] += rng.uniform(0.7 * side, np.array(SIZE[::-1]) - 0.7 * side) - side / 2
        ground = cv2.GaussianBlur(cv2.resize(face.image, SIZE[::-1]), (0, 0), 30)
        warped = cv2.warpAffine(small, matrix, SIZE[::-1])
        mask = cv2.warpAffine(np.ones((side, side), np.float32), matrix, SIZE[::-1])[..., None]
        picture = (ground * (1 - mask) + warped * mask).astype(np.uint8)
        points = (face.landmarks.astype(np.float64) + 0.5) * side / 256 - 0.5
        found.append((picture, apply_matrix(matrix, points)))
    return found


class Upright:
    """Wraps a detector so that it is treated as one for upright faces only."""

    def __init__(self, detector: Detector) -> None:
        self.detect = detector.detect


def search_turned(
    detector: Detector, faces: list[tuple[np.ndarray, np.ndarray]], turn: Literal["auto", 0]
) -> dict[str, float]:
    """Count the detected faces and measure the processor time in milliseconds per picture.

    A face counts as found if its landmarks, in the right order, are within a quarter of the distance between the eyes
    on average.
    """
    found, others, begun = 0, 0, time.process_time()
    for picture, points in faces:
        finds = detect_faces(detector, picture, turn)
        eyes = np.hypot(*(points[1] - points[0]))
        right = [bool(np.linalg.norm(face.landmarks - points, axis=1).mean() < 0.25 * eyes) for face in finds]
        found += any(right)
        others += len(right) - sum(right)
    seconds = (time.process_time() - begun) / len(faces)
    return {"faces": len(faces), "found": found, "other_finds": others, "cpu_ms": round(1000 * seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num", type=int, default=200, help="pictures without faces (default 200)")
    parser.add_argument("--num-turned", type=int, default=60)
    parser.add_argument("--retinaface", action="store_true", help="also measure RetinaFace")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    retinaface = load_detector("retinaface")
    detectors: dict[str, Detector] = {"builtin": load_detector("builtin")}
    if options.retinaface:
        detectors["retinaface"] = retinaface
    paths = sorted((assets_folder() / "wild" / "whole_imgs").iterdir())
    photographs = {path.name: read_image(path).rgb for path in paths} | {"astronaut": astronaut()}
    faces, results = turned_faces(options.num_turned), {}
    for name, detector in detectors.items():
        results[name] = {
            "without faces": without_faces(detector, options.num),
            "turned, one search": search_turned(detector, faces, 0),
            "turned, four turns": search_turned(Upright(detector), faces, "auto"),
        }
        print(name, results[name], flush=True)
    results["builtin"]["photographs"] = on_photographs(detectors["builtin"], retinaface, photographs)
    print(results["builtin"]["photographs"])
    write_json(options.output, {**results, "seed": SEED, **provenance()})


if __name__ == "__main__":
    main()
