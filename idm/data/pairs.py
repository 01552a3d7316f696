"""Training pairs (x_d, x): the order of the faces and their degradations, as pure functions.

A *position* counts the samples of a whole run. The face at a position, its mirroring and its degradation
depend on (seed, position) only: not on the process, the worker, or how often the run was interrupted.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from idm.data.huggingface import StreamedFaces
from idm.data.mixing import Pool
from idm.data.sources import Face, FaceSource, Landmarks, Points68
from idm.degradation import Mixture, Recipe, degradation_rng, degrade
from idm.degradation.operations import to_grey
from idm.io.errors import UserError
from idm.io.ranges import from_uint8, to_uint8
from idm.io.signals import STOP_SIGNALS


@dataclass(frozen=True)
class Pair:
    """One face, clean and degraded, both uint8 RGB."""

    hq: UInt8[np.ndarray, "s s 3"]
    lq: UInt8[np.ndarray, "s s 3"]
    landmarks: Landmarks | None
    key: str
    position: int
    points: Points68 | None = None


@dataclass(frozen=True)
class Batch:
    """A micro-batch. Images are uint8 on the CPU; unknown landmarks are nan.

    ``points``, from which the landmarks follow, is None if no face has them.
    """

    hq: UInt8[Tensor, "b 3 s s"]
    lq: UInt8[Tensor, "b 3 s s"]
    landmarks: Float32[Tensor, "b 5 2"]
    positions: list[int]
    points: Float32[Tensor, "b 68 2"] | None = None

    def pin_memory(self) -> "Batch":
        """Copy the batch to pinned memory, for asynchronous copies to a GPU; the data loader calls it."""
        points = None if self.points is None else self.points.pin_memory()
        return Batch(self.hq.pin_memory(), self.lq.pin_memory(), self.landmarks.pin_memory(), self.positions, points)


@dataclass(frozen=True)
class Pairing:
    """Settings for making a training pair from a face."""

    recipe: Recipe | Mixture
    seed: int
    flip_probability: float
    max_shift: int = 0
    grey_probability: float = 0.0

    def __call__(self, face: Face, epoch: int, index: int, position: int) -> Pair:
        rng = degradation_rng(self.seed, epoch, index)
        if rng.random() < self.flip_probability:
            face = mirror(face)
        if self.max_shift:
            face = shift(face, *rng.integers(-self.max_shift, self.max_shift, size=2, endpoint=True).tolist())
        if self.grey_probability and rng.random() < self.grey_probability:
            face = _on_images(face, lambda image: to_uint8(to_grey(from_uint8(image))))
        return _pair(face, self.recipe, rng, position)


def _pair(face: Face, recipe: Recipe | Mixture, rng: np.random.Generator, position: int) -> Pair:
    source = face.image if face.original is None else face.original
    lq = to_uint8(degrade(from_uint8(source), recipe, rng))
    return Pair(face.image, lq, face.landmarks, face.key, position, face.points)


def mirror(face: Face) -> Face:
    """Flip a face and its landmarks left and right; the left eye in the image becomes the right one."""
    width = face.image.shape[1]

    def mirrored(points: np.ndarray | None, order: list[int]) -> np.ndarray | None:
        if points is None:
            return None
        return np.array([width - 1, 0], np.float32) + np.array([-1, 1], np.float32) * points[order]

    flipped = _on_images(face, lambda image: np.ascontiguousarray(image[:, ::-1]))
    landmarks, points = mirrored(face.landmarks, _MIRRORED_5), mirrored(face.points, _MIRRORED_68)
    return replace(flipped, landmarks=landmarks, points=points)


_MIRRORED_5 = [1, 0, 2, 4, 3]
_MIRRORED_68 = [
    *range(16, -1, -1),  # jaw
    *range(26, 16, -1),  # brows
    *range(27, 31),  # bridge of the nose
    *range(35, 30, -1),  # nostrils
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),  # outside of the lips
    *(64, 63, 62, 61, 60, 67, 66, 65),  # inside of the lips
]


def shift(face: Face, right: int, down: int) -> Face:
    """Move a face and its landmarks by whole pixels; the border is repeated."""
    size, most = len(face.image), max(abs(right), abs(down))

    def moved(image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, ((most, most), (most, most), (0, 0)), mode="edge")
        return np.ascontiguousarray(padded[most - down :, most - right :][:size, :size])

    move = np.array([right, down], np.float32)
    landmarks, points = (None if p is None else p + move for p in (face.landmarks, face.points))
    return replace(_on_images(face, moved), landmarks=landmarks, points=points)


def _on_images(face: Face, change: Callable[[np.ndarray], np.ndarray]) -> Face:
    """The same change of a face's target and of its original."""
    original = None if face.original is None else change(face.original)
    return replace(face, image=change(face.image), original=original)


class FrozenPairs(Dataset[Pair]):
    """Validation pairs: face ``i`` is always degraded in the same way."""

    has_originals: bool = True

    def __init__(self, source: FaceSource, recipe: Recipe | Mixture, seed: int) -> None:
        self.source, self.recipe, self.seed = source, recipe, seed

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        return _pair(self.source[index], self.recipe, degradation_rng(self.seed, 0, index), index)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, num_faces: int) -> np.ndarray:
    """The order in which an epoch visits the faces."""
    return np.random.default_rng([seed, epoch]).permutation(num_faces)


