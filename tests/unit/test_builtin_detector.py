"""The built-in detector: geometry of its maps and boxes, and what it finds with the weights of the package."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from idm.faces.detector.decode import (
    FACE,
    FACE_CENTRE,
    best_of_overlapping,
    cell_centres,
    face_box,
    find_peaks,
    mean_with_mirrored,
)
from idm.faces.detector.load import choose_detector, load_detector
from idm.faces.detector.network import STRIDE, UNIT, FaceMaps, FaceNet
from idm.faces.detector.retinaface import RetinaFaceDetector
from idm.faces.detector.search import DETECTOR_WEIGHTS, BuiltinDetector
from idm.faces.template import ffhq_landmarks
from idm.io.errors import MissingPackage

# What RetinaFace finds in scikit-image's astronaut at full size.
ASTRONAUT = np.array([(203.63, 101.13), (247.50, 104.55), (223.26, 129.34), (200.92, 138.40), (245.63, 141.16)])
EYES = 44.0  # pixels between the astronaut's


def turned(points: np.ndarray, quarters: int, size: int) -> np.ndarray:
    """Where points of a square picture lie after np.rot90."""
    for _ in range(quarters):
        points = np.stack([points[:, 1], size - 1 - points[:, 0]], axis=1)
    return points


def test_the_box_of_an_aligned_face_is_the_mean_box_and_turns_with_it() -> None:
    left, top, right, bottom = face_box(ffhq_landmarks(256))
    np.testing.assert_allclose(((left + right) / 2, (top + bottom) / 2), 256 * FACE_CENTRE - 0.5, atol=0.01)
    np.testing.assert_allclose((right - left, bottom - top), 256 * FACE, atol=0.01)
    left, top, right, bottom = face_box(turned(ffhq_landmarks(256), 1, 256))
    np.testing.assert_allclose((bottom - top, right - left), 256 * FACE, atol=0.01)


def test_coinciding_landmarks_have_no_box() -> None:
    with pytest.raises(ValueError, match="mirrored"):
        face_box(ffhq_landmarks(512)[[0, 0, 0, 0, 0]])


def test_peaks_are_read_where_they_are() -> None:
    logits, offsets = torch.full((2, 6, 8), -9.0), torch.zeros(2, 6, 8, 5, 2)
    logits[1, 3, 5], logits[1, 3, 6], logits[0, 0, 0] = 4.0, 2.0, 1.0
    nose = torch.tensor([47.0, 30.0])
    for y in range(6):
        for x in range(8):  # all cells say the same of the one face
            centre = torch.tensor([STRIDE * x + 3.5, STRIDE * y + 3.5])
            offsets[1, y, x] = (nose - centre) / UNIT
    pictures, landmarks, scores = find_peaks(FaceMaps(logits, offsets), 0.5)
    assert pictures.tolist() == [0, 1]
    np.testing.assert_allclose(landmarks[1], nose.expand(5, 2), atol=1e-3)
    np.testing.assert_allclose(landmarks[0], torch.full((5, 2), 3.5), atol=0.1)
    np.testing.assert_allclose(scores, torch.tensor([1.0, 4.0]).sigmoid())


def test_the_maps_of_a_mirror_image_are_flipped_and_its_landmarks_renamed() -> None:
    points, width = torch.tensor(ffhq_landmarks(32)), 64
    mirrored = (points * torch.tensor([-1, 1]) + torch.tensor([width - 1, 0]))[[1, 0, 2, 4, 3]]

    def maps(landmarks: torch.Tensor, column: int) -> FaceMaps:
        logits = torch.full((1, 4, 8), -9.0)
        logits[0, 2, column] = 4.0
        return FaceMaps(logits, (landmarks - cell_centres(4, 8)[..., None, :]).float()[None] / UNIT)

    _, (landmarks,), (score,) = find_peaks(mean_with_mirrored(maps(points, 2), maps(mirrored, 5)), 0.5)
    np.testing.assert_allclose(landmarks, points, atol=1e-3)
    assert score == torch.tensor(4.0).sigmoid()


def test_of_boxes_on_one_another_the_best_remains() -> None:
    boxes = np.array([(0, 0, 10, 10), (1, 1, 10, 11), (30, 30, 40, 40), (32, 32, 36, 36), (8, 8, 18, 18)], float)
    assert best_of_overlapping(boxes, np.array([0.6, 0.9, 0.7, 0.8, 0.5]), 0.5).tolist() == [1, 3, 4]
    assert best_of_overlapping(np.zeros((0, 4)), np.zeros(0), 0.5).tolist() == []


def test_the_network_has_one_cell_per_eight_pixels_and_sees_far_enough() -> None:
    network = FaceNet().eval()
    picture = torch.rand(1, 3, 160, 240, requires_grad=True)
    maps = network(picture)
    assert maps.logits.shape == (1, 20, 30)
    assert maps.offsets.shape == (1, 20, 30, 5, 2)
    maps.logits[0, 10, 15].backward()
    seen = picture.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [111, 111]


def test_the_weights_that_come_with_the_package_are_small() -> None:
    assert DETECTOR_WEIGHTS.stat().st_size < 400_000


# --- with its weights


@pytest.fixture(scope="module")
def detector() -> BuiltinDetector:
    return load_detector("builtin")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def scaled(pixels: np.ndarray, factor: float | tuple[float, ...], plus: float = 0.0) -> np.ndarray:
    return (pixels * np.array(factor) + plus).clip(0, 255).astype(np.uint8)


def noisy(pixels: np.ndarray, deviation: float) -> np.ndarray:
    return scaled(pixels + np.random.default_rng(0).normal(0, deviation, pixels.shape), 1.0)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    encoded = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]


SEPIA = (1.07, 0.87, 0.65)

# name: quarter turns counterclockwise, size, and what else happens to the picture
VARIANTS: dict[str, tuple[int, float, Callable[[np.ndarray], np.ndarray]]] = {
    "upright": (0, 1, lambda x: x),
    "turned by 90 degrees": (1, 1, lambda x: x),
    "turned by 180 degrees": (2, 1, lambda x: x),
    "turned by 270 degrees": (3, 1, lambda x: x),
    "16 bits": (0, 1, lambda x: x.astype(np.uint16) * 257),
    "grey": (0, 1, grey),
    "sepia": (0, 1, lambda x: scaled(grey(x), SEPIA)),
    "blue": (0, 1, lambda x: scaled(x, (0.6, 0.8, 1.2))),
    "dark": (0, 1, lambda x: scaled(x, 0.5)),
    "faded": (0, 1, lambda x: scaled(x, 0.6, 100)),
    "twice the size": (0, 2, lambda x: x),
    "half the size": (0, 0.5, lambda x: x),
    "a quarter of the size": (0, 0.25, lambda x: x),
    "blurred": (0, 1, lambda x: cv2.GaussianBlur(x, (0, 0), 2)),
    "noisy": (0, 1, lambda x: noisy(x, 20)),
    "JPEG of quality 20": (0, 1, lambda x: jpeg(x, 20)),
    "grey, half the size, upside down": (2, 0.5, grey),
    "faded sepia, turned by 90 degrees": (1, 1, lambda x: scaled(grey(x), SEPIA, 60)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_astronaut_is_found_in_altered_copies(detector, astronaut, variant: str) -> None:
    quarters, factor, change = VARIANTS[variant]
    resized = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    (face,) = detector.detect(np.ascontiguousarray(np.rot90(change(resized), quarters)))
    expected = turned((ASTRONAUT + 0.5) * factor - 0.5, quarters, len(resized))
    errors = np.linalg.norm(face.landmarks - expected, axis=1)
    assert errors.mean() < 0.25 * EYES * factor  # RetinaFace's own eyes differ from labels by as much as 14 %


def test_faces_below_the_least_size_are_left_out(detector, astronaut) -> None:
    quarter = cv2.resize(astronaut, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    for least_face, number in ((25.0, 1), (35.0, 0)):  # the face has 29 pixels
        picky = BuiltinDetector(detector.network, 1600, detector.min_score, least_face=least_face)
        assert len(picky.detect(quarter)) == number


def test_no_face_is_found_in_noise_nor_in_pictures_of_any_odd_size(detector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for shape in ((300, 300), (1, 1), (7, 200), (3, 300)):
        assert detector.detect(noise[: shape[0], : shape[1]].copy()) == []


def test_a_picture_is_searched_in_a_copy_of_bounded_size(detector, astronaut) -> None:
    small = BuiltinDetector(detector.network, max_side=256, min_score=detector.min_score)
    (face,) = small.detect(astronaut)
    assert np.linalg.norm(face.landmarks - ASTRONAUT, axis=1).mean() < 0.25 * EYES


# --- which detector


def test_retinaface_is_taken_where_its_weights_are_and_asked_for_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    assert isinstance(load_detector(), BuiltinDetector)
    with pytest.raises(FileNotFoundError, match="idm weights fetch"):
        load_detector("retinaface")
    (tmp_path / "weights" / "facexlib").mkdir(parents=True)
    (tmp_path / "weights" / "facexlib" / "detection_mobilenet0.25_Final.pth").touch()
    assert choose_detector() == "retinaface"
    assert choose_detector("builtin") == "builtin"
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "facexlib", None)  # as if it were not installed
        assert choose_detector() == "builtin"
        assert isinstance(load_detector(), BuiltinDetector)
        message = "the detector retinaface needs the package facexlib: pip install 'idm-face-restoration[retinaface]'"
        with pytest.raises(MissingPackage, match=f"^{re.escape(message)}$"):
            load_detector("retinaface")
    with pytest.raises(ValueError, match="does not hold the weights"):  # broken weights are not passed over
        load_detector()


def test_with_the_assets_the_default_is_retinaface(assets: Path) -> None:
    assert isinstance(load_detector(weights=assets / "weights"), RetinaFaceDetector)


class Reports:
    """RetinaFace's network, told what to find."""

    def __init__(self, *landmarks: np.ndarray) -> None:
        boxes = [(*points.min(axis=0), *points.max(axis=0)) for points in landmarks]
        self.rows = np.array([(*box, 0.99, *points.ravel()) for box, points in zip(boxes, landmarks, strict=True)])

    def detect_faces(self, image: np.ndarray, conf_threshold: float, nms_threshold: float) -> np.ndarray:
        return self.rows


def test_finds_of_retinaface_that_are_not_confirmed_are_left_out(
    detector: BuiltinDetector, astronaut: np.ndarray
) -> None:
    noise = np.random.default_rng(0).normal(0, 10, astronaut.shape)
    picture = np.clip(astronaut + noise, 0, 255).astype(np.uint8)
    suit, no_shape = 2 * (ASTRONAUT - ASTRONAUT.mean(axis=0)) + (220, 350), np.full((5, 2), 400.0)
    network = Reports(ASTRONAUT, suit, no_shape)
    assert len(RetinaFaceDetector(network).detect(picture)) == 3
    kept = RetinaFaceDetector(network, verifier=detector).detect(picture)
    assert [face.landmarks.round(1).tolist() for face in kept] == [ASTRONAUT.round(1).tolist(), no_shape.tolist()]
