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
            [[75, 75, 73], [138, 146, 119], [147, 154, 126], [84, 83, 82]],
            [[93, 94, 85], [183, 169, 134], [191, 178, 144], [103, 106, 95]],
            [[96, 97, 86], [188, 151, 120], [202, 166, 134], [107, 111, 96]],
            [[87, 90, 73], [107, 103, 78], [117, 111, 85], [92, 96, 79]],
        ],
        47.21,
    ),
    (0, 8): (
        [[24.141, 29.313], [40.235, 29.884], [33.052, 39.597], [24.967, 45.888], [38.62, 46.305]],
        [
            [[103, 85, 93], [158, 137, 130], [154, 137, 125], [95, 81, 86]],
            [[140, 115, 119], [212, 178, 151], [195, 155, 128], [119, 101, 101]],
            [[150, 124, 123], [207, 159, 131], [174, 123, 98], [117, 99, 97]],
            [[140, 120, 111], [130, 102, 89], [112, 87, 75], [109, 94, 88]],
        ],
        45.43,
    ),
    (7, 42): (
        [[23.119, 29.991], [39.012, 29.463], [30.438, 39.345], [24.6, 46.944], [38.71, 46.352]],
        [
            [[125, 111, 105], [177, 142, 102], [168, 135, 99], [121, 107, 103]],
            [[144, 126, 116], [205, 174, 153], [200, 169, 146], [138, 122, 116]],
            [[156, 136, 130], [200, 162, 140], [194, 157, 133], [151, 131, 125]],
            [[148, 131, 129], [128, 106, 91], [118, 96, 79], [121, 110, 109]],
        ],
        41.82,
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