class IndexedPairs(Dataset[Pair]):
    """Pairs by position over a source that can be indexed."""

    def __init__(self, source: FaceSource | Pool, pairing: Pairing) -> None:
        self.source, self.pairing = source, pairing

    def __getitem__(self, position: int) -> Pair:
        epoch, place = divmod(position, len(self.source))
        index = int(epoch_order(self.pairing.seed, epoch, len(self.source))[place])
        face = self.source.at(position, index) if isinstance(self.source, Pool) else self.source[index]
        return self.pairing(face, epoch, index, position)


@dataclass(frozen=True)
class Partition:
    """The positions that one process takes: micro-batch m of ``rank`` holds ``size`` of each world * size."""

    size: int
    rank: int = 0
    world: int = 1

    def positions(self, micro_batch: int) -> range:
        """Positions in the run of the samples of this process's micro-batch number ``micro_batch``."""
        start = (micro_batch * self.world + self.rank) * self.size
        return range(start, start + self.size)


class IndexedBatches(Dataset[Batch | UserError]):
    """Micro-batches by their positions. A user's mistake is returned: raised in a worker, it would come with the
    worker's traceback."""

    def __init__(self, pairs: IndexedPairs) -> None:
        self.pairs = pairs

    def __getitem__(self, positions: Sequence[int]) -> Batch | UserError:
        try:
            return collate([self.pairs[position] for position in positions])
        except UserError as error:
            return error


class StreamedBatches(IterableDataset[Batch | UserError]):
    """Micro-batches ``first, first + 1, ...`` of a stream.

    Each worker of each process reads those parts of the stream that its micro-batches need, and decodes only its own
    faces: the order is that of a single reader, whatever their number. A user's mistake is the last item.
    """

    def __init__(self, source: StreamedFaces, pairing: Pairing, partition: Partition, first: int) -> None:
        self.source, self.pairing, self.partition, self.first = source, pairing, partition, first

    def __iter__(self) -> Iterator[Batch | UserError]:
        try:
            yield from self._batches()
        except UserError as error:
            yield error

    def _batches(self) -> Iterator[Batch]:
        worker = get_worker_info()
        start, step = (self.first + worker.id, worker.num_workers) if worker else (self.first, 1)
        parts: dict[int, Iterator[tuple[int, tuple[int, int, Mapping[str, Any]]]]] = {}
        for micro_batch in count(start, step):
            pairs = []
            for position in self.partition.positions(micro_batch):
                part, number = self.source.place(position)
                if part not in parts:
                    parts[part] = zip(count(number), self.source.rows(part, number), strict=False)
                epoch, index, row = next(found for at, found in parts[part] if at == number)
                pairs.append(self.pairing(self.source.face(row, f"{index:08d}"), epoch, index, position))
            yield collate(pairs)


def training_batches(
    source: FaceSource | StreamedFaces | Pool,
    pairing: Pairing,
    partition: Partition,
    *,
    first: int,
    num_workers: int,
    pin: bool,
) -> Iterator[Batch]:
    """An endless iterator over one process's micro-batches, beginning with number ``first``."""
    loader: DataLoader[Any]
    workers: dict[str, Any] = {"num_workers": num_workers, "pin_memory": pin, "worker_init_fn": _start_worker}
    if num_workers and sys.platform == "linux":
        workers["multiprocessing_context"] = "fork"  # so that they share a cache
    if isinstance(source, StreamedFaces):
        loader = DataLoader(StreamedBatches(source, pairing, partition, first), batch_size=None, **workers)
    else:
        positions = (partition.positions(m) for m in count(first))
        pairs = IndexedBatches(IndexedPairs(source, pairing))
        loader = DataLoader(pairs, batch_size=None, sampler=positions, **workers)
    with _without_opencv_threads():
        return map(_or_raise, iter(loader))  # starts the workers


def _or_raise(batch: Batch | UserError) -> Batch:
    if isinstance(batch, UserError):
        raise batch
    return batch


def _start_worker(worker: int) -> None:
    """Limit OpenCV to one thread, since in each worker it would start as many threads as there are cores.

    A terminal, ``timeout`` and Slurm send signals to all processes of a run. The trainer still needs its workers until
    it has saved, so they heed nobody else's signals (on Linux).
    """
    cv2.setNumThreads(1)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        threading.Thread(target=_heed_trainer, args=(os.getppid(),), daemon=True).start()


def _heed_trainer(trainer: int) -> None:
    while signal.sigwaitinfo(STOP_SIGNALS).si_pid != trainer:
        pass
    os._exit(0)


@contextmanager
def _without_opencv_threads() -> Iterator[None]:
    """A context without OpenCV threads: a forked process that inherits the thread pool would wait forever for its
    threads."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def collate(pairs: list[Pair]) -> Batch:
    """Stack pairs into a batch."""

    def stack(images: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(rearrange(np.stack(images), "b h w c -> b c h w").copy())

    def stack_points(points: Sequence[np.ndarray | None], number: int) -> Tensor:
        unknown = np.full((number, 2), np.nan, np.float32)
        return torch.from_numpy(np.stack([unknown if p is None else p for p in points]).astype(np.float32))

    points = [pair.points for pair in pairs]
    return Batch(
        stack([pair.hq for pair in pairs]),
        stack([pair.lq for pair in pairs]),
        stack_points([pair.landmarks for pair in pairs], 5),
        [pair.position for pair in pairs],
        None if all(p is None for p in points) else stack_points(points, 68),
    )
