"""Several restorers on the same faces, degradations, noise and measures: one table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from idm.data.pairs import FrozenPairs, collate
from idm.evaluation.engine import Scores, restore_timed, score, summarise_column
from idm.evaluation.metrics import PairMetric
from idm.evaluation.sets import ORIGINAL, SetScores
from idm.io.ranges import from_uint8
from idm.restorers.protocol import Restorer

DEGRADED, BICUBIC = "degraded", "bicubic"


@dataclass(frozen=True)
class Measured:
    """One face in numbers.

    Attributes:
        scores: against the original, by method: "degraded", "bicubic" (the same small face, enlarged by bicubic instead
            of bilinear interpolation), and each restorer's label.
        seconds: of restoring, by restorer.
    """

    key: str
    scores: dict[str, Scores]
    seconds: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """One face by every method: its numbers, and 8-bit RGB images by method and of the "original"."""

    measured: Measured
    images: dict[str, np.ndarray]


class Resized:
    """A :class:`~idm.restorers.protocol.Restorer` at another size than its own: faces go in and come out resized.

    Enlarging is bicubic, shrinking is bicubic with antialiasing.
    """

    def __init__(self, restorer: Restorer, size: int) -> None:
        self.restorer, self._size = restorer, size

    @property
    def image_size(self) -> int:
        return self._size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        return _resize(self.restorer.restore(_resize(lq, self.restorer.image_size), seeds), self._size)


def _resize(faces: Float[Tensor, "b 3 s s"], size: int) -> Float[Tensor, "b 3 t t"]:
    return F.interpolate(faces, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def compare(
    restorers: Mapping[str, Restorer],
    pairs: FrozenPairs,
    bicubic: FrozenPairs,
    metrics: Mapping[str, PairMetric],
    *,
    batch_size: int,
    seed: int,
) -> Iterator[Comparison]:
    """Restore and measure every pair by every restorer, all at the pairs' size; face i is drawn with seed + i.

    The restorers take turns batch by batch, so that their seconds were measured under the same conditions.

    Args:
        bicubic: the same pairs, degraded with ``enlarge="bicubic"``.
    """
    size = pairs[0].hq.shape[0]
    at_size = {label: r if r.image_size == size else Resized(r, size) for label, r in restorers.items()}
    for start in range(0, len(pairs), batch_size):
        indices = range(start, min(start + batch_size, len(pairs)))
        batch = [pairs[i] for i in indices]
        lq, seeds = from_uint8(collate(batch).lq), [seed + i for i in indices]
        restored, seconds = {}, {}
        for label, restorer in at_size.items():
            restored[label], seconds[label] = restore_timed(restorer, lq, seeds)
        for i, (index, pair) in enumerate(zip(indices, batch, strict=True)):
            images = {DEGRADED: pair.lq, BICUBIC: bicubic[index].lq}
            images |= {label: faces[i] for label, faces in restored.items()}
            scores = {label: score(image, pair.hq, metrics) for label, image in images.items()}
            yield Comparison(Measured(pair.key, scores, seconds), {**images, ORIGINAL: pair.hq})


def table_rows(
    faces: Sequence[Measured], sets: SetScores, about: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each method: its label, the means of its scores with intervals, the scores of the set of its faces, and
    what is known of it."""
    rows: list[dict[str, Any]] = []
    for label in faces[0].scores:
        scores = [face.scores[label] for face in faces]
        columns = {name: summarise_column([s[name] for s in scores]) for name in scores[0]}
        row: dict[str, Any] = {"label": label, "metrics": columns | sets.of(label)}
        if label in about:
            seconds = [face.seconds[label] for face in faces]
            row |= {"seconds_per_image": float(np.median(seconds)), **about[label]}
        rows.append(row)
    return rows
