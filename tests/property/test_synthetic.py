"""Laws that every synthetic face keeps, whatever its seed, index and size."""

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from idm.data.synthetic import synthetic_face

SEEDS, INDICES = st.integers(0, 2**64), st.integers(0, 2**40)


@settings(max_examples=25)
@given(seed=SEEDS, index=INDICES, size=st.integers(16, 144))
@example(seed=0, index=0, size=1024)
@example(seed=2**64, index=2**40, size=511)
def test_any_face_is_a_picture_with_contrast_and_five_points_inside(seed, index, size):
    face = synthetic_face(seed, index, size)
    assert face.image.shape == (size, size, 3)
    assert face.image.dtype == np.uint8
    assert face.image.std() > 12
    assert face.image.max() > 90
    assert face.landmarks.shape == (5, 2)
    assert face.landmarks.dtype == np.float32
    assert (face.landmarks > 0).all()
    assert (face.landmarks < size - 1).all()


@settings(max_examples=10)
@given(seed=SEEDS, index=INDICES, size=st.integers(16, 128), other=st.integers(16, 128))
def test_landmarks_of_two_sizes_are_the_same_points_of_the_face(seed, index, size, other):
    a, b = (synthetic_face(seed, index, n).landmarks for n in (size, other))
    np.testing.assert_allclose((a + 0.5) / size, (b + 0.5) / other, atol=1e-5)


@settings(max_examples=8)
@given(seed=SEEDS, index=INDICES)
def test_the_next_index_is_another_face(seed, index):
    a, b = (synthetic_face(seed, i, 48).image.astype(float) for i in (index, index + 1))
    assert np.sqrt(((a - b) ** 2).mean()) > 8
