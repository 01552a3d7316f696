"""Several restorers on the same faces, degradations, noise and measures: one table."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from idm.data.pairs import FrozenPairs, Pair, collate
from idm.evaluation.engine import Scores, restore_timed, score
from idm.evaluation.kept import KeptFace, KeptFaces
from idm.evaluation.metric import PairMetric
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, REAL, STRANGER, SetScores
from idm.evaluation.statistics import paired_differences, summarise_column
from idm.io.ranges import from_uint8
from idm.restorers.protocol import Restorer

STRENGTHS = ("weak", "medium", "strong")


@dataclass(frozen=True)
class Measured:
    """One face in numbers.

    Attributes:
        scores: against the original, by method: "degraded", "bicubic" (the same small face, enlarged by bicubic instead
            of bilinear interpolation), "stranger" (another person's face, where asked for), and each restorer's label.
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
    strangers: Sequence[int] | None = None,
    kept: Mapping[str, KeptFaces] | None = None,
) -> Iterator[Comparison]:
    """Restore and measure every pair by every restorer, all at the pairs' size; face i is drawn with seed + i.

    The restorers take turns batch by batch, so that their seconds were measured under the same conditions.

    Args:
        bicubic: the same pairs, brought back to size by bicubic interpolation.
        strangers: for each pair the index of another, whose clean face is measured as if it were a restored one.
        kept: by restorer, faces of an earlier run that was stopped; those of this run are added.
    """
    size = pairs[0].hq.shape[0]
    at_size = {label: r if r.image_size == size else Resized(r, size) for label, r in restorers.items()}
    for start in range(0, len(pairs), batch_size):
        indices = range(start, min(start + batch_size, len(pairs)))
        batch = [pairs[i] for i in indices]
        seeds = [seed + i for i in indices]
        found = {label: _restore(r, batch, seeds, (kept or {}).get(label)) for label, r in at_size.items()}
        for i, (index, pair) in enumerate(zip(indices, batch, strict=True)):
            images = {DEGRADED: pair.lq, BICUBIC: bicubic[index].lq}
            if strangers is not None:
                images[STRANGER] = pairs.source[strangers[index]].image
            scores = {label: score(image, pair.hq, metrics) for label, image in images.items()}
            for label, faces in found.items():
                images[label] = faces[i].image
                scores[label] = _score_kept(faces[i], pair, metrics, (kept or {}).get(label))
            seconds = {label: faces[i].seconds for label, faces in found.items()}
            yield Comparison(Measured(pair.key, scores, seconds), {**images, ORIGINAL: pair.hq})


def _restore(restorer: Restorer, batch: list[Pair], seeds: Sequence[int], kept: KeptFaces | None) -> list[KeptFace]:
    """The restored faces of a batch, from ``kept`` if it has all of them: a face depends on its batch's size."""
    known = [kept.load(pair) for pair in batch] if kept is not None else []
    whole = [face for face in known if face is not None]
    if len(whole) == len(batch):
        return whole
    faces, seconds = restore_timed(restorer, from_uint8(collate(batch).lq), seeds)
    return [KeptFace(face, seconds, {}) for face in faces]


def _score_kept(face: KeptFace, pair: Pair, metrics: Mapping[str, PairMetric], kept: KeptFaces | None) -> Scores:
    """The scores of a restored face; those that were not known yet are measured and kept."""
    new = {name: metric for name, metric in metrics.items() if name not in face.scores}
    known = face.scores | score(face.image, pair.hq, new)
    if new and kept is not None:
        kept.save(pair, KeptFace(face.image, face.seconds, known))
    return {name: known[name] for name in metrics}


def table_rows(
    faces: Sequence[Measured], sets: SetScores, about: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each method: its label, the means of its scores with intervals, the scores of the set of its faces, and
    what is known of it. Other real faces, where there are any, have scores as a set only."""
    rows: list[dict[str, Any]] = []
    for label, columns in _columns(faces).items():
        row: dict[str, Any] = {"label": label, "metrics": _summaries(columns) | sets.of(label)}
        if label in about:
            seconds = [face.seconds[label] for face in faces]
            row |= {"seconds_per_image": float(np.median(seconds)), **about[label]}
        rows.append(row)
    if REAL in sets.columns:
        references = [row["label"] for row in rows].index(BICUBIC) + 1 + (STRANGER in faces[0].scores)
        rows.insert(references, {"label": REAL, "metrics": sets.of(REAL)})
    return rows


def differences(faces: Sequence[Measured], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Paired differences of every two restorers, as of
    :func:`~idm.evaluation.statistics.paired_differences`."""
    return paired_differences(_columns(faces), labels)


def breakdown(
    faces: Sequence[Measured], tags: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Rows of the faces that share a property.

    Args:
        tags: by property, such as "source", its value by the key of a face; faces may lack it.

    Returns:
        By property, and then by its value, rows of "label", "metrics". "strength" is added where PSNR was measured:
        a third of the faces each, by the PSNR of the degraded face.
    """
    tags = dict(tags)
    if "psnr" in faces[0].scores[DEGRADED] and len(faces) >= len(STRENGTHS):
        tags["strength"] = _strengths(faces)
    parts: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for name, values in tags.items():
        groups: dict[str, list[Measured]] = defaultdict(list)
        for face in faces:
            if face.key in values:
                groups[values[face.key]].append(face)
        order = STRENGTHS if name == "strength" else sorted(groups)
        if groups:
            parts[name] = {
                value: [
                    {"label": label, "metrics": _summaries(columns)}
                    for label, columns in _columns(groups[value]).items()
                ]
                for value in order
            }
    return parts


def _strengths(faces: Sequence[Measured]) -> dict[str, str]:
    """The third that each face belongs to; the third with the highest PSNR is degraded weakly."""
    ranked = sorted(faces, key=lambda face: -face.scores[DEGRADED]["psnr"])
    return {face.key: STRENGTHS[rank * len(STRENGTHS) // len(faces)] for rank, face in enumerate(ranked)}


def _columns(faces: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Scores by method and metric, in the order of the faces."""
    return {
        label: {name: [face.scores[label][name] for face in faces] for name in scores}
        for label, scores in faces[0].scores.items()
    }


def _summaries(columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    return {name: summarise_column(values) for name, values in columns.items()}
