"""The definition of a metric: one row of the table, with its protocol and the function that builds it.

The contract of every metric: images are RGB float32 height x width x 3 in [0, 1], or 8-bit where a whole set is
compared. Other input is a ValueError, since a picture in another range would give a plausible but wrong number. Nothing
is downloaded. What builds a metric raises FileNotFoundError where weights are missing, which names the file and its
folder, WeightsError where a file is broken or of another network, and ModuleNotFoundError without the package.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from idm.evaluation.cache import KnownValues, MetricCache, identify
from idm.io.errors import InvalidInput
from idm.io.known_weights import ARCFACE_WEIGHTS, INCEPTION_WEIGHTS, LANDMARK_WEIGHTS, MOBILEFACENET_WEIGHTS

if TYPE_CHECKING:
    from idm.evaluation.inception import Inception
    from idm.faces.features import ArcFace
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

    def features(self, image: Image8) -> Any:
        """The features of one RGB image, uint8."""
        ...

    def compare(self, restored: Sequence[Any], originals: Sequence[Any]) -> float:
        """The distance between the features of the restored and of the original images."""
        ...


class MetricNetworks:
    """The networks that several metrics share, each loaded on first use.

    Args:
        weights_dir: folder of weights files; by default searched as :func:`idm.io.weights.find_weights` says.
        device: where networks run, such as "cpu" or "cuda:0".
        cache: where features and scores outlive the process; without it each image is processed once in a process.
    """

    def __init__(self, weights_dir: Path | None = None, device: str = "cpu", cache: MetricCache | None = None) -> None:
        self.weights_dir, self.device, self.cache = weights_dir, device, cache

    def known(self, name: str, weights: Sequence[str]) -> KnownValues:
        """The values that are known of a function that needs these weights files. FileNotFoundError where one is
        missing."""
        if self.cache is None:
            return KnownValues()
        from idm.io.weights import find_weights

        paths = [find_weights(file, self.weights_dir) for file in weights]
        return KnownValues(identify(name, paths, self.device), self.cache)

    @cached_property
    def faces(self) -> "FaceEmbeddings":
        """MobileFaceNet. FileNotFoundError where its weights are missing."""
        from idm.faces import recognition

        network = recognition.load_identity(self.weights_dir, self.device)
        return FaceEmbeddings(network, self.known("embedding", [MOBILEFACENET_WEIGHTS]))

    @cached_property
    def arcface(self) -> "ArcFaceFeatures":
        """ArcFace's ResNet-18. FileNotFoundError where its weights are missing."""
        from idm.faces import features

        network = features.load_arcface(self.weights_dir).to(self.device)
        return ArcFaceFeatures(network, self.device, self.known("arcface", [ARCFACE_WEIGHTS]))

    @cached_property
    def landmarks(self) -> "FaceLandmarks":
        """The network of 98 landmarks. FileNotFoundError where its weights are missing."""
        from idm.faces import landmarks

        network = landmarks.load_landmarks(self.weights_dir, self.device)
        return FaceLandmarks(network, self.known("landmarks", [LANDMARK_WEIGHTS]))

    @cached_property
    def inception(self) -> "InceptionFeatures":
        """The Inception network of FID. FileNotFoundError where its weights are missing."""
        from idm.evaluation.inception import load_inception

        network = load_inception(self.weights_dir, self.device)
        return InceptionFeatures(network, self.known("inception", [INCEPTION_WEIGHTS]))


class FaceEmbeddings:
    """MobileFaceNet features of aligned, square faces; each image is embedded once."""

    def __init__(self, network: "IdentityNet", known: KnownValues | None = None) -> None:
        self.network, self._known = network, known or KnownValues()

    def __call__(self, image: Image01) -> Float32[np.ndarray, " d"]:
        """The unit feature vector of a face in [0, 1].

        Raises:
            ValueError: the image is not square.
        """
        from idm.faces.template import ffhq_landmarks

        height, width, _ = image.shape
        if height != width:
            raise InvalidInput(f"the identity metric needs square aligned faces, got {height} x {width}")
        return self._known.get([image], lambda: self.network.embed([image], [ffhq_landmarks(height)])[0])


class ArcFaceFeatures:
    """ArcFace features of aligned faces, prepared as by VQFR's calculate_cos_dist.py; each image is described once."""

    def __init__(self, network: "ArcFace", device: str = "cpu", known: KnownValues | None = None) -> None:
        self._network, self._device, self._known = network, device, known or KnownValues()

    def __call__(self, image: Image01) -> Float32[np.ndarray, " 512"]:
        """The features of a face in [0, 1], as 8-bit grey resized to 128 x 128."""
        return self._known.get([image], lambda: self._embed(image))

    def _embed(self, image: Image01) -> Float32[np.ndarray, " 512"]:
        import cv2
        import torch
        from einops import rearrange

        from idm.io.ranges import to_uint8

        grey = cv2.resize(cv2.cvtColor(to_uint8(image), cv2.COLOR_RGB2GRAY), (128, 128), interpolation=cv2.INTER_LINEAR)
        with torch.inference_mode():
            x = rearrange((torch.from_numpy(grey).float() - 127.5) / 127.5, "h w -> 1 1 h w")
            return self._network.embed(x.to(self._device))[0].float().cpu().numpy()


class FaceLandmarks:
    """The landmarks of aligned faces; each image is processed once."""

    def __init__(self, network: "LandmarkNet", known: KnownValues | None = None) -> None:
        self._network, self._known = network, known or KnownValues()

    def __call__(self, image: Image01) -> Float64[np.ndarray, "n 2"]:
        return self._known.get([image], lambda: self._network(image))


class InceptionFeatures:
    """The Inception features of images; each image is described once."""

    def __init__(self, network: "Inception", known: KnownValues | None = None) -> None:
        self._network, self._known = network, known or KnownValues()

    def __call__(self, image: Image8) -> Float32[np.ndarray, " d"]:
        return self._known.get([image], lambda: self._network(image))


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
        package: the package of the extra ``metrics`` that it needs, if any.
    """

    name: str
    title: str
    better: Literal["higher", "lower", "one"]
    kind: Literal["pair", "single", "set"]
    protocol: str
    build: Callable[[MetricNetworks], PairMetric | SetMetric]
    smallest: int = 1
    weights: tuple[str, ...] = ()
    package: str | None = None

    @property
    def full_reference(self) -> bool:
        """Whether the metric needs the original of each image."""
        return self.kind == "pair"

    @property
    def heading(self) -> str:
        """The title with an arrow to better."""
        return f"{self.title} {({'higher': '↑', 'lower': '↓', 'one': '→ 1'})[self.better]}"


def check_images(restored: Image01, hq: Image01, smallest: int = 1) -> None:
    """Raise ValueError for images of different shapes, with a side below ``smallest`` pixels, or with values outside
    [0, 1]."""
    if restored.shape != hq.shape:
        raise InvalidInput(f"images to compare differ in shape: {restored.shape} and {hq.shape}")
    height, width, _ = restored.shape
    if min(height, width) < smallest:
        raise InvalidInput(f"image of {height} x {width} is too small: each side needs {smallest} pixels")
    for image in (restored, hq):
        low, high = float(image.min()), float(image.max())
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # false for NaN too
            raise InvalidInput(f"values must lie in [0, 1], got {low:g}..{high:g}")
