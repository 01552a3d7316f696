"""Detect faces in a photograph, on a copy of bounded size: with facexlib's RetinaFace, if its weights are present, or
with the built-in detector (:mod:`idm.faces.detector`)."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float64, Integer

from idm.faces.align import to_unit
from idm.faces.geometry import why_implausible
from idm.faces.names import DetectorName, FaceGroup
from idm.io.errors import InvalidInput, MissingPackage
from idm.io.weights import find_weights

if TYPE_CHECKING:
    from idm.faces.detector.search import BuiltinDetector


# facexlib's name of the network, and of its weights file
_NETWORKS = {
    "retinaface": ("mobile0.25", "detection_mobilenet0.25_Final.pth"),
    "retinaface_resnet50": ("resnet50", "detection_Resnet50_Final.pth"),
}
MAX_SIDE = 1600
MIN_FACE = {"retinaface": 12, "retinaface_resnet50": 12, "builtin": 18}  # pixels of the searched copy
MIN_SCORE = 0.8  # facexlib's default

_MIN_SIDE = 64  # the network's coarsest features have one value per 32 pixels
_OVERLAP = 0.4  # intersection over union from which two boxes are the same face: facexlib's default


@dataclass(frozen=True, eq=False)
class DetectedFace:
    """A face in pixel indices of its photograph; (0, 0) is the centre of the first pixel.

    ``box`` is left, top, right, bottom; ``landmarks`` are (x, y) of left eye, right eye, nose, left and right mouth
    corner as seen when the face is upright; ``score`` is the detector's confidence in [0, 1].
    """

    box: Float64[np.ndarray, "4"]
    landmarks: Float64[np.ndarray, "5 2"]
    score: float

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


@runtime_checkable
class Detector(Protocol):
    """Finds faces. :func:`load_detector` and :mod:`idm.faces.detector` build detectors."""

    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """All faces of a uint8 or uint16 RGB picture, the largest first."""
        ...


@runtime_checkable
class _Network(Protocol):
    def detect_faces(
        self, image: np.ndarray, conf_threshold: float, nms_threshold: float
    ) -> Float[np.ndarray, "n 15"]: ...


@dataclass(frozen=True)
class FaceDetector:
    """Finds faces with RetinaFace. Build it with :func:`load_detector`.

    A picture whose longer side exceeds ``max_side`` is searched in a copy of that size: memory stays bounded, and
    faces that are smaller than about ``MIN_FACE`` pixels in the copy are missed. Faces below ``min_score`` are left
    out, as are those that the ``verifier`` does not confirm.
    """

    network: _Network
    max_side: int = MAX_SIDE
    min_score: float = MIN_SCORE
    name: str = "retinaface"
    verifier: "BuiltinDetector | None" = None

    @torch.inference_mode()
    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """All faces of a uint8 or uint16 RGB picture, the largest first, so that a face's number is the same
        each time."""
        small = shrink(pixels, self.max_side)
        bgr = 255 * to_unit(small)[..., ::-1]
        missing = [(0, max(0, _MIN_SIDE - side)) for side in small.shape[:2]]
        found = self.network.detect_faces(
            np.pad(bgr, (*missing, (0, 0))), conf_threshold=self.min_score, nms_threshold=_OVERLAP
        )
        if self.verifier is not None:
            found = found[self.verifier.confirm(small, found[:, 5:].astype(np.float64).reshape(-1, 5, 2))]
        factors = np.array([pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]])
        faces = [_to_face(row, factors) for row in found.astype(np.float64)]
        return sorted(faces, key=lambda face: (-face.size, *face.box))


def shrink(pixels: Integer[np.ndarray, "h w 3"], max_side: int) -> Integer[np.ndarray, "h2 w2 3"]:
    """A copy, resized by area, whose longer side is at most ``max_side``; the picture itself if it is small enough."""
    height, width = pixels.shape[:2]
    factor = max_side / max(height, width)
    if factor >= 1:
        return pixels
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _to_face(row: Float64[np.ndarray, "15"], factors: Float64[np.ndarray, "2"]) -> DetectedFace:
    """Convert facexlib's row of box, score and landmarks in the copy. Enlarging by s maps x to (x + 0.5) s - 0.5."""
    points = (np.concatenate([row[:4], row[5:]]).reshape(-1, 2) + 0.5) * factors - 0.5
    return DetectedFace(points[:2].reshape(4), points[2:], float(row[4]))


