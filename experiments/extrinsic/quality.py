"""Test whether the gate's quality measures detect spoiled faces, for each measure and kind of spoiling.

``python experiments/extrinsic/quality.py -o experiments/extrinsic/results/quality.json`` uses held-out faces. For
strengths from hardly visible to obvious, it prints and writes how often a spoiled face is worse than its own original,
and how well the measure separates spoiled faces from all originals (area under the ROC curve; 0.5 is chance, lower is
misleading).
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from spoil import Spoiling, spoil

from idm.data.sources import FolderFaces, assets_folder
from idm.extrinsic.quality import Quality, measure
from idm.io.atomic import write_json
from idm.io.machine import provenance

LEVELS = {
    "blur": [Spoiling("blur", blur=sigma) for sigma in (0.4, 0.6, 1.0)],
    "noise": [Spoiling("noise", noise=sigma) for sigma in (3.0, 6.0, 12.0)],
    "jpeg": [Spoiling("jpeg", jpeg=quality) for quality in (80.0, 50.0, 25.0)],
}
GOODNESS: dict[str, Callable[[Quality], float]] = {
    "sharpness": lambda quality: quality.sharpness,
    "noise": lambda quality: -quality.noise,
    "blockiness": lambda quality: -quality.blockiness,
}


def compare(size: int) -> list[dict[str, Any]]:
    """Measure all kinds and strengths of spoiling on faces of ``size`` pixels."""
    faces = FolderFaces(assets_folder() / "faces256" / "val", size)
    images = [faces[i].image for i in range(len(faces))]
    originals = [measure(image) for image in images]
    rows = []
    for kind, levels in LEVELS.items():
        for spoiling in levels:
            rngs = [np.random.default_rng([0x5B012, i]) for i in range(len(images))]
            spoiled = [measure(spoil(image, spoiling, rng)) for image, rng in zip(images, rngs, strict=True)]
            row: dict[str, Any] = {"pixels": size, "kind": kind, "strength": getattr(spoiling, kind)}
            for name, goodness in GOODNESS.items():
                before, after = (np.array([goodness(q) for q in qualities]) for qualities in (originals, spoiled))
                row[name] = {
                    "worse_than_own_original": float((after < before).mean()),
                    "auc": float((after[:, None] < before[None]).mean()),
                }
            rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    rows = [row for size in (64, 128, 256) for row in compare(size)]
    for row in rows:
        numbers = "  ".join(
            f"{name} {row[name]['worse_than_own_original']:.2f} / {row[name]['auc']:.2f}" for name in GOODNESS
        )
        print(f"{row['pixels']:4} {row['kind']:5} {row['strength']:5}  {numbers}")
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, {"data": "assets:val", "rows": rows, **provenance()})


if __name__ == "__main__":
    main()
