"""Frames encoded into segments, which join without encoding again (:mod:`idm.io.video.join`)."""

import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream
from einops import reduce
from jaxtyping import Bool, Integer, Shaped

from idm.io.encoding import Codec, Encoding
from idm.io.errors import InvalidInput
from idm.io.machine import ordinary_scheduling
from idm.io.video.read import EXACT, DecodedFrame, Video, quarters, reason, rgb_format, video_error

CONTAINERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}

# ISO/IEC 23091-4: the matrices that swscale converts by, and the one it takes where the file names none
_MATRICES, _BT601 = (1, 4, 5, 6, 7, 9), 6


def find_encoder(encoding: Encoding, suffix: str) -> Codec:
    """The encoder for a file with one of the suffixes that results have.

    Raises:
        ValueError: such a file cannot hold what the encoder gives.
    """
    codec: Codec = encoding.codec or ("libvpx-vp9" if suffix.lower() == ".webm" else "libx264")
    with av.open(io.BytesIO(), "w", format=CONTAINERS[suffix.lower()]) as container:
        if codec not in container.supported_codecs:
            raise InvalidInput(f"a {suffix[1:]} file cannot hold what {codec} encodes; choose another --video-codec")
    return codec


# --- pictures -----------------------------------------------------------------------------------------


def encoded_format(source: VideoFormat, codec: Codec, size: tuple[int, int]) -> str:
    """The pixel format to encode in: the source's own where the encoder has it, else the nearest it has.

    Args:
        size: width and height of the result. H.264 and H.265 have no odd sizes with subsampled colour.
    """
    known = [f.name for f in av.Codec(codec, "w").video_formats or []]
    if codec in ("libx264", "libx265") and (size[0] % 2 or size[1] % 2):
        known = [name for name in known if not _is_subsampled(VideoFormat(name, *size))]
    chroma = "420" if _is_subsampled(VideoFormat(source.name, *size)) else "444"
    plain = source.name.replace("yuvj", "yuv")
    deep = [f"yuv{chroma}p10le", "yuv444p10le"] if rgb_format(source) == "rgb48le" else []
    wanted = [source.name, plain, *deep, f"yuv{chroma}p", "yuv444p", "yuv420p"]
    return next(name for name in wanted if name in known)


def _is_subsampled(image: VideoFormat) -> bool:
    return not image.is_rgb and any(c.width < image.width or c.height < image.height for c in image.components)


def to_image(
    frame: DecodedFrame, before: Integer[np.ndarray, "h w 3"], after: Integer[np.ndarray, "h2 w2 3"], codec: Codec
) -> VideoFrame:
    """Upright RGB levels as a picture for the encoder, turned as the frame is and with its time.

    Where ``after`` is as ``before``, what the frame's own pixels are, the stored values stay as they are, if the
    format and the size do.
    """
    source, turned = frame.image, np.ascontiguousarray(np.rot90(after, -quarters(frame.image)))
    pixel_format = encoded_format(source.format, codec, (turned.shape[1], turned.shape[0]))
    rgb = VideoFrame.from_ndarray(turned, "rgb24" if after.dtype == np.uint8 else "rgb48le")
    rgb.colorspace = _matrix(source.format, source.colorspace)
    levels = ColorRange.JPEG if is_full_range(source) else ColorRange.MPEG
    image = rgb.reformat(
        format=pixel_format,
        interpolation=EXACT,
        src_color_range=ColorRange.JPEG,
        dst_color_range=ColorRange.JPEG if is_rgb(pixel_format) else levels,
        threads=1,
    )
    if source.format.name == pixel_format and before.shape == after.shape:
        touched = np.rot90((before != after).any(axis=2), -quarters(source))
        _keep_untouched(image, source, touched)
    image.pts, image.time_base, image.duration = source.pts, source.time_base, source.duration
    return image


def is_rgb(pixel_format: str) -> bool:
    """Return whether a pixel format stores RGB rather than luma and chroma."""
    return VideoFormat(pixel_format).is_rgb


def is_full_range(image: VideoFrame) -> bool:
    """Return whether the levels of a frame use their full range, rather than 16 to 235 of 255."""
    return image.color_range == ColorRange.JPEG or image.format.name.startswith("yuvj") or image.format.is_rgb


