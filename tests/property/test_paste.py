"""Warping and pasting under any similarity: nothing moves, nothing outside changes, order does not matter."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idm.faces.align import align_face, apply_matrix, invert, scale_of, to_unit, warp
from idm.faces.paste import Patch, blend_weights, crop_weights, paste_faces
from idm.faces.template import ffhq_landmarks

SIZE = 32


def waves(height: int, width: int, dtype: type = np.uint8) -> np.ndarray:
    """A smooth picture, so that resampling loses next to nothing: its three channels differ."""
    y, x = np.mgrid[:height, :width]
    channels = [np.sin(x / 9 + c) * np.cos(y / 11 - c) * 0.4 + 0.5 for c in range(3)]
    return np.rint(np.stack(channels, axis=-1) * np.iinfo(dtype).max).astype(dtype)


def similarity(scale: float, angle: float, x: float, y: float) -> np.ndarray:
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


similarities = st.builds(
    similarity, st.floats(0.2, 5), st.floats(-np.pi, np.pi), st.floats(-60, 60), st.floats(-60, 60)
)
# faces of 12 to 90 pixels anywhere in or half out of a picture of 100 x 120
placed = st.builds(
    lambda side, angle, x, y: invert(
        np.column_stack([similarity(side / SIZE, angle, 0, 0)[:, :2], [x, y]])
    ) + np.array([[0, 0, SIZE / 2 - 0.5]] * 2),
    st.floats(12, 90), st.floats(-np.pi, np.pi), st.floats(0, 119), st.floats(0, 99),
)  # fmt: skip


def weights_in_picture(to_crop: np.ndarray, height: int = 100, width: int = 120) -> np.ndarray:
    xy = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
    return blend_weights(apply_matrix(to_crop, xy), SIZE)


@given(similarities, similarities)
def test_the_inverse_of_a_similarity_undoes_it(matrix: np.ndarray, other: np.ndarray) -> None:
    points = other[:, :2] * 50
    np.testing.assert_allclose(apply_matrix(invert(matrix), apply_matrix(matrix, points)), points, atol=1e-6)
    assert scale_of(invert(matrix)) == pytest.approx(1 / scale_of(matrix))


@given(similarities)
@settings(max_examples=40)
def test_a_ramp_is_warped_to_the_ramp_of_the_inverse_map(matrix: np.ndarray) -> None:
    """Linear pictures are kept exactly by bilinear samples and their means: the answer has no error of its own."""
    y, x = np.mgrid[:200, :220].astype(np.float32)
    to_image = invert(matrix)
    points = apply_matrix(to_image, np.stack(np.meshgrid(np.arange(24.0), np.arange(20.0)), axis=-1))
    half = 0.75 / scale_of(matrix) + 1  # the reach of a pixel's own area
    inside = (points > half).all(-1) & (points < np.array([219, 199]) - half).all(-1)
    warped = warp(np.stack([x, y], axis=-1), matrix, (20, 24))
    np.testing.assert_allclose(warped[inside], points[inside], atol=5e-3)


@given(st.integers(-5, 5), st.integers(-5, 5), st.sampled_from(["bilinear", "bicubic"]))
def test_whole_shifts_copy_pixels_and_repeat_the_edge(dx: int, dy: int, interpolation: str) -> None:
    image = waves(12, 14)
    moved = warp(image, np.array([[1.0, 0, dx], [0, 1, dy]]), (12, 14), interpolation)
    rows, columns = np.clip(np.arange(12) - dy, 0, 11), np.clip(np.arange(14) - dx, 0, 13)
    np.testing.assert_allclose(moved, to_unit(image[rows][:, columns]), atol=2e-6)


def test_tiles_leave_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    image, matrix = waves(90, 80, np.uint16), similarity(0.37, 0.4, 3, 5)
    whole = warp(image, matrix, (40, 50), "bicubic")
    monkeypatch.setattr("idm.faces.align._TILE_SAMPLES", 24)
    np.testing.assert_allclose(warp(image, matrix, (40, 50), "bicubic"), whole, atol=1e-5)
    canvas = waves(90, 80)
    patches = [Patch(np.random.default_rng(0).random((SIZE, SIZE, 3), np.float32), similarity(0.6, 0.3, -2, 1))]
    expected = canvas.copy()
    paste_faces(expected, patches)
    monkeypatch.setattr("idm.faces.paste._TILE", 17)
    paste_faces(canvas, patches)
    assert np.abs(canvas.astype(int) - expected).max() <= 1  # a value may round either way


@given(placed, st.sampled_from([np.uint8, np.uint16]), st.booleans())
@settings(max_examples=60)
def test_pixels_without_weight_keep_their_levels(to_crop: np.ndarray, dtype: type, is_change: bool) -> None:
    picture = waves(100, 120, dtype)
    canvas = picture.copy()
    paste_faces(canvas, [Patch(np.ones((SIZE, SIZE, 3), np.float32), to_crop, is_change)])
    weights = weights_in_picture(to_crop)
    np.testing.assert_array_equal(canvas[weights == 0], picture[weights == 0])
    if not is_change:
        assert (canvas[weights == 1] == np.iinfo(dtype).max).all()


@given(placed)
@settings(max_examples=60)
def test_no_change_changes_nothing(to_crop: np.ndarray) -> None:
    picture = waves(100, 120, np.uint16)
    canvas = picture.copy()
    paste_faces(canvas, [Patch(np.zeros((SIZE, SIZE, 3), np.float32), to_crop, is_change=True)])
    np.testing.assert_array_equal(canvas, picture)


@pytest.mark.parametrize("is_change", [False, True])
def test_what_is_kept_of_the_picture_is_a_share_of_the_change(is_change: bool) -> None:
    picture = np.full((60, 60, 3), 100, np.uint8)
    to_crop, value = similarity(0.9, 0.2, 1, 2), np.full((SIZE, SIZE, 3), 0.2 if is_change else 0.8, np.float32)

    def pasted(kept: float | None) -> np.ndarray:
        canvas, share = picture.copy(), None if kept is None else np.full((SIZE, SIZE), kept, np.float32)
        paste_faces(canvas, [Patch(value, to_crop, is_change, share)])
        return canvas.astype(int) - picture

    np.testing.assert_array_equal(pasted(0.0), pasted(None))
    np.testing.assert_array_equal(pasted(1.0), 0)
    np.testing.assert_allclose(pasted(0.25), 0.75 * pasted(None), atol=1)


@given(placed)
@settings(max_examples=60)
def test_a_face_that_was_cut_out_and_put_back_stays_where_it_was(to_crop: np.ndarray) -> None:
    picture = waves(100, 120)
    canvas = picture.copy()
    crop = warp(picture, to_crop, (SIZE, SIZE), "bicubic").clip(0, 1)
    paste_faces(canvas, [Patch(crop, to_crop)])
    # the waves' steepest slope is 0.4 / 9 = 0.044 per pixel, 11 levels: half a pixel's shift would show as 5.
    # The last pixels are left out: where the crop goes on beyond the border, it holds the border's pixels.
    inner = (slice(3, -3), slice(3, -3))
    assert np.abs(canvas.astype(int) - picture)[inner].max() <= 3


@given(st.lists(placed, min_size=2, max_size=3), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_overlapping_faces_may_come_in_any_order_and_none_is_lost(places: list[np.ndarray], random: object) -> None:
    values = [np.full((SIZE, SIZE, 3), value, np.float32) for value in (0.0, 1.0, 0.3)]
    patches = [Patch(value, place) for value, place in zip(values, places, strict=False)]
    one, other = waves(100, 120), waves(100, 120)
    paste_faces(one, patches)
    shuffled = list(patches)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    paste_faces(other, shuffled)
    assert np.abs(one.astype(int) - other).max() <= 1
    weights = [weights_in_picture(place) for place in places]
    for i, weight in enumerate(weights):
        alone = (weight == 1) & (sum(w for j, w in enumerate(weights) if j != i) == 0)
        np.testing.assert_allclose(one[alone] / 255, values[i][0, 0, 0], atol=0.51 / 255)


def test_two_faces_in_one_place_count_half_each() -> None:
    canvas = np.zeros((SIZE, SIZE, 3), np.uint8)
    here = similarity(1, 0, 0, 0)
    paste_faces(canvas, [Patch(np.full((SIZE, SIZE, 3), v, np.float32), here) for v in (0.2, 0.6)])
    assert abs(int(canvas[SIZE // 2, SIZE // 2, 0]) - round(0.4 * 255)) <= 1


@given(placed)
@settings(max_examples=30)
def test_an_aligned_face_has_its_landmarks_on_the_template(place: np.ndarray) -> None:
    landmarks = apply_matrix(invert(place), ffhq_landmarks(SIZE))
    crop, to_crop = align_face(waves(100, 120), landmarks, SIZE)
    np.testing.assert_allclose(apply_matrix(to_crop, landmarks), ffhq_landmarks(SIZE), atol=1e-6)
    np.testing.assert_allclose(to_crop, place, atol=1e-6)
    assert 0 <= crop.min() <= crop.max() <= 1


# --- exactness, measured


def shift(before: np.ndarray, after: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(dx, dy) by which a picture moved, in pixels: least squares on the gradient (Lucas and Kanade 1981)."""
    a, b = (cv2.GaussianBlur(image.astype(np.float64).mean(axis=2), (0, 0), 2) for image in (before, after))
    dy, dx = np.gradient(a)
    return np.linalg.lstsq(np.stack([dx[where], dy[where]], axis=1), (a - b)[where], rcond=None)[0]


