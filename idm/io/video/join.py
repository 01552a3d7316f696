"""Join finished segments into a video, with the source's sound, subtitles and metadata; nothing is encoded again."""

import heapq
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
from av.container import OutputContainer
from av.packet import Packet
from av.stream import Stream

from idm.io.video.read import Video, display_matrix, reason, video_error
from idm.io.video.write import CONTAINERS, copy_colour_description, move_into_place, report_write_errors

_COPIED = ("audio", "subtitle")
_OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder", "duration")  # and not of the video


def join(source: Path, segments: Sequence[Path], target: Path, last_duration: int) -> list[str]:
    """Join encoded segments and the source's other streams into a video file, which appears only when it is complete.

    Args:
        segments: as :class:`idm.io.video.write.SegmentWriter` wrote them, in order.
        last_duration: how long the last frame is shown, in the source's time base.

    Returns:
        The streams and metadata of the source that the result lacks.

    Raises:
        VideoError: the source's sound is broken, the segments do not fit together, or it cannot be written.
    """
    with Video(source) as video:
        matrix = display_matrix(next(video.frames()).image)
    suffix = target.suffix.lower()
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with Video(source) as video, report_write_errors(target), _blamed_on(source):
            # else the muxer takes another time base, which may not hold the source's times exactly
            timescale = (
                {"video_track_timescale": str(video.time_base.denominator)} if suffix in (".mp4", ".mov") else {}
            )
            with av.open(str(temporary), "w", format=CONTAINERS[suffix], options=timescale) as out:
                lost = _fill(out, video, segments, matrix, last_duration)
            move_into_place(temporary, target)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return lost


@contextmanager
def _blamed_on(source: Path) -> Iterator[None]:
    """Attribute an error to the source, unless the disk is full: a muxer refused the source's values."""
    try:
        yield
    except (av.ArgumentError, av.InvalidDataError) as error:
        problem = f"holds what no file of this kind can ({reason(error)})"
        raise video_error(source, problem, "copy it again, or repair it first") from error


def _fill(
    out: OutputContainer, video: Video, segments: Sequence[Path], matrix: list[int] | None, last_duration: int
) -> list[str]:
    out.metadata.update(_kept(video.container.metadata))
    out.set_chapters(video.container.chapters())
    copies: dict[int, Stream] = {}
    lost = []
    for stream in video.container.streams:
        try:
            copies[stream.index] = _add(out, video, stream, segments[0], matrix)
        except ValueError as error:
            lost.append(f"stream {stream.index}: {error}")
    pictures = copies.pop(video.stream.index)
    shown = ((pictures, packet) for packet in _pictures(segments, video.time_base, last_duration))
    heard = ((copies[packet.stream_index], packet) for packet in _others(video, copies))
    for stream, packet in heapq.merge(shown, heard, key=lambda pair: _time(pair[1])):
        packet.stream = stream
        out.mux_one(packet)
    return lost


def _add(out: OutputContainer, video: Video, stream: Stream, segment: Path, matrix: list[int] | None) -> Stream:
    """The stream's place in the result.

    Raises:
        ValueError: it has none.
    """
    if stream.index == video.stream.index:
        with av.open(str(segment)) as first:
            pictures = out.add_stream_from_template(first.streams.video[0], opaque=True)
        pictures.time_base = video.time_base
        pictures.set_display_matrix(matrix)
        copy_colour_description(pictures, video.stream)
        copy: Stream = pictures
    elif stream.type in _COPIED:
        copy = out.add_stream_from_template(stream)
    else:
        raise ValueError(f"{stream.type} is not copied")
    copy.metadata.update(_kept(stream.metadata))
    copy.disposition = stream.disposition
    return copy


def _kept(metadata: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in metadata.items()
        if key.lower() not in _OF_THE_FILE and not key.startswith("_STATISTICS")
    }


def _pictures(segments: Iterable[Path], time_base: Fraction, last_duration: int) -> Iterator[Packet]:
    """All frames' packets with times in the source's time base, each as long as until the next one."""
    before: Packet | None = None
    header: bytes | None = None
    for path in segments:
        with av.open(str(path)) as part:
            stream = part.streams.video[0]
            if header is not None and header != stream.codec_context.extradata:
                raise video_error(path, "is of another encoder than the segments before", "delete their folder")
            header = stream.codec_context.extradata
            for packet in part.demux(stream):
                if packet.pts is None:  # the end of the file
                    continue
                pts = round(packet.pts * packet.time_base / time_base)
                packet.pts, packet.dts, packet.time_base = pts, pts, time_base
                if before is not None:
                    before.duration = pts - _stamp(before)
                    yield before
                before = packet
    assert before is not None, "a video has frames"
    before.duration = last_duration
    yield before


def _others(video: Video, copies: Mapping[int, Stream]) -> Iterator[Packet]:
    """Yield the packets that are copied from the source as they are stored."""
    if not copies:
        return
    try:
        for packet in video.container.demux([video.container.streams[index] for index in copies]):
            if packet.is_corrupt:
                raise video_error(video.path, "its sound is corrupt or cut short", "copy it again")
            if packet.dts is not None:
                yield packet
    except (av.FFmpegError, OSError) as error:
        raise video_error(video.path, f"its sound is broken ({reason(error)})", "copy it again") from error


def _time(packet: Packet) -> Fraction:
    return _stamp(packet) * packet.time_base


def _stamp(packet: Packet) -> int:
    assert packet.dts is not None, "packets without one are left out where they are read"
    return packet.dts
