"""What the page can do, as functions from a file and choices to results; it knows nothing of the page.

One :class:`Studio` serves all users. It keeps nothing of them: whoever asks passes the file and the choices.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Integer
from torch import Tensor

from idm.apps.photo.restorer import PhotoRestorer, RestoredPhoto
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.upscale import bicubic
from idm.diffusion.chain import Chain
from idm.faces.detect import DetectedFace, Detector, choose_faces
from idm.faces.recognition import IdentityNet
from idm.faces.turns import detect_faces
from idm.io.images import ImageError
from idm.io.memory import Budget, default_budget, release_freed_memory
from idm.io.photos import KEPT_SUFFIXES, Photo, bytes_for, read_photo, write_photo
from idm.restorers.idm import IDM, generators_of
from idm.restorers.protocol import Restorer

OnProgress = Callable[[int, int], None]  # how much is done, of how much


@dataclass(frozen=True)
class Order:
    """What one user wants of one photograph. ``num_steps`` and ``fidelity`` are for restorers with a chain."""

    restorer: str
    faces: tuple[int, ...]
    num_steps: int = 4
    fidelity: float = 0.0
    seed: int = 0
    upscale: float = 1.0
    samples: int = 1
    change: Literal["auto", "full"] = "auto"


@dataclass(frozen=True, eq=False)
class Done:
    """``before`` has the size of the result, so that the two can be laid over each other."""

    order: Order
    before: Integer[np.ndarray, "h w 3"]
    result: RestoredPhoto


class CancelledError(ValueError):
    """The user does not want the result any more."""


class Studio:
    """Finds and restores faces for many users at once.

    The detector and the restorers keep state while they work. Each therefore works for one user at a time; looking
    for faces does not wait for a restoration of somebody else, at most for its own short search.

    Args:
        restorers: by the label under which users choose them.
        identity: None where identities are not measured.
        max_pixels: of a photograph, and of a result.
        max_memory: in bytes, for the photographs of all who are served at once; others wait. By default
            :func:`idm.io.memory.default_budget`.
    """

    def __init__(
        self,
        restorers: Mapping[str, Restorer],
        detector: Detector,
        identity: IdentityNet | None,
        max_pixels: int,
        max_memory: int | None = None,
    ) -> None:
        self.restorers = dict(restorers)
        self.identity = identity
        self.max_pixels = max_pixels
        self.budget = Budget(default_budget() if max_memory is None else max_memory)
        self.detector = _OneAtATime(detector)
        self._restoring = threading.Lock()

    @contextmanager
    def memory_for(self, path: Path, scale: float | int = 1.0) -> Iterator[None]:
        """Hold what a photograph takes until its result is written, and give it back to the machine afterwards."""
        with self.budget.hold(bytes_for(path, scale)):
            try:
                yield
            finally:
                release_freed_memory()

    def read(self, path: Path, scale: float | int = 1.0) -> Photo:
        """A photograph within the limits, also if it is written ``scale`` times as wide and high.

        Raises:
            ImageError: not a picture, broken, too large, or no longer there.
        """
        if not path.is_file():
            raise ImageError(f"{path}: is no longer here: uploads are kept for a while only; choose it again")
        return read_photo(path, self.max_pixels, self.budget.num_bytes, scale)

    def find(self, photo: Photo) -> list[DetectedFace]:
        return detect_faces(self.detector, photo.pixels)

    def has_chain(self, label: str) -> bool:
        """Whether steps and fidelity mean something to a restorer."""
        return isinstance(self.restorers[label], IDM)

    def defaults(self, label: str) -> Order:
        """The choices that a restorer itself comes with."""
        restorer = self.restorers[label]
        if not isinstance(restorer, IDM):
            return Order(label, ())
        return Order(label, (), restorer.chain.num_steps, round(1 - restorer.chain.strength, 2))

    def restore(self, photo: Photo, order: Order, on_progress: OnProgress = lambda done, total: None) -> Done:
        """Restore the chosen faces, as ``idm restore`` with the same settings does, bit for bit.

        Raises:
            ValueError: an unknown restorer, no face chosen or one that is not there, impossible settings, or a
                result beyond the limit.
        """
        if order.restorer not in self.restorers:
            raise ValueError(f"there is no restorer {order.restorer!r}; there are {', '.join(self.restorers)}")
        if not order.faces:
            raise ValueError("choose at least one face")
        if order.num_steps < 1:
            raise ValueError(f"the number of steps must be at least 1, got {order.num_steps}")
        settings = PhotoSettings(
            upscale=order.upscale,
            faces=order.faces,
            seed=order.seed,
            samples=order.samples,
            change=order.change,
            pick="median" if self.identity is None else "identity",
        )
        height, width = photo.pixels.shape[:2]
        size = (round(height * order.upscale), round(width * order.upscale))
        if size[0] * size[1] > self.max_pixels:
            raise ValueError(
                f"the result would have {size[0] * size[1] / 1e6:.0f} megapixels, more than the "
                f"{self.max_pixels / 1e6:g} allowed; enlarge less"
            )
        with self._restoring:
            worker, batch_size = self._worker(order, settings, on_progress)
            parts = PhotoRestorer(worker, self.detector, self.identity)
            result = parts.restore(photo, replace(settings, batch_size=batch_size))
        return Done(order, bicubic(photo.pixels, size), result)

    def _worker(self, order: Order, settings: PhotoSettings, on_progress: OnProgress) -> tuple[Restorer, int]:
        """The restorer with this order's settings, reporting what is done; and how many faces it takes at once."""
        restorer = self.restorers[order.restorer]
        num_faces = len(set(order.faces)) * order.samples
        if not isinstance(restorer, IDM):
            return _Watched(restorer, _Count(num_faces, on_progress)), 1
        chain = restorer.chain.changed(order.fidelity, num_steps=order.num_steps)
        batches = math.ceil(num_faces / settings.batch_size)
        return _Chained(restorer, chain, _Count(batches * chain.steps_run, on_progress)), settings.batch_size


