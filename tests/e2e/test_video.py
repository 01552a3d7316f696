"""Clips by the command itself, and one whose run is killed twice."""

import json
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from forked import run, started

from idm.apps.cli import main as cli

av = pytest.importorskip("av", reason="videos need PyAV: pip install av")


def write_video(path: Path, pictures: list[np.ndarray]) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25, time_base=Fraction(1, 25))
        stream.height, stream.width = pictures[0].shape[:2]
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# A restorer and a detector that need no weights; what they say depends on the pixels alone.
PROGRAM = """
import sys, time
from pathlib import Path
import numpy as np, torch
from idm.io.encoding import Encoding
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.video import restore_video

class Noise:
    image_size = 16
    def restore(self, lq, seeds):
        time.sleep(0.05)
        return torch.stack([torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds])

class Wanders:
    def detect(self, pixels):
        x, y = np.random.default_rng(int(pixels.sum())).normal([48, 32], 1.5)
        landmarks = (ffhq_landmarks(16) - 7.5) * 2.5 + (x, y)
        return [DetectedFace(np.array([x - 14, y - 14, x + 14, y + 14]), landmarks, 0.9)]

source, target = map(Path, sys.argv[1:])
settings = PhotoSettings(batch_size=2, change="full")
summary = restore_video(PhotoRestorer(Noise(), Wanders()), source, target, settings, Encoding("ffv1"), metadata={},
                        segment_frames=5)
print(summary.get("resumed_at_frame", 0))
"""


def test_a_run_that_is_killed_twice_gives_the_same_video_as_an_uninterrupted_run(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    source = write_video(tmp_path / "video.mkv", [rng.integers(0, 255, (64, 96, 3), np.uint8) for _ in range(40)])
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [str(program), str(source)]
    target, segments = tmp_path / "out.mkv", tmp_path / ".out.mkv.segments"
    for num_segments in (2, 5):
        with started([*command, str(target)]) as ([process], _):
            until = time.monotonic() + 120
            while len(list(segments.glob("*.nut"))) < num_segments and time.monotonic() < until:
                time.sleep(0.005)
            assert process.is_alive(), "it ended before it could be killed"
            process.kill()
        assert not target.exists()
    last, once = run([*command, str(target)]), run([*command, str(tmp_path / "whole.mkv")])
    assert last.returncode == once.returncode == 0, last.stderr + once.stderr
    assert int(last.stdout) >= 20
    assert int(last.stdout) % 5 == 0
    assert not segments.exists()
    killed, whole = frames(target), frames(tmp_path / "whole.mkv")
    assert len(killed) == 40
    for a, b in zip(killed, whole, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_command_restores_a_video_and_names_a_broken_one(
    assets: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from skimage.data import astronaut

    monkeypatch.setenv("IDM_ASSETS", str(assets))
    portrait = astronaut()[:280, 80:380]
    folder = tmp_path / "in"
    folder.mkdir()
    source = write_video(folder / "good.mkv", [np.ascontiguousarray(portrait[:, i : i + 280]) for i in range(0, 12, 2)])
    (folder / "cut.mp4").write_bytes(source.read_bytes()[:3000])
    arguments = ["restore", folder, "-o", tmp_path / "out", "--model", model, "--crf", 12, "--change", "full"]
    code = cli.run(cli.build_parser().parse_args([str(argument) for argument in arguments]))
    printed = capsys.readouterr()
    assert code == 1
    assert "1 restored, 1 failed" in printed.out
    assert printed.err.count("error: ") == 1
    assert f"{folder / 'cut.mp4'}: " in printed.err
    files = json.loads((tmp_path / "out" / "status.json").read_text())["files"]
    entry = files[str(source)]
    assert (entry["state"], entry["frames"]) == ("restored", 6)
    assert entry["people"][0]["num_restored"] == 6
    before, after = frames(source), frames(tmp_path / "out" / "good.mkv")
    assert len(before) == len(after)
    for a, b in zip(before, after, strict=True):
        assert 1 < np.abs(a.astype(int) - b).mean() < 60  # a random model changes the face
        assert np.abs(a[-20:].astype(int) - b[-20:]).mean() < 3  # and nothing else
