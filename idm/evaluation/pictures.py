"""Pictures of a few faces of a comparison: the first faces, and those on which each restorer gains least.

``idm compare`` writes them to the folder ``pictures`` of its output, and lists the positions of the faces (rows of
scores.csv, from 0) as "pictures" in comparison.json. ``pictures/00000012_idm@1.webp`` is face 12 by the restorer idm@1,
with characters of the label that file names cannot hold in percent-encoding; "degraded" and "original" stand for what
no restorer made. The files are for looking at: WebP with losses, and not larger than :data:`MAX_SIDE`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

from idm.evaluation.metric import Image8, Metric
from idm.evaluation.metrics import METRICS
from idm.evaluation.sets import DEGRADED
from idm.io.image_writer import write_image
from idm.io.images import resize_image

NUM_FIRST, NUM_WORST = 8, 4
MAX_SIDE = 512  # in pixels
QUALITY = 90  # of WebP

Columns = Mapping[str, Mapping[str, Sequence[float]]]
"""The scores of each face, in the order of the faces, by method and metric."""


def picture_path(output: Path, position: int, label: str) -> Path:
    """The file of one face by one method in the output folder of a comparison."""
    return output / "pictures" / f"{position:08d}_{quote(label, safe='@ ')}.webp"


def save_pictures(output: Path, faces: Mapping[int, Mapping[str, Image8]]) -> None:
    """Write the pictures of faces, by position and method."""
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    for position, images in faces.items():
        for label, image in images.items():
            side = max(image.shape[:2])
            small = image if side <= MAX_SIDE else resize_image(image, (MAX_SIDE, MAX_SIDE))
            write_image(picture_path(output, position, label), small, quality=QUALITY)


def choose_pictures(columns: Columns, labels: Sequence[str], num_faces: int) -> list[int]:
    """Positions of the first faces, and of those on which each restorer gains least, in ascending order."""
    worst = [position for label in labels for position, _ in rank_gains(columns, label)[:NUM_WORST]]
    return sorted({*range(min(NUM_FIRST, num_faces)), *worst})


def reference_metric(columns: Columns) -> Metric | None:
    """The first metric that compares faces with their originals; None if none was measured."""
    measured = columns[DEGRADED]
    return next((metric for name, metric in METRICS.items() if metric.full_reference and name in measured), None)


def rank_gains(columns: Columns, label: str) -> list[tuple[int, float]]:
    """Positions of all faces with a restorer's gain over the degraded face in :func:`reference_metric`, least first.

    The gain is positive where the restored face is better. The list is empty without such a metric.
    """
    metric = reference_metric(columns)
    if metric is None:
        return []
    pairs = zip(columns[DEGRADED][metric.name], columns[label][metric.name], strict=True)
    gains = [(position, _gain(metric, before, after)) for position, (before, after) in enumerate(pairs)]
    return sorted(gains, key=lambda gain: gain[1])


def _gain(metric: Metric, before: float, after: float) -> float:
    match metric.better:
        case "higher":
            return after - before
        case "lower":
            return before - after
        case "one":
            return abs(before - 1) - abs(after - 1)
        case _:
            assert_never(metric.better)
