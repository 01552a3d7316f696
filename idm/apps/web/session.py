"""The service behind the page: functions from a file and a request to results. It does not import the page.

One :class:`PageService` serves all users. It stores nothing about them: callers pass the file and the request.
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
from idm.io.errors import InvalidInput
from idm.io.images import ImageError
from idm.io.memory import Budget, default_budget, release_freed_memory
from idm.io.photos import KEPT_SUFFIXES, Photo, bytes_for, read_photo, write_photo
from idm.restorers.idm import IDM, generators_of
from idm.restorers.protocol import Restorer

OnProgress = Callable[[int, int], None]  # how much is done, of how much


@dataclass(frozen=True)
class RestoreRequest:
    """What one user asks for one photograph. ``num_steps`` and ``fidelity`` apply to restorers with a chain."""

    restorer: str
    faces: tuple[int, ...]
    num_steps: int = 4
    fidelity: float = 0.0
    seed: int = 0
    upscale: float = 1.0
    samples: int = 1
    change: Literal["auto", "full"] = "auto"


@dataclass(frozen=True, eq=False)
class RestoreResult:
    """The result of a request. ``before`` has the size of the result, so that the two can be overlaid."""

    request: RestoreRequest
    before: Integer[np.ndarray, "h w 3"]
    result: RestoredPhoto


class CancelledError(InvalidInput):
    """The user has cancelled the request."""


class PageService:
    """Finds and restores faces for many users at once.

    The detector and the restorers keep state while they work, so each serves one user at a time. A search for faces
    waits for other searches, not for restorations.

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
        """Reserve the memory of a photograph until its result is written, and release it afterwards."""
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
            raise ImageError(f"{path}: is no longer here: uploads are kept for a limited time; choose it again")
        return read_photo(path, self.max_pixels, self.budget.num_bytes, scale)

    def find(self, photo: Photo) -> list[DetectedFace]:
        return detect_faces(self.detector, photo.pixels)

    def has_chain(self, label: str) -> bool:
        """Whether steps and fidelity apply to a restorer."""
        return isinstance(self.restorers[label], IDM)

    def defaults(self, label: str) -> RestoreRequest:
        """The default request of a restorer."""
        restorer = self.restorers[label]
        if not isinstance(restorer, IDM):
            return RestoreRequest(label, ())
        return RestoreRequest(label, (), restorer.chain.num_steps, round(1 - restorer.chain.strength, 2))

    def restore(
        self, photo: Photo, request: RestoreRequest, on_progress: OnProgress = lambda done, total: None
    ) -> RestoreResult:
        """Restore the chosen faces, as ``idm restore`` with the same settings does, bit for bit.

        Raises:
            ValueError: an unknown restorer, no face chosen or one that is not there, impossible settings, or a
                result beyond the limit.
        """
        if request.restorer not in self.restorers:
            raise InvalidInput(f"there is no restorer {request.restorer!r}; there are {', '.join(self.restorers)}")
        if not request.faces:
            raise InvalidInput("choose at least one face")
        if request.num_steps < 1:
            raise InvalidInput(f"the number of steps must be at least 1, got {request.num_steps}")
        settings = PhotoSettings(
            upscale=request.upscale,
            faces=request.faces,
            seed=request.seed,
            samples=request.samples,
            change=request.change,
            pick="median" if self.identity is None else "identity",
        )
        height, width = photo.pixels.shape[:2]
        size = (round(height * request.upscale), round(width * request.upscale))
        if size[0] * size[1] > self.max_pixels:
            raise InvalidInput(
                f"the result would have {size[0] * size[1] / 1e6:.0f} megapixels, more than the "
                f"{self.max_pixels / 1e6:g} allowed; enlarge less"
            )
        with self._restoring:
            worker, batch_size = self._worker(request, settings, on_progress)
            parts = PhotoRestorer(worker, self.detector, self.identity)
            result = parts.restore(photo, replace(settings, batch_size=batch_size))
        return RestoreResult(request, bicubic(photo.pixels, size), result)

    def _worker(
        self, request: RestoreRequest, settings: PhotoSettings, on_progress: OnProgress
    ) -> tuple[Restorer, int]:
        """The restorer with this request's settings, reporting what is done; and how many faces it takes at once."""
        restorer = self.restorers[request.restorer]
        num_faces = len(set(request.faces)) * request.samples
        if not isinstance(restorer, IDM):
            return _Watched(restorer, _Count(num_faces, on_progress)), 1
        chain = restorer.chain.changed(request.fidelity, num_steps=request.num_steps)
        batches = math.ceil(num_faces / settings.batch_size)
        return _Chained(restorer, chain, _Count(batches * chain.steps_run, on_progress)), settings.batch_size


def choose(found: Sequence[DetectedFace]) -> list[int]:
    """The faces that are restored unless the user says otherwise."""
    return choose_faces(found, PhotoSettings.min_face)


def save(done: RestoreResult, source: Path, folder: Path) -> list[Path]:
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
    """A detector behind a lock: facexlib's network stores the size of its picture."""

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
    """An IDM with one request's chain; the model's own stays as it is."""

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
