"""Measure how much of the model's change the gate of ``idm restore`` applies, and whether a face is harmed.

    IDM_ASSETS=... python experiments/photos/gate.py -o experiments/photos/results/gate.json

The script degrades every third face of `val` in each of the ways below and restores it with the bundled model and the
colours of the given face, as ``idm restore`` does. For each way it prints the mean gain in PSNR with the full change
and with the part that the gate applies, the share of faces that change, how many lose more than .1 dB, and the least
gain. "clean" faces are not degraded (an unchanged face counts as 60 dB, so every change is a loss). "noise 5" has white
noise of 5/255. ``--detail-error`` tests other values of the constant chosen here, and ``--first 1`` uses other faces.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from idm.apps.photo.harm import DETAIL_ERROR, Crop, judge
from idm.data.pairs import FrozenPairs, collate
from idm.data.sources import FolderFaces, assets_folder
from idm.degradation import PRESETS, Recipe
from idm.degradation.steps import GaussianNoise
from idm.evaluation.pixels import psnr
from idm.faces.colour import match_colour
from idm.faces.paste import crop_weights
from idm.io.atomic import write_json
from idm.io.machine import best_device, inference_dtype, provenance
from idm.io.ranges import chw_to_hwc, from_uint8, to_uint8
from idm.restorers.idm import IDM
from idm.restorers.load import describe
from idm.restorers.saved import load_idm

SEED, STEP, HIGHEST_PSNR = 77, 3, 60.0
WAYS = {
    "clean": Recipe(PRESETS["mild"].steps, clean_probability=1.0),
    **{f"noise {sigma}": Recipe((GaussianNoise((sigma, sigma)),)) for sigma in (2.0, 5.0, 10.0)},
    **{name: PRESETS[name] for name in ("mild", "gfpgan", "diffbir", "difface", "codeformer_stage2")},
}


@torch.inference_mode()
def restored(model: IDM, way: Recipe, first: int) -> Iterator[tuple[Crop, Crop, Crop]]:
    """Yield (given, restored, original) faces, (h, w, 3) in [0, 1]."""
    size = model.image_size
    faces, weights = FolderFaces(assets_folder() / "faces256" / "val", size), crop_weights(size).astype(np.float32)
    pairs = FrozenPairs(faces, way, SEED)
    for index in range(first, len(faces), STEP):
        pair = pairs[index]
        given = from_uint8(pair.lq)
        [face] = to_uint8(model.restore(from_uint8(collate([pair]).lq), [index]).cpu())
        matched = match_colour(from_uint8(chw_to_hwc(face)), given, weights, "wavelet")
        yield given, np.clip(matched, 0, 1).astype(np.float32), from_uint8(pair.hq)


def quality(face: Crop, original: Crop) -> float:
    return min(psnr(face, original), HIGHEST_PSNR)


def summary(full: list[float], gated: list[float], shares: list[float]) -> dict[str, float]:
    gains = np.array(gated)
    return {
        "gain_in_full": round(float(np.mean(full)), 3),
        "gain": round(float(gains.mean()), 3),
        "changed": round(float(np.mean(np.array(shares) > 0)), 3),
        "mean_share": round(float(np.mean(shares)), 3),
        "lose_more_than_0.1_dB": int((gains < -0.1).sum()),
        "least_gain": round(float(gains.min()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="run, saved or bundled model (default: the bundled one)")
    parser.add_argument("--detail-error", type=float, nargs="+", default=[DETAIL_ERROR])
    parser.add_argument("--first", type=int, choices=range(STEP), default=0, help="index of the first face")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    device = best_device()
    model = load_idm(options.model, device, inference_dtype(device))
    rows: dict[str, dict[str, dict[str, float]]] = {f"{tried:g}": {} for tried in options.detail_error}
    for name, way in WAYS.items():
        faces = list(restored(model, way, options.first))
        before = [quality(given, original) for given, _, original in faces]
        full = [quality(face, original) - b for b, (_, face, original) in zip(before, faces, strict=True)]
        for tried in options.detail_error:
            shares = [judge(given, face, detail_error=tried).share for given, face, _ in faces]
            gated = [
                quality(given + np.float32(share) * (face - given), original) - b
                for b, share, (given, face, original) in zip(before, shares, faces, strict=True)
            ]
            rows[f"{tried:g}"][name] = row = summary(full, gated, shares)
            print(f"{tried:g} {name:18} {row}", flush=True)
    metadata = {"data": "assets:val", "first": options.first, "step": STEP, "seed": SEED, "restorer": describe(model)}
    write_json(options.output, {**metadata, "detail_error": rows, **provenance()})


if __name__ == "__main__":
    main()
