"""Do no harm: how much of a restorer's change a face needs, and whether the face improves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8

from idm.extrinsic.gate import Gate, Reason, decide
from idm.extrinsic.quality import Quality, measure, sharpness_at_edges_of
from idm.faces.paste import crop_weights
from idm.io.ranges import to_uint8

Crop = Float32[np.ndarray, "s s 3"]

# Root mean square error that a restorer makes of its own in a face that needs nothing. Chosen on faces of `val`, see
# experiments/photos/harm.py.
OWN_ERROR = 0.01
LEAST_SHARE = 0.05  # below it a face is as good as its restored self and stays exactly as it is (our choice)

# Identity is the guard's (min_identity of the settings), and JPEG's blocks do not lie on the grid of an aligned crop.
# Skin that a model makes sharp has texture, which counts as noise, and noise that it removes counts as sharpness: on
# faces of `val` (experiments/photos/gate.py: 24 each of the presets gfpgan, diffbir, difface, codeformer_stage2) the
# bundled model's noise rises by .3 to .7, and no face loses more than .1 dB. So only clear failures are rejected.
_GATE = Gate(
    min_identity=None,
    max_sharpness_loss=0.4,
    max_noise_gain=1.0,
    max_blockiness_gain=math.inf,
    min_sharpness_gain=0.005,
    min_noise_loss=0.2,
    min_blockiness_loss=math.inf,
)
_LEAST_SIDE = 24  # of a face whose quality can be measured
_WHY: Mapping[Reason, str] = {
    "softer": "the restored face is softer",
    "noisier": "the restored face is noisier",
    "no better": "the restored face is no better by its measures",
}


@dataclass(frozen=True)
class Benefit:
    """``share`` of the restorer's change that serves a face, in [0, 1]; of 0, ``why``."""

    share: float
    why: str = ""


def judge(given: Crop, restored: Crop) -> Benefit:
    """How much of the change from ``given`` to ``restored``, both in [0, 1], serves a face.

    The share is James and Stein's factor: 1 less the error that restorers make of their own over the mean square of
    the change. Where a face is nearly clean most of the change is such error; where it is damaged, little. What
    results must then be better than the given face as the gate of ``idm clean`` measures it.
    """
    share = change_share(given, restored)
    if share < LEAST_SHARE:
        return Benefit(0.0, "it needs hardly any change")
    if len(given) < _LEAST_SIDE:
        return Benefit(share)
    decision = decide(_GATE, *_qualities(to_uint8(given), to_uint8(given + share * (restored - given))), None)
    return Benefit(share) if decision.accepted else Benefit(0.0, _WHY[decision.reason])


def _qualities(given: UInt8[np.ndarray, "s s 3"], restored: UInt8[np.ndarray, "s s 3"]) -> tuple[Quality, Quality]:
    """Of both, with their sharpness at the edges of the restored face, which has less noise."""
    before, after = (
        replace(measure(face), sharpness=sharpness_at_edges_of(face, restored)) for face in (given, restored)
    )
    return before, after


def change_share(given: Crop, restored: Crop, own_error: float = OWN_ERROR) -> float:
    """The share alone.

    Source: W. James, C. Stein, Estimation with Quadratic Loss, 4th Berkeley Symposium, 1961.
    """
    weights = crop_weights(len(given))
    change = float((np.square(restored - given).mean(axis=2) * weights).sum() / weights.sum())
    return max(0.0, 1 - own_error**2 / max(change, 1e-12))
