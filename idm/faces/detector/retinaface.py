"""facexlib's RetinaFace as a detector, on a copy of bounded size."""

import warnings
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float64, Integer

from idm.faces.align import to_unit
from idm.faces.detect import MAX_SIDE, DetectedFace, shrink
from idm.faces.detector.search import BuiltinDetector, load_builtin
from idm.io.errors import InvalidInput, MissingPackage
from idm.io.weights import find_weights

# facexlib's name of the network, and of its weights file
NETWORKS = {
    "retinaface": ("mobile0.25", "detection_mobilenet0.25_Final.pth"),
    "retinaface_resnet50": ("resnet50", "detection_Resnet50_Final.pth"),
}
MIN_SIDE = 64  # the network's coarsest features have one value per 32 pixels
MIN_SCORE = 0.8  # facexlib's default

_OVERLAP = 0.4  # intersection over union from which two boxes are the same face: facexlib's default


@runtime_checkable
class _Network(Protocol):
    def detect_faces(
        self, image: np.ndarray, conf_threshold: float, nms_threshold: float
    ) -> Float[np.ndarray, "n 15"]: ...


@dataclass(frozen=True)
class RetinaFaceDetector:
    """Finds faces with RetinaFace. Build it with :func:`~idm.faces.detector.load.load_detector`.

    A picture whose longer side exceeds ``max_side`` is searched in a copy of that size: memory stays bounded, and
    faces that are smaller than about 12 pixels in the copy are missed. Faces below ``min_score`` are left
    out, as are those that the ``verifier`` does not confirm.
    """

    network: _Network
    max_side: int = MAX_SIDE
    min_score: float = MIN_SCORE
    name: str = "retinaface"
    verifier: BuiltinDetector | None = None

    @torch.inference_mode()
    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """All faces of a uint8 or uint16 RGB picture, the largest first, so that a face's number is the same
        each time."""
        small = shrink(pixels, self.max_side)
        bgr = 255 * to_unit(small)[..., ::-1]
        missing = [(0, max(0, MIN_SIDE - side)) for side in small.shape[:2]]
        found = self.network.detect_faces(
            np.pad(bgr, (*missing, (0, 0))), conf_threshold=self.min_score, nms_threshold=_OVERLAP
        )
        if self.verifier is not None:
            found = found[self.verifier.confirm(small, found[:, 5:].astype(np.float64).reshape(-1, 5, 2))]
        factors = np.array([pixels.shape[1] / small.shape[1], pixels.shape[0] / small.shape[0]])
        faces = [_to_face(row, factors) for row in found.astype(np.float64)]
        return sorted(faces, key=lambda face: (-face.size, *face.box))


def _to_face(row: Float64[np.ndarray, "15"], factors: Float64[np.ndarray, "2"]) -> DetectedFace:
    """Convert facexlib's row of box, score and landmarks in the copy. Enlarging by s maps x to (x + 0.5) s - 0.5."""
    points = (np.concatenate([row[:4], row[5:]]).reshape(-1, 2) + 0.5) * factors - 0.5
    return DetectedFace(points[:2].reshape(4), points[2:], float(row[4]))


def has_facexlib() -> bool:
    """Return whether RetinaFace's network can be built: the extra ``[retinaface]`` installs facexlib."""
    return find_spec("facexlib") is not None


def load_retinaface(
    name: str, weights: Path | None, device: str, max_side: int, min_score: float | None = None
) -> RetinaFaceDetector:
    """A RetinaFace (arXiv 1905.00641) of facexlib, which is never asked to download anything.

    Args:
        name: "retinaface" or "retinaface_resnet50".

    Raises:
        MissingPackage: facexlib is not installed; says how to install it.
        FileNotFoundError: the weights are missing; says what they are and where to put them.
        ValueError: the file holds other weights.
    """
    if not has_facexlib():
        remedy = "pip install 'idm-face-restoration[retinaface]'"
        raise MissingPackage(f"the detector {name} needs the package facexlib: {remedy}")
    network_name, filename = NETWORKS[name]
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
    network.eval().requires_grad_(False)
    least = MIN_SCORE if min_score is None else min_score
    return RetinaFaceDetector(network, max_side, least, name, load_builtin(device, max_side))


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