def choose(found: Sequence[DetectedFace]) -> list[int]:
    """The faces that are restored unless the user says otherwise."""
    return choose_faces(found, PhotoSettings.min_face)


def save(done: Done, source: Path, folder: Path) -> list[Path]:
    """Write the result as PNG and, where the photograph was a JPEG or WebP, as such too; EXIF and profile are kept."""
    files = [folder / f"{source.stem}_restored.png"]
    suffix = source.suffix.lower()
    photo = done.result.photo
    holds = photo.pixels.dtype == np.uint8 and (photo.alpha is None or suffix == ".webp")
    if suffix in KEPT_SUFFIXES and suffix != ".png" and holds:
        files.append(folder / f"{source.stem}_restored{suffix}")
    for file in files:
        write_photo(file, photo)
    return files


# ------------------------------------------------------------------------------------------- shared workers


@dataclass(frozen=True)
class _OneAtATime:
    """facexlib's network keeps the size of the picture that it looks at."""

    detector: Detector
    lock: threading.Lock = field(default_factory=threading.Lock)

    def detect(self, pixels: Integer[np.ndarray, "h w 3"]) -> list[DetectedFace]:
        with self.lock:
            return self.detector.detect(pixels)


class _Count:
    def __init__(self, total: int, on_progress: OnProgress) -> None:
        self.done, self.total, self.on_progress = 0, total, on_progress

    def one_more(self) -> None:
        self.done += 1
        self.on_progress(self.done, self.total)


@dataclass(frozen=True)
class _Chained:
    """An IDM with one order's chain; the model's own stays as it is."""

    idm: IDM
    chain: Chain
    count: _Count

    @property
    def image_size(self) -> int:
        return self.idm.image_size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        return self.idm.sample(lq, generators_of(seeds), self.chain, lambda *_: self.count.one_more())


@dataclass(frozen=True)
class _Watched:
    """A restorer without steps: each face is one."""

    restorer: Restorer
    count: _Count

    @property
    def image_size(self) -> int:
        return self.restorer.image_size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        restored = self.restorer.restore(lq, seeds)
        self.count.one_more()
        return restored
