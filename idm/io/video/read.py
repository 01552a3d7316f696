"""The only reader of video files: frames as upright RGB levels, in order, with the times they have."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.sidedata.sidedata import SideData
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Disposition
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Interpolation
from av.video.stream import VideoStream
from jaxtyping import Integer

from idm.io.images import ImageError, image_error

# How swscale converts: nothing is left out for speed.
EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
_SHORT = 0.5  # seconds by which a video may end before the time it claims

# FFmpeg would also open play lists, whatever their suffix, and what they name, over the network too.
_ONLY = {"format_whitelist": "mov,matroska,webm,avi", "protocol_whitelist": "file"}


class VideoError(ImageError):
    """A video cannot be read or written. The message is "<path>: <what is wrong>; <what to do>"."""


def video_error(path: Path, problem: str, remedy: str) -> VideoError:
    """The error for a video: what is wrong with it, and what to do."""
    return VideoError(str(image_error(path, problem, remedy)))


def reason(error: Exception) -> str:
    """Return FFmpeg's message without numbers and names of its functions."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


@dataclass(frozen=True, eq=False)
class DecodedFrame:
    """Frame ``index`` of a video, at ``time`` in seconds; ``image`` is as decoded, in its own format and turned
    as it is stored."""

    index: int
    time: float
    image: VideoFrame

    def pixels(self) -> Integer[np.ndarray, "h w 3"]:
        """Upright RGB levels: uint8, or uint16 where the video has more than eight bits."""
        rgb = self.image.reformat(
            format=rgb_format(self.image.format), interpolation=EXACT, dst_color_range=ColorRange.JPEG, threads=1
        )
        return np.ascontiguousarray(np.rot90(rgb.to_ndarray(), quarters(self.image)))


def rgb_format(image: VideoFormat) -> str:
    """FFmpeg's RGB format that holds the levels of a video: 8 bits each, or 16 if the video has more than 8."""
    return "rgb48le" if max(component.bits for component in image.components) > 8 else "rgb24"


def quarters(image: VideoFrame) -> int:
    """Quarter turns to the left that make a stored picture upright, as its display matrix says."""
    return round(image.rotation / 90) % 4


def display_matrix(image: VideoFrame) -> list[int] | None:
    """The matrix by which players turn and mirror the pictures: nine fixed-point numbers, as FFmpeg writes it."""
    extras = cast(Iterable[SideData], image.side_data)  # PyAV's own annotation is of something else
    found = [bytes(data) for data in extras if data.type == SideDataType.DISPLAYMATRIX]
    return list(struct.unpack("=9i", found[0][:36])) if found else None


class Video:
    """A video file open for reading, as a context; its frames can be read once.

    ``num_moved`` counts time stamps that were missing or did not grow, and had to be moved to the next one
    possible; ``last_duration`` is that of the last frame, in units of ``time_base``.

    Raises:
        VideoError: missing, no video, or without a stream of pictures.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_moved = 0
        self.last_duration = 0
        if not path.is_file():
            raise video_error(path, "no such file", "check the spelling")
        try:
            self.container = av.open(f"file:{path}", options=_ONLY, metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise video_error(path, f"is not a video, or is damaged ({reason(error)})", "copy it again") from error
        streams = [s for s in self.container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams or streams[0].codec_context is None or streams[0].time_base is None:
            self.container.close()
            raise video_error(path, "has no video stream that can be decoded", "name another file")
        if not streams[0].width or not streams[0].height:
            self.container.close()
            size = f"{streams[0].width} x {streams[0].height}"
            raise video_error(path, f"states frames of {size} pixels", "copy it again, or repair it first")
        self.stream: VideoStream = streams[0]
        self.stream.thread_type = "AUTO"
        self.time_base: Fraction = streams[0].time_base

    def __enter__(self) -> "Video":
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    @property
    def num_frames(self) -> int | None:
        """The number of frames that the file claims; None without a claim."""
        return self.stream.frames or None

    def frames(self, start: int = 0) -> Iterator[DecodedFrame]:
        """All frames from number ``start``, in the order they are shown, with growing time stamps.

        Frames before ``start`` are decoded too, which is quick beside restoring them: seeking finds other frames
        in some files.

        Raises:
            VideoError: the file is broken from some frame on, cut short, or changes its size.
        """
        last: int | None = None
        index = 0
        for image in self._decode():
            if image.pts is None or (last is not None and image.pts <= last):
                image.pts = 0 if last is None else last + (self.last_duration if image.pts is None else 1)
                self.num_moved += 1
            last, self.last_duration = image.pts, image.duration or self._usual_duration()
            if (image.width, image.height) != (self.stream.width, self.stream.height):
                raise video_error(self.path, f"changes its size at frame {index}", "cut it into two there")
            if index >= start:
                yield DecodedFrame(index, float(last * self.time_base), image)
            index += 1
        if last is None:
            raise video_error(self.path, "has no frames", "name another file")
        self._check_end(index, (last + self.last_duration) * self.time_base)

    def _decode(self) -> Iterator[VideoFrame]:
        count = 0
        try:
            for packet in self.container.demux(self.stream):
                for image in packet.decode():
                    if image.is_corrupt:
                        raise self._broken(count, "a frame is corrupt")
                    yield image
                    count += 1
                if packet.is_corrupt:
                    raise self._broken(count, "a packet is corrupt or cut short")
        except (av.FFmpegError, OSError) as error:
            raise self._broken(count, reason(error)) from error

    def _check_end(self, count: int, end: Fraction) -> None:
        """A Matroska file that was cut short just ends, but says earlier when it should."""
        claimed = self._claimed_end()
        if claimed is not None and end < claimed - _SHORT:
            raise self._broken(count, f"it ends at {float(end):.2f} s instead of {claimed:.2f} s")

    def _claimed_end(self) -> float | None:
        if self.stream.duration is not None:
            return float((self.stream.duration + (self.stream.start_time or 0)) * self.time_base)
        try:  # Matroska's tag, as 00:00:04.000000000
            hours, minutes, seconds = self.stream.metadata.get("DURATION", "").split(":")
            return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
        except ValueError:
            return None

    def _broken(self, count: int, why: str) -> VideoError:
        return video_error(self.path, f"is broken after frame {count} ({why})", "copy it again, or repair it first")

    def _usual_duration(self) -> int:
        rate = self.stream.guessed_rate or Fraction(25)
        return max(1, round(1 / (rate * self.time_base)))
