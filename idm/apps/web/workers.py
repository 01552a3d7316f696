"""Objects that the users share: a detector for one at a time, and restorers that report their progress."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from idm.diffusion.chain import Chain
from idm.faces.detect import DetectedFace, Detector
from idm.restorers.idm import IDM, generators_of
from idm.restorers.protocol import Restorer

OnProgress = Callable[[int, int], None]  # how much is done, of how much


def no_progress(done: int, total: int) -> None:
    """Progress that nobody follows."""


@dataclass(frozen=True)
class LockedDetector:
    """A detector behind a lock: facexlib's network stores the size of its picture."""

    detector: Detector
    lock: threading.Lock = field(default_factory=threading.Lock)

    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        """See :meth:`idm.faces.detect.Detector.detect`; other threads wait."""
        with self.lock:
            return self.detector.detect(pixels)


class ProgressCounter:
    """Counts what is done, and reports it."""

    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.done, self.total, self.on_progress = 0, total, on_progress

    def one_more(self) -> None:
        """Count one more, and report it."""
        self.done += 1
        self.on_progress(self.done, self.total)


@dataclass(frozen=True)
class ChainedIDM:
    """An IDM with one request's chain; the model's own stays as it is."""

    idm: IDM
    chain: Chain
    count: ProgressCounter

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces that the model restores."""
        return self.idm.image_size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore faces with the request's chain, and count each step."""
        return self.idm.sample(lq, generators_of(seeds), self.chain, lambda *_: self.count.one_more())


@dataclass(frozen=True)
class CountingRestorer:
    """A restorer without steps: each face is one."""

    restorer: Restorer
    count: ProgressCounter

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces that the restorer takes."""
        return self.restorer.image_size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore faces, and count each call as one."""
        restored = self.restorer.restore(lq, seeds)
        self.count.one_more()
        return restored
