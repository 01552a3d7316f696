"""Faces any way up: a stub that, as detectors do, sees an upright face wherever a turned one is; and RetinaFace."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.faces.detect import DetectedFace, choose_faces
from idm.faces.detector.load import load_detector
from idm.faces.detector.retinaface import RetinaFaceDetector
from idm.faces.geometry import roll_angle, template_distance, why_implausible
from idm.faces.template import ffhq_landmarks
from idm.faces.turns import detect_faces
from idm.io.photos import Photo

SIZE = 32
LANDMARKS = ffhq_landmarks(64) + np.array([70, 20])


def marked() -> np.ndarray:
    """A picture whose five landmarks have the levels 251..255."""
    picture = np.random.default_rng(0).integers(0, 200, (120, 160, 3), dtype=np.uint8)
    for level, (x, y) in zip(range(251, 256), np.rint(LANDMARKS).astype(int), strict=True):
        picture[y, x] = level
    return picture


class Deceived:
    """Finds the marks if they are upright; else an upright face in their middle, nearly as sure of it."""

    def __init__(self) -> None:
        self.num_searches = 0

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        self.num_searches += 1
        marks = np.array([np.argwhere((pixels == level).all(axis=2))[0, ::-1] for level in range(251, 256)], float)
        middle = marks.mean(axis=0)
        box = np.concatenate([middle - 20, middle + 20])
        if abs(roll_angle(marks)) < 45:
            return [DetectedFace(box, marks, 0.999)]
        return [DetectedFace(box, ffhq_landmarks(64) - 31.5 + middle, 0.97)]


class Brightens:
    """A restorer that adds more to the upper half of a face than to its lower one."""

    image_size = SIZE

    def restore(self, lq: torch.Tensor, seeds: object) -> torch.Tensor:
        return (lq + torch.linspace(0.3, 0, SIZE)[:, None]).clamp(0, 1)


@pytest.mark.parametrize("turns", range(4))
def test_a_turned_photograph_is_restored_as_the_upright_one(turns: int) -> None:
    settings = PhotoSettings(color_fix="none", detail="replace", change="full")
    upright = PhotoRestorer(Brightens(), Deceived()).restore(Photo(marked()), settings)
    turned = np.ascontiguousarray(np.rot90(marked(), turns))
    detector = Deceived()
    done = PhotoRestorer(Brightens(), detector).restore(Photo(turned), settings)
    back = np.rot90(done.photo.pixels, -turns)
    assert np.abs(back.astype(int) - upright.photo.pixels).max() <= 1
    assert [face.state for face in done.faces] == ["restored"]
    assert detector.num_searches == (1 if turns == 0 else 4)  # an upright photograph costs one search


def test_a_detector_that_finds_turned_faces_is_asked_once_and_believed() -> None:
    class Knows(Deceived):
        finds_turned = True

    detector = Knows()
    (seen,) = detector.detect(np.rot90(marked()))
    (face,) = detect_faces(detector, np.ascontiguousarray(np.rot90(marked())))
    assert detector.num_searches == 2  # one of them our own
    np.testing.assert_array_equal(face.landmarks, seen.landmarks)
    assert load_detector("builtin").finds_turned


def test_a_turn_that_is_asked_for_is_the_only_one_searched() -> None:
    on_its_side = np.ascontiguousarray(np.rot90(marked()))  # counterclockwise
    detector = Deceived()
    (face,) = detect_faces(detector, on_its_side, 90)
    assert detector.num_searches == 1
    assert roll_angle(face.landmarks) == pytest.approx(-90, abs=3)
    (wrong,) = detect_faces(detector, on_its_side, 0)
    assert roll_angle(wrong.landmarks) == pytest.approx(0, abs=3)


@pytest.mark.parametrize(
    ("landmarks", "why"),
    [
        (np.full((5, 2), 25.0), "coincide"),
        (ffhq_landmarks(64) * (-1, 1), "eye distances"),
        (ffhq_landmarks(64)[[0, 1, 3, 2, 4]], "eye distances"),
        (ffhq_landmarks(64) * (1, 4), "eye distances"),
        (ffhq_landmarks(64) + np.outer(np.arange(5) == 2, (0, 11)), "eye distances|does not lie between"),
    ],
)
def test_landmarks_that_no_face_has_are_not_used_and_the_report_gives_the_reason(
    landmarks: np.ndarray, why: str
) -> None:
    assert why_implausible(landmarks)

    class Finds:
        def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
            return [DetectedFace(np.array([10.0, 10, 60, 60]), landmarks + 30, 0.99)]

    done = PhotoRestorer(Brightens(), Finds()).restore(Photo(marked()), PhotoSettings())
    np.testing.assert_array_equal(done.photo.pixels, marked())
    (report,) = done.left_alone
    assert (done.faces, report.state) == ([], "left alone")
    assert report.note.startswith("no plausible face: ")
    assert choose_faces(Finds().detect(marked())) == []


@pytest.mark.parametrize("angle", [-170, -60, 0, 33, 120])
def test_tilt_is_clockwise_and_likeness_does_not_depend_on_it(angle: float) -> None:
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))  # y points down: this turns clockwise
    turned = 3 * ffhq_landmarks(64) @ np.array([(c, -s), (s, c)]).T + 100
    assert roll_angle(turned) == pytest.approx(angle)
    assert template_distance(turned) == pytest.approx(0, abs=1e-9)
    assert why_implausible(turned) == ""


def test_small_faces_are_reported() -> None:
    done = PhotoRestorer(Brightens(), Deceived()).restore(Photo(marked()), PhotoSettings(min_face=50.0))
    (report,) = done.left_alone
    assert (report.state, report.note) == ("left alone", "a face of 40 px is smaller than 50 px")


@pytest.fixture(scope="module")
def retinaface(assets: Path) -> RetinaFaceDetector:
    return load_detector(weights=assets / "weights")


@pytest.mark.parametrize("turns", range(4))
def test_the_astronaut_is_found_any_way_up(retinaface: RetinaFaceDetector, turns: int) -> None:
    from skimage.data import astronaut

    (upright,) = detect_faces(retinaface, astronaut())
    (found,) = detect_faces(retinaface, np.ascontiguousarray(np.rot90(astronaut(), turns)))
    back = found.landmarks
    for _ in range(turns):  # clockwise
        back = np.stack([511 - back[:, 1], back[:, 0]], axis=1)
    np.testing.assert_allclose(back, upright.landmarks, atol=0.01)


@pytest.mark.parametrize("name", ["builtin", "retinaface"])
def test_an_inverted_print_beside_an_upright_one_is_found(assets: Path, name: Literal["builtin", "retinaface"]) -> None:
    from skimage.data import astronaut

    scan = np.concatenate([astronaut(), np.rot90(astronaut(), 2)], axis=1)
    faces = detect_faces(load_detector(name, assets / "weights"), scan)
    rolls = sorted(abs(roll_angle(face.landmarks)) for face in faces)
    assert rolls == pytest.approx([4, 176], abs=8)
