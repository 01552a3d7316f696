"""Numbers of a few synthetic faces: a change of the drawing shows here, a change of platform does not.

Update the numbers when the drawing changes on purpose: results that were computed on synthetic faces before
are then results on another data set.
"""

import numpy as np
import pytest

from idm.data.synthetic import synthetic_face

CASES = {
    (0, 0): (
        [[23.692, 29.622], [39.367, 29.871], [31.787, 38.524], [24.564, 46.294], [38.476, 46.188]],
        [
            [[70, 131, 105], [56, 71, 63], [54, 69, 60], [69, 128, 104]],
            [[67, 110, 96], [187, 156, 135], [187, 156, 135], [65, 107, 95]],
            [[73, 107, 101], [179, 145, 126], [174, 141, 123], [73, 106, 101]],
            [[60, 90, 94], [114, 103, 92], [113, 104, 93], [63, 93, 97]],
        ],
        46.43,
    ),
    (0, 8): (
        [[23.742, 29.309], [39.461, 29.386], [31.449, 38.884], [24.757, 44.789], [38.52, 45.042]],
        [
            [[78, 67, 59], [124, 117, 111], [126, 120, 114], [73, 68, 60]],
            [[73, 70, 63], [133, 116, 108], [128, 113, 106], [66, 71, 66]],
            [[68, 74, 70], [106, 78, 67], [96, 73, 65], [59, 72, 71]],
            [[50, 68, 65], [69, 67, 53], [64, 64, 51], [42, 68, 67]],
        ],
        44.48,
    ),
    (7, 42): (
        [[23.822, 29.34], [39.148, 29.404], [30.961, 39.736], [24.857, 46.315], [38.231, 46.447]],
        [
            [[165, 122, 188], [125, 88, 124], [124, 87, 123], [166, 122, 190]],
            [[160, 128, 175], [115, 81, 62], [107, 75, 57], [160, 126, 176]],
            [[148, 127, 153], [126, 85, 64], [112, 75, 57], [149, 127, 155]],
            [[135, 124, 132], [86, 61, 48], [85, 60, 48], [136, 124, 134]],
        ],
        54.34,
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
