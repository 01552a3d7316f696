"""Faces followed over frames, and where they are smoothed."""

import json

import numpy as np
import pytest

from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.faces.track import DEGREE, REACH, Sighting, Tracker, associate, iou, local_fit, smooth

GREY = np.full((32, 32, 3), 128, np.uint8)


def face(x: float, y: float = 0.0, size: float = 100.0) -> DetectedFace:
    """A face whose box begins at (x, y)."""
    corner = np.array([x, y])
    return DetectedFace(np.concatenate([corner, corner + size]), ffhq_landmarks(100) * size / 100 + corner, 0.9)


def follow(positions: list[list[float]], reach: int = REACH) -> list[dict[int, DetectedFace]]:
    """What a tracker says of each frame, of faces that begin at these x positions."""
    tracker = Tracker(reach)
    tracked = []
    for frame in range(len(positions) + reach):
        if frame < len(positions):
            tracker.add_frame(frame / 25, GREY, [face(x) for x in positions[frame]])
        if frame >= reach:
            tracked.append(tracker.faces_at(frame - reach, (frame - reach) / 25))
    return tracked


# ------------------------------------------------------------------------------------------- association


def test_the_overlap_of_boxes_has_its_textbook_values() -> None:
    a = np.array([0.0, 0, 2, 2])
    assert iou(a, a) == 1
    assert iou(a, np.array([1.0, 0, 3, 2])) == pytest.approx(1 / 3)
    assert iou(a, np.array([1.0, 1, 3, 3])) == pytest.approx(1 / 7)
    assert iou(a, np.array([2.0, 0, 4, 2])) == 0
    assert iou(a, np.array([5.0, 5, 6, 6])) == 0


def test_the_best_pair_is_matched_first_whatever_the_order() -> None:
    before = [face(0), face(60)]
    now = [face(50), face(-10)]  # the first overlaps both, but 60 more
    assert associate(before, now) == {0: 1, 1: 0}
    assert associate(before[::-1], now[::-1]) == {0: 1, 1: 0}


def test_what_hardly_overlaps_is_another_face() -> None:
    assert associate([face(0)], [face(60)]) == {0: 0}  # 0.25
    assert associate([face(0)], [face(70)]) == {}  # 0.18


def test_faces_keep_their_numbers_while_they_pass_each_other_at_a_distance_of_rows() -> None:
    tracker = Tracker(reach=0)
    for frame in range(20):
        tracker.add_frame(frame / 25, GREY, [face(10.0 * frame, 0), face(200 - 10.0 * frame, 105)])
        found = tracker.faces_at(frame, frame / 25)
        assert found[0].box[0] == 10.0 * frame
        assert found[1].box[0] == 200 - 10.0 * frame


def test_a_face_that_the_detector_misses_for_a_moment_is_where_it_must_have_been() -> None:
    tracked = follow([[8.0 * i] if i not in (6, 7, 8, 9) else [] for i in range(16)])
    assert [list(faces) for faces in tracked] == [[0]] * 16
    for frame, faces in enumerate(tracked):
        assert faces[0].box[0] == pytest.approx(8.0 * frame)


def test_a_face_that_was_away_for_longer_is_a_new_one_and_is_not_invented_meanwhile() -> None:
    tracked = follow([[0.0] if not 5 <= i < 10 else [] for i in range(15)])
    assert [list(faces) for faces in tracked] == [[0]] * 5 + [[]] * 5 + [[1]] * 5


