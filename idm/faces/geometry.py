"""Five landmarks of a face: whether they are plausible, and how the face is rotated."""

import math

import numpy as np
from jaxtyping import Float

from idm.faces.align import apply_matrix
from idm.faces.template import ffhq_landmarks, umeyama

# Of 130 upright faces the landmarks lie within .12 eye distances of the template, and in profile within about .25.
MAX_TEMPLATE_DISTANCE = 0.3

_EYES, _NOSE, _MOUTH = [0, 1], [2], [3, 4]
_TEMPLATE = ffhq_landmarks(512)
_EYE_DISTANCE = float(np.linalg.norm(_TEMPLATE[1] - _TEMPLATE[0]))


def template_distance(landmarks: Float[np.ndarray, "5 2"]) -> float:
    """Root mean square distance of landmarks from the FFHQ template, when fitted to it by the best similarity, in eye
    distances of the template. Infinite if no similarity fits."""
    try:
        fitted = apply_matrix(umeyama(landmarks, _TEMPLATE), landmarks)
    except ValueError:
        return math.inf
    return float(np.sqrt(np.square(fitted - _TEMPLATE).sum(axis=1).mean())) / _EYE_DISTANCE


def roll_angle(landmarks: Float[np.ndarray, "5 2"]) -> float:
    """The clockwise rotation of a face from upright in degrees, in (-180, 180]; 180 if its landmarks do not tell."""
    try:
        to_template = umeyama(landmarks, _TEMPLATE)
    except ValueError:
        return 180.0
    return -math.degrees(math.atan2(to_template[1, 0], to_template[0, 0]))


def why_implausible(landmarks: Float[np.ndarray, "5 2"]) -> str:
    """Return the reason why landmarks cannot be those of a face to align; empty if they can."""
    distance = template_distance(landmarks)
    if not math.isfinite(distance):
        return "its landmarks coincide or are mirrored"
    if distance > MAX_TEMPLATE_DISTANCE:
        return f"its landmarks lie {distance:.2f} eye distances from a face's, more than {MAX_TEMPLATE_DISTANCE}"
    eyes, nose, mouth = (
        apply_matrix(umeyama(landmarks, _TEMPLATE), landmarks)[i, 1].mean() for i in (_EYES, _NOSE, _MOUTH)
    )
    return "" if eyes < nose < mouth else "its nose does not lie between its eyes and its mouth"
