"""Load a detector by its name: RetinaFace, if its weights are present, or the built-in detector."""

from pathlib import Path

from idm.faces.detect import MAX_SIDE
from idm.faces.detector.retinaface import MIN_SIDE, NETWORKS, RetinaFaceDetector, has_facexlib, load_retinaface
from idm.faces.detector.search import BuiltinDetector, load_builtin
from idm.faces.names import DetectorName
from idm.io.errors import InvalidInput
from idm.io.weights import find_weights

MIN_FACE = {"retinaface": 12, "retinaface_resnet50": 12, "builtin": 18}  # pixels of the searched copy


def choose_detector(name: DetectorName = "auto", weights: Path | None = None) -> str:
    """The detector's name: "auto" is RetinaFace (its smaller network) where its weights and facexlib are, else the
    built-in one."""
    if name != "auto":
        return name
    if not has_facexlib():
        return "builtin"
    try:
        find_weights(NETWORKS["retinaface"][1], weights)
    except FileNotFoundError:
        return "builtin"
    return "retinaface"


def load_detector(
    name: DetectorName = "auto",
    weights: Path | None = None,
    device: str = "cpu",
    max_side: int = MAX_SIDE,
    min_score: float | None = None,
) -> RetinaFaceDetector | BuiltinDetector:
    """A detector by name, as :func:`choose_detector` understands it. Nothing is downloaded.

    Args:
        weights: RetinaFace's weights file or a folder that holds it; by default searched as
            :func:`idm.io.weights.find_weights` says.
        min_score: minimum confidence of a face; the default depends on the detector.

    Raises:
        MissingPackage: RetinaFace was asked for and facexlib is not installed; says how to install it.
        FileNotFoundError: RetinaFace was asked for and its weights are missing; says what they are and where to put
            them.
        ValueError: the file holds other weights, ``max_side`` is below 64, or ``min_score`` outside (0, 1).
    """
    if max_side < MIN_SIDE:
        raise InvalidInput(f"the detector's copy must have at least {MIN_SIDE} pixels per side, got {max_side}")
    if min_score is not None and not 0 < min_score < 1:
        raise InvalidInput(f"the least score of a face must lie in (0, 1), got {min_score}")
    chosen = choose_detector(name, weights)
    if chosen == "builtin":
        return load_builtin(device, max_side, min_score)
    return load_retinaface(chosen, weights, device, max_side, min_score)
