"""Throw damaged videos at a job. The oracle: a video that PyAV decodes to its end is restored, frame by frame; all else
fails with a VideoError that names the file, and leaves no result.

PyAV's log level stays unset: with any level FFmpeg's threads call Python to log, and one that does while the main
thread closes its decoder waits for ever. Unset, PyAV is silent.

A bounded, seeded part runs in tests/unit/test_fuzz.py; `python tests/fuzz.py` runs all.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch
from fuzz_damage import UnexplainedError, count_outcomes, damaged

from idm.apps.photo.files import restore_photos
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.encoding import RESULTS, Encoding
from idm.io.images import ImageError

HEIGHT, WIDTH, FRAMES = 64, 96, 10
MAX_MEMORY = 200_000_000  # damaged headers can claim any size
ONLY = {"format_whitelist": "mov,matroska,webm,avi", "protocol_whitelist": "file"}
ENCODINGS = {  # all but that of WebM are lossless
    ".mp4": Encoding("libx264", 0),
    ".mov": Encoding("libx264", 0),
    ".mkv": Encoding("ffv1"),
    ".webm": Encoding(crf=0),
}
MOST_CHANGE = {".mp4": 3.0, ".mov": 3.0, ".mkv": 3.0, ".webm": 8.0}  # mean levels, where pixel formats are converted
# Refused although PyAV decodes it, and why that is right.
EXPLAINED = (
    "of memory, not",
    "changes its size at frame",
    "it ends at",  # earlier than its header says
    "its sound is",
    "a packet is corrupt",
    "states frames of",  # no pixels
    "holds what no",  # sound or subtitles that no file can hold
)


class Corner:
    """Finds a face in the right half of every frame."""

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        height, width = pixels.shape[:2]
        side = min(height, width / 3)
        landmarks = ffhq_landmarks(16) * side / 16 + np.array([0.62 * width, 0])
        box = np.array([0.65 * width, 0.1 * side, 0.65 * width + 0.8 * side, 0.9 * side])
        return [DetectedFace(box, landmarks, 0.9)]


class Dims:
    image_size = 16

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return 0.9 * lq


PARTS = PhotoRestorer(Dims(), Corner())
SETTINGS = PhotoSettings(change="full", grayscale="off", min_face=1.0)


def seeds(folder: Path) -> list[tuple[str, bytes]]:
    """Small videos of each container, with the codecs that it usually holds: their suffix and their bytes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(30, 220, (FRAMES, HEIGHT // 8, WIDTH // 8, 3), np.uint8)
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2)
    kinds = [
        (".mp4", "libx264", "aac"),
        (".mov", "mpeg4", "pcm_s16le"),
        (".mkv", "ffv1", None),
        (".mkv", "libx264", "libopus"),
        (".webm", "libvpx-vp9", "libopus"),
        (".avi", "mpeg4", None),
    ]
    return [(kind[0], _video(folder / f"seed{kind[0]}", pictures, *kind[1:])) for kind in kinds]


def _video(path: Path, pictures: np.ndarray, codec: str, sound: str | None) -> bytes:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.gop_size = 4
        tone = out.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone is not None:
            heard = av.AudioFrame.from_ndarray(np.zeros((1, 4800 * len(pictures)), np.int16), "s16", layout="mono")
            heard.sample_rate, heard.pts = 48000, 0
            out.mux(tone.encode(heard))
            out.mux(tone.encode(None))
    return path.read_bytes()


def decoded(path: Path) -> list[np.ndarray] | None:
    """All frames as PyAV decodes them, as RGB; None if it stops, or says that something is corrupt.

    The decoded images are held to the end, as a job holds them: FFmpeg leaves damaged parts of an FFV1 frame unwritten,
    and a buffer that is released and used again shows an earlier frame there.
    """
    images = []
    try:
        with av.open(f"file:{path}", options=ONLY, metadata_errors="replace") as container:
            stream = container.streams.video[0]
            if stream.width * stream.height > 16 * WIDTH * HEIGHT:
                return None
            stream.thread_type = "AUTO"
            for packet in container.demux(stream):
                for image in packet.decode():
                    if image.is_corrupt:
                        return None
                    images.append(image)
            frames = [image.to_ndarray(format="rgb24") for image in images]
    except Exception:  # PyAV raises errors of many kinds
        return None
    return frames or None


def outcome(files: Sequence[tuple[str, bytes]], folder: Path, rng: np.random.Generator) -> str:
    """What became of a damaged video, in a word.

    Raises:
        UnexplainedError: see the module.
    """
    suffix, data = files[rng.integers(len(files))]
    source = folder / f"clip{suffix}"
    source.write_bytes(damaged(data, rng))
    with tempfile.TemporaryDirectory(dir=folder) as out:
        encoding = ENCODINGS[RESULTS[suffix]]
        report = restore_photos(PARTS, [source], Path(out), SETTINGS, encoding=encoding, max_memory=MAX_MEMORY)
        (target,) = [Path(out, f"clip{RESULTS[suffix]}")]
        frames = decoded(source)
        if report.failed:
            return _refused(report.failed[0], source, target, frames)
        return _restored(target, frames)


def _refused(error: Exception, source: Path, target: Path, frames: list[np.ndarray] | None) -> str:
    if not isinstance(error, ImageError) or not str(error).startswith(f"{source}: "):
        raise UnexplainedError(f"is no error that names the file: {error!r}") from error
    if target.exists():
        raise UnexplainedError(f"failed, and left a result: {error}")
    if frames is None:
        return "refused, as by PyAV"
    if any(reason in str(error) for reason in EXPLAINED):
        return "refused: too large, changes its size, or ends before the time it states"
    raise UnexplainedError(f"PyAV decodes what is refused: {error}") from error


def _restored(target: Path, wanted: list[np.ndarray] | None) -> str:
    """The left third of a frame is not restored, and so must stay."""
    found = decoded(target)
    if found is None or wanted is None or len(found) != len(wanted):
        counts = [None if frames is None else len(frames) for frames in (found, wanted)]
        raise UnexplainedError(f"restored, but the result has {counts[0]} frames where PyAV decodes {counts[1]}")
    for number, (frame, before) in enumerate(zip(found, wanted, strict=True)):
        width = before.shape[1] // 3
        if frame.shape != before.shape:
            raise UnexplainedError(f"restored, but frame {number} has another size")
        change = np.abs(frame[:, :width].astype(int) - before[:, :width]).mean()
        if change > MOST_CHANGE[target.suffix]:
            raise UnexplainedError(f"restored, but frame {number} differs by {change:.1f} levels")
    return "restored"


def run(num_cases: int, seed: int) -> Counter[str]:
    """Counts by outcome; the first unexplained one is raised."""
    with tempfile.TemporaryDirectory() as folder:
        files = seeds(Path(folder))
        return count_outcomes(num_cases, seed, partial(outcome, files, Path(folder)))