def _matrix(image: VideoFormat, colorspace: int) -> int:
    return _BT601 if image.is_rgb or colorspace not in _MATRICES else colorspace


def _keep_untouched(image: VideoFrame, source: VideoFrame, touched: Bool[np.ndarray, "h w"]) -> None:
    components = source.format.components
    if len({c.plane for c in components}) < len(components) or source.format.is_big_endian:
        return
    for component in components:
        new, old = (_values(x.planes[component.plane], component.bits) for x in (image, source))
        keep = ~_at_size(touched, (new.shape[0], new.shape[1]))
        new[keep] = old[keep]


def _values(plane: VideoPlane, bits: int) -> Shaped[np.ndarray, "h w"]:
    kind: np.dtype = np.dtype(np.uint8 if bits <= 8 else np.uint16)
    rows = np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // kind.itemsize)
    return rows[: plane.height, : plane.width]


def _at_size(touched: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "h2 w2"]:
    """Return a mask of the values of a subsampled plane that hold a touched pixel."""
    y, x = (-(-full // part) for full, part in zip(touched.shape, size, strict=True))
    padded = np.pad(touched, ((0, size[0] * y - touched.shape[0]), (0, size[1] * x - touched.shape[1])))
    return reduce(padded, "(h y) (w x) -> h w", "max", y=y, x=x)


# --- segments -----------------------------------------------------------------------------------------


class SegmentWriter:
    """A run of frames on their way into a file, as a context: it is there whole after leaving, or not at all.
    Without frames there is no file.

    Frames are encoded without B-frames: segments then join anywhere, and what is shown first is stored first.

    Raises:
        VideoError: it cannot be written.
    """

    def __init__(self, path: Path, video: Video, codec: Codec, options: dict[str, str]) -> None:
        self.path, self.video, self.codec, self.options = path, video, codec, options
        self._temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
        self._stream: VideoStream | None = None

    def __enter__(self) -> "SegmentWriter":
        with report_write_errors(self.path):
            self._container = av.open(
                str(self._temporary), "w", format="nut"
            )  # holds frames of any encoder, at any times
        return self

    def add(self, image: VideoFrame) -> None:
        """The next picture, in the encoder's format; the first one says size and format of all."""
        with report_write_errors(self.path):
            if self._stream is None:
                self._stream = self._open(image)
                with ordinary_scheduling():  # the first picture opens the encoder
                    self._container.mux(self._stream.encode(image))
            else:
                self._container.mux(self._stream.encode(image))

    def _open(self, image: VideoFrame) -> VideoStream:
        source = self.video.stream
        stream = self._container.add_stream(
            self.codec, rate=source.guessed_rate, options=self.options, time_base=self.video.time_base
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = image.width, image.height, image.format.name
        stream.codec_context.max_b_frames = 0
        copy_colour_description(stream, source)
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with report_write_errors(self.path):
                if kind is None and self._stream is not None:
                    self._container.mux(self._stream.encode(None))
                self._container.close()
                if kind is None and self._stream is not None:
                    move_into_place(self._temporary, self.path)
        finally:
            self._temporary.unlink(missing_ok=True)


def copy_colour_description(stream: VideoStream, source: VideoStream) -> None:
    """Copy the source's aspect ratio and colour description to a stream."""
    context, original = stream.codec_context, source.codec_context
    context.sample_aspect_ratio = original.sample_aspect_ratio or Fraction(0, 1)
    context.color_primaries, context.color_trc = original.color_primaries, original.color_trc
    if is_rgb(context.pix_fmt or ""):
        return
    was_rgb = original.format is not None and original.format.is_rgb
    context.colorspace = _BT601 if was_rgb else original.colorspace
    context.color_range = ColorRange.JPEG if was_rgb else original.color_range


@contextmanager
def report_write_errors(path: Path) -> Iterator[None]:
    """Report what FFmpeg and the disk raise within the context as a VideoError of this file."""
    try:
        yield
    except (av.FFmpegError, OSError) as error:
        raise video_error(path, f"cannot be written ({reason(error)})", "check the folder and disk") from error


def move_into_place(temporary: Path, path: Path) -> None:
    """Flush a finished file to the disk, and give it its name in one step."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
