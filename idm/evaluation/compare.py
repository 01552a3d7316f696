"""Compare several restorers on the same faces, degradations, noise and metrics."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from idm.data.given import Pairs
from idm.data.pairs import Pair, collate
from idm.evaluation.engine import Scores, restore_timed, score
from idm.evaluation.kept import KeptFace, KeptFaces
from idm.evaluation.metric import Image8, PairMetric
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, REAL, STRANGER, SetScores
from idm.evaluation.statistics import paired_differences, summarise_column
from idm.io.ranges import from_uint8
from idm.restorers.protocol import Restorer

STRENGTHS = ("weak", "medium", "strong")
SEEDS_APART = 1_000_000  # between the samples of one face: more than there are faces


@dataclass(frozen=True)
class Measured:
    """The numbers of one face.

    Attributes:
        scores: by method: "degraded", "bicubic" (the same small face, enlarged by bicubic instead of bilinear
            interpolation, where faces were degraded for this), "stranger" (another person's face, where asked for), and
            each restorer's label. Those of a restorer with several samples are means over the samples.
        seconds: of restoring once, by restorer.
        diversity: of the samples, by restorer that has several, as :func:`diversity`.
    """

    key: str
    scores: dict[str, Scores]
    seconds: dict[str, float]
    diversity: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """One face by every method: its numbers, and 8-bit RGB images by method and of the "original", if there is one; of
    several samples the first."""

    measured: Measured
    images: dict[str, np.ndarray]


class ResizedRestorer:
    """A :class:`~idm.restorers.protocol.Restorer` at another size than its own: it resizes faces before and after.

    Enlarging is bicubic, shrinking is bicubic with antialiasing.
    """

    def __init__(self, restorer: Restorer, size: int) -> None:
        self.restorer, self._size = restorer, size

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces it takes and gives."""
        return self._size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Resize the faces to the restorer's size, restore them, and resize the results back; all are in [0, 1]."""
        return _resize(self.restorer.restore(_resize(lq, self.restorer.image_size), seeds), self._size)


def _resize(faces: Float[Tensor, "b 3 s s"], size: int) -> Float[Tensor, "b 3 t t"]:
    return F.interpolate(faces, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def compare(
    restorers: Mapping[str, Restorer],
    pairs: Pairs,
    bicubic: Pairs | None,
    metrics: Mapping[str, PairMetric],
    *,
    batch_size: int,
    seed: int,
    strangers: Sequence[int] | None = None,
    kept: Mapping[str, KeptFaces] | None = None,
    samples: Mapping[str, int] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Comparison]:
    """Restore and measure every pair by every restorer, all at the pairs' size.

    The restorers take turns batch by batch, so that their seconds are measured under the same conditions. Sample k of
    face i is drawn with seed + i + k ``SEEDS_APART``. Faces come in the order of the pairs.

    Args:
        bicubic: the same pairs, brought back to size by bicubic interpolation; None if their degraded faces were given.
        strangers: for each pair the index of another, whose clean face is measured as if it were a restored one.
        kept: by method, faces of an earlier, interrupted run or of other processes; those of this run are added.
        samples: how often each face is restored, by restorer; once by default.
        share: (index, number) of this process, which restores its share of the batches.
    """
    size = pairs[0].hq.shape[0]
    at_size = {label: r if r.image_size == size else ResizedRestorer(r, size) for label, r in restorers.items()}
    which, number = share
    for start in range(which * batch_size, len(pairs), number * batch_size):
        indices = range(start, min(start + batch_size, len(pairs)))
        batch = [pairs[i] for i in indices]
        found = {
            label: [
                _restore(one, batch, [seed + i + k * SEEDS_APART for i in indices], (kept or {}).get(label), k)
                for k in range((samples or {}).get(label, 1))
            ]
            for label, one in at_size.items()
        }
        for i, (index, pair) in enumerate(zip(indices, batch, strict=True)):
            references = {DEGRADED: pair.lq} | ({} if bicubic is None else {BICUBIC: bicubic[index].lq})
            if strangers is not None:
                references[STRANGER] = pairs.source[strangers[index]].image
            faces = {label: [sample[i] for sample in drawn] for label, drawn in found.items()}
            measured = _measure(pair, references, faces, metrics, kept or {})
            yield Comparison(measured, references | _shown(pair, faces, pairs.has_originals))


def _measure(
    pair: Pair,
    references: Mapping[str, Image8],
    faces: Mapping[str, Sequence[KeptFace]],
    metrics: Mapping[str, PairMetric],
    kept: Mapping[str, KeptFaces],
) -> Measured:
    """One face in numbers: what no restorer made, and the samples of each restorer."""
    scores = {label: _score_image(image, pair, metrics, kept.get(label)) for label, image in references.items()}
    for label, drawn in faces.items():
        each = [_score_kept(face, pair, metrics, kept.get(label), k) for k, face in enumerate(drawn)]
        scores[label] = {name: float(np.mean([one[name] for one in each])) for name in metrics}
    return Measured(
        pair.key,
        scores,
        {label: float(np.mean([face.seconds for face in drawn])) for label, drawn in faces.items()},
        {label: diversity([face.image for face in drawn]) for label, drawn in faces.items() if len(drawn) > 1},
    )


def _shown(pair: Pair, faces: Mapping[str, Sequence[KeptFace]], has_originals: bool) -> dict[str, Image8]:
    """The first sample of each restorer, and the original if there is one."""
    original = {ORIGINAL: pair.hq} if has_originals else {}
    return {label: drawn[0].image for label, drawn in faces.items()} | original


def diversity(samples: Sequence[Image8]) -> float:
    """Measure how much samples of one face differ: the root mean square of each value's standard deviation over them,
    in levels of 255; 0 for equal samples."""
    return float(np.sqrt(np.stack(samples).var(axis=0, ddof=1, dtype=np.float64).mean()))


def _restore(
    restorer: Restorer, batch: list[Pair], seeds: Sequence[int], kept: KeptFaces | None, sample: int
) -> list[KeptFace]:
    """The restored faces of a batch, from ``kept`` if it has all of them: a face depends on its batch's size."""
    known = [kept.load(pair, sample) for pair in batch] if kept is not None else []
    whole = [face for face in known if face is not None]
    if len(whole) == len(batch):
        return whole
    faces, seconds = restore_timed(restorer, from_uint8(collate(batch).lq), seeds)
    return [KeptFace(face, seconds, {}) for face in faces]


def _score_image(image: Image8, pair: Pair, metrics: Mapping[str, PairMetric], kept: KeptFaces | None) -> Scores:
    """The scores of what no restorer made."""
    known = kept.load(pair) if kept is not None else None
    is_same = known is not None and np.array_equal(known.image, image)
    return _score_kept(known if known is not None and is_same else KeptFace(image, 0.0, {}), pair, metrics, kept)


def _score_kept(
    face: KeptFace, pair: Pair, metrics: Mapping[str, PairMetric], kept: KeptFaces | None, sample: int = 0
) -> Scores:
    """The scores of a face; those that were not known yet are measured, and the face is kept with them."""
    new = {name: metric for name, metric in metrics.items() if name not in face.scores}
    known = face.scores | score(face.image, pair.hq, new)
    if kept is not None and (new or not face.scores):
        kept.save(pair, KeptFace(face.image, face.seconds, known), sample)
    return {name: known[name] for name in metrics}


def table_rows(
    faces: Sequence[Measured], sets: SetScores, metadata: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """A row for each method: its label, the means of its scores with intervals, the scores of the set of its faces, and
    what is known of it. Other real faces beside the originals, or originals that are not the reference, have scores as
    a set only."""
    rows: list[dict[str, Any]] = []
    for label, columns in score_columns(faces).items():
        row: dict[str, Any] = {"label": label, "metrics": _summaries(columns) | sets.scores(label)}
        if label in metadata:
            seconds = [face.seconds[label] for face in faces]
            row |= {"seconds_per_image": float(np.median(seconds)), **metadata[label]}
        if label in faces[0].diversity:
            row["diversity"] = summarise_column([face.diversity[label] for face in faces])
        rows.append(row)
    for label in {ORIGINAL, REAL} & {*sets.columns} - {sets.reference}:
        references = sum(row["label"] in (DEGRADED, BICUBIC, STRANGER) for row in rows)
        rows.insert(references, {"label": label, "metrics": sets.scores(label)})
    return rows


def differences(faces: Sequence[Measured], labels: Sequence[str]) -> list[dict[str, Any]]:
    """Paired differences of every two restorers, as of
    :func:`~idm.evaluation.statistics.paired_differences`."""
    return paired_differences(score_columns(faces), labels)


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
                    for label, columns in score_columns(groups[value]).items()
                ]
                for value in order
            }
    return parts


def _strengths(faces: Sequence[Measured]) -> dict[str, str]:
    """The third that each face belongs to; the third with the highest PSNR is degraded weakly."""
    ranked = sorted(faces, key=lambda face: -face.scores[DEGRADED]["psnr"])
    return {face.key: STRENGTHS[rank * len(STRENGTHS) // len(faces)] for rank, face in enumerate(ranked)}


def score_columns(faces: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Scores by method and metric, with one number for each face, in the order of the faces."""
    return {
        label: {name: [face.scores[label][name] for face in faces] for name in scores}
        for label, scores in faces[0].scores.items()
    }


def _summaries(columns: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float | None]]:
    return {name: summarise_column(values) for name, values in columns.items()}
