"""One photograph: its faces are found, aligned, restored, compared with what they were, and put back."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Integer, UInt8
from torch import Tensor

from idm.data.photos import Photo, looks_grey
from idm.data.ranges import chw_to_hwc, hwc_to_chw
from idm.evaluation.identity import IdentityNet, cosine
from idm.faces.align import Matrix, align_face, apply_matrix, scale_of
from idm.faces.colour import ColorFix, keep_chroma, match_colour, to_grey
from idm.faces.detect import DetectedFace, Detector, choose_faces
from idm.faces.paste import Patch, crop_weights, paste_faces
from idm.restorer import Restorer
from idm.upscale import Bicubic, Upscaler, bicubic

Crop = Float32[np.ndarray, "s s 3"]

UNCERTAINTY_WHITE = 0.25  # the standard deviation that an uncertainty map shows as white


@dataclass(frozen=True)
class PhotoSettings:
    """What to do with a photograph. The defaults restore every face and leave everything else as it is.

    Args:
        upscale: enlargement of the whole picture, at least 1.
        min_face: faces whose box is smaller than this many pixels are left alone.
        faces: which to restore: "all", "largest", or their numbers (0 is the largest one found), whatever their size.
        seed: sample k of every face is drawn with ``seed + k``.
        samples: restorations of each face, of which ``pick`` makes one.
        pick: "identity" takes the sample whose identity is closest to the given face, "median" each pixel's median.
        min_identity: a restored face whose identity cosine to the given one is below this is not used.
        uncertainty: also make a map of where the samples differ.
        color_fix: see :func:`idm.faces.colour.match_colour`.
        grayscale: "keep" takes a face's colours from the photograph and only its lightness from the restorer,
            "auto" does so in photographs without colour, "off" never.
        detail: what is finer than the restorer's pixels comes from the restorer's result ("replace", so that a large
            face becomes soft), or from the photograph ("keep"); "auto" keeps it where a face is larger than the
            restorer's size.
        batch_size: faces restored at once.

    Raises:
        ValueError: settings out of range, or that contradict each other.
    """

    upscale: float = 1.0
    min_face: float = 24.0
    faces: Literal["all", "largest"] | tuple[int, ...] = "all"
    seed: int = 0
    samples: int = 1
    pick: Literal["identity", "median"] = "identity"
    min_identity: float | None = None
    uncertainty: bool = False
    color_fix: ColorFix = "wavelet"
    grayscale: Literal["auto", "keep", "off"] = "auto"
    detail: Literal["auto", "keep", "replace"] = "auto"
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.upscale <= 16:
            raise ValueError(f"upscale must lie in 1..16, got {self.upscale}")
        if self.samples < 1 or self.batch_size < 1:
            raise ValueError(f"samples and batch size must be at least 1, got {self.samples} and {self.batch_size}")
        if self.min_identity is not None and not -1 <= self.min_identity <= 1:
            raise ValueError(f"min_identity is a cosine in [-1, 1], got {self.min_identity}")
        if self.uncertainty and self.samples < 2:
            raise ValueError("an uncertainty map needs at least 2 samples")

    @property
    def needs_identity(self) -> bool:
        return self.min_identity is not None or (self.samples > 1 and self.pick == "identity")


@dataclass(frozen=True)
class FaceReport:
    """What became of one face.

    ``state`` is "restored"; "kept": the guard refused the restored face; or "failed", with ``note`` saying why.
    ``box`` is left, top, right, bottom in pixels of the photograph; ``side`` is that of the aligned square.
    ``identity`` is the cosine of what was restored to the given face, None where it was not measured.
    """

    number: int
    state: Literal["restored", "kept", "failed"]
    box: tuple[float, ...]
    score: float
    side: float = 0.0
    identity: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False)
class RestoredPhoto:
    """``photo`` is the result and ``faces`` has a report for each face that was chosen; ``num_found`` counts all.

    ``uncertainty``: grey levels, 255 where the samples' standard deviation is ``UNCERTAINTY_WHITE`` or more.
    """

    photo: Photo
    faces: list[FaceReport]
    num_found: int
    uncertainty: UInt8[np.ndarray, "h w"] | None = None


@dataclass(frozen=True)
class PhotoRestorer:
    """The parts that photographs are restored with; ``identity`` may be None where no setting needs it."""

    restorer: Restorer
    detector: Detector
    identity: IdentityNet | None = None
    upscaler: Upscaler = field(default_factory=Bicubic)

    def restore(self, photo: Photo, settings: PhotoSettings) -> RestoredPhoto:
        """Restore the chosen faces of a photograph and put them back; a face that fails is reported, not pasted.

        Raises:
            ValueError: a chosen number that no face has, or a setting that needs the missing ``identity``.
        """
        if settings.needs_identity and self.identity is None:
            raise ValueError("samples are picked and faces guarded by identity, which needs the identity network")
        found = self.detector.detect(photo.pixels)
        chosen = choose_faces(found, settings.min_face, settings.faces)
        is_colourless = looks_grey(photo.pixels)
        keeps_chroma = settings.grayscale == "keep" or (settings.grayscale == "auto" and is_colourless)

        faces = [_Face(number, found[number]) for number in chosen]
        for face in faces:
            face.align(photo.pixels, self.restorer.image_size)
        self._sample([face for face in faces if not face.failure], settings)
        for face in faces:
            if not face.failure:
                face.finish(settings, keeps_chroma, self.identity)

        height, width = photo.pixels.shape[:2]
        size = (round(height * settings.upscale), round(width * settings.upscale))
        canvas = self.upscaler.upscale(photo.pixels, size)
        if keeps_chroma and is_colourless:
            to_grey(canvas)
        to_photo = _to_photo((height, width), size)
        paste_faces(canvas, [face.patch(to_photo, settings) for face in faces if face.is_used])
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
        return RestoredPhoto(result, [face.report(settings) for face in faces], len(found), uncertainty)

    def _sample(self, faces: Sequence["_Face"], settings: PhotoSettings) -> None:
        """Draw all samples of all faces, in batches that may hold several faces."""
        wanted = [(face, settings.seed + k) for face in faces for k in range(settings.samples)]
        for start in range(0, len(wanted), settings.batch_size):
            batch = wanted[start : start + settings.batch_size]
            lq = torch.stack([hwc_to_chw(face.crop) for face, _ in batch])
            restored = self.restorer.restore(lq, [seed for _, seed in batch])
            for (face, _), image in zip(batch, restored, strict=True):
                face.take(image)


# ------------------------------------------------------------------------------------------- one face


class _Face:
    """One face on its way: the aligned crop, its samples, the one that was made of them, or why it failed."""

    def __init__(self, number: int, found: DetectedFace) -> None:
        self.number = number
        self.found = found
        self.failure = ""
        self.samples: list[Crop] = []
        self.identity: float | None = None
        self.is_used = False

    def align(self, pixels: Integer[np.ndarray, "h w 3"], size: int) -> None:
        try:
            self.crop, self.to_crop = align_face(pixels, self.found.landmarks, size)
        except ValueError as error:
            self.failure = f"cannot be aligned: {error}"

    def take(self, image: Float[Tensor, "3 s s"]) -> None:
        """One sample, if it is a picture."""
        sample = chw_to_hwc(image.float())
        if not (sample.min() >= -1e-3 and sample.max() <= 1.001):  # false for NaN too
            self.failure = f"the restorer gave values {sample.min():g}..{sample.max():g} outside [0, 1]"
        self.samples.append(sample.clip(0, 1))

    def finish(self, settings: PhotoSettings, keeps_chroma: bool, identity: IdentityNet | None) -> None:
        """Colours, the pick among the samples, and the guard."""
        weights = crop_weights(len(self.crop))
        self.samples = [match_colour(sample, self.crop, weights, settings.color_fix) for sample in self.samples]
        if keeps_chroma:
            self.samples = [keep_chroma(sample, self.crop) for sample in self.samples]
        candidates = self.samples
        if settings.samples > 1 and settings.pick == "median":
            candidates = [np.median(self.samples, axis=0)]
        best = 0
        if identity is not None:
            cosines = self._compare(candidates, identity)
            best = int(np.argmax(cosines))
            self.identity = float(cosines[best])
        self.restored = candidates[best]
        self.is_used = settings.min_identity is None or (
            self.identity is not None and self.identity >= settings.min_identity
        )

    def _compare(self, candidates: Sequence[Crop], identity: IdentityNet) -> Float[np.ndarray, " n"]:
        """Identity cosines of restored crops to the given one, all through the same crop."""
        landmarks = [apply_matrix(self.to_crop, self.found.landmarks)] * (1 + len(candidates))
        given, *others = identity.embed([self.crop, *candidates], landmarks)
        return cosine(np.stack([given] * len(others)), np.stack(others))

    @property
    def side(self) -> float:
        """Of the aligned square, in pixels of the photograph."""
        return len(self.crop) / scale_of(self.to_crop)

    def keeps_detail(self, settings: PhotoSettings) -> bool:
        return settings.detail == "keep" or (settings.detail == "auto" and self.side > len(self.crop))

    def patch(self, to_photo: Matrix, settings: PhotoSettings) -> Patch:
        to_crop = _after(self.to_crop, to_photo)
        if self.keeps_detail(settings):
            return Patch(self.restored - self.crop, to_crop, is_change=True)
        return Patch(self.restored, to_crop)

    def report(self, settings: PhotoSettings) -> FaceReport:
        box, score = tuple(round(float(x), 2) for x in self.found.box), round(self.found.score, 4)
        if self.failure:
            return FaceReport(self.number, "failed", box, score, note=self.failure)
        side, size = self.side, len(self.crop)
        note = ""
        if not self.is_used:
            note = f"identity {self.identity:.3f} is below {settings.min_identity:g}: the face stays as it was"
        elif side > size:
            detail = "its finer detail is the photograph's" if self.keeps_detail(settings) else "it has become soft"
            note = f"a face of {side:.0f} px was restored at {size} px: {detail}"
        identity = None if self.identity is None else round(self.identity, 4)
        return FaceReport(
            self.number, "restored" if self.is_used else "kept", box, score, round(side, 1), identity, note
        )


def _to_photo(old: tuple[int, int], new: tuple[int, int]) -> Matrix:
    """From pixels of the enlarged picture to pixels of the photograph: (u + 0.5) / s - 0.5."""
    factors = np.array([old[1] / new[1], old[0] / new[0]])
    return np.column_stack([np.diag(factors), 0.5 * factors - 0.5])


def _after(second: Matrix, first: Matrix) -> Matrix:
    """The map that does ``first`` and then ``second``."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply_matrix(second, first[:, 2])])


def _uncertainty(faces: Sequence[_Face], size: tuple[int, int], to_photo: Matrix) -> UInt8[np.ndarray, "h w"]:
    canvas = np.zeros((*size, 3), np.uint8)
    patches = []
    for face in faces:
        if face.is_used:
            deviation = np.std(face.samples, axis=0).mean(axis=2, keepdims=True) / UNCERTAINTY_WHITE
            patches.append(Patch(np.repeat(deviation.clip(0, 1), 3, axis=2), _after(face.to_crop, to_photo)))
    paste_faces(canvas, patches)
    return canvas[..., 0].copy()
