"""The definition of a metric: one row of the table, with its protocol and the function that builds it.

The contract of every metric: images are RGB float32 height x width x 3 in [0, 1], or 8-bit where a whole set is
compared. Other input is a ValueError, since a picture in another range would give a plausible but wrong number. Nothing
is downloaded: a metric whose weights are missing raises FileNotFoundError, which names the file and its folder.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from idm.io.errors import InvalidInput

if TYPE_CHECKING:
    from idm.evaluation.inception import Inception
    from idm.faces.landmarks import LandmarkNet
    from idm.faces.recognition import IdentityNet

Image01 = Float32[np.ndarray, "_ _ 3"]
Image8 = UInt8[np.ndarray, "_ _ 3"]
PairMetric = Callable[[Image01, Image01], float]  # (restored, hq)


@runtime_checkable
class SetMetric(Protocol):
    """Computes features of each image as it arrives, so that no image is kept in memory, and then compares the sets.

    ``num_features`` is the number d of features whose covariance is fitted, None if none is fitted: a set of n <= d
    images has a singular covariance, and the number then cannot rank methods.
    """

    num_features: int | None

    def describe(self, image: Image8) -> Any:
        """The features of one RGB image, of uint8."""
        ...

    def compare(self, restored: Sequence[Any], originals: Sequence[Any]) -> float:
        """The distance between the features of the restored and of the original images."""
        ...


class Networks:
    """The networks that several metrics share, each loaded on first use.

    Args:
        weights_dir: folder of weights files; by default searched as :func:`idm.io.weights.find_weights` says.
        device: where networks run, such as "cpu" or "cuda:0".
    """

    def __init__(self, weights_dir: Path | None = None, device: str = "cpu") -> None:
        self.weights_dir, self.device = weights_dir, device

    @cached_property
    def faces(self) -> "FaceEmbeddings":
        """MobileFaceNet. FileNotFoundError where its weights are missing."""
        from idm.faces import recognition

        return FaceEmbeddings(recognition.load_identity(self.weights_dir, self.device))

    @cached_property
    def landmarks(self) -> "LandmarkNet":
        """The network of 98 landmarks. FileNotFoundError where its weights are missing."""
        from idm.faces import landmarks

        return FaceLandmarks(landmarks.load_landmarks(self.weights_dir, self.device))

    @cached_property
    def inception(self) -> "Inception":
        """The Inception network of FID. FileNotFoundError where its weights are missing."""
        from idm.evaluation.inception import load_inception

        return load_inception(self.weights_dir, self.device)


class FaceEmbeddings:
    """MobileFaceNet features of aligned, square faces; each image is embedded once."""

    def __init__(self, network: "IdentityNet") -> None:
        self.network = network
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, image: Image01) -> Float32[np.ndarray, " d"]:
        """The unit feature vector of a face in [0, 1].

        Raises:
            ValueError: the image is not square.
        """
        from idm.faces.template import ffhq_landmarks

        height, width, _ = image.shape
        if height != width:
            raise InvalidInput(f"identity wants square aligned faces, got {height} x {width}")
        key = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        if key not in self._known:
            [self._known[key]] = self.network.embed([image], [ffhq_landmarks(height)])
        return self._known[key]


class FaceLandmarks:
    """The landmarks of aligned faces; each image is processed once."""

    def __init__(self, network: "LandmarkNet") -> None:
        self.network = network
        self._known: dict[bytes, np.ndarray] = {}

    def __call__(self, image: Image01) -> Float64[np.ndarray, "n 2"]:
        key = hashlib.sha256(np.ascontiguousarray(image).data).digest()
        if key not in self._known:
            self._known[key] = self.network(image)
        return self._known[key]


@dataclass(frozen=True)
class Metric:
    """One column of a table.

    Attributes:
        name: its name in ``--metrics``.
        title: its column's heading.
        better: the better direction; "one" if 1 is best.
        kind: what it compares: a "pair" (restored, hq), a "single" image without reference, or a "set" of images with
            another, in any order.
        protocol: colour space, range, implementation and version, for the notes below each table.
        build: gives the metric's function, with its weights loaded: a :data:`PairMetric`, of which a "single" one
            ignores the original, or a :class:`SetMetric`.
        smallest: the smallest side in pixels that it is defined for.
        weights: the names of the weights files that it needs.
    """

    name: str
    title: str
    better: Literal["higher", "lower", "one"]
    kind: Literal["pair", "single", "set"]
    protocol: str
    build: Callable[[Networks], PairMetric | SetMetric]
    smallest: int = 1
    weights: tuple[str, ...] = ()

    @property
    def full_reference(self) -> bool:
        """Whether the metric needs the original of each image."""
        return self.kind == "pair"

    @property
    def heading(self) -> str:
        """The title with an arrow to better."""
        return f"{self.title} {({'higher': '↑', 'lower': '↓', 'one': '→ 1'})[self.better]}"


def check_images(restored: Image01, hq: Image01, smallest: int = 1) -> None:
    """Reject images of different shapes, too small ones, and values outside [0, 1]."""
    if restored.shape != hq.shape:
        raise InvalidInput(f"images to compare differ in shape: {restored.shape} and {hq.shape}")
    height, width, _ = restored.shape
    if min(height, width) < smallest:
        raise InvalidInput(f"image of {height} x {width} is too small: each side needs {smallest} pixels")
    for image in (restored, hq):
        low, high = float(image.min()), float(image.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # false for NaN too
            raise InvalidInput(f"values must lie in [0, 1], got {low:g}..{high:g}")
