"""The service behind the page: functions from a file and a request to results. It does not import the page.

One :class:`PageService` serves all users. It stores nothing about them: callers pass the file and the request.
"""

import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from idm.apps.photo.face import FaceRestoration
from idm.apps.photo.photo_restorer import PhotoRestorer, RestoredPhoto
from idm.apps.photo.reference import Reference, read_reference
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.upscale import bicubic
from idm.apps.web.request import NO_CHAIN, RestoreRequest, changed_chain, photo_settings, refuse_unknown
from idm.apps.web.restoration import Restoration, Variant
from idm.apps.web.workers import ChainedIDM, CountingRestorer, LockedDetector, OnProgress, ProgressCounter, no_progress
from idm.diffusion.chain import Chain
from idm.faces.detect import DetectedFace, Detector, choose_faces
from idm.faces.names import Turn
from idm.faces.recognition import IdentityNet
from idm.faces.turns import detect_faces
from idm.io.errors import InvalidInput
from idm.io.images import ImageError, ImageLimits
from idm.io.memory import Budget, default_budget, release_freed_memory
from idm.io.photo_writer import KEPT_SUFFIXES, write_photo
from idm.io.photos import Photo, bytes_for, read_photo
from idm.restorers.idm import IDM
from idm.restorers.protocol import Restorer

MAX_KNOWN_PEOPLE = 100  # whose reference photographs are not read again