def choose_detector(name: DetectorName = "auto", weights: Path | None = None) -> str:
    """The detector's name: "auto" is RetinaFace (its smaller network) where its weights and facexlib are, else the
    built-in one."""
    if name != "auto":
        return name
    if not has_facexlib():
        return "builtin"
    try:
        find_weights(_NETWORKS["retinaface"][1], weights)
    except FileNotFoundError:
        return "builtin"
    return "retinaface"


def has_facexlib() -> bool:
    """Return whether RetinaFace's network can be built: the extra ``[retinaface]`` installs facexlib."""
    return find_spec("facexlib") is not None


def load_detector(
    name: DetectorName = "auto",
    weights: Path | None = None,
    device: str = "cpu",
    max_side: int = MAX_SIDE,
    min_score: float | None = None,
) -> "FaceDetector | BuiltinDetector":
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
    if max_side < _MIN_SIDE:
        raise InvalidInput(f"the detector's copy must have at least {_MIN_SIDE} pixels per side, got {max_side}")
    if min_score is not None and not 0 < min_score < 1:
        raise InvalidInput(f"the least score of a face must lie in (0, 1), got {min_score}")
    chosen = choose_detector(name, weights)
    from idm.faces.detector.search import load_builtin

    if chosen == "builtin":
        return load_builtin(device, max_side, min_score)
    network, verifier = _load_retinaface(chosen, weights, device), load_builtin(device, max_side)
    return FaceDetector(network, max_side, MIN_SCORE if min_score is None else min_score, chosen, verifier)


def _load_retinaface(name: str, weights: Path | None, device: str) -> _Network:
    """A RetinaFace (arXiv 1905.00641) of facexlib, which is never asked to download anything."""
    if not has_facexlib():
        remedy = "pip install 'idm-face-restoration[retinaface]'"
        raise MissingPackage(f"the detector {name} needs the package facexlib: {remedy}")
    network_name, filename = _NETWORKS[name]
    path = find_weights(filename, weights)
    from facexlib.detection.retinaface import RetinaFace

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # facexlib calls torchvision in a way that is deprecated
        network = RetinaFace(network_name, device=torch.device(device))
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict({key.removeprefix("module."): value for key, value in state.items()})
    except Exception as error:  # torch.load raises whatever a broken file runs it into
        raise InvalidInput(f"{path}: does not hold the weights of {name} ({_first_line(error)})") from error
    return network.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def choose_faces(
    faces: Sequence[DetectedFace], min_size: float = 0, which: FaceGroup | Sequence[int] = "all"
) -> list[int]:
    """The numbers of the faces to restore, which are their positions in ``faces``: of those with plausible landmarks
    that are at least ``min_size`` pixels large all or the largest, or exactly the ones that are named.

    Raises:
        ValueError: a number that no face has.
    """
    large = [n for n, face in enumerate(faces) if face.size >= min_size and not why_implausible(face.landmarks)]
    if which == "all":
        return large
    if which == "largest":
        return sorted(large, key=lambda number: -faces[number].size)[:1]
    assert not isinstance(which, str)
    unknown = sorted(set(which) - set(range(len(faces))))
    if unknown:
        there = f"0..{len(faces) - 1}" if faces else "none"
        raise InvalidInput(f"there is no face {', '.join(map(str, unknown))}; the faces found are {there}")
    return sorted(set(which))
