"""Videos: faces are tracked, restored with the same noise in every frame, and pasted back. A killed job resumes.

Frames are read one by one, ``reach`` of them ahead, so that memory does not grow with the video, and batches fit into
the allowed memory. Every ``SEGMENT_FRAMES`` frames form a segment, which is written completely, with the state that the
next one depends on, or not at all.
"""

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from idm import __version__
from idm.apps.photo.face import FaceHistory, FaceReport, Subject
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.faces.colour import has_one_tint
from idm.faces.detect import DetectedFace
from idm.faces.track import REACH, Tracker
from idm.faces.turns import detect_faces
from idm.io.atomic import sha256
from idm.io.encoding import Encoding
from idm.io.errors import InvalidInput
from idm.io.image_writer import write_whole
from idm.io.memory import default_budget
from idm.io.video import av
from idm.io.video.join import join
from idm.io.video.limits import encoder_options, frames_at_once
from idm.io.video.read import DecodedFrame, Video, video_error
from idm.io.video.write import SegmentWriter, find_encoder, to_image

SEGMENT_FRAMES = 100  # what a killed job may have to do again (our choice)

Pixels = Integer[np.ndarray, "_ _ 3"]


@dataclass
class TrackedPerson:
    """A tracked face: its frames, in how many it was restored or kept by the guard, and the decisions made at its first
    frame, so that nothing flickers. ``identity`` and ``reference`` are the mean cosines to the given face and to the
    reference photographs."""

    number: int
    first_frame: int
    last_frame: int
    keeps_chroma: bool
    is_chosen: bool = False
    num_restored: int = 0
    num_kept: int = 0
    identity: float | None = None
    reference: float | None = None
    past: FaceHistory = field(default_factory=FaceHistory)

    def add(self, frame: int, report: FaceReport) -> None:
        """Count a frame in which the person is seen."""
        self.last_frame = frame
        self.num_restored += report.state == "restored"
        self.num_kept += report.state == "kept"
        self.identity, self.reference = report.identity, report.reference

    def summary(self) -> dict[str, Any]:
        """The entry of the status file."""
        summary = asdict(self)
        del summary["past"], summary["keeps_chroma"], summary["is_chosen"]
        return summary


@dataclass
class State:
    """The state that the next frame depends on, after ``num_frames`` frames; ``is_ended`` if the video has no more."""

    tracker: Tracker
    people: dict[int, TrackedPerson] = field(default_factory=dict)
    num_frames: int = 0
    is_ended: bool = False
    last_duration: int = 0
    num_moved: int = 0

    def to_json(self) -> str:
        """The state as JSON, which keeps floats exactly."""
        people = [asdict(person) for person in self.people.values()]
        return json.dumps(vars(self) | {"tracker": self.tracker.state(), "people": people})

    @classmethod
    def from_json(cls, text: str) -> "State":
        """The state that :meth:`to_json` wrote."""
        state = json.loads(text)
        people = [TrackedPerson(**{**person, "past": FaceHistory(**person["past"])}) for person in state["people"]]
        tracker = Tracker.from_state(state["tracker"])
        return cls(**{**state, "tracker": tracker, "people": {person.number: person for person in people}})


# ------------------------------------------------------------------------------------------- the video


