"""Measure what ``--grain`` of ``idm restore`` costs, and whether photographs without noise stay as they are.

    IDM_ASSETS=... python experiments/photos/grain.py -o experiments/photos/results/grain.json

The photographs are those of ``harm.py``, blurred and compressed without noise, and with noise of 8/255. PSNR, SSIM and
identity are means over the square of the face, compared with the original; "noise" is that of the face's flat parts, in
1/255.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from harm import SIZES, Case, build_parser, cases, load_parts

from idm.apps.photo.harm import noise_of
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.degradation import PRESETS
from idm.degradation.recipes import Recipe
from idm.degradation.steps import GaussianNoise
from idm.evaluation.metrics import psnr, ssim
from idm.faces.recognition import cosine_similarity
from idm.io.atomic import write_json
from idm.io.machine import provenance
from idm.io.photos import Photo
from idm.io.ranges import from_uint8

GRAINS = (0.0, 0.25, 0.5, 1.0)


def without_noise(recipe: Recipe) -> Recipe:
    return Recipe(tuple(step for step in recipe.steps if not isinstance(step, GaussianNoise)))


WAYS = {
    "mild without noise": without_noise(PRESETS["mild"]),
    "gfpgan without noise": without_noise(PRESETS["gfpgan"]),
    "noise of 8/255": Recipe((GaussianNoise((8.0, 8.0)),)),
}


def measure(parts: PhotoRestorer, some: Iterator[Case]) -> dict[str, Any]:
    """Restore each photograph with every share of the grain and return the means over the faces."""
    assert parts.identity is not None
    rows: dict[str, list[tuple[float, ...]]] = {"before": [], **{f"grain {grain:g}": [] for grain in GRAINS}}
    for case in some:
        photo = Photo(case.given)
        found = parts.find(photo.pixels, PhotoSettings())
        faces = parts.draw(photo, found, range(len(found)), PhotoSettings())
        results = [parts.compose(photo, found, faces, PhotoSettings(grain=grain)).photo.pixels for grain in GRAINS]
        original = from_uint8(case.original)
        squares = [from_uint8(np.ascontiguousarray(x[case.square])) for x in (case.given, *results)]
        known, *others = parts.identity.embed([original, *squares], [case.landmarks] * (1 + len(squares)))
        cosines = cosine_similarity(np.stack([known] * len(others)), np.stack(others))
        for values, square, same in zip(rows.values(), squares, cosines, strict=True):
            values.append((psnr(square, original), ssim(square, original), float(same), 255 * noise_of(square)))
    names = ("psnr", "ssim", "identity", "noise")
    means = {row: np.mean(values, axis=0).round(4).tolist() for row, values in rows.items()}
    return {row: dict(zip(names, values, strict=True)) for row, values in means.items()}


def main() -> None:
    arguments = build_parser(__doc__, num_faces=16).parse_args()
    parts, result = load_parts(arguments)
    count, seed = arguments.num_faces, arguments.seed
    result["faces"] = count
    for size in SIZES:
        for name, recipe in WAYS.items():
            result[f"{size} px, {name}"] = row = measure(parts, cases(size, recipe, count, seed))
            print(size, name, row, flush=True)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(arguments.output, {**result, **provenance()})


if __name__ == "__main__":
    main()
