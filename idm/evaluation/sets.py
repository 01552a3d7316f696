"""Metrics of whole sets: distances between the distributions of the restored and the original faces."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from idm.evaluation.frechet import frechet_distance, kernel_distance
from idm.evaluation.metric import Image8, Metric, MetricNetworks, SetMetric
from idm.io.known_weights import INCEPTION_WEIGHTS, MOBILEFACENET_WEIGHTS

# Labels of what is not a restorer's.
ORIGINAL, DEGRADED, BICUBIC, STRANGER, REAL = "original", "degraded", "bicubic", "stranger", "real"

Features = Float32[np.ndarray, " d"]


class FeatureDistance:
    """A distance between two sets of feature vectors, as a :class:`~idm.evaluation.metric.SetMetric`."""

    def __init__(
        self,
        features: Callable[[Image8], Features],
        distance: Callable[[np.ndarray, np.ndarray], float],
        num_features: int | None,
    ) -> None:
        self._features, self._distance, self.num_features = features, distance, num_features

    def features(self, image: Image8) -> Features:
        """The feature vector of one RGB image, uint8."""
        return self._features(image)

    def compare(self, restored: Sequence[Features], originals: Sequence[Features]) -> float:
        """The distance between two sets of feature vectors."""
        return self._distance(np.stack(restored), np.stack(originals))


def _of_faces(networks: MetricNetworks) -> Callable[[Image8], Features]:
    from idm.io.ranges import from_uint8

    faces = networks.faces
    return lambda image: faces(from_uint8(image))


_FACES = "MobileFaceNet embeddings (as for Identity) of the restored and the original faces"
_INCEPTION = (
    "2048 Inception features (pyiqa) of images resized to 299 x 299 by PIL's bicubic filter, as clean-fid "
    "(Parmar et al. 2022) computes them"
)

METRICS = (
    Metric(
        "frechet",
        "Frechet",
        "lower",
        "set",
        f"Frechet distance of normal distributions fitted to the {_FACES}. Not FID; biased by the number of faces, so "
        "compare equal numbers only.",
        lambda networks: FeatureDistance(_of_faces(networks), frechet_distance, 256),
        weights=(MOBILEFACENET_WEIGHTS,),
    ),
    Metric(
        "kernel",
        "Kernel",
        "lower",
        "set",
        f"Squared maximum mean discrepancy, kernel (x.y / 256 + 1)^3, of the {_FACES}. Not KID; unbiased at any number "
        "of faces.",
        lambda networks: FeatureDistance(_of_faces(networks), kernel_distance, None),
        weights=(MOBILEFACENET_WEIGHTS,),
    ),
    Metric(
        "fid",
        "FID",
        "lower",
        "set",
        f"FID: Frechet distance of {_INCEPTION}; biased by the number of images, so compare equal numbers only.",
        lambda networks: FeatureDistance(networks.inception, frechet_distance, 2048),
        weights=(INCEPTION_WEIGHTS,),
    ),
    Metric(
        "kid",
        "KID",
        "lower",
        "set",
        f"KID (Binkowski et al. 2018): squared maximum mean discrepancy, kernel (x.y / 2048 + 1)^3, of {_INCEPTION}; "
        "over all pairs, unbiased at any number of images.",
        lambda networks: FeatureDistance(networks.inception, kernel_distance, None),
        weights=(INCEPTION_WEIGHTS,),
    ),
)


class SetScores:
    """Metrics of several columns of images that come face by face, among them the reference."""

    def __init__(self, metrics: Mapping[str, SetMetric], reference: str = ORIGINAL) -> None:
        self._metrics, self.reference = metrics, reference
        self._described: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))

    def add(self, images: Mapping[str, Image8]) -> None:
        """Add one face, in every column."""
        for column, image in images.items():
            for name, metric in self._metrics.items():
                self._described[column][name].append(metric.features(image))

    @property
    def has_metrics(self) -> bool:
        """Whether anything is measured."""
        return bool(self._metrics)

    @property
    def columns(self) -> list[str]:
        """The columns that have images, in the order in which they came."""
        return list(self._described)

    def scores(self, column: str) -> dict[str, dict[str, float | None]]:
        """The scores of a column of images against the reference, by metric; none if no image was added.

        Returns:
            For each metric "mean", "low" and "high", which are None, "n", the number of images, and "d", the number of
            fitted features (None if none are fitted).
        """
        if column not in self._described:
            return {}
        described, reference = self._described[column], self._described[self.reference]
        return {
            name: {
                "mean": metric.compare(described[name], reference[name]),
                "low": None,
                "high": None,
                "n": len(described[name]),
                "d": metric.num_features,
            }
            for name, metric in self._metrics.items()
        }