def restore_video(
    restorer: PhotoRestorer,
    source: Path,
    target: Path,
    settings: PhotoSettings,
    encoding: Encoding,
    *,
    metadata: Mapping[str, Any],
    max_memory: int | None = None,
    segment_frames: int = SEGMENT_FRAMES,
    on_frames: Callable[[int, int | None], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Restore the faces of a video into ``target``, frame by frame, and return its entry for the status file.

    Frames keep their times; audio and subtitle streams keep their packets. Every frame of a face is drawn with the same
    noise, ``settings.seed`` for all faces: the noise then stays the same even if a face is lost and found again.
    Numbers of ``settings.faces`` are those of the result's ``people``, numbered in order of appearance; "largest" stays
    with the largest face for as long as it is there.

    Args:
        metadata: other facts that the result depends on, such as the model: segments of an earlier run are used only if
            they are all equal.
        max_memory: of the video's frames, in bytes; by default :func:`idm.io.memory.default_budget`.
        on_frames: called with the number of finished frames, and of all frames if it is known.

    Raises:
        VideoError: the frames need more memory than ``max_memory``; nothing was done. Or the video cannot be read, is
            broken somewhere, or one of its faces failed: finished segments stay beside the target, and the next call
            resumes from there.
        ValueError: a setting that is for photographs only.
    """
    if settings.uncertainty:
        raise InvalidInput(f"{source}: uncertainty maps are for photographs")
    codec = find_encoder(encoding, target.suffix)
    with Video(source) as video:
        options = encoding.options() | encoder_options(video, codec, settings.upscale)
        batch_size = frames_at_once(
            video,
            codec,
            wanted=settings.batch_size,
            reach=REACH,
            scale=settings.upscale,
            max_bytes=default_budget() if max_memory is None else max_memory,
        )
        job = {
            "metadata": metadata,
            "settings": asdict(settings),
            "encoder": [codec, options],
            "segment": segment_frames,
        }
        segments = Segments(target.with_name(f".{target.name}.segments"), job | _circumstances(source))
        state = segments.state
        resumed = state.num_frames
        work = _Work(restorer, settings, state)
        frames = work.follow(video.frames(start=state.num_frames))
        while not state.is_ended:
            end = state.num_frames + segment_frames
            with SegmentWriter(segments.next_path(), video, codec, options) as out:
                while batch := list(islice(frames, min(batch_size, end - state.num_frames))):
                    for frame, pixels, restored in work.restore(batch, source):
                        out.add(to_image(frame, pixels, restored, codec))
                    on_frames(state.num_frames, video.num_frames)
            state.is_ended = state.num_frames < end
            state.last_duration, state.num_moved = video.last_duration, video.num_moved
            if state.num_frames > end - segment_frames:
                segments.finish()
    lost = join(source, segments.paths, target, state.last_duration)
    segments.remove()
    return _summary(state, lost, resumed)


def _circumstances(source: Path) -> dict[str, Any]:
    return {
        "source": sha256(source),
        "reach": REACH,
        "versions": {"idm": __version__, "av": av.__version__},
    }


def _summary(state: State, lost: list[str], resumed: int) -> dict[str, Any]:
    summary: dict[str, Any] = {"frames": state.num_frames, "people": [p.summary() for p in state.people.values()]}
    summary |= {"resumed_at_frame": resumed} if resumed else {}
    summary |= {"not_kept": lost} if lost else {}
    return summary | ({"moved_time_stamps": state.num_moved} if state.num_moved else {})


@dataclass
class _Work:
    """One pass over the frames, and its ``state``."""

    restorer: PhotoRestorer
    settings: PhotoSettings
    state: State

    def follow(self, frames: Iterator[DecodedFrame]) -> Iterator[tuple[DecodedFrame, Pixels, dict[int, DetectedFace]]]:
        """Each frame with its pixels and smoothed faces, when ``reach`` more have been seen. Those wait as they were
        decoded, which takes half of the memory or less."""
        tracker = self.state.tracker
        ahead: deque[DecodedFrame] = deque()
        for frame in frames:
            if frame.index >= tracker.num_seen:  # else it was seen by the run that was killed
                self._see(frame)
            ahead.append(frame)
            if len(ahead) > tracker.reach:
                yield self._followed(ahead.popleft())
        while ahead:
            yield self._followed(ahead.popleft())

    def _see(self, frame: DecodedFrame) -> None:
        pixels = frame.pixels()
        self.state.tracker.add_frame(frame.time, pixels, self._detect(pixels))

    def _followed(self, frame: DecodedFrame) -> tuple[DecodedFrame, Pixels, dict[int, DetectedFace]]:
        return frame, frame.pixels(), self.state.tracker.faces_at(frame.index, frame.time)

    def _detect(self, pixels: Pixels) -> list[DetectedFace]:
        """Detect faces in one turn only: differences from frame to frame would flicker."""
        return detect_faces(self.restorer.detector, pixels, 0 if self.settings.turn == "auto" else self.settings.turn)

    def restore(
        self, batch: list[tuple[DecodedFrame, Pixels, dict[int, DetectedFace]]], source: Path
    ) -> list[tuple[DecodedFrame, Pixels, Pixels]]:
        """Frames with their pixels before and after.

        Raises:
            VideoError: a face failed.
        """
        subjects = [self._subjects(frame.index, pixels, faces) for frame, pixels, faces in batch]
        restored = self.restorer.restore_frames([pixels for _, pixels, _ in batch], subjects, self.settings)
        for (frame, _, _), (_, reports) in zip(batch, restored, strict=True):
            for report in reports:
                if report.state == "failed":
                    problem = f"face {report.number} of frame {frame.index} {report.note}"
                    raise video_error(source, problem, "leave it out with --faces")
                self.state.people[report.number].add(frame.index, report)
        self.state.num_frames += len(batch)
        return [(frame, pixels, after) for (frame, pixels, _), (after, _) in zip(batch, restored, strict=True)]

    def _subjects(self, index: int, pixels: Pixels, faces: dict[int, DetectedFace]) -> list[Subject]:
        people = self.state.people
        for number in faces:
            if number not in people:
                people[number] = TrackedPerson(number, index, index, self._keeps_chroma(pixels))
        chosen = [people[number] for number in self._choose(faces)]
        for person in chosen:
            person.is_chosen = True
        return [Subject(p.number, faces[p.number], p.keeps_chroma, p.past) for p in chosen]

    def _keeps_chroma(self, pixels: Pixels) -> bool:
        how = self.settings.grayscale
        return how == "keep" or (how == "auto" and has_one_tint(pixels))

    def _choose(self, faces: dict[int, DetectedFace]) -> list[int]:
        """A face that was chosen once stays chosen, so that a size near the minimum does not make it flicker."""
        before = [number for number in faces if self.state.people[number].is_chosen]
        large = [number for number, face in faces.items() if face.size >= self.settings.min_face]
        match self.settings.faces:
            case "all":
                return [number for number in faces if number in before or number in large]
            case "largest":
                return before or sorted(large, key=lambda number: -faces[number].size)[:1]
            case numbers:
                return [number for number in faces if number in numbers]


# ------------------------------------------------------------------------------------------- what survives a kill


class Segments:
    """A folder of finished segments, each with the state after it.

    A folder that another job left is emptied. If a segment or its state is damaged, it and all later ones are made
    again.

    Raises:
        VideoError: it cannot be written.
    """

    def __init__(self, folder: Path, job: Mapping[str, Any]) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self.state = State(Tracker())
        description = json.dumps(job, sort_keys=True).encode()
        owner = folder / "job.json"
        if folder.exists() and not owner.is_file() and any(folder.iterdir()):
            raise video_error(folder, "is not a folder of segments", "move it away: they would go here")
        if not owner.is_file() or owner.read_bytes() != description:
            self.remove()
            folder.mkdir(parents=True)
            write_whole(owner, description)
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink()
        while state := _state_after(self.next_path()):
            self.state = state
            self.paths.append(self.next_path())

    def next_path(self) -> Path:
        """The path of the next segment."""
        return self.folder / f"{len(self.paths):06d}.nut"

    def finish(self) -> None:
        """Mark the segment at :meth:`next_path` as finished, by writing a digest and the state after it beside it."""
        path, text = self.next_path(), self.state.to_json()
        write_whole(path.with_suffix(".json"), f"{_digest(path, text)}\n{text}".encode())
        self.paths.append(path)

    def remove(self) -> None:
        """Delete the folder."""
        if self.folder.exists():
            shutil.rmtree(self.folder)


def _state_after(segment: Path) -> State | None:
    """The state after a segment; None if either is missing or damaged."""
    try:
        digest, text = segment.with_suffix(".json").read_text().split("\n", 1)
        return State.from_json(text) if digest == _digest(segment, text) else None
    except (OSError, ValueError):
        return None


def _digest(segment: Path, state: str) -> str:
    return hashlib.sha256(f"{sha256(segment)} {state}".encode()).hexdigest()
