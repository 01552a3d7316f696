"""Numbers of a few synthetic faces: a change of the drawing shows here, a change of platform does not.

Update the numbers when the drawing changes on purpose: results that were computed on synthetic faces before
are then results on another data set.
"""

import numpy as np
import pytest

from idm.data.synthetic import synthetic_face

CASES = {
    (0, 0): (
        [[24.147, 29.385], [39.024, 29.475], [29.993, 37.971], [24.087, 45.57], [38.501, 45.741]],
        [
            [[75, 75, 73], [139, 147, 119], [147, 154, 126], [84, 83, 82]],
            [[92, 94, 85], [182, 168, 134], [190, 178, 143], [103, 106, 95]],
            [[96, 97, 86], [188, 151, 120], [202, 166, 134], [107, 111, 96]],
            [[87, 90, 74], [107, 103, 78], [117, 112, 85], [92, 96, 79]],
        ],
        47.28,
    ),
    (0, 8): (
        [[24.141, 29.313], [40.235, 29.884], [33.052, 39.597], [24.967, 45.888], [38.62, 46.305]],
        [
            [[103, 85, 93], [157, 136, 129], [154, 137, 125], [95, 81, 86]],
            [[140, 114, 118], [212, 177, 150], [195, 156, 129], [121, 103, 103]],
            [[152, 125, 124], [207, 159, 131], [173, 122, 98], [118, 100, 97]],
            [[141, 120, 112], [133, 104, 90], [112, 87, 75], [115, 99, 92]],
        ],
        45.77,
    ),
    (7, 42): (
        [[23.119, 29.991], [39.012, 29.463], [30.438, 39.345], [24.6, 46.944], [38.71, 46.352]],
        [
            [[125, 111, 105], [176, 141, 101], [169, 137, 100], [121, 107, 103]],
            [[144, 125, 115], [205, 174, 153], [199, 168, 146], [138, 122, 116]],
            [[156, 136, 130], [199, 161, 139], [193, 156, 132], [150, 131, 125]],
            [[147, 131, 129], [127, 106, 91], [117, 96, 79], [121, 110, 109]],
        ],
        41.99,
    ),
}


@pytest.mark.parametrize("key", CASES)
def test_a_known_face_keeps_its_landmarks_and_its_colours(key):
    landmarks, blocks, contrast = CASES[key]
    face = synthetic_face(*key, 64)
    np.testing.assert_allclose(face.landmarks, landmarks, atol=2e-3)
    means = face.image.astype(float).reshape(4, 16, 4, 16, 3).mean(axis=(1, 3))  # of 16 by 16 pixels
    np.testing.assert_allclose(means, blocks, atol=1.5)
    assert face.image.std() == pytest.approx(contrast, abs=0.5)
