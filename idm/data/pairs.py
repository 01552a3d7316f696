"""Training pairs (x_d, x): which face comes when, and how it is degraded, as pure functions.

A *position* counts the samples of a whole run. The face at a position, its mirroring and its degradation
depend on (seed, position) only: not on the process, the worker, or how often the run was interrupted.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from idm.data.mixing import Pool
from idm.data.sources import Face, FaceSource, Landmarks, StreamedFaces
from idm.degradation import Mixture, Recipe, degradation_rng, degrade
from idm.degradation.operations import to_grey
from idm.io.ranges import from_uint8, to_uint8


@dataclass(frozen=True)
class Pair:
    """One face, clean and degraded, both uint8 RGB."""

    hq: UInt8[np.ndarray, "s s 3"]
    lq: UInt8[np.ndarray, "s s 3"]
    landmarks: Landmarks | None
    key: str
    position: int


@dataclass(frozen=True)
class Batch:
    """A micro-batch. Images are uint8 on the CPU; unknown landmarks are nan."""

    hq: UInt8[Tensor, "b 3 s s"]
    lq: UInt8[Tensor, "b 3 s s"]
    landmarks: Float32[Tensor, "b 5 2"]
    positions: list[int]

    def pin_memory(self) -> "Batch":
        return Batch(self.hq.pin_memory(), self.lq.pin_memory(), self.landmarks.pin_memory(), self.positions)


@dataclass(frozen=True)
class Pairing:
    """How a face becomes a pair in training."""

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
            face = replace(face, image=to_uint8(to_grey(from_uint8(face.image))))
        return _pair(face, self.recipe, rng, position)


def _pair(face: Face, recipe: Recipe | Mixture, rng: np.random.Generator, position: int) -> Pair:
    lq = to_uint8(degrade(from_uint8(face.image), recipe, rng))
    return Pair(face.image, lq, face.landmarks, face.key, position)


def mirror(face: Face) -> Face:
    """Flip left and right; what was the left eye in the image becomes the right one."""
    image = np.ascontiguousarray(face.image[:, ::-1])
    landmarks = face.landmarks
    if landmarks is not None:
        landmarks = landmarks[[1, 0, 2, 4, 3]]
        landmarks[:, 0] = image.shape[1] - 1 - landmarks[:, 0]
    return Face(image, landmarks, face.key)


def shift(face: Face, right: int, down: int) -> Face:
    """Move a face by whole pixels; the border is repeated."""
    size, most = len(face.image), max(abs(right), abs(down))
    padded = np.pad(face.image, ((most, most), (most, most), (0, 0)), mode="edge")
    image = np.ascontiguousarray(padded[most - down :, most - right :][:size, :size])
    landmarks = None if face.landmarks is None else face.landmarks + np.float32([right, down])
    return Face(image, landmarks, face.key)


class FrozenPairs(Dataset[Pair]):
    """Validation pairs: face ``i`` is always degraded in the same way, whatever is trained."""

    def __init__(self, source: FaceSource, recipe: Recipe, seed: int) -> None:
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
class Share:
    """Which positions one process takes: micro-batch m of ``rank`` holds ``size`` of each world * size."""

    size: int
    rank: int = 0
    world: int = 1

    def positions(self, micro_batch: int) -> range:
        start = (micro_batch * self.world + self.rank) * self.size
        return range(start, start + self.size)


class StreamedBatches(IterableDataset[Batch]):
    """Micro-batches ``first, first + 1, ...`` of a stream.

    Each worker of each process reads the whole stream and decodes only its own micro-batches, so that the
    order is that of a single reader whatever their number.
    """

    def __init__(self, source: StreamedFaces, pairing: Pairing, share: Share, first: int) -> None:
        self.source, self.pairing, self.share, self.first = source, pairing, share, first

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        start, step = (self.first + worker.id, worker.num_workers) if worker else (self.first, 1)
        rows = enumerate(self.source.rows(self.share.positions(start)[0]), start=self.share.positions(start)[0])
        for micro_batch in count(start, step):
            wanted = self.share.positions(micro_batch)
            pairs = []
            for position, (epoch, index, row) in rows:
                if position in wanted:
                    face = self.source.face(row, f"{index:08d}")
                    pairs.append(self.pairing(face, epoch, index, position))
                if position == wanted[-1]:
                    break
            yield collate(pairs)


def training_batches(
    source: FaceSource | StreamedFaces | Pool,
    pairing: Pairing,
    share: Share,
    *,
    first: int,
    num_workers: int,
    pin: bool,
) -> Iterator[Batch]:
    """An endless iterator over one process's micro-batches, beginning with number ``first``."""
    dataset: Dataset[Any]
    if isinstance(source, StreamedFaces):
        dataset = StreamedBatches(source, pairing, share, first)
        return iter(DataLoader(dataset, batch_size=None, num_workers=num_workers, pin_memory=pin))
    positions = (list(share.positions(m)) for m in count(first))
    dataset = IndexedPairs(source, pairing)
    return iter(
        DataLoader(dataset, batch_sampler=positions, collate_fn=collate, num_workers=num_workers, pin_memory=pin)
    )


def collate(pairs: list[Pair]) -> Batch:
    """Stack pairs into a batch."""

    def stack(images: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(rearrange(np.stack(images), "b h w c -> b c h w").copy())

    unknown = np.full((5, 2), np.nan, np.float32)
    landmarks = np.stack([unknown if pair.landmarks is None else pair.landmarks for pair in pairs])
    return Batch(
        stack([pair.hq for pair in pairs]),
        stack([pair.lq for pair in pairs]),
        torch.from_numpy(landmarks.astype(np.float32)),
        [pair.position for pair in pairs],
    )
