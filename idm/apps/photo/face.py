"""One face: aligned, sampled and compared with the given one; and the report on it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, Integer
from torch import Tensor

from idm.apps.photo.harm import MIN_SHARE, judge, noise_of
from idm.apps.photo.settings import PhotoSettings
from idm.faces.align import Matrix, align_face, apply_matrix, scale_of, to_unit
from idm.faces.colour import keep_chroma, match_colour, match_contrast
from idm.faces.detect import DetectedFace
from idm.faces.geometry import why_implausible
from idm.faces.grain import share_of_grain
from idm.faces.paste import Patch, crop_weights
from idm.faces.recognition import IdentityNet, cosine_similarity
from idm.io.ranges import chw_to_hwc

Crop = Float32[np.ndarray, "s s 3"]


@dataclass(frozen=True)
class FaceReport:
    """The outcome of one face.

    ``state`` is "restored"; "kept": the restored face was rejected; "left alone": the face is too small or not
    plausible and was not restored; or "failed". ``note`` gives the reason.
    ``box`` is left, top, right, bottom in pixels of the photograph; ``side`` is that of the aligned square.
    ``share``, in [0, 1], is the part of the restorer's change that the result has. ``identity`` is the cosine between
    the fully restored and the given face, ``reference`` the cosine between the fully restored face and the person of
    the reference photographs; each is None if it was not measured.
    """

    number: int
    state: Literal["restored", "kept", "left alone", "failed"]
    box: tuple[float, ...]
    score: float
    side: float = 0.0
    identity: float | None = None
    note: str = ""
    share: float = 0.0
    reference: float | None = None


@dataclass
class FaceHistory:
    """Identity cosines of a face's candidates and the share of the change, summed over the frames of a video so far.

    The pick among samples, the identity limit and the change use their means, so that they do not jump. A photograph is
    a video of one frame.
    """

    cosines: list[list[float]] = field(default_factory=list)
    num_frames: int = 0
    shares: float = 0.0
    num_shares: int = 0

    def add(self, cosines: Float[np.ndarray, "r n"]) -> Float[np.ndarray, "r n"]:
        """Add the cosines of a frame's n candidates with r faces, and return their means over all frames."""
        before = np.array(self.cosines) if self.num_frames else 0
        self.cosines = (before + cosines).tolist()
        self.num_frames += 1
        return np.array(self.cosines) / self.num_frames

    def add_share(self, share: float) -> float:
        """Add a frame's share of the change, and return the mean over all frames."""
        self.shares += share
        self.num_shares += 1
        return self.shares / self.num_shares


@dataclass(frozen=True, eq=False)
class Subject:
    """A detected face to restore; ``past`` is updated."""

    number: int
    found: DetectedFace
    keeps_chroma: bool
    past: FaceHistory = field(default_factory=FaceHistory)


