"""Several restorers on the same faces, degradations, noise and measures: one table."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from idm.data.pairs import FrozenPairs, Pair, collate
from idm.data.ranges import chw_to_hwc, from_uint8, to_uint8
from idm.evaluation.evaluate import Scores, score, score_sets, summarise_column
from idm.evaluation.metrics import PairMetric, SetMetric
from idm.restorer import Restorer

DEGRADED, BICUBIC = "degraded", "bicubic"


@dataclass(frozen=True)
class Comparison:
    """One face by every method.

    Attributes:
        images: 8-bit RGB by method: "degraded", "bicubic" (the same small face, enlarged by bicubic instead of
            bilinear interpolation), and each restorer's label.
        scores: of each of these images against the original.
        seconds: of restoring, by restorer.
    """

    pair: Pair
    images: dict[str, np.ndarray]
    scores: dict[str, Scores]
    seconds: dict[str, float]


class Resized:
    """A :class:`~idm.restorer.Restorer` at another size than its own: faces go in and come out resized.

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
    on_batch: Callable[[int], None] | None = None,
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
            begun = perf_counter()
            faces = restorer.restore(lq, seeds).cpu()
            seconds[label] = (perf_counter() - begun) / len(batch)
            restored[label] = to_uint8(faces)
        for i, (index, pair) in enumerate(zip(indices, batch, strict=True)):
            images = {DEGRADED: pair.lq, BICUBIC: bicubic[index].lq}
            images |= {label: chw_to_hwc(faces[i]) for label, faces in restored.items()}
            scores = {label: score(image, pair.hq, metrics) for label, image in images.items()}
            yield Comparison(pair, images, scores, seconds)
        if on_batch is not None:
            on_batch(len(batch))


def table_rows(
    comparisons: Sequence[Comparison],
    about: Mapping[str, Mapping[str, Any]],
    set_metrics: Mapping[str, SetMetric] | None = None,
) -> list[dict[str, Any]]:
    """A row for each method: its label, the means of its scores with intervals, what all its faces together score
    against all originals, and what is known of it."""
    rows: list[dict[str, Any]] = []
    originals = [face.pair.hq for face in comparisons]
    for label in comparisons[0].images:
        scores = [face.scores[label] for face in comparisons]
        columns = {name: summarise_column([s[name] for s in scores]) for name in scores[0]}
        columns |= score_sets([face.images[label] for face in comparisons], originals, set_metrics or {})
        row: dict[str, Any] = {"label": label, "metrics": columns}
        if label in about:
            seconds = [face.seconds[label] for face in comparisons]
            row |= {"seconds_per_image": float(np.median(seconds)), **about[label]}
        rows.append(row)
    return rows