def test_the_measure_of_shifts_sees_a_tenth_of_a_pixel() -> None:
    image = waves(80, 90, np.uint16)
    moved = warp(image, np.array([[1, 0, 0.1], [0, 1, -0.2]]), (80, 90), "bicubic")
    inner = np.zeros((80, 90), bool)
    inner[10:-10, 10:-10] = True
    np.testing.assert_allclose(shift(to_unit(image), moved, inner), (0.1, -0.2), atol=0.02)


@pytest.mark.parametrize("scale", [1, 1.5, 2, 4])
@pytest.mark.parametrize("size", [64, 128, 256])
def test_an_identity_restorer_moves_nothing(scale: float, size: int) -> None:
    from skimage.data import astronaut

    landmarks = np.array([(203.63, 101.13), (247.50, 104.55), (223.26, 129.34), (200.92, 138.40), (245.63, 141.16)])
    picture = astronaut()[:260, 80:380]
    crop, to_crop = align_face(picture, landmarks - (80, 0), size)
    before = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    to_picture = np.array([[1 / scale, 0, 0.5 / scale - 0.5], [0, 1 / scale, 0.5 / scale - 0.5]])
    matrix = np.column_stack([to_crop[:, :2] @ to_picture[:, :2], apply_matrix(to_crop, to_picture[:, 2])])
    after = before.copy()
    paste_faces(after, [Patch(crop, matrix)])
    weights = blend_weights(
        apply_matrix(matrix, np.stack(np.meshgrid(*map(np.arange, before.shape[1::-1])), axis=-1)), size
    )
    assert np.abs(shift(before, after, weights == 1)).max() < 0.05
    np.testing.assert_array_equal(after[weights == 0], before[weights == 0])


def test_weights_are_one_on_the_face_and_zero_at_the_border() -> None:
    weights = crop_weights(128)
    u, v = np.rint(ffhq_landmarks(128)).astype(int).T
    assert (weights[v, u] == 1).all()
    border = np.concatenate([weights[0], weights[-1], weights[:, 0], weights[:, -1]])
    assert border.max() == 0
    np.testing.assert_array_equal(weights, weights[::-1, ::-1])
    assert np.abs(np.diff(weights, axis=0)).max() < 0.15
