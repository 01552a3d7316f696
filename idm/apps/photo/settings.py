"""Settings for restoring a photograph, and their choices. Does not import numpy."""

from dataclasses import dataclass
from typing import Literal, get_args, get_origin, get_type_hints

from idm.faces.names import ColorFix, FaceGroup, Turn
from idm.io.errors import InvalidInput

Pick = Literal["identity", "median"]
Change = Literal["auto", "full"]
Grayscale = Literal["auto", "keep", "off"]
Detail = Literal["auto", "keep", "clean", "replace"]
FileFormat = Literal["same", "png"]
OutputSize = Literal["model", "input"]


@dataclass(frozen=True)
class PhotoSettings:
    """Settings for restoring a photograph. The defaults restore every face and change nothing else.

    Args:
        upscale: enlargement of the whole picture, at least 1.
        min_face: faces whose box is smaller than this many pixels are left alone.
        faces: the faces to restore: "all", "largest", or their numbers (0 is the largest one found), of any size.
        turn: degrees clockwise by which the picture is turned to find faces, 0, 90, 180 or 270; "auto" searches all
            turns if the picture as given has no face that is surely upright. The result is not turned. In videos
            "auto" is 0.
        seed: sample k of every face is drawn with ``seed + k``.
        samples: number of restorations of each face, from which ``pick`` makes one.
        pick: "identity" takes the sample whose identity is closest to the given face, "median" each pixel's median.
        min_identity: a restored face whose identity cosine to the given one is below this is not used.
        reference: photographs of the person, each showing them alone: files or folders. "identity" and
            ``min_identity`` then compare with the mean of these instead of with the given face.
        uncertainty: also make a map of where the samples differ; needs ``samples`` of at least 2.
        change: "full" uses all of the restorer's change; "auto" uses as much as each face needs, and none if the
            restored face does not improve (see :mod:`idm.apps.photo.harm`).
        color_fix: see :func:`idm.faces.colour.match_colour`.
        grayscale: "keep" takes a face's colours from the photograph and only its lightness from the restorer,
            "auto" does so in photographs that are grey or have one tint, "off" never.
        detail: source of the detail finer than the restorer's pixels: none ("replace", so that a large face becomes
            soft) or the photograph ("keep"). "auto" keeps the photograph's in faces larger than the restorer's
            size; "clean" does so without its grain.
        grain: share of the photograph's grain that a restored face keeps, in [0, 1]: 0 leaves the face as smooth as
            the restorer made it, 1 gives it the grain of its surroundings. It has no effect on photographs without
            grain, and with ``detail`` "clean" or "replace".
        batch_size: faces restored at once.

    Raises:
        ValueError: settings out of range, or that contradict each other.

    Example:
        >>> settings = idm.PhotoSettings(faces="largest", change="full", min_identity=0.5)
    """

    upscale: float = 1.0
    min_face: float = 24.0
    faces: FaceGroup | tuple[int, ...] = "all"
    turn: Turn = "auto"
    seed: int = 0
    samples: int = 1
    pick: Pick = "identity"
    min_identity: float | None = None
    reference: str | tuple[str, ...] | None = None
    uncertainty: bool = False
    change: Change = "auto"
    color_fix: ColorFix = "wavelet"
    grayscale: Grayscale = "auto"
    detail: Detail = "auto"
    grain: float = 0.25
    batch_size: int = 8

    def __post_init__(self) -> None:
        for name, annotation in get_type_hints(PhotoSettings).items():
            value, known = getattr(self, name), get_args(annotation)
            if get_origin(annotation) is Literal and value not in known:
                raise InvalidInput(f"{name} must be one of {', '.join(map(str, known))}, got {value!r}")
        if isinstance(self.faces, str) and self.faces not in get_args(FaceGroup):
            raise InvalidInput(f"faces must be all, largest or numbers of faces, got {self.faces!r}")
        if not 1 <= self.upscale <= 16:
            raise InvalidInput(f"upscale must lie in 1..16, got {self.upscale}")
        if self.samples < 1 or self.batch_size < 1:
            raise InvalidInput(f"samples and batch size must be at least 1, got {self.samples} and {self.batch_size}")
        if self.min_identity is not None and not -1 <= self.min_identity <= 1:
            raise InvalidInput(f"min_identity is a cosine in [-1, 1], got {self.min_identity}")
        if not 0 <= self.grain <= 1:
            raise InvalidInput(f"grain must lie in 0..1, got {self.grain}")
        if self.uncertainty and self.samples < 2:
            raise InvalidInput("an uncertainty map needs at least 2 samples")

    @property
    def needs_identity(self) -> bool:
        """Whether these settings need the identity network."""
        picks = self.samples > 1 and self.pick == "identity"
        return picks or self.min_identity is not None or self.reference is not None
