"""Measure restorers on undegraded, mildly degraded, GFP-GAN-degraded and severely degraded faces.

    python experiments/strengths/run.py --split val bundled@1 bundled@2 runs/faces256@1 -o experiments/strengths/results

Each restorer is "bundled" or a path, with "@N" for N steps. Every face is degraded once per strength, from the seed,
and all restorers get the same pictures. For each strength, a result file holds the means of the given and the restored
faces, the paired difference with its 95 % interval (percentile bootstrap over faces), results by source and by group of
the faces, the share of faces that lose more than .3 dB, the first six faces (which a test measures again) and the ten
worst.
"""

import argparse
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from idm.data.pairs import FrozenPairs, Pair
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.degradation import PRESETS, Recipe
from idm.evaluation.metrics import psnr, ssim
from idm.faces.recognition import cosine_similarity, load_identity
from idm.io.atomic import write_json
from idm.io.images import resize_image
from idm.io.machine import best_device, inference_dtype, keep_freed_memory, provenance
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.load import load_with_steps
from idm.restorers.names import DEFAULT_NAME

SEED = 2026
STRENGTHS: dict[str, Recipe] = {
    "clean": replace(PRESETS["mild"], clean_probability=1.0),
    "mild": PRESETS["mild"],
    "gfpgan": PRESETS["gfpgan"],
    "severe": PRESETS["codeformer_stage2"],
}
HIGHEST_PSNR = 60.0  # PSNR of an unchanged face, in dB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorers", nargs="+", help='"bundled" or a path, with "@N" for N steps')
    parser.add_argument("--split", choices=["train", "val", "test"], default="val")
    parser.add_argument("--num-faces", type=int, help="use only the first faces")
    parser.add_argument("--image-size", type=int, default=256)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    keep_freed_memory()
    folder = assets_folder() / "faces256" / arguments.split
    faces = FolderFaces(folder, arguments.image_size)
    rows = {row["file_name"]: row for row in map(json.loads, (folder / "metadata.jsonl").read_text().splitlines())}
    chosen = Part(faces, range(min(len(faces), arguments.num_faces or len(faces))))
    arguments.output.mkdir(parents=True, exist_ok=True)
    for spec in arguments.restorers:
        result = measure(spec, chosen, rows)
        name = Path(spec).name + ("" if arguments.image_size == 256 else f"_{arguments.image_size}px")
        result |= {"split": arguments.split, "num_faces": len(chosen), "image_size": arguments.image_size, "seed": SEED}
        write_json(arguments.output / f"{name}_{arguments.split}.json", result | provenance())
        show(spec, result)


def measure(spec: str, faces: Part, rows: dict[str, dict]) -> dict:
    """Measure one restorer on every strength."""
    device = best_device()
    loaded = load_with_steps(spec.replace("bundled", DEFAULT_NAME, 1), device, inference_dtype(device))
    strengths = {name: measure_strength(loaded.restorer, faces, recipe, rows) for name, recipe in STRENGTHS.items()}
    return {"restorer": spec, "about": loaded.metadata, "strengths": strengths}


def measure_strength(restorer, faces: Part, recipe: Recipe, rows: dict[str, dict]) -> dict:
    pairs = FrozenPairs(faces, recipe, SEED)
    network = load_identity()
    scores: dict[str, dict[str, list[float]]] = {"given": defaultdict(list), "restored": defaultdict(list)}
    keys, seconds = [], 0.0
    for start in range(0, len(pairs), 8):
        batch = [pairs[index] for index in range(start, min(start + 8, len(pairs)))]
        begun = perf_counter()
        restored = restore(restorer, batch, start)
        seconds += perf_counter() - begun
        keys += [pair.key for pair in batch]
        original = embed(network, [pair.hq for pair in batch], batch)
        for column, images in (("given", [pair.lq for pair in batch]), ("restored", restored)):
            identities = cosine_similarity(embed(network, images, batch), original)
            for image, pair, identity in zip(images, batch, identities, strict=True):
                scores[column]["psnr"].append(min(HIGHEST_PSNR, psnr(from_uint8(image), from_uint8(pair.hq))))
                scores[column]["ssim"].append(ssim(from_uint8(image), from_uint8(pair.hq)))
                scores[column]["identity"].append(float(identity))
                scores[column]["sharpness"].append(laplacian_variance(image) / laplacian_variance(pair.hq))
    given, after = ({k: np.array(v) for k, v in scores[column].items()} for column in ("given", "restored"))
    loss = given["psnr"] - after["psnr"]
    worst = np.argsort(-loss)[:10]
    return {
        "metrics": {name: summary(given[name], after[name]) for name in given},
        "share_losing_0.3_db": float((loss > 0.3).mean()),
        "seconds_per_face": seconds / len(pairs),
        "by_source": by(keys, given, after, lambda key: rows[key]["source"]),
        "by_group": by(keys, given, after, lambda key: rows[key]["group"] or "portrait"),
        "first": {keys[i]: {name: [float(given[name][i]), float(after[name][i])] for name in given} for i in range(6)},
        "worst": {keys[i]: {name: [float(given[name][i]), float(after[name][i])] for name in given} for i in worst},
    }


def restore(restorer, batch: list[Pair], start: int) -> list[np.ndarray]:
    """Restore as ``idm restore`` does: faces of another size are resized to the model's size and back."""
    size, own = batch[0].lq.shape[0], restorer.image_size
    lq = torch.stack([hwc_to_chw(from_uint8(resize_image(pair.lq, (own, own)))) for pair in batch])
    with torch.inference_mode():
        restored = restorer.restore(lq, [SEED + start + i for i in range(len(batch))])
    return [resize_image(chw_to_hwc(face), (size, size)) for face in to_uint8(restored.cpu())]


def embed(network, images: list[np.ndarray], batch: list[Pair]) -> np.ndarray:
    return network.embed([from_uint8(image) for image in images], [pair.landmarks for pair in batch])


def laplacian_variance(image: np.ndarray) -> float:
    """Return the variance of the Laplacian of luma, which measures sharpness."""
    luma = image.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    inner = luma[1:-1, 1:-1]
    return float((luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * inner).var())


def summary(given: np.ndarray, restored: np.ndarray) -> dict:
    difference = restored - given
    drawn = np.random.default_rng(0).integers(0, len(difference), (2000, len(difference)))
    low, high = np.quantile(difference[drawn].mean(axis=1), [0.025, 0.975])
    return {
        "given": float(given.mean()),
        "restored": float(restored.mean()),
        "difference": {"mean": float(difference.mean()), "low": float(low), "high": float(high)},
    }


def by(keys: list[str], given: dict, after: dict, of) -> dict:
    groups = np.array([of(key) for key in keys])
    return {
        str(group): {
            "num_faces": int((groups == group).sum()),
            **{k: [float(given[k][groups == group].mean()), float(after[k][groups == group].mean())] for k in given},
        }
        for group in sorted(set(groups.tolist()))
    }


def show(spec: str, result: dict) -> None:
    print(spec)
    for strength, values in result["strengths"].items():
        cells = [f"{k} {v['given']:.3f} -> {v['restored']:.3f}" for k, v in values["metrics"].items()]
        harmed = f"{100 * values['share_losing_0.3_db']:.0f} % lose .3 dB"
        print(f"  {strength:7}", "  ".join(cells), harmed, f"{values['seconds_per_face']:.3f} s", flush=True)


if __name__ == "__main__":
    main()
