"""Limit the change of a face to the share that serves it, and reject a face that does not improve."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from idm.extrinsic.gate import Gate, Reason, decide
from idm.extrinsic.quality import Quality, measure, sharpness_at_edges_of
from idm.faces.paste import crop_weights
from idm.io.ranges import to_uint8

Crop = Float32[np.ndarray, "s s 3"]

# Root mean square error that a restorer makes of its own, as a share of the fine detail that a face has, and at least
# one grey level. At this share one of 396 faces of `val`, clean, noisy, mildly or strongly degraded, loses more than
# .1 dB: experiments/photos/gate.py.
DETAIL_ERROR = 0.9
# The same for a small face in pixels of the result, where it need only tell sharp faces from others (our choice).
SMALL_DETAIL_ERROR = 0.5
MIN_ERROR = 1 / 255
MIN_SHARE = 0.05  # below it a face is as good as its restored self and stays exactly as it is (our choice)

# Identity is the guard's (min_identity of the settings), and JPEG's blocks do not lie on the grid of an aligned crop.
# Skin that a model makes sharp has texture, which counts as noise, and noise that it removes counts as sharpness. What
# is too little to be sure of is the share's to leave out, so only clear failures are rejected here.
_GATE = Gate(
    min_identity=None,
    max_sharpness_loss=0.4,
    max_noise_gain=1.0,
    max_blockiness_gain=math.inf,
    min_sharpness_gain=0.0005,
    min_noise_loss=0.07,
    min_blockiness_loss=math.inf,
)
_FINE = 1.0  # pixels of sigma: finer detail than that is fine
_NOISE_PASSED = 1 - 3 / (4 * math.pi)  # of the power of white noise, by the difference from a Gaussian of 1 pixel
_MIN_SIDE = 24  # of a face whose quality can be measured
_WHY: Mapping[Reason, str] = {
    "softer": "the restored face is softer",
    "noisier": "the restored face is noisier",
    "no better": "the restored face is not better by its measures",
}


@dataclass(frozen=True)
class Benefit:
    """``share`` of the restorer's change that serves a face, in [0, 1]; of 0, ``why``."""

    share: float
    why: str = ""


def judge(given: Crop, restored: Crop, side: float | None = None, detail_error: float = DETAIL_ERROR) -> Benefit:
    """Judge how much of the change from ``given`` to ``restored``, both in [0, 1], serves a face.

    The share is that of :func:`change_share`. What results must then be better than the given face as the gate of
    ``idm clean`` measures it. A small face that is sharp in the result looks blurred in its enlarged crop, so it must
    also need a change in pixels of the result.

    Args:
        side: of the aligned square in the result; None is that of the crops.
    """
    share = change_share(given, restored, detail_error)
    if side is not None and round(side) < len(given):
        small = change_share(_shrink(given, side), _shrink(restored, side), SMALL_DETAIL_ERROR)
        share = 0.0 if small < MIN_SHARE else share
    if share < MIN_SHARE:
        return Benefit(0.0, "it needs hardly any change")
    if len(given) < _MIN_SIDE:
        return Benefit(share)
    decision = decide(_GATE, *_qualities(to_uint8(given), to_uint8(given + share * (restored - given))), None)
    return Benefit(share) if decision.accepted else Benefit(0.0, _WHY[decision.reason])


def _shrink(face: Crop, side: float) -> Float32[np.ndarray, "s2 s2 3"]:
    pixels = max(1, round(side))
    return cv2.resize(face, (pixels, pixels), interpolation=cv2.INTER_AREA)


def _qualities(given: UInt8[np.ndarray, "s s 3"], restored: UInt8[np.ndarray, "s s 3"]) -> tuple[Quality, Quality]:
    """Measure both faces; their sharpness at the edges of the restored one, which has less noise."""
    before, after = (
        replace(measure(face), sharpness=sharpness_at_edges_of(face, restored)) for face in (given, restored)
    )
    return before, after


def change_share(given: Crop, restored: Crop, detail_error: float = DETAIL_ERROR) -> float:
    """James and Stein's factor: 1 less the error that restorers make of their own over what was wrong with the face.

    A restorer redraws fine detail, so its own error is a share of the detail that the given face has beyond its noise:
    a sharp face has much to lose, a blurred one hardly anything. What was wrong is the mean square of the change plus
    the noise that it removes, because noise is removed from flat parts and counts for all of the face.

    Source: W. James, C. Stein, Estimation with Quadratic Loss, 4th Berkeley Symposium, 1961.
    """
    noise, noise_left = noise_of(given) ** 2, noise_of(restored) ** 2
    detail = _power(given - cv2.GaussianBlur(given, (0, 0), _FINE)) - _NOISE_PASSED * noise
    own_error = max(detail_error**2 * detail, MIN_ERROR**2)
    wrong = _power(restored - given) + max(0.0, noise - noise_left)
    return max(0.0, 1 - own_error / max(wrong, 1e-12))


def _power(values: Crop) -> float:
    """Mean square over the face."""
    weights = crop_weights(len(values))
    return float((np.square(values).mean(axis=2) * weights).sum() / weights.sum())


def noise_of(face: Crop) -> float:
    """Standard deviation of the noise in flat parts; 0 for a face too small to be measured."""
    return measure(to_uint8(face)).noise / 255 if len(face) >= _MIN_SIDE else 0.0
