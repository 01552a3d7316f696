"""Clips in, videos out: with stub detectors and restorers whose answers are known."""

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idm.apps.photo import files
from idm.apps.photo.face import FaceHistory
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.faces.track import REACH
from idm.io.encoding import Encoding
from idm.io.images import ImageError

av = pytest.importorskip("av", reason="videos need PyAV: pip install av")
from idm.apps.photo import video as video_module  # noqa: E402
from idm.io.video.read import DecodedFrame, Video, VideoError  # noqa: E402
from idm.io.video.write import encoded_format  # noqa: E402

SIZE = 16
HEIGHT, WIDTH = 64, 96
UNEVEN = [0, 1001, 2002, 3003, 5000, 5500, 9000, 9100, 12000, 12512, 13000, 14000, 15500, 16000, 17000, 18001]
LOSSLESS = Encoding("ffv1")
SETTINGS = PhotoSettings(grayscale="off", change="full", batch_size=3)


# ------------------------------------------------------------------------------------------- videos and stubs


def picture(index: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Coloured texture with a white spot, around which the stub detector finds a face."""
    rng = np.random.default_rng(5)
    image = rng.integers(40, 120, (height // 8, width // 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    x = 26 + 2 * index
    image[26:32, x : x + 6] = 255
    return image


class Spot:
    """Finds a face of known size around the white spot; ``lost`` are the calls in which it finds nothing."""

    def __init__(self, side: float = 40, lost: Sequence[int] = ()) -> None:
        self.side, self.lost, self.calls = side, lost, 0

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        self.calls += 1
        rows, columns = np.nonzero((pixels > 0.6 * np.iinfo(pixels.dtype).max).all(axis=2))
        if self.calls - 1 in self.lost or not len(rows):
            return []
        centre = np.array([columns.mean(), rows.mean()])
        landmarks = (ffhq_landmarks(SIZE) - (SIZE / 2 - 0.5)) * self.side / SIZE + centre
        return [DetectedFace(np.concatenate([centre - self.side / 3, centre + self.side / 3]), landmarks, 0.9)]


class Changes:
    """A restorer that adds to each channel, and ``noise`` of the seed; dies at call number ``dies_at``."""

    image_size = SIZE

    def __init__(self, change: Sequence[float] = (0, 0, 0), noise: float = 0, dies_at: int | None = None) -> None:
        self.change, self.noise, self.dies_at = torch.tensor(change)[:, None, None], noise, dies_at
        self.calls: list[list[int]] = []

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        if len(self.calls) == self.dies_at:
            raise RuntimeError("killed")
        self.calls.append(list(seeds))
        noise = [torch.rand(lq.shape[1:], generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (lq + self.change + self.noise * torch.stack(noise)).clamp(0, 1)


def make_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    stamps: Sequence[int] | None = None,
    *,
    codec: str = "ffv1",
    sound: str | None = None,
    time_base: Fraction = Fraction(1, 30000),
    rotation: int = 0,
    pixel_format: str = "yuv420p",
    full_range: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=30, options=options or {}, time_base=time_base)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.colorspace = stream.codec_context.color_primaries = stream.codec_context.color_trc = 1
        stream.codec_context.color_range = 2 if full_range else 1
        if rotation:
            stream.set_display_rotation(rotation)
        tone = out.add_stream(sound, rate=48000, layout="mono") if sound else None
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace=1, dst_color_range=2 if full_range else 1)
            frame.pts, frame.time_base = stamps[number] if stamps else number * 1000, time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if tone is not None:
            wave = np.sin(np.arange(round(48000 * len(pictures) / 30)) / 20) * 8000
            heard = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], "s16", layout="mono")
            heard.sample_rate, heard.pts = 48000, 0
            out.mux(tone.encode(heard))
            out.mux(tone.encode(None))
    return path


def stored(path: Path) -> list[list[np.ndarray]]:
    """The values of every frame as they are stored, a plane each."""

    def values(plane: Any, kind: type) -> np.ndarray:
        rows = np.frombuffer(plane, kind).reshape(plane.buffer_size // plane.line_size, -1)
        return rows[: plane.height, : plane.width].copy()

    with Video(path) as video:
        kind = np.uint16 if video.stream.pix_fmt.endswith("10le") else np.uint8
        return [[values(plane, kind) for plane in frame.image.planes] for frame in video.frames()]


def properties(path: Path) -> dict[str, Any]:
    """Everything of a video but its pictures."""
    with Video(path) as video:
        frames = list(video.frames())
        context = video.stream.codec_context
        properties = {
            "times": [frame.image.pts * video.time_base for frame in frames],
            "rotation": frames[0].image.rotation,
            "range": context.color_range,
            "colours": (context.colorspace, context.color_primaries, context.color_trc),
        }
    with av.open(str(path)) as container:
        sounds = container.streams.audio
        packets = [packet for packet in container.demux(sounds) if packet.size] if sounds else []
        properties["sound"] = [(bytes(packet), packet.pts * packet.time_base) for packet in packets]
    return properties


def run(
    source: Path, target: Path, restorer: Any, detector: Any = None, settings: PhotoSettings = SETTINGS, **options: Any
) -> dict[str, Any]:
    options = {"encoding": LOSSLESS, "metadata": {"model": "stub"}, "segment_frames": 6} | options
    encoding = options.pop("encoding")
    return video_module.restore_video(
        PhotoRestorer(restorer, detector or Spot()), source, target, settings, encoding, **options
    )


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return make_video(tmp_path / "video.mkv", [picture(i) for i in range(20)])


# ------------------------------------------------------------------------------------------- what is kept

KINDS = {
    "mp4": ("video.mp4", "libx264", "aac", Encoding("libx264", 0), {}),
    "mov": ("video.mov", "mpeg4", "pcm_s16le", Encoding("libx264", 0), {}),
    "mkv": ("video.mkv", "libx264", "libopus", Encoding("ffv1"), {}),
    "webm": ("video.webm", "libvpx-vp9", "libopus", Encoding(crf=4), {}),
    "hevc": ("video.mp4", "libx265", "aac", Encoding("libx265", 4), {"x265-params": "log-level=error"}),
    "av1": ("video.mp4", "libx264", "aac", Encoding("libsvtav1", 4), {}),
    "avi": ("video.avi", "mpeg4", "mp3", Encoding("ffv1"), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_restorer_that_changes_nothing_gives_back_the_video_with_its_times_sound_colours_and_turn(
    kind: str, tmp_path: Path
) -> None:
    name, codec, sound, encoding, options = KINDS[kind]
    is_avi = kind == "avi"
    source = make_video(
        tmp_path / name,
        [picture(i) for i in range(16)],
        list(range(16)) if is_avi else UNEVEN,
        codec=codec,
        sound=sound,
        time_base=Fraction(1, 25) if is_avi else Fraction(1, 30000),
        rotation=0 if is_avi else -90,
        full_range=kind == "mp4",
        options=options,
    )
    target = tmp_path / "out" / f"video{'.mkv' if is_avi else source.suffix}"
    target.parent.mkdir()
    report = run(source, target, Changes(), encoding=encoding)
    assert (report["frames"], report["people"][0]["num_restored"]) == (16, 16)
    assert "not_kept" not in report
    before, after = properties(source), properties(target)
    if kind == "mov":  # MPEG-4 part 2 says no range; H.264 says what that means
        assert (before.pop("range"), after.pop("range")) == (0, 1)
    if is_avi:
        for key in ("range", "colours"):  # AVI says neither
            del before[key], after[key]
        assert [data for data, _ in before.pop("sound")] == [data for data, _ in after.pop("sound")]
        assert after.pop("times") == [Fraction(round(1000 * time), 1000) for time in before.pop("times")]
    assert before == after
    assert kind in ("webm", "av1") or len(after.get("sound", [0])) > 0
    for old, new in zip(stored(source), stored(target), strict=True):
        assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(old, new, strict=True)) < 1.5
    assert [path.name for path in target.parent.iterdir()] == [target.name]  # nothing is left behind


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="SVT-AV1 does it for root, on Linux")
def test_an_av1_encoder_of_root_does_not_become_real_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scheduling() -> set[int]:
        return {os.sched_getscheduler(int(task.name)) for task in Path("/proc/self/task").iterdir()}

    before, seen = scheduling(), []
    add = video_module.SegmentWriter.add
    monkeypatch.setattr(
        video_module.SegmentWriter, "add", lambda self, image: (add(self, image), seen.append(scheduling()))
    )
    source = make_video(tmp_path / "video.mp4", [picture(i) for i in range(3)])
    run(source, tmp_path / "out.mp4", Changes(), encoding=Encoding("libsvtav1", 4))
    assert seen == [before] * 3


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_stored_values_outside_a_changed_face_stay_bit_for_bit_and_the_face_changes(
    pixel_format: str, tmp_path: Path
) -> None:
    source = make_video(tmp_path / "video.mkv", [picture(i) for i in range(8)], pixel_format=pixel_format)
    run(source, tmp_path / "out.mkv", Changes((0.2, 0.1, 0)), settings=replace(SETTINGS, color_fix="none"))
    with Video(tmp_path / "out.mkv") as video:
        assert video.stream.pix_fmt == pixel_format
    for old, new in zip(stored(source), stored(tmp_path / "out.mkv"), strict=True):
        for a, b in zip(old, new, strict=True):
            rows = slice(None, None), slice(-a.shape[1] // 16, None)  # the right border: no face comes there
            np.testing.assert_array_equal(a[rows], b[rows])
            np.testing.assert_array_equal(a[-a.shape[0] // 8 :], b[-a.shape[0] // 8 :])
        assert np.abs(old[0].astype(int) - new[0]).max() > 10


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_pixels_are_upright_and_the_result_is_turned_as_the_source(turns: int, tmp_path: Path) -> None:
    upright = [picture(i) for i in range(6)]
    sideways = [np.rot90(pixels, -turns) for pixels in upright]
    source = make_video(tmp_path / "video.mov", sideways, rotation=90 * turns, codec="libx264", options={"crf": "0"})
    with Video(source) as video:
        for frame, expected in zip(video.frames(), upright, strict=True):
            assert np.abs(frame.pixels().astype(int) - expected).mean() < 4  # subsampled colour
    detector = Spot()
    report = run(source, tmp_path / "out.mov", Changes((0.3, 0, 0)), detector, encoding=Encoding("libx264", 0))
    assert report["people"][0]["num_restored"] == 6
    with Video(tmp_path / "out.mov") as video:
        first = next(video.frames())
        assert first.image.rotation % 360 == 90 * turns
        assert np.abs(first.pixels().astype(int) - upright[0]).mean() < 12


def test_values_of_colours_survive_in_full_and_limited_range(tmp_path: Path) -> None:
    flat = [np.full((HEIGHT, WIDTH, 3), (200, 100, 50), np.uint8)] * 3
    for full_range in (False, True):
        source = make_video(tmp_path / f"{full_range}.mkv", flat, full_range=full_range)
        with Video(source) as video:
            for frame in video.frames():
                assert np.abs(frame.pixels().astype(int) - flat[0]).max() <= 1


def test_a_video_grows_by_the_given_factor_at_odd_sizes_too(tmp_path: Path) -> None:
    source = make_video(tmp_path / "video.mkv", [picture(i) for i in range(3)])
    for upscale, encoding in ((1.5, Encoding()), (1.01, Encoding()), (1.01, Encoding("ffv1"))):
        target = tmp_path / "out.mkv"
        run(source, target, Changes(), settings=replace(SETTINGS, upscale=upscale), encoding=encoding)
        with Video(target) as video:
            expected = (round(WIDTH * upscale), round(HEIGHT * upscale))
            assert (video.stream.width, video.stream.height) == expected


def test_sixteen_bits_are_read_where_there_are_more_than_eight(tmp_path: Path) -> None:
    source = make_video(tmp_path / "video.mkv", [picture(0)], pixel_format="yuv420p10le")
    with Video(source) as video:
        pixels = next(video.frames()).pixels()
    assert pixels.dtype == np.uint16
    assert np.abs(pixels / 257 - picture(0)).mean() < 4


def test_the_encoder_gets_the_format_nearest_to_the_sources() -> None:
    def choose(name: str, codec: str, size: tuple[int, int] = (64, 48)) -> str:
        return encoded_format(av.VideoFormat(name, *size), codec, size)

    assert choose("yuvj420p", "libx264") == "yuvj420p"
    assert choose("yuvj420p", "ffv1") == "yuv420p"
    assert choose("yuv420p10le", "libx264") == "yuv420p10le"
    assert choose("yuv422p12le", "libsvtav1") == "yuv420p10le"
    assert choose("rgb24", "libx264") == "yuv444p"
    assert choose("nv12", "ffv1") == "yuv420p"
    assert choose("yuv420p", "libx264", (63, 48)) == "yuv444p"
    assert choose("yuv420p", "libvpx-vp9", (63, 48)) == "yuv420p"


# ------------------------------------------------------------------------------------------- what does not flicker


def test_every_frame_of_every_face_is_drawn_with_the_same_noise(video: Path, tmp_path: Path) -> None:
    restorer = Changes()
    run(video, tmp_path / "out.mkv", restorer, settings=replace(SETTINGS, seed=7, samples=2, pick="median"))
    seeds = [seed for call in restorer.calls for seed in call]
    assert seeds == [7, 8] * 20


def test_crops_of_several_frames_are_restored_at_once(video: Path, tmp_path: Path) -> None:
    restorer = Changes()
    run(video, tmp_path / "out.mkv", restorer, settings=replace(SETTINGS, batch_size=4))
    assert [len(call) for call in restorer.calls] == [4, 2, 4, 2, 4, 2, 2]  # segments of six


def test_a_face_missed_in_some_frames_is_restored_in_them(video: Path, tmp_path: Path) -> None:
    report = run(video, tmp_path / "out.mkv", Changes(), Spot(lost=[5, 6, 7, 12]))
    (person,) = report["people"]
    assert (person["first_frame"], person["last_frame"], person["num_restored"]) == (0, 19, 20)


def test_a_size_near_the_least_does_not_make_a_face_come_and_go(video: Path, tmp_path: Path) -> None:
    class Breathes(Spot):
        def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
            self.side = 36 if self.calls % 12 < 6 else 40
            return super().detect(pixels)

    report = run(video, tmp_path / "out.mkv", Changes(), Breathes(), replace(SETTINGS, min_face=26.0))
    assert report["people"][0]["num_restored"] in range(13, 17)  # from the seventh frame or so on, always


def test_the_guard_uses_the_mean_over_the_frames_so_far() -> None:
    past = FaceHistory()
    np.testing.assert_allclose(past.add(np.array([[0.2, 0.6]])), [[0.2, 0.6]])
    np.testing.assert_allclose(past.add(np.array([[0.8, 0.4]])), [[0.5, 0.5]])
    np.testing.assert_allclose(past.add(np.array([[0.8, 0.2]])), [[0.6, 0.4]])


def test_a_grey_video_stays_grey(tmp_path: Path) -> None:
    grey = [np.repeat(picture(i)[..., :1], 3, axis=2) for i in range(4)]
    source = make_video(tmp_path / "video.mkv", grey)
    settings = PhotoSettings(color_fix="none", change="full")
    run(source, tmp_path / "out.mkv", Changes((0.3, 0, 0)), settings=settings)
    values = stored(tmp_path / "out.mkv")
    assert all(
        np.abs(plane.astype(int) - 128).max() <= 1 for planes in values for plane in (p[:, :48] for p in planes[1:])
    )
    run(source, tmp_path / "off.mkv", Changes((0.3, 0, 0)), settings=replace(settings, grayscale="off"))
    assert any(
        np.abs(plane[:, :48].astype(int) - 128).max() > 8
        for planes in stored(tmp_path / "off.mkv")
        for plane in planes[1:]
    )


def test_only_the_numbered_or_the_largest_face_is_restored(tmp_path: Path) -> None:
    class Two(Spot):
        """A second face appears in frame 3 and is larger from the start."""

        def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
            (one,) = super().detect(pixels)
            shift = np.array([30.0, 20.0])
            larger = DetectedFace(np.array([60.0, 30, 95, 63]), one.landmarks + shift, 0.95)
            return [larger, one] if self.calls > 3 else [one]

    source = make_video(tmp_path / "video.mkv", [picture(0)] * 9)
    for faces, expected in (("largest", [9, 0]), ((1,), [0, 6]), ("all", [9, 6])):
        report = run(source, tmp_path / "out.mkv", Changes(), Two(), replace(SETTINGS, faces=faces))
        assert [person["num_restored"] for person in report["people"]] == expected


# ------------------------------------------------------------------------------------------- what survives a kill


@pytest.mark.parametrize("dies_at", [0, 1, 3, 6])
def test_a_killed_run_resumes_and_gives_the_same_video_as_an_uninterrupted_run(
    video: Path, tmp_path: Path, dies_at: int
) -> None:
    whole, broken, again = (Changes(noise=0.2), Changes(noise=0.2, dies_at=dies_at), Changes(noise=0.2))
    detectors = [Jitters(), Jitters(), Jitters()]
    run(video, tmp_path / "whole.mkv", whole, detectors[0])
    with pytest.raises(RuntimeError, match="killed"):
        run(video, tmp_path / "out.mkv", broken, detectors[1])
    assert not (tmp_path / "out.mkv").exists()
    report = run(video, tmp_path / "out.mkv", again, detectors[2])
    assert report.get("resumed_at_frame", 0) == 6 * (dies_at // 2)  # two batches make a segment
    assert again.calls == whole.calls[2 * (dies_at // 2) :]
    assert detectors[2].calls == max(0, 20 - (6 * (dies_at // 2) + REACH if dies_at > 1 else 0))
    for a, b in zip(stored(tmp_path / "whole.mkv"), stored(tmp_path / "out.mkv"), strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
    assert (tmp_path / "whole.mkv").read_bytes()[-2000:] == (tmp_path / "out.mkv").read_bytes()[-2000:]


class Jitters(Spot):
    """Its landmarks are moved by what depends on the pixels, and it misses some faces."""

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        faces = super().detect(pixels)
        key = int(pixels.astype(np.int64).sum() + np.nonzero(pixels > 150)[1].sum())
        noise = np.random.default_rng(key).normal(0, 1, (5, 2))
        return [replace(face, landmarks=face.landmarks + noise) for face in faces] if key % 5 else []


def test_the_length_of_segments_does_not_change_the_frames(video: Path, tmp_path: Path) -> None:
    run(video, tmp_path / "a.mkv", Changes(noise=0.2), Jitters(), segment_frames=5)
    run(video, tmp_path / "b.mkv", Changes(noise=0.2), Jitters(), segment_frames=20)
    run(video, tmp_path / "c.mkv", Changes(noise=0.2), Jitters(), segment_frames=100)
    assert all(
        (x == y).all() and (x == z).all()
        for a, b, c in zip(*(stored(tmp_path / f"{n}.mkv") for n in "abc"), strict=True)
        for x, y, z in zip(a, b, c, strict=True)
    )


def test_segments_of_other_settings_do_not_count(video: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(video, tmp_path / "out.mkv", Changes(dies_at=4))
    assert list((tmp_path / ".out.mkv.segments").glob("*.nut"))
    report = run(video, tmp_path / "out.mkv", Changes(), settings=replace(SETTINGS, seed=1))
    assert "resumed_at_frame" not in report
    with pytest.raises(RuntimeError):
        run(video, tmp_path / "out.mkv", Changes(dies_at=4))
    assert "resumed_at_frame" not in run(video, tmp_path / "out.mkv", Changes(), metadata={"model": "another"})


def test_segments_of_other_frames_do_not_count_even_if_size_and_time_of_the_file_are_the_same(tmp_path: Path) -> None:
    kind = {"codec": "rawvideo", "pixel_format": "rgb24"}
    source = make_video(tmp_path / "video.avi", [picture(i) for i in range(12)], **kind)
    before = source.stat()
    with pytest.raises(RuntimeError, match="killed"):
        run(source, tmp_path / "out.mkv", Changes(dies_at=2))
    make_video(source, [picture(i)[::-1] for i in range(12)], **kind)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert source.stat().st_size == before.st_size
    assert "resumed_at_frame" not in run(source, tmp_path / "out.mkv", Changes())


def test_the_number_of_waiting_frames_does_not_grow_with_the_video(tmp_path: Path) -> None:
    source = make_video(tmp_path / "video.mkv", [picture(i) for i in range(60)])
    waiting = []

    class Counts(Changes):
        def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
            waiting.append(sum(isinstance(thing, DecodedFrame) for thing in gc.get_objects()))
            return super().restore(lq, seeds)

    run(source, tmp_path / "out.mkv", Counts(), segment_frames=30)
    assert max(waiting) <= REACH + 2 * SETTINGS.batch_size + 2


# ------------------------------------------------------------------------------------------- what cannot be restored


def test_a_file_that_is_not_a_video_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mkv").touch()
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        tone = out.add_stream("aac", rate=48000, layout="mono")
        heard = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.int16), "s16", layout="mono")
        heard.sample_rate = 48000
        out.mux(tone.encode(heard))
        out.mux(tone.encode(None))
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{make_video(tmp_path / 'video.mkv', [picture(0)])}\n")
    for name, message in (
        ("text.mp4", "is not a video, or is damaged"),
        ("list.mp4", "is not a video, or is damaged"),
        ("empty.mkv", "is not a video, or is damaged"),
        ("sound.mp4", "has no video stream"),
        ("missing.webm", "no such file"),
    ):
        with pytest.raises(VideoError, match=message) as caught:
            run(tmp_path / name, tmp_path / "out.mkv", Changes())
        assert str(caught.value).startswith(str(tmp_path / name))
        assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [("a.mp4", "libx264", {}), ("a.mkv", "libx264", {}), ("a.webm", "libvpx-vp9", {}), ("a.avi", "mpeg4", {})],
)
def test_a_truncated_video_fails_and_keeps_its_finished_segments(name, codec, options, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8) for _ in range(30)]
    source = tmp_path / name
    fast = {"movflags": "faststart"} if name == "a.mp4" else {}
    with av.open(str(source), "w", options=fast) as out:
        stream = out.add_stream(codec, rate=10, options=options, width=WIDTH, height=HEIGHT)
        stream.gop_size = 5
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    source.write_bytes(source.read_bytes()[: round(0.7 * source.stat().st_size)])
    with pytest.raises(VideoError, match=r"broken after frame \d+ \("):
        run(source, tmp_path / "out.mkv", Changes())
    assert not (tmp_path / "out.mkv").exists()
    assert len(list((tmp_path / ".out.mkv.segments").glob("*.json"))) >= 2  # the job's and one segment's at least


def test_a_tag_that_is_not_utf_8_costs_no_frame(video: Path, tmp_path: Path) -> None:
    data = video.read_bytes()
    assert b"Lavf" in data
    video.write_bytes(data.replace(b"Lavf", b"Lav\xe9"))
    assert run(video, tmp_path / "out.mkv", Changes())["frames"] == len(stored(tmp_path / "out.mkv")) == 20


def test_what_a_muxer_does_not_take_is_the_fault_of_the_source_and_a_full_disk_is_not(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from idm.io.video import join

    for error, message in (
        (av.ArgumentError(22, "Invalid argument"), r"video\.mkv: holds what no file of this kind can \(Invalid arg"),
        (OSError(28, "No space left on device"), r"out\.mkv: cannot be written \(No space left on device\)"),
    ):

        def fail(*arguments: object, error: Exception = error) -> list[str]:
            raise error

        monkeypatch.setattr(join, "_fill", fail)
        with pytest.raises(VideoError, match=message):
            run(video, tmp_path / "out.mkv", Changes())
        assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-9], lambda data: data[:-9] + b"x" + data[-8:], lambda data: b""]
)
@pytest.mark.parametrize("name", ["000000.nut", "000001.nut", "000001.json", "job.json"])
def test_segments_and_states_that_are_not_as_they_were_written_are_made_again(
    video: Path, tmp_path: Path, name: str, damage: Any
) -> None:
    run(video, tmp_path / "whole.mkv", Changes([0.1, 0, 0]))
    with pytest.raises(RuntimeError, match="killed"):
        run(video, tmp_path / "out.mkv", Changes([0.1, 0, 0], dies_at=5))
    path = tmp_path / ".out.mkv.segments" / name
    path.write_bytes(damage(path.read_bytes()))
    done = run(video, tmp_path / "out.mkv", Changes([0.1, 0, 0]))
    assert done.get("resumed_at_frame", 0) == {"000001.nut": 6, "000001.json": 6}.get(name, 0)
    for a, b in zip(stored(tmp_path / "out.mkv"), stored(tmp_path / "whole.mkv"), strict=True):
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_face_that_the_restorer_spoils_fails_the_video(video: Path, tmp_path: Path) -> None:
    class Spoils(Changes):
        def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
            super().restore(lq, seeds)
            return lq * (float("nan") if len(self.calls) == 4 else 1)

    with pytest.raises(VideoError, match=r"face 0 of frame 9 the restorer gave values nan"):
        run(video, tmp_path / "out.mkv", Spoils())


def test_a_job_restores_photographs_and_videos_and_counts_the_broken_one(video: Path, tmp_path: Path) -> None:
    from idm.io.image_writer import write_image

    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    video.rename(folder / "sub" / "good.MKV")
    (folder / "bad.mp4").write_text("no video")
    write_image(folder / "photo.png", picture(0))
    parts = PhotoRestorer(Changes(), Spot())
    frames: list[int] = []
    progress = files.ProgressCallbacks(on_frames=lambda path, done, of: frames.append(done))
    report = files.restore_photos(parts, [folder], tmp_path / "out", SETTINGS, progress=progress)
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in report.written) == ["photo.png", "sub/good.mkv"]
    assert len(report.failed) == 1
    assert "bad.mp4" in str(report.failed[0])
    assert frames[-1] == 20


def test_what_a_file_cannot_hold_is_refused_before_any_work(video: Path, tmp_path: Path) -> None:
    source = make_video(tmp_path / "video.webm", [picture(0)], codec="libvpx-vp9")
    detector = Spot()
    with pytest.raises(ValueError, match="a webm file cannot hold what libx264 encodes"):
        files.restore_photos(
            PhotoRestorer(Changes(), detector),
            [video, source],
            tmp_path / "out",
            SETTINGS,
            encoding=Encoding("libx264"),
        )
    assert detector.calls == 0
    with pytest.raises(ValueError, match="lossless"):
        Encoding("ffv1", 3)
    with pytest.raises(ValueError, match=r"0\.\.51"):
        Encoding(crf=70)
    with pytest.raises(ValueError, match="uncertainty maps are for photographs"):
        run(video, tmp_path / "out.mkv", Changes(), settings=replace(SETTINGS, samples=2, uncertainty=True))


def test_without_pyav_one_message_names_the_extra_before_any_work(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name == "idm.apps.photo.video" or name.startswith(("idm.io.video", "av.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "av", None)
    detector = Spot()
    with pytest.raises(ImportError, match=r"videos need PyAV: pip install .*\[video\]"):
        files.restore_photos(PhotoRestorer(Changes(), detector), [video], tmp_path / "out", SETTINGS)
    assert detector.calls == 0


def test_a_preview_is_of_photographs(video: Path, tmp_path: Path) -> None:
    parts = PhotoRestorer(Changes(), Spot())
    report = files.restore_photos(parts, [video], tmp_path / "out", SETTINGS, preview=True)
    assert isinstance(report.failed[0], ImageError)
    assert "status.json numbers the faces" in str(report.failed[0])


# ------------------------------------------------------------------------------------------- memory


def test_a_video_whose_frames_need_too_much_memory_is_refused_before_decoding(tmp_path: Path) -> None:
    source = make_video(tmp_path / "large.mp4", [np.zeros((2048, 2048, 3), np.uint8)] * 3, codec="libx264")
    detector = Spot()
    with pytest.raises(VideoError, match=r"large\.mp4: frames of 2048 x 2048 need about .* of memory, .*--max-memory"):
        run(source, tmp_path / "out.mp4", Changes(), detector, max_memory=100_000_000)
    assert detector.calls == 0
    assert not list(tmp_path.glob("*out*"))


def test_a_video_of_large_frames_stays_within_the_memory_limit(tmp_path: Path, peak_of: Any) -> None:
    """Frames of 4.2 megapixels: the batch is cut to what fits, and the encoder looks ahead as always."""
    pictures = [np.full((2048, 2048, 3), 40 + i, np.uint8) for i in range(30)]
    source = make_video(tmp_path / "large.mp4", pictures, codec="libx264", options={"preset": "ultrafast"})
    limit = 700_000_000
    peak = peak_of(lambda: run(source, tmp_path / "out.mp4", Changes(), encoding=Encoding("libx264"), max_memory=limit))
    assert peak < limit


def test_the_look_ahead_of_the_encoder_shrinks_for_huge_frames_only(tmp_path: Path) -> None:
    from idm.io.video.limits import encoder_options

    with Video(make_video(tmp_path / "a.mkv", [picture(0)])) as video:
        assert encoder_options(video, "libx264", 1) == {}
        assert encoder_options(video, "libx264", 130) == {"rc-lookahead": "4"}
        assert encoder_options(video, "ffv1", 130) == {}
