"""One photograph: detect, align, restore, compare and paste its faces."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Integer, UInt8
from PIL import Image

from idm.apps.photo.face import FaceReport, FaceRestoration, Subject, compose_affine, left_alone
from idm.apps.photo.reference import Reference, read_reference
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.upscale import Bicubic, Upscaler, bicubic
from idm.faces.align import Matrix, to_unit
from idm.faces.colour import has_one_tint, make_grey
from idm.faces.detect import DetectedFace, Detector, choose_faces
from idm.faces.grain import remove_grain
from idm.faces.paste import Patch, paste_faces
from idm.faces.recognition import IdentityNet
from idm.faces.turns import detect_faces
from idm.io.errors import InvalidInput
from idm.io.photos import Photo, looks_grey
from idm.io.ranges import hwc_to_chw, to_uint8
from idm.restorers.protocol import Restorer

UNCERTAINTY_WHITE = 0.1  # the standard deviation that an uncertainty map shows as white (our choice)


@dataclass(frozen=True, eq=False)
class RestoredPhoto:
    """A restored photograph: ``photo`` is the result, ``faces`` has a report for each chosen face, ``left_alone`` for
    each detected face that is too small or not plausible; ``num_found`` counts all detected faces.

    ``uncertainty``: grey levels, 255 where the samples' standard deviation is ``UNCERTAINTY_WHITE`` or more.
    """

    photo: Photo
    faces: list[FaceReport]
    num_found: int
    left_alone: list[FaceReport] = field(default_factory=list)
    uncertainty: UInt8[np.ndarray, "h w"] | None = None

    @property
    def image(self) -> Image.Image:
        """The result with 8 bits, without profile or metadata."""
        return Image.fromarray(to_uint8(to_unit(self.photo.pixels)))


@dataclass(frozen=True)
class PhotoRestorer:
    """The detector, restorer and networks for photographs; ``identity`` may be None if no setting needs it.

    ``references`` holds the people of the albums that were read, by ``settings.reference``.
    """

    restorer: Restorer
    detector: Detector
    identity: IdentityNet | None = None
    upscaler: Upscaler = field(default_factory=Bicubic)
    references: dict[str | tuple[str, ...], Reference] = field(default_factory=dict, repr=False, compare=False)

    def find(self, pixels: Integer[np.ndarray, "h w 3"], settings: PhotoSettings) -> list[DetectedFace]:
        """All faces, the largest first; their positions are their numbers in ``settings.faces``."""
        return detect_faces(self.detector, pixels, settings.turn)

    def reference(self, settings: PhotoSettings) -> Reference | None:
        """The person of ``settings.reference``, whose photographs are read once; None without one.

        Raises:
            ValueError: the identity network is missing.
            ImageError: as :func:`~idm.apps.photo.reference.read_reference`.
        """
        self._require_identity(settings)
        album = settings.reference
        if album is None:
            return None
        assert self.identity is not None
        if album not in self.references:
            paths = [Path(path) for path in ((album,) if isinstance(album, str) else album)]
            self.references[album] = read_reference(paths, self.detector, self.identity)
        return self.references[album]

    def _require_identity(self, settings: PhotoSettings) -> None:
        if settings.needs_identity and self.identity is None:
            raise InvalidInput("identity (reference, min_identity, pick='identity') needs the identity network")

    def restore(self, photo: Photo, settings: PhotoSettings) -> RestoredPhoto:
        """Restore the chosen faces of a photograph and put them back; a face that fails is reported, not pasted.

        Raises:
            ValueError: a number that no face has, or a setting that needs the missing ``identity``.
        """
        found = self.find(photo.pixels, settings)
        faces = self.draw(photo, found, choose_faces(found, settings.min_face, settings.faces), settings)
        return self.compose(photo, found, faces, settings)

    def draw(
        self, photo: Photo, found: Sequence[DetectedFace], chosen: Sequence[int], settings: PhotoSettings
    ) -> list[FaceRestoration]:
        """Restorations of the chosen faces, by their numbers in ``found``; the photograph stays as it is.

        Raises:
            ValueError: a setting needs the missing ``identity``.
        """
        keeps_chroma = _keeps_chroma(photo, settings)
        [faces] = self._restore_crops(
            [photo.pixels], [[Subject(number, found[number], keeps_chroma) for number in chosen]], settings
        )
        return faces

    def compose(
        self, photo: Photo, found: Sequence[DetectedFace], faces: Sequence[FaceRestoration], settings: PhotoSettings
    ) -> RestoredPhoto:
        """The photograph with the faces that :meth:`draw` gave with the same settings, at most one of each number."""
        keeps_chroma = _keeps_chroma(photo, settings)
        canvas = self._enlarge(photo.pixels, settings)
        if keeps_chroma and looks_grey(photo.pixels):
            make_grey(canvas)
        size, to_photo = canvas.shape[:2], _to_photo(photo.pixels.shape[:2], canvas.shape[:2])
        _put_back(canvas, faces, to_photo, settings)
        alpha = None if photo.alpha is None else bicubic(photo.alpha, size)
        stays_grey = photo.is_grey and keeps_chroma
        result = replace(
            photo,
            pixels=canvas,
            alpha=alpha,
            is_grey=stays_grey,
            icc_profile=photo.icc_profile if stays_grey == photo.is_grey else None,
        )
        uncertainty = _uncertainty(faces, size, to_photo) if settings.uncertainty else None
        reports = [face.report(settings) for face in faces]
        others = left_alone(found, [face.number for face in faces], settings)
        return RestoredPhoto(result, reports, len(found), others, uncertainty)

    def restore_frames(
        self,
        frames: Sequence[Integer[np.ndarray, "h w 3"]],
        subjects: Sequence[Sequence[Subject]],
        settings: PhotoSettings,
    ) -> list[tuple[Integer[np.ndarray, "h2 w2 3"], list[FaceReport]]]:
        """The frames of a video, each with its given faces restored, and the reports on these; frames are restored
        together, for speed.

        Raises:
            ValueError: a setting needs the missing ``identity``.
        """
        restored = []
        for pixels, faces in zip(frames, self._restore_crops(frames, subjects, settings), strict=True):
            canvas = self._enlarge(pixels, settings)
            to_frame = _to_photo(pixels.shape[:2], canvas.shape[:2])
            _put_back(canvas, faces, to_frame, settings)
            restored.append((canvas, [face.report(settings) for face in faces]))
        return restored

    def _restore_crops(
        self,
        pictures: Sequence[Integer[np.ndarray, "h w 3"]],
        subjects: Sequence[Sequence[Subject]],
        settings: PhotoSettings,
    ) -> list[list[FaceRestoration]]:
        reference = self.reference(settings)
        faces = [[FaceRestoration(subject) for subject in some] for some in subjects]
        for pixels, some in zip(pictures, faces, strict=True):
            for face in some:
                face.align(pixels, self.restorer.image_size)
        self._sample([face for some in faces for face in some if not face.failure], settings)
        for face in (face for some in faces for face in some):
            if not face.failure:
                face.finish(settings, self.identity, None if reference is None else reference.embedding)
        return faces

    def _enlarge(self, pixels: Integer[np.ndarray, "h w 3"], settings: PhotoSettings) -> Integer[np.ndarray, "h2 w2 3"]:
        height, width = pixels.shape[:2]
        return self.upscaler.upscale(pixels, (round(height * settings.upscale), round(width * settings.upscale)))

    def _sample(self, faces: Sequence[FaceRestoration], settings: PhotoSettings) -> None:
        """Draw all samples of all faces, in batches that may hold several faces."""
        wanted = [(face, settings.seed + k) for face in faces for k in range(settings.samples)]
        for start in range(0, len(wanted), settings.batch_size):
            batch = wanted[start : start + settings.batch_size]
            lq = torch.stack([hwc_to_chw(face.crop) for face, _ in batch])
            restored = self.restorer.restore(lq, [seed for _, seed in batch])
            for (face, _), image in zip(batch, restored, strict=True):
                face.add_sample(image)


def _keeps_chroma(photo: Photo, settings: PhotoSettings) -> bool:
    return settings.grayscale == "keep" or (settings.grayscale == "auto" and has_one_tint(photo.pixels))


def _to_photo(old: tuple[int, int], new: tuple[int, int]) -> Matrix:
    """Map pixels of the enlarged picture to pixels of the photograph: (u + 0.5) / s - 0.5."""
    factors = np.array([old[1] / new[1], old[0] / new[0]])
    return np.column_stack([np.diag(factors), 0.5 * factors - 0.5])


def _put_back(
    canvas: Integer[np.ndarray, "h w 3"], faces: Sequence[FaceRestoration], to_photo: Matrix, settings: PhotoSettings
) -> None:
    used = [face for face in faces if face.is_used]
    for face in used:
        if face.loses_grain(settings):
            remove_grain(canvas, face.crop, compose_affine(face.to_crop, to_photo))
    paste_faces(canvas, [face.patch(to_photo, settings) for face in used])


def _uncertainty(faces: Sequence[FaceRestoration], size: tuple[int, int], to_photo: Matrix) -> UInt8[np.ndarray, "h w"]:
    canvas = np.zeros((*size, 3), np.uint8)
    patches = []
    for face in faces:
        if face.is_used:
            white = (face.deviation[..., None] / UNCERTAINTY_WHITE).clip(0, 1)
            patches.append(Patch(np.repeat(white, 3, axis=2), compose_affine(face.to_crop, to_photo)))
    paste_faces(canvas, patches)
    return canvas[..., 0].copy()