def test_a_cut_begins_new_faces_and_nothing_is_smoothed_across_it() -> None:
    tracker = Tracker()
    for frame in range(10):
        dark = frame < 5
        tracker.add_frame(frame / 25, GREY // 4 if dark else GREY, [face(0.0 if dark else 20.0)])
    for frame in range(2, 8):
        found = tracker.faces_at(frame, frame / 25)
        assert list(found) == [0 if frame < 5 else 1]
        assert found[frame >= 5].box[0] == pytest.approx(0.0 if frame < 5 else 20.0)


def test_a_tracker_rebuilt_from_its_state_continues_like_the_original() -> None:
    rng = np.random.default_rng(0)
    noisy = [[float(x) for x in rng.normal([7 * i, 300], 1.0)][: 1 + (i % 3 > 0)] for i in range(30)]
    whole, stopped = Tracker(), Tracker()
    for frame, xs in enumerate(noisy):
        whole.add_frame(frame / 25, GREY, [face(x) for x in xs])
        if frame == 13:
            stopped = Tracker.from_state(json.loads(json.dumps(stopped.state())))
        stopped.add_frame(frame / 25, GREY, [face(x) for x in xs])
        a, b = (tracker.faces_at(frame - REACH, (frame - REACH) / 25) for tracker in (whole, stopped))
        assert a.keys() == b.keys()
        for number in a:
            np.testing.assert_array_equal(a[number].landmarks, b[number].landmarks)
            np.testing.assert_array_equal(a[number].box, b[number].box)
    assert whole.state() == stopped.state()


def test_what_a_tracker_remembers_does_not_grow() -> None:
    tracker = Tracker()
    for frame in range(200):
        tracker.add_frame(frame / 25, GREY, [face(0.0), face(1000.0 * (1 + frame // 20))])
    assert len(tracker.tracks) <= 3
    assert max(len(track.sightings) for track in tracker.tracks) <= 2 * REACH + 1


# ------------------------------------------------------------------------------------------- smoothing


@pytest.mark.parametrize("times", [np.arange(-4.0, 5), np.array([-0.3, -0.11, 0.0, 0.02, 0.5]), np.arange(5.0)])
def test_steady_acceleration_is_followed_exactly_even_at_its_ends_and_at_uneven_times(times: np.ndarray) -> None:
    weights = np.random.default_rng(0).uniform(0.1, 1, len(times))
    values = 3.0 + np.outer(times, [40.0, -7.0]) + np.outer(times**2, [5.0, -90.0])
    np.testing.assert_allclose(local_fit(times, values, weights, 2), [3.0, 3.0], atol=1e-9)


@pytest.mark.parametrize("degree", [0, 1, 2])
def test_the_fit_is_numpys_weighted_least_squares(degree: int) -> None:
    rng = np.random.default_rng(1)
    times, values, weights = rng.normal(size=9), rng.normal(size=(9, 3)), rng.uniform(0.1, 1, 9)
    expected = np.polynomial.polynomial.polyfit(times, values, degree, w=np.sqrt(weights))[0]
    np.testing.assert_allclose(local_fit(times, values, weights, degree), expected)


def test_two_values_make_a_line_and_one_itself() -> None:
    values = np.array([[2.0], [8.0]])
    assert local_fit(np.array([-1.0, 2.0]), values, np.array([0.9, 0.1]), 2) == pytest.approx(4.0)
    assert local_fit(np.array([0.0]), values[:1], np.array([0.9]), 2) == pytest.approx(2.0)


def test_one_sighting_is_taken_as_it_is() -> None:
    sighting = Sighting(3, 0.12, face(5.0))
    np.testing.assert_array_equal(smooth([sighting], 3, 0.12, REACH).landmarks, sighting.face.landmarks)


def test_steady_motion_is_followed_without_lag_and_jitter_falls_by_the_filters_own_factor() -> None:
    rng = np.random.default_rng(2)
    num, speed, sigma = 4000, 12.0, 1.0
    tracker, errors = Tracker(), []
    for frame in range(num):
        jitter = rng.normal(0, sigma, (5, 2))
        true = face(speed * frame)
        tracker.add_frame(frame / 25, GREY, [DetectedFace(true.box, true.landmarks + jitter, 0.9)])
        if frame >= 2 * REACH:
            there = frame - REACH
            errors.append(tracker.faces_at(there, there / 25)[0].landmarks - face(speed * there).landmarks)
    around = np.arange(-REACH, REACH + 1)
    weights = (1 - (np.abs(around) / (REACH + 1)) ** 3) ** 3
    filter_taps = np.polynomial.polynomial.polyfit(around, np.eye(len(around)), DEGREE, w=np.sqrt(weights))[0]
    expected = sigma * np.sqrt((filter_taps**2).sum())
    assert expected < 0.62  # what is left of errors; of their change from frame to frame it is less
    assert np.std(errors) == pytest.approx(expected, rel=0.05)
    assert abs(np.mean(errors)) < 0.02  # a filter that lags by one frame would be 12 px behind


def test_a_sudden_stop_is_overrun_by_a_bounded_part_of_a_step() -> None:
    step = 12.0
    tracked = follow([[step * min(i, 20)] for i in range(40)])
    errors = [faces[0].box[0] - step * min(i, 20) for i, faces in enumerate(tracked)]
    assert max(map(abs, errors)) < 0.8 * step
    assert np.abs(errors[: 20 - REACH]).max() < 1e-9
    assert np.abs(errors[20 + REACH + 1 :]).max() < 1e-9
