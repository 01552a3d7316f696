"""Damage one file of a training run, a job or a model at a time, and resume. The oracle: the result equals that of
undamaged files, or one error names the damaged file or folder. A model without a checksum may instead load exactly the
numbers that its damaged file holds.

A bounded, seeded part runs in tests/unit/test_fuzz.py; `python tests/fuzz.py` runs all.
"""

import contextlib
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from fuzz_damage import UnexplainedError, count_outcomes, damaged

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import load_gfpgan, save_gfpgan
from idm.apps.photo.files import restore_photos
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.video import restore_video
from idm.data.pairs import Batch
from idm.data.sources import FolderFaces
from idm.diffusion.schedule import linear
from idm.extrinsic.clean import Cleaning, CleanSettings
from idm.extrinsic.gate import Gate
from idm.extrinsic.job import run_job
from idm.extrinsic.shards import CleanError
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.atomic import CheckpointError
from idm.io.encoding import Encoding
from idm.io.image_writer import write_image
from idm.io.images import ImageError
from idm.io.weights import WeightsError
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.restorers.saved import WEIGHTS_FILE, ModelError, load_idm, save_idm
from idm.training.learner import IntrinsicIteration, Optimisation
from idm.training.loop import Run, RunSettings

ERRORS = (CheckpointError, ModelError, WeightsError, ImageError, CleanError)
CPU = torch.device("cpu")
TINY = {"image_size": 16, "channels": (8,), "num_blocks": (1,), "attention_resolutions": (), "head_dim": 8}
TINY_GAN = {"image_size": 16, "num_style_feat": 16, "channel_multiplier": 1, "num_mlp": 2, "narrow": 1 / 64}
GAMMAS = linear(1e-4, 0.05, 50)
GAN = "gan.safetensors"


@dataclass(frozen=True)
class State:
    """A folder with the files of interrupted work, and the function that resumes it.

    Attributes:
        prepare: writes the folder.
        resume: resumes in a copy of the folder and returns the result as bytes or arrays.
        hurt: glob pattern of the files that may be damaged.
        as_held: returns the contents of the damaged file, for files without a checksum.
    """

    name: str
    prepare: Callable[[Path], object]
    resume: Callable[[Path], Any]
    hurt: str = "**/*"
    as_held: Callable[[Path], Any] | None = None


# ------------------------------------------------------------------------------------------- a training run


def train(folder: Path, num_steps: int) -> bytes:
    """Train a tiny IDM in a run folder, and give its last weights."""
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    optimisation = Optimisation(20, 1e-2, 0, "constant", (0.9, 0.99), 0.1, 1.0, 0.9)
    learner = IntrinsicIteration(
        UNet(**TINY),
        accelerator,
        gammas=GAMMAS,
        prediction="sample",
        p=1,
        min_snr_clamp=None,
        optimisation=optimisation,
        seed=0,
        make_pipeline=lambda published: IDM(published, GAMMAS),
    )
    every = {"log_every": 2, "checkpoint_every": 2, "validate_every": 100, "keep_checkpoints": 3, "num_shown": 1}
    recorded = {"recorded": {"train.num_steps": num_steps}, "remedy": ""}
    settings = RunSettings(folder=folder, num_steps=num_steps, accumulation=1, batch_size=2, **recorded, **every)
    Run(learner, accelerator, settings, batches_from=_batches, validation=None).fit()
    return (folder / f"checkpoints/step_{num_steps:08d}/pipeline/denoiser" / WEIGHTS_FILE).read_bytes()


