"""The memory of a video's frames, known before one is decoded."""

from av.video.format import VideoFormat

from idm.io.encoding import Codec
from idm.io.memory import format_bytes
from idm.io.video.read import Video, rgb_format, video_error

_DECODED = 12  # frames that a decoder holds: references, and one for each of its threads
_ENCODED = 8  # frames that an encoder holds besides those it looks ahead to
_AHEAD_BYTES = 1_000_000_000  # that an encoder's look-ahead may take
_AHEAD: dict[str, tuple[str, int]] = {"libx264": ("rc-lookahead", 40), "libvpx-vp9": ("lag-in-frames", 25)}
_HALVES = 1.5  # an encoder keeps copies of half and quarter size too


def frame_bytes(video: Video) -> tuple[float, int]:
    """Return the bytes of a decoded frame and of its RGB levels."""
    stream = video.stream
    kind = VideoFormat(stream.pix_fmt or "yuv444p", 16, 16)
    depth = 2 if rgb_format(kind) == "rgb48le" else 1
    stored = sum(component.width * component.height for component in kind.components) * depth / 256
    num_pixels = stream.width * stream.height
    return stored * num_pixels, 3 * depth * num_pixels


def encoder_options(video: Video, codec: Codec, scale: float | int) -> dict[str, str]:
    """Return options that limit an encoder's look-ahead to ``_AHEAD_BYTES``; none for usual frame sizes, and the same
    on every machine."""
    if codec not in _AHEAD:
        return {}
    name, usual = _AHEAD[codec]
    frames = _ahead(video, scale, usual)
    return {} if frames == usual else {name: str(frames)}


def _ahead(video: Video, scale: float | int, usual: int) -> int:
    return max(1, min(usual, int(_AHEAD_BYTES / (_HALVES * frame_bytes(video)[0] * scale**2))))


def frames_at_once(video: Video, codec: Codec, *, wanted: int, reach: int, scale: float | int, max_bytes: int) -> int:
    """Return the number of frames to restore at once, at most ``wanted``.

    Raises:
        VideoError: not even one, with the ``reach`` frames that are looked ahead to.
    """
    stored, levels = frame_bytes(video)
    ahead = 0 if codec == "ffv1" else _ahead(video, scale, _AHEAD.get(codec, ("", 40))[1])
    always = stored * (_DECODED + reach + 1) + _HALVES * stored * scale**2 * (_ENCODED + ahead)
    each = levels * (1 + 2 * scale**2) + stored * (1 + scale**2)
    number = int((max_bytes - always) / each)
    if number < 1:
        size = f"{video.stream.width} x {video.stream.height}"
        problem = f"frames of {size} need about {format_bytes(always + each)} of memory, not {format_bytes(max_bytes)}"
        raise video_error(video.path, problem, "make it smaller first, or raise --max-memory")
    return min(wanted, number)
