"""Measure quality and time of every sampler with 1 to 50 steps, and of several values of ``fidelity``.

    python experiments/strengths/chains.py bundled --num-faces 32 -o experiments/strengths/chains

The faces are from ``val``, degraded once with GFP-GAN's recipe. ``chains.json`` holds the means over the faces,
including those of the given faces, and the seconds per face. ``chains.png`` plots quality against seconds and against
``fidelity``.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from run import SEED, STRENGTHS, embed, laplacian_variance, restore

from idm.data.pairs import FrozenPairs, Pair
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.diffusion.chain import Chain, SamplerName
from idm.evaluation.metrics import build_metric, psnr, ssim
from idm.faces.recognition import cosine_similarity, load_identity
from idm.io.atomic import write_json
from idm.io.machine import best_device, inference_dtype, keep_freed_memory, provenance
from idm.io.ranges import from_uint8
from idm.restorers.idm import IDM
from idm.restorers.load import load_restorer

STEPS = (1, 2, 3, 4, 8, 16, 50)
FIDELITIES = (0.0, 0.25, 0.5, 0.75)
METRICS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "identity": "identity",
    "sharpness": "sharpness / original's",
    "niqe": "NIQE (lower is better)",
}
BATCH = 8


def main() -> None:
    parser = build_parser(__doc__, num_faces=32)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    result = measure(arguments.restorer, arguments.num_faces, lambda idm: chains(idm.chain, arguments.steps))
    write_json(arguments.output / "chains.json", result | provenance())
    draw(result, arguments.output / "chains.png")


def build_parser(description: str | None, num_faces: int) -> argparse.ArgumentParser:
    """The options of a script that measures chains."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restorer", help='"bundled" or a path')
    parser.add_argument(
        "--num-faces",
        type=int,
        default=num_faces,
        help=f"faces, spread evenly over val (default {num_faces})",
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser


def measure(
    restorer: str, num_faces: int, build_chains: Callable[[IDM], Iterable[tuple[dict[str, Any], Chain]]]
) -> dict[str, Any]:
    """Measure a model with several chains, each of which comes with the values that identify its row."""
    keep_freed_memory()
    device = best_device()
    path = None if restorer == "bundled" else Path(restorer)
    loaded = load_restorer(path, device, inference_dtype(device))
    assert isinstance(loaded.restorer, IDM)
    pairs = held_out(num_faces, loaded.restorer.image_size)
    judge = Judge(pairs)
    given = judge([pair.lq for pair in pairs])
    rows = []
    for settings, chain in build_chains(loaded.restorer):
        loaded.restorer.chain = chain
        restored, seconds = restore_all(loaded.restorer, pairs)
        rows.append({**settings, "seconds_per_face": seconds, **judge(restored)})
        print(rows[-1], flush=True)
    result = {"restorer": restorer, "about": loaded.metadata, "split": "val", "degradation": "gfpgan"}
    return result | {"num_faces": len(pairs), "seed": SEED, "given": given, "chains": rows}


def chains(published: Chain, steps: list[int]) -> Iterator[tuple[dict[str, Any], Chain]]:
    """Yield every sampler with every number of steps, then the model's chain with every fidelity."""
    for sampler in get_args(SamplerName):
        for num_steps in steps:
            yield {"sampler": sampler, "num_steps": num_steps}, Chain(sampler=sampler, num_steps=num_steps)
    for fidelity in FIDELITIES:
        chain = published.changed(num_steps=4, fidelity=fidelity)
        yield {"sampler": chain.sampler, "num_steps": 4, "fidelity": fidelity}, chain


def held_out(number: int, image_size: int) -> list[Pair]:
    faces = FolderFaces(assets_folder() / "faces256" / "val", image_size)
    chosen = np.linspace(0, len(faces) - 1, min(number, len(faces))).round().astype(int)
    pairs = FrozenPairs(Part(faces, chosen.tolist()), STRENGTHS["gfpgan"], SEED)
    return [pairs[index] for index in range(len(pairs))]


def restore_all(restorer, pairs: list[Pair]) -> tuple[list[np.ndarray], float]:
    """Restore all faces and return them with the seconds per face."""
    restored, begun = [], perf_counter()
    for start in range(0, len(pairs), BATCH):
        restored += restore(restorer, pairs[start : start + BATCH], start)
    return restored, (perf_counter() - begun) / len(pairs)


class Judge:
    """Computes the means of all metrics over images of the pairs' faces."""

    def __init__(self, pairs: list[Pair]) -> None:
        self.pairs, self.network, self.niqe = pairs, load_identity(), build_metric("niqe")
        self.originals = embed(self.network, [pair.hq for pair in pairs], pairs)

    def __call__(self, images: list[np.ndarray]) -> dict[str, float]:
        scores = defaultdict(list, identity=cosine_similarity(embed(self.network, images, self.pairs), self.originals))
        for image, pair in zip(images, self.pairs, strict=True):
            found, wanted = from_uint8(image), from_uint8(pair.hq)
            scores["psnr"].append(psnr(found, wanted))
            scores["ssim"].append(ssim(found, wanted))
            scores["sharpness"].append(laplacian_variance(image) / laplacian_variance(pair.hq))
            scores["niqe"].append(self.niqe(found, wanted))
        return {name: float(np.mean(scores[name])) for name in METRICS}


def label_log_scale(axes: plt.Axes) -> None:
    """Label the x axis at 1, 2 and 5 times each power of ten."""
    axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}", minor_formatter=NullFormatter())


def draw(result: dict[str, Any], path: Path) -> None:
    """Plot quality against seconds, with one line per sampler, and against fidelity."""
    figure, axes = plt.subplots(2, len(METRICS), figsize=(3.2 * len(METRICS), 6), constrained_layout=True)
    sampled = [row for row in result["chains"] if "fidelity" not in row]
    kept = [row for row in result["chains"] if "fidelity" in row]
    for (metric, title), (above, below) in zip(METRICS.items(), axes.T, strict=True):
        for sampler in get_args(SamplerName):
            rows = [row for row in sampled if row["sampler"] == sampler]
            above.plot([row["seconds_per_face"] for row in rows], [row[metric] for row in rows], "o-", label=sampler)
        below.plot([row["fidelity"] for row in kept], [row[metric] for row in kept], "o-")
        above.set(title=title, xlabel="seconds per face", xscale="log")
        label_log_scale(above)
        below.set(xlabel="fidelity, 4 steps")
        for axis in (above, below):
            axis.axhline(result["given"][metric], linestyle="--", color="tab:gray", label="as given")
            axis.grid(alpha=0.3)
    axes[0, 0].legend(fontsize="small")
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
