"""Codecs and file formats of videos; does not import PyAV."""

from dataclasses import dataclass
from typing import Literal

from idm.io.errors import InvalidInput

# The format of the result. AVI does not store times of frames; Matroska can hold everything that AVI can.
RESULTS = {".mp4": ".mp4", ".mov": ".mov", ".mkv": ".mkv", ".webm": ".webm", ".avi": ".mkv"}

Codec = Literal["libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1"]

_CRF = 18  # hardly distinguishable from the input (our choice)


@dataclass(frozen=True)
class Encoding:
    """Settings of the encoder.

    Args:
        codec: an encoder of FFmpeg; by default libx264, in WebM libvpx-vp9. ffv1 is lossless.
        crf: the encoder's constant rate factor, where lower means higher quality; by default 18.

    Raises:
        ValueError: ``crf`` is outside 0..51, or given for ffv1, which does not have one.
    """

    codec: Codec | None = None
    crf: int | None = None

    def __post_init__(self) -> None:
        if self.crf is not None and self.codec == "ffv1":
            raise InvalidInput("ffv1 is lossless and has no crf")
        if self.crf is not None and not 0 <= self.crf <= 51:
            raise InvalidInput(f"crf must lie in 0..51, got {self.crf}")

    def options(self) -> dict[str, str]:
        """The options for FFmpeg."""
        if self.codec == "ffv1":
            return {}
        options = {"crf": str(_CRF if self.crf is None else self.crf)}
        return options | ({"x265-params": "log-level=error"} if self.codec == "libx265" else {})
