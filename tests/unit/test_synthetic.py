"""Synthetic faces: the same every time, different from each other, and with landmarks where they say."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from idm.data import synthetic
from idm.data.synthetic import SyntheticFace, synthetic_face

TEMPLATE_512 = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.19360],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
SIZE = 128


@pytest.fixture(scope="module")
def faces() -> list[SyntheticFace]:
    return [synthetic_face(seed=2, index=i, size=SIZE) for i in range(40)]


@pytest.fixture(scope="module")
def landmarks_512() -> np.ndarray:
    """Landmarks of many faces in pixels of a 512 px picture, from the smallest pictures there are."""
    small = [synthetic_face(seed=1, index=i, size=16).landmarks for i in range(60)]
    return (np.array(small, np.float64) + 0.5) * 32 - 0.5


def grey(face: SyntheticFace, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(face.image.astype(np.float32).mean(axis=2), (0, 0), sigma)


def value_at(picture: np.ndarray, x: float, y: float) -> float:
    return float(cv2.getRectSubPix(picture, (1, 1), (float(x), float(y)))[0, 0])


def test_the_same_seed_and_index_give_the_same_face_whatever_was_drawn_before():
    first = synthetic_face(3, 7, 64)
    for i in range(5):
        synthetic_face(4, i, 32)
    again = synthetic_face(3, 7, 64)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.landmarks, again.landmarks)


def test_a_fresh_process_draws_the_same_face():
    script = (
        "import hashlib; from idm.data.synthetic import synthetic_face; face = synthetic_face(3, 7, 64);"
        "print(hashlib.sha256(face.image.tobytes() + face.landmarks.tobytes()).hexdigest())"
    )
    root = str(Path(synthetic.__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONHASHSEED": "123"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    face = synthetic_face(3, 7, 64)
    assert done.stdout.strip() == hashlib.sha256(face.image.tobytes() + face.landmarks.tobytes()).hexdigest()


def test_numpys_global_generator_is_neither_read_nor_advanced():
    np.random.seed(1)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    one = synthetic_face(0, 0, 32).image
    after = np.random.get_state()[1]  # noqa: NPY002
    np.testing.assert_array_equal(before, after)
    np.random.seed(2)  # noqa: NPY002
    np.testing.assert_array_equal(one, synthetic_face(0, 0, 32).image)


def test_seed_and_index_both_choose_the_face_and_are_not_added_up():
    pictures = [synthetic_face(*key, 32) for key in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0))]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert np.abs(a.image.astype(float) - b.image).mean() > 10
            assert np.abs(a.landmarks - b.landmarks).max() > 0.01


def test_landmarks_scale_with_the_picture_about_its_corner_not_about_the_first_pixel_centre():
    large = synthetic_face(5, 3, 512).landmarks
    for size in (16, 100, 240):
        scaled = (large + 0.5) * (size / 512) - 0.5
        np.testing.assert_allclose(synthetic_face(5, 3, size).landmarks, scaled, atol=1e-3)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_a_small_picture_is_the_large_one_averaged(size):
    for index in range(2):
        large = synthetic_face(6, index, 512).image.astype(np.float32)
        small = synthetic_face(6, index, size).image.astype(np.float32)
        averaged = cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA)
        difference = np.abs(small - averaged)
        assert difference.mean() < 1.2
        assert difference.mean() < 0.5 * np.abs(np.roll(small, 1, axis=1) - averaged).mean()
        assert np.percentile(difference, 99) < 10


def test_landmarks_come_in_the_order_of_the_template_and_inside_the_picture(faces):
    for face in faces:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
        assert left_eye[0] < nose[0] < right_eye[0]
        assert left_mouth[0] < nose[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        assert face.landmarks.min() > 0
        assert face.landmarks.max() < SIZE - 1


def test_landmarks_are_the_template_on_average_with_the_scatter_of_aligned_photographs(landmarks_512):
    offset = landmarks_512 - TEMPLATE_512
    assert np.abs(offset.mean(axis=0)).max() < 2
    assert np.abs(offset).max() < 25
    assert (offset.std(axis=0) > 1).all()
    assert (offset.std(axis=0) < 10).all()


@pytest.fixture(scope="module")
def pupil_errors(faces) -> np.ndarray:
    """Darkest disc of an iris' size near each eye minus the landmark, in pixels: face, eye, (x, y).

    A glint and the shadow of the lid blur the single measurement, so the tests look at many.
    """
    times, radius = 4, 12  # an iris is six pixels wide here, so look between them
    disc = (np.hypot(*np.mgrid[-radius : radius + 1, -radius : radius + 1]) <= radius).astype(np.float32)
    errors = []
    for face in faces:
        enlarged = cv2.resize(grey(face, 0.3), None, fx=times, fy=times, interpolation=cv2.INTER_CUBIC)
        brightness = cv2.filter2D(np.minimum(enlarged, 70), -1, disc)
        for eye in (face.landmarks[:2] + 0.5) * times - 0.5:
            x, y = np.rint(eye).astype(int)
            near = brightness[y - 20 : y + 21, x - 20 : x + 21]
            row, col = np.unravel_index(near.argmin(), near.shape)
            errors.append((np.array([x - 20 + col, y - 20 + row]) - eye) / times)
    return np.array(errors).reshape(-1, 2, 2)


def test_the_pupil_is_at_the_eye_landmark(pupil_errors):
    distance = np.linalg.norm(pupil_errors, axis=2)
    assert np.median(distance) < 0.01 * SIZE
    assert np.percentile(distance, 95) < 0.02 * SIZE
    assert abs(pupil_errors[..., 0].mean()) < 0.25  # half a pixel off would show here


def test_the_line_between_the_pupils_tilts_as_their_landmarks_do(faces, pupil_errors):
    expected = np.array([face.landmarks[1, 1] - face.landmarks[0, 1] for face in faces])
    measured = expected + pupil_errors[:, 1, 1] - pupil_errors[:, 0, 1]
    slope = np.polyfit(expected, measured, 1)[0]
    assert 0.7 < slope < 1.3


def test_the_pixel_under_an_eye_landmark_is_darker_than_the_white_beside_it(faces):
    for face in faces:
        picture = grey(face, 0.5)
        for x, y in face.landmarks[:2]:
            white = max(value_at(picture, x - 5, y), value_at(picture, x + 5, y))
            assert value_at(picture, x, y) < 0.75 * white


def test_the_tip_of_the_nose_shines_between_two_dark_nostrils(faces):
    for face in faces:
        picture, (x, y) = grey(face, 0.5), face.landmarks[2]
        for nostril in (-3.4, 3.4):
            assert value_at(picture, x, y) > 1.3 * value_at(picture, x + nostril, y + 3.7)


def test_the_nostrils_move_with_the_tip_of_the_nose(faces):
    """Sideways, against the middle between the eyes: how far the landmark moves and how far the picture does."""
    expected, measured = [], []
    for face in faces:
        middle, (x, y) = face.landmarks[:2, 0].mean(), face.landmarks[2]
        expected.append(x - middle)
        patch = cv2.getRectSubPix(grey(face, 0.5), (23, 3), (float(middle), float(y) + 3.7))
        darkness = np.clip(np.median(patch) - patch.mean(axis=0), 0, None)
        measured.append(np.average(np.arange(-11, 12), weights=darkness))
    assert 0.6 < np.polyfit(expected, measured, 1)[0] < 1.2
    assert np.std(np.subtract(measured, expected)) < 0.01 * SIZE


def test_the_line_between_the_lips_begins_at_the_corners_of_the_mouth(faces):
    contrasts = []
    for face in faces:
        for inwards, (x, y) in zip((1, -1), face.landmarks[3:], strict=True):
            column = cv2.getRectSubPix(grey(face, 0.5), (1, 11), (float(x) + inwards, float(y)))
            contrasts.append(column.min() / np.median(column))
    assert np.median(contrasts) < 0.7


def test_the_corners_of_the_mouth_are_darker_than_the_cheeks_beside_them(faces):
    ratios = []
    for face in faces:
        picture = grey(face, 0.6)
        for outwards, (x, y) in zip((-4, 4), face.landmarks[3:], strict=True):
            ratios.append(value_at(picture, x, y) / value_at(picture, x + outwards, y - 1))
    assert np.mean(np.array(ratios) < 1) > 0.95
    assert np.median(ratios) < 0.85


def test_faces_differ_from_each_other(faces):
    pictures = np.array([face.image for face in faces], np.float32).reshape(len(faces), -1)
    square = (pictures**2).mean(axis=1)
    squares = square[:, None] + square - 2 * pictures @ pictures.T / pictures.shape[1]
    pairs = np.sqrt(squares[np.triu_indices(len(faces), 1)])
    assert pairs.min() > 12
    assert pairs.mean() > 40


def test_skin_hair_and_backdrop_come_in_many_colours(faces):
    def spread(top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return np.std([f.image[top:bottom, left:right].mean(axis=(0, 1)) for f in faces], axis=0)

    skin, hair, backdrop = spread(66, 74, 60, 68), spread(14, 26, 56, 72), spread(0, 12, 0, 12)
    assert skin.min() > 20
    assert hair.min() > 25
    assert backdrop.min() > 20


def test_skin_is_redder_than_it_is_blue(faces):
    """Of every tone; a picture whose channels are the wrong way round would fail."""
    for face in faces:
        red, green, blue = face.image[68:74, 60:68].mean(axis=(0, 1))
        assert red > green
        assert red > 1.1 * blue


def test_pictures_hold_fine_detail_that_a_small_copy_loses(faces):
    """Or there would be nothing to restore."""
    lost = []
    for face in faces:
        small = cv2.resize(face.image, (32, 32), interpolation=cv2.INTER_AREA)
        back = cv2.resize(small, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        mse = ((face.image.astype(float) - back) ** 2).mean()
        lost.append(10 * np.log10(255**2 / mse))
    assert 20 < np.mean(lost) < 32


@pytest.mark.parametrize(("seed", "index", "size"), [(0, 0, 15), (0, 0, 1025), (-1, 0, 64), (0, -1, 64)])
def test_impossible_arguments_are_refused(seed, index, size):
    with pytest.raises(ValueError, match=r"size must|must not be negative"):
        synthetic_face(seed, index, size)