@dataclass(frozen=True, eq=False)
class RestoreResult:
    """The result of a request. ``before`` has the size of the result, so that the two can be overlaid. ``reference`` is
    the person of the reference photographs."""

    request: RestoreRequest
    before: Integer[np.ndarray, "h w 3"]
    result: RestoredPhoto
    reference: Reference | None = None

    @property
    def scale(self) -> float:
        """The factor from pixels of the photograph to pixels of the result."""
        return self.request.settings.upscale


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
        self.detector = LockedDetector(detector)
        self._restoring = threading.Lock()
        self._references: dict[str | tuple[str, ...], Reference] = {}

    @contextmanager
    def memory_for(self, path: Path, request: RestoreRequest | None = None) -> Iterator[None]:
        """Reserve the memory of a photograph, and of the largest of the request's reference photographs, until the
        result is written, and release it afterwards."""
        largest = 0 if request is None else max(map(bytes_for, request.reference), default=0)
        with self.budget.hold(bytes_for(path, 1.0 if request is None else request.settings.upscale) + largest):
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
            raise ImageError(f"{path}: was removed: uploads are kept for a limited time; upload it again")
        return read_photo(path, self.max_pixels, self.budget.num_bytes, scale)

    def find(self, photo: Photo, turn: Turn = "auto") -> list[DetectedFace]:
        """The faces of a photograph, the largest first."""
        return detect_faces(self.detector, photo.pixels, turn)

    # --------------------------------------------------------------------------------------- requests

    def has_chain(self, label: str) -> bool:
        """Return whether steps and fidelity apply to a restorer."""
        return isinstance(self.restorers[label], IDM)

    def chain(self, label: str) -> Chain:
        """The sampling chain of a restorer, which one without a chain ignores."""
        restorer = self.restorers[label]
        return restorer.chain if isinstance(restorer, IDM) else NO_CHAIN

    def request(self, values: Mapping[str, Any]) -> RestoreRequest:
        """The request of named settings: see :mod:`idm.apps.web.request`.

        Raises:
            ValueError: an unknown name or restorer, a value of a wrong type or out of range, no face chosen.
        """
        refuse_unknown(values)
        label = values.get("restorer", next(iter(self.restorers)))
        if label not in self.restorers:
            raise InvalidInput(f"there is no restorer {label!r}; there are {', '.join(self.restorers)}")
        settings = photo_settings(values, pick="median" if self.identity is None else "identity")
        return RestoreRequest(label, settings, changed_chain(self.chain(label), values))

    # --------------------------------------------------------------------------------------- restoring

    def restore(self, photo: Photo, request: RestoreRequest, on_progress: OnProgress = no_progress) -> RestoreResult:
        """Restore the chosen faces, as ``idm restore`` with the same settings does, bit for bit.

        Raises:
            ValueError: a chosen face that is not there, a setting that needs the missing ``identity``, or a result
                beyond the limit.
        """
        return self.compose(photo, self.draw(photo, request, on_progress))

    def draw(self, photo: Photo, request: RestoreRequest, on_progress: OnProgress = no_progress) -> Restoration:
        """Restorations of the chosen faces, each of which is used.

        Raises:
            ValueError: as :meth:`restore`.
        """
        height, width = self._size(photo, request)
        if height * width > self.max_pixels:
            raise InvalidInput(
                f"the result would have {height * width / 1e6:.0f} megapixels, more than the "
                f"{self.max_pixels / 1e6:g} allowed; enlarge less"
            )
        settings = request.settings
        found = self.find(photo, settings.turn)
        chosen = choose_faces(found, settings.min_face, settings.faces)
        faces = self._draw(photo, found, chosen, request, on_progress)
        variants = {face.number: (Variant(settings.seed, face),) for face in faces}
        return Restoration(request, tuple(found), variants, {})

    def redraw(
        self, photo: Photo, restoration: Restoration, number: int, seed: int, on_progress: OnProgress = no_progress
    ) -> Restoration:
        """Return the restoration with one more variant of a face in use, drawn with the same settings and another seed.

        Raises:
            ValueError: no such face, or no more variants of it are drawn.
        """
        restoration.check_room(number)
        request = replace(restoration.request, settings=replace(restoration.request.settings, seed=seed))
        [face] = self._draw(photo, restoration.found, [number], request, on_progress)
        return restoration.with_variant(number, Variant(seed, face))

    def compose(self, photo: Photo, restoration: Restoration) -> RestoreResult:
        """Return the photograph with the variants in use."""
        request = restoration.request
        photo_restorer = PhotoRestorer(self.restorers[request.restorer], self.detector, self.identity)
        result = photo_restorer.compose(photo, restoration.found, restoration.faces(), request.settings)
        before = bicubic(photo.pixels, self._size(photo, request))
        return RestoreResult(request, before, result, self._references.get(request.settings.reference or ""))

    def _size(self, photo: Photo, request: RestoreRequest) -> tuple[int, int]:
        height, width = photo.pixels.shape[:2]
        return round(height * request.settings.upscale), round(width * request.settings.upscale)

    def _draw(
        self,
        photo: Photo,
        found: Sequence[DetectedFace],
        chosen: Sequence[int],
        request: RestoreRequest,
        on_progress: OnProgress,
    ) -> list[FaceRestoration]:
        people = self._people(request)
        with self._restoring:
            worker, batch_size = self._worker(request, len(chosen), on_progress)
            settings = replace(request.settings, batch_size=batch_size)
            restorer = PhotoRestorer(worker, self.detector, self.identity, references=people)
            faces = restorer.draw(photo, found, chosen, settings)
        for face in faces:
            face.samples = []  # what was made of them is kept
        return faces

    def _people(self, request: RestoreRequest) -> dict[str | tuple[str, ...], Reference]:
        """The person of the reference photographs, which are read within the limits, and once."""
        album = request.settings.reference
        if album is None or self.identity is None:
            return {}
        reference = self._references.get(album) or self._read_reference(request.reference, self.identity)
        if len(self._references) >= MAX_KNOWN_PEOPLE:
            self._references.clear()
        self._references[album] = reference
        return {album: reference}

    def _read_reference(self, album: Sequence[Path], identity: IdentityNet) -> Reference:
        """Messages name the files without their paths on the server."""
        try:
            limits = ImageLimits(self.max_pixels, self.budget.num_bytes)
            reference = read_reference(album, self.detector, identity, limits)
        except ImageError as error:
            raise ImageError(f"reference: {_without_folders(str(error), album)}") from None
        left_out = {Path(path).name: _without_folders(why, album) for path, why in reference.left_out.items()}
        return replace(reference, left_out=left_out)

    def _worker(self, request: RestoreRequest, num_faces: int, on_progress: OnProgress) -> tuple[Restorer, int]:
        """The restorer with this request's settings, reporting what is done; and how many faces it takes at once."""
        restorer, settings = self.restorers[request.restorer], request.settings
        num_samples = num_faces * settings.samples
        if not isinstance(restorer, IDM):
            return CountingRestorer(restorer, ProgressCounter(num_samples, on_progress)), 1
        num_steps = math.ceil(num_samples / settings.batch_size) * request.chain.steps_run
        return ChainedIDM(restorer, request.chain, ProgressCounter(num_steps, on_progress)), settings.batch_size


def _without_folders(text: str, paths: Sequence[Path]) -> str:
    for path in paths:
        text = text.replace(str(path), path.name)
    return text


def faces_by_default(found: Sequence[DetectedFace]) -> list[int]:
    """The faces that are restored unless the user says otherwise."""
    return choose_faces(found, PhotoSettings.min_face)


def save_result(done: RestoreResult, source: Path, folder: Path) -> list[Path]:
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


def save_map(done: RestoreResult, source: Path, folder: Path) -> list[Path]:
    """Write the uncertainty map, if there is one."""
    grey = done.result.uncertainty
    if grey is None:
        return []
    file = folder / f"{source.stem}_restored.uncertainty.png"
    write_photo(file, Photo(np.repeat(grey[..., None], 3, axis=2), is_grey=True))
    return [file]