def _batches(first: int) -> Iterator[Batch]:
    position = first
    while True:
        faces = torch.from_numpy(np.random.default_rng(position).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
        yield Batch(faces, faces.flip(0), torch.full((2, 5, 2), torch.nan), [2 * position, 2 * position + 1])
        position += 1


# ------------------------------------------------------------------------------------------- models


def load_model(path: Path) -> dict[str, np.ndarray]:
    return _arrays(load_idm(path, CPU, torch.float32).denoiser.state_dict())


def held_by_pipeline(path: Path) -> dict[str, np.ndarray]:
    return _arrays(safetensors.torch.load_file(path / "denoiser" / WEIGHTS_FILE))


def load_gan(path: Path) -> dict[str, np.ndarray]:
    return _arrays(load_gfpgan(path / GAN).state_dict())


def held_by_gan(path: Path) -> dict[str, np.ndarray]:
    return _arrays(safetensors.torch.load_file(path / GAN))


def _arrays(weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: weight.float().numpy() for name, weight in weights.items()}


def save_model(folder: Path) -> None:
    torch.manual_seed(0)
    save_idm(IDM(UNet(**TINY), GAMMAS), folder)


# ------------------------------------------------------------------------------------------- jobs


class Dims:
    """A restorer; at one of its calls, counted from 1, something else happens."""

    image_size = 32

    def __init__(self, at: int = -1, happens: Callable[[], object] = lambda: None) -> None:
        self.calls, self.at, self.happens = 0, at, happens

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.at:
            self.happens()
        return 0.9 * lq


class Moves:
    """Finds a face whose place depends on the picture."""

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        shift = float(pixels[0, 0].mean()) / 20
        return [DetectedFace(np.array([shift, 0, 30 + shift, 30]), ffhq_landmarks(32) + np.array([shift, 0]), 0.9)]


SETTINGS = PhotoSettings(change="full", grayscale="off", batch_size=2)


def restore_folder(folder: Path, restorer: Dims | None = None) -> dict[str, bytes]:
    """A job over five pictures, or what is left of it; the results by name."""
    parts = PhotoRestorer(restorer or Dims(), Moves())
    report = restore_photos(parts, [_pictures(folder)], folder / "out", SETTINGS, skip_existing=True)
    for error in report.failed:
        raise error
    return {path.name: path.read_bytes() for path in sorted((folder / "out").glob("*.png"))}


def leave_a_job(folder: Path) -> None:
    """What a job leaves that is killed over its last picture."""
    work = folder.parent / "work"
    restore_folder(work, Dims(5, lambda: shutil.copytree(work, folder, dirs_exist_ok=True)))


def _pictures(folder: Path) -> Path:
    """Outside of what is damaged, at the same path for every copy."""
    source = folder.parent / "pictures"
    if not source.exists():
        source.mkdir()
        for number in range(5):
            write_image(source / f"{number}.png", np.full((48, 48, 3), 40 + 20 * number, np.uint8))
    return source


def restored_video(folder: Path, restorer: Dims | None = None) -> bytes:
    """Restore a video, or resume it, and return the frames."""
    folder.mkdir(exist_ok=True)
    target, parts = folder / "clip.mkv", PhotoRestorer(restorer or Dims(), Moves())
    restore_video(parts, _video(folder), target, SETTINGS, Encoding("ffv1"), metadata={}, segment_frames=4)
    with av.open(str(target)) as container:
        return b"".join(frame.to_ndarray(format="rgb24").tobytes() for frame in container.decode(video=0))


def _video(folder: Path) -> Path:
    path = folder.parent / "clip.mkv"
    if not path.exists():
        with av.open(str(path), "w") as out:
            stream = out.add_stream("ffv1", rate=10)
            stream.width = stream.height = 48
            for number in range(14):
                frame = av.VideoFrame.from_ndarray(np.full((48, 48, 3), 60 + 5 * number, np.uint8), "rgb24")
                out.mux(stream.encode(frame.reformat(format="yuv420p")))
            out.mux(stream.encode(None))
    return path


def leave_a_video(folder: Path) -> None:
    """What a video's restoration leaves that is killed in the third segment."""
    work = folder.parent / "work"
    restored_video(work, Dims(6, lambda: shutil.copytree(work, folder, dirs_exist_ok=True)))


class Alone:
    process_index, num_processes, is_main_process = 0, 1, True

    def wait_for_everyone(self) -> None:
        pass


def clean(folder: Path) -> dict[str, bytes]:
    """Clean five faces, or resume, and return the shards and the manifest."""
    job = Cleaning(
        FolderFaces(_pictures(folder), 32),
        Dims(),
        folder / "out",
        settings=CleanSettings(batch_size=2, shard_size=2),
        gate=Gate(min_identity=None),
        identity=None,
        metadata={"source": "the same", "model": "the same"},
    )
    run_job(job, Alone())
    wanted = [*(folder / "out" / "data").glob("*.parquet"), folder / "out" / "manifest.jsonl"]
    return {path.name: path.read_bytes() for path in sorted(wanted)}


def leave_a_cleaning(folder: Path) -> None:
    """What a cleaning leaves that is killed before its last shard."""
    clean(folder)
    (folder / "out" / "summary.json").unlink()
    sorted((folder / "out" / "data").glob("*.parquet"))[-1].unlink()


# ------------------------------------------------------------------------------------------- the cases

STATES = [
    State("training run", lambda folder: train(folder, 6), lambda folder: train(folder, 8)),
    State("model of a run", lambda folder: train(folder, 2), load_model),
    State("saved model", save_model, load_model, as_held=held_by_pipeline),
    State(
        "weights of a GFP-GAN",
        lambda folder: save_gfpgan(GFPGAN(**TINY_GAN, sft_half=False, smooth=False), folder / GAN),
        load_gan,
        as_held=held_by_gan,
    ),
    State("job on photographs", leave_a_job, restore_folder, hurt="out/*status.json*"),
    State("status of photographs", restore_folder, restore_folder, hurt="out/status.json"),
    State("segments of a video", leave_a_video, restored_video),
    State("shards of a cleaning", leave_a_cleaning, clean),
]


def outcome(state: State, left: Path, wanted: Any, rng: np.random.Generator) -> str:
    """What came of going on after one file was damaged, removed, or replaced by another.

    Raises:
        UnexplainedError: see the module.
    """
    folder = left.parent / "copy"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(left, folder)
    files = sorted(path for path in folder.glob(state.hurt) if path.is_file())
    path, other = (files[index] for index in rng.integers(len(files), size=2))
    match rng.integers(8):
        case 0:
            path.unlink()
        case 1:
            path.write_bytes(other.read_bytes())
        case _:
            path.write_bytes(damaged(path.read_bytes(), rng))
    where = path.relative_to(folder)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            found = state.resume(folder)
    except ERRORS as error:
        if not str(error).startswith(str(folder)):
            raise UnexplainedError(f"{state.name}, {where}: does not name the file: {error}") from error
        return "refused by name"
    except (Exception, SystemExit) as error:
        raise UnexplainedError(f"{state.name}, {where}: is no clear error: {error!r}") from error
    if _equal(found, wanted):
        return "result as of undamaged files"
    if state.as_held is not None and _equal(found, state.as_held(folder)):
        return "loaded as the file states, which has no checksum"
    raise UnexplainedError(f"{state.name}, {where}: went on to a wrong result")


def _equal(found: Any, wanted: Any) -> bool:
    if isinstance(found, dict):
        return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in found)
    return bool(found == wanted)


def run(num_cases: int, seed: int) -> Counter[str]:
    """Counts by outcome, of as many cases for each kind of state; the first unexplained one is raised."""
    counts: Counter[str] = Counter()
    shares = np.diff(np.linspace(0, num_cases, len(STATES) + 1).round().astype(int))
    for number, (state, share) in enumerate(zip(STATES, shares, strict=True)):
        with tempfile.TemporaryDirectory() as home:
            left, whole = Path(home, "left"), Path(home, "copy")
            left.mkdir()
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                state.prepare(left)
                shutil.copytree(left, whole)
                wanted = state.resume(whole)
            counts += count_outcomes(int(share), 100 * seed + number, partial(outcome, state, left, wanted))
    return counts