class FaceRestoration:
    """One face in progress: the aligned crop, its samples, the result, or the reason why it failed."""

    def __init__(self, subject: Subject) -> None:
        self.number = subject.number
        self.found = subject.found
        self.keeps_chroma = subject.keeps_chroma
        self.past = subject.past
        self.failure = ""
        self.samples: list[Crop] = []
        self.identity: float | None = None
        self.reference: float | None = None
        self.share = 1.0
        self.refusal = ""

    def align(self, pixels: Integer[np.ndarray, "h w 3"], size: int) -> None:
        """Cut out the aligned face, of ``size`` pixels. Landmarks that cannot be aligned are a failure of this face."""
        try:
            self.crop, self.to_crop = align_face(pixels, self.found.landmarks, size)
        except ValueError as error:
            self.failure = f"cannot be aligned: {error}"
        else:
            is_large = self.side > size
            self.noise = noise_of(self.crop if is_large else _inside(pixels, self.found.box))

    def add_sample(self, image: Float[Tensor, "3 s s"]) -> None:
        """Add a sample. Values outside [0, 1] are a failure of this face."""
        sample = chw_to_hwc(image.float())
        if not (sample.min() >= -1e-3 and sample.max() <= 1.001):  # false for NaN too
            self.failure = f"the restorer gave values {sample.min():g}..{sample.max():g} outside [0, 1]"
        self.samples.append(sample.clip(0, 1))

    def finish(
        self, settings: PhotoSettings, identity: IdentityNet | None, reference: Float32[np.ndarray, " d"] | None = None
    ) -> None:
        """Match colours, pick a sample, check its identity, and keep as much of the change as serves the face.

        Args:
            reference: the embedding that picks and guards instead of the given face's.
        """
        self.samples = [self._toned(sample, settings) for sample in self.samples]
        if settings.uncertainty:
            self.deviation: Float32[np.ndarray, "s s"] = np.std(self.samples, axis=0).mean(axis=2)
        candidates = self.samples
        if settings.samples > 1 and settings.pick == "median":
            candidates = [np.median(self.samples, axis=0)]
        best = 0
        if identity is not None:
            cosines = self.past.add(self._compare(candidates, identity, reference))
            best = int(np.argmax(cosines[-1]))
            self.identity = float(cosines[0, best])
            self.reference = None if reference is None else float(cosines[1, best])
        self.restored = candidates[best]
        self.refusal = self._guard(settings.min_identity)
        if not self.refusal and settings.change == "auto":
            self._blend(settings.upscale)

    def _guard(self, least: float | None) -> str:
        """Return the reason why the restored face is not the person; empty if it passes."""
        found = self.identity if self.reference is None else self.reference
        if least is None or found is None or found >= least:
            return ""
        return f"identity {'' if self.reference is None else 'to the reference '}{found:.3f} is below {least:g}"

    @property
    def is_used(self) -> bool:
        """Whether the restored face takes the place of the given one."""
        return not (self.failure or self.refusal)

    def _toned(self, sample: Crop, settings: PhotoSettings) -> Crop:
        weights = crop_weights(len(self.crop))
        sample = match_colour(sample, self.crop, weights, settings.color_fix)
        if settings.color_fix == "wavelet":
            sample = match_contrast(sample, self.crop, weights)
        return keep_chroma(sample, self.crop) if self.keeps_chroma else sample

    def _blend(self, upscale: float) -> None:
        """Keep as much of the change as serves the face."""
        benefit = judge(self.crop, self.restored, self.side * upscale)
        self.share = self.past.add_share(benefit.share)
        if self.share < MIN_SHARE:
            self.refusal = benefit.why or "it needs hardly any change"
        self.restored = self.crop + np.float32(self.share) * (self.restored - self.crop)

    def _compare(
        self, candidates: Sequence[Crop], identity: IdentityNet, reference: Float32[np.ndarray, " d"] | None
    ) -> Float[np.ndarray, "r n"]:
        """Identity cosines of restored crops to the given one, all through the same crop, and to the reference."""
        landmarks = [apply_matrix(self.to_crop, self.found.landmarks)] * (1 + len(candidates))
        given, *others = identity.embed([self.crop, *candidates], landmarks)
        wanted = [given] if reference is None else [given, reference]
        return np.stack([cosine_similarity(np.stack([one] * len(others)), np.stack(others)) for one in wanted])

    @property
    def side(self) -> float:
        """Side of the aligned square, in pixels of the photograph."""
        return len(self.crop) / scale_of(self.to_crop)

    def keeps_detail(self, settings: PhotoSettings) -> bool:
        """Return whether only the change is pasted, so that detail finer than the model's stays."""
        return settings.detail == "keep" or (settings.detail != "replace" and self.side > len(self.crop))

    def loses_grain(self, settings: PhotoSettings) -> bool:
        """Return whether the photograph's grain is removed from the detail that stays."""
        return settings.detail == "clean" and self.side > len(self.crop)

    def patch(self, to_photo: Matrix, settings: PhotoSettings) -> Patch:
        """The patch to paste into the result; ``to_photo`` maps its pixels to those of the photograph."""
        to_crop, change = compose_affine(self.to_crop, to_photo), self.restored - self.crop
        kept = None
        if settings.grain and settings.detail in ("auto", "keep"):
            pixel = max(1.0, len(self.crop) / self.side)
            kept = settings.grain * share_of_grain(change, crop_weights(len(self.crop)) > 0, self.noise, pixel)
        if self.keeps_detail(settings):
            return Patch(change, to_crop, is_change=True, kept=kept)
        return Patch(self.restored, to_crop, kept=kept)

    def report(self, settings: PhotoSettings) -> FaceReport:
        """The outcome of the face."""
        box, score = _box_and_score(self.found)
        if self.failure:
            return FaceReport(self.number, "failed", box, score, note=self.failure)
        side, size = self.side, len(self.crop)
        note = ""
        if self.refusal:
            note = f"{self.refusal}: the face stays as it was"
        elif side > size:
            detail = "its finer detail is the photograph's" if self.keeps_detail(settings) else "it has become soft"
            detail += ", without its grain" if self.loses_grain(settings) else ""
            note = f"a face of {side:.0f} px was restored at {size} px: {detail}"
        identity, reference = (None if c is None else round(c, 4) for c in (self.identity, self.reference))
        state: Literal["restored", "kept"] = "restored" if self.is_used else "kept"
        share = round(self.share, 3) if self.is_used else 0.0
        return FaceReport(self.number, state, box, score, round(side, 1), identity, note, share, reference)


def left_alone(found: Sequence[DetectedFace], chosen: Sequence[int], settings: PhotoSettings) -> list[FaceReport]:
    """Reports of the faces that are too small or implausible, and were not asked for by number."""
    reports = []
    for number, face in enumerate(found):
        if number in chosen:
            continue
        if problem := why_implausible(face.landmarks):
            reports.append(
                FaceReport(number, "left alone", *_box_and_score(face), note=f"no plausible face: {problem}")
            )
        elif face.size < settings.min_face:
            note = f"a face of {face.size:.0f} px is smaller than {settings.min_face:g} px"
            reports.append(FaceReport(number, "left alone", *_box_and_score(face), note=note))
    return reports


def _inside(pixels: Integer[np.ndarray, "h w 3"], box: Float[np.ndarray, "4"]) -> Crop:
    """A square of the pixels of a face as they are: interpolation would remove noise."""
    left, top, right, bottom = np.maximum(np.rint(box), 0).astype(int)
    part = pixels[top:bottom, left:right]
    side = min(part.shape[:2])
    return to_unit(part[:side, :side])


def _box_and_score(found: DetectedFace) -> tuple[tuple[float, ...], float]:
    return tuple(round(float(x), 2) for x in found.box), round(found.score, 4)


def compose_affine(second: Matrix, first: Matrix) -> Matrix:
    """The map that does ``first`` and then ``second``."""
    return np.column_stack([second[:, :2] @ first[:, :2], apply_matrix(second, first[:, 2])])
