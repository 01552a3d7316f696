"""Measure the peak memory of restoring videos of 100 and of 400 frames: ``python experiments/video_memory.py``.

The restorer returns its input and the detector always returns the same face, so only reading, buffering, pasting and
writing of the 640 x 360 frames are measured. Each video is restored in its own process.
"""

import json
import multiprocessing
import resource
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.video import restore_video
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.encoding import Encoding
from idm.io.machine import provenance

RESULT = Path(__file__).parent / "results" / "video_memory.json"
HEIGHT, WIDTH = 360, 640


class Unchanged:
    """A restorer that returns its input."""

    image_size = 128

    def restore(self, lq, seeds):  # type: ignore[no-untyped-def]
        return lq


class Middle:
    """A detector that always returns the same face, in the middle of the frame."""

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return [DetectedFace(np.array([270.0, 130, 370, 230]), ffhq_landmarks(160) + np.array([240, 100]), 0.9)]


def write_video(path: Path, num_frames: int) -> None:
    scene = np.random.default_rng(0).integers(0, 256, (HEIGHT // 8, WIDTH // 8 + num_frames, 3), np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=WIDTH, height=HEIGHT, time_base=Fraction(1, 25))
        for number in range(num_frames):
            pixels = scene[:, number : number + WIDTH // 8].repeat(8, axis=0).repeat(8, axis=1)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def peak(source: Path) -> float:
    """Restore a video and return the peak memory of this process in MiB."""
    parts = PhotoRestorer(Unchanged(), Middle())
    restore_video(parts, source, source.with_name("out.mp4"), PhotoSettings(), Encoding(), metadata={})
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    peaks = {}
    for num_frames in (100, 400):
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(1) as pool:
            source = Path(folder) / "video.mp4"
            write_video(source, num_frames)
            peaks[str(num_frames)] = round(pool.apply(peak, [source]), 1)
    RESULT.write_text(json.dumps({"peak_mib_by_frames": peaks, **provenance()}, indent=2) + "\n")
    print(peaks)


if __name__ == "__main__":
    main()
