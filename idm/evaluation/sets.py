"""Metrics of whole sets: how likely are the restored faces among the originals, whichever belongs to which?"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from idm.evaluation.frechet import frechet_distance
from idm.faces.recognition import IdentityNet
from idm.faces.template import ffhq_landmarks
from idm.io.images import write_image
from idm.io.ranges import from_uint8

ORIGINAL = "original"

Image8 = UInt8[np.ndarray, "_ _ 3"]


@runtime_checkable
class SetMetric(Protocol):
    """Describes every image when it comes, so that none is kept in memory, and then compares the sets."""

    def describe(self, image: Image8) -> Any: ...

    def compare(self, restored: Sequence[Any], originals: Sequence[Any]) -> float: ...


class Frechet:
    """The Frechet distance of MobileFaceNet features; of square, aligned faces."""

    def __init__(self, network: IdentityNet) -> None:
        self.network = network

    def describe(self, image: Image8) -> Float32[np.ndarray, " d"]:
        [features] = self.network.embed([from_uint8(image)], [ffhq_landmarks(len(image))])
        return features

    def compare(self, restored: Sequence[np.ndarray], originals: Sequence[np.ndarray]) -> float:
        return frechet_distance(np.stack(restored), np.stack(originals))


class CleanFID:
    """Clean-FID of pyiqa, which reads folders.

    Args:
        network: pyiqa's metric "fid".
    """

    def __init__(self, network: Callable[..., Any]) -> None:
        self.network = network
        self._images = TemporaryDirectory()
        self._num_images = 0

    def describe(self, image: Image8) -> Path:
        path = Path(self._images.name, f"{self._num_images:08d}.png")
        self._num_images += 1
        write_image(path, image)
        return path

    def compare(self, restored: Sequence[Path], originals: Sequence[Path]) -> float:
        with TemporaryDirectory() as a, TemporaryDirectory() as b:
            for folder, images in ((a, restored), (b, originals)):
                for image in images:
                    Path(folder, image.name).symlink_to(image)
            return float(self.network(a, b, mode="clean", num_workers=0, verbose=False))


class SetScores:
    """Metrics of several columns of images that come face by face, among them ``ORIGINAL``."""

    def __init__(self, metrics: Mapping[str, SetMetric]) -> None:
        self._metrics = metrics
        self._described: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))

    def add(self, images: Mapping[str, Image8]) -> None:
        """One face, in every column."""
        for column, image in images.items():
            for name, metric in self._metrics.items():
                self._described[column][name].append(metric.describe(image))

    def of(self, column: str) -> dict[str, dict[str, float | None]]:
        """The column against the originals, by metric, as :func:`idm.evaluation.engine.summarise_column` gives it;
        there are no intervals."""
        described, originals = self._described[column], self._described[ORIGINAL]
        return {
            name: {"mean": metric.compare(described[name], originals[name]), "low": None, "high": None}
            for name, metric in self._metrics.items()
        }
