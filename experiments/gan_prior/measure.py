"""Measure a prior of GFP-GAN during its training: its critic, its samples, and their distance to real faces.

``python experiments/gan_prior/measure.py RUN [RUN ...] -o NAME`` takes the folders ``prior`` of one or more runs, each
of which grew from the one before. For every ``--every``-th checkpoint it measures the Frechet and the kernel distance
of MobileFaceNet features (not FID, not KID) between samples and faces of ``train``, and the share of samples in which
the built-in detector finds a face. It writes logs and measurements to ``NAME.json``, curves to ``NAME.png``, samples of
the same codes over the training to ``NAME_growth.png``, and samples of the last checkpoint to ``NAME_samples.png``. No
sample is selected, and codes are not truncated.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import torch

from gan_baseline.prior import PRIOR, load_prior
from gan_baseline.schema import GANConfig
from gan_baseline.stylegan2 import StyleGAN2Generator, draw_noise
from idm.config.load import load_config
from idm.evaluation.frechet import frechet_distance, kernel_distance
from idm.faces.detector.search import load_builtin
from idm.faces.recognition import load_identity
from idm.faces.template import ffhq_landmarks
from idm.io.atomic import write_json
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.machine import provenance
from idm.io.ranges import chw_to_hwc, from_diffusion, from_uint8, to_uint8
from idm.io.run_folder import list_checkpoints, step_of
from idm.training.log import read_log

LOGGED = ("step", "processor_seconds", "discriminator", "real_accuracy", "fake_accuracy", "loss")
SHOWN, COLUMNS, SHEET = 6, 8, (4, 8)  # codes and checkpoints in the picture of the growth; rows and columns of samples
NUM_SEARCHED = 64  # samples in which faces are searched
BATCH = 16


def build_generator(config: GANConfig, checkpoint: Path) -> StyleGAN2Generator:
    """Return the averaged generator of a checkpoint."""
    net = config.generator
    generator = StyleGAN2Generator(
        config.data.image_size, net.num_style_feat, net.channel_multiplier, net.num_mlp, net.narrow, net.smooth
    )
    load_prior(generator, checkpoint / PRIOR)
    return generator


@torch.no_grad()
def draw_samples(generator: StyleGAN2Generator, number: int) -> list[np.ndarray]:
    """Return the samples of the seeds from 0 to ``number`` - 1."""
    dimension = generator.style_conv1.modulated_conv.modulation.in_features
    images: list[np.ndarray] = []
    for start in range(0, number, BATCH):
        rngs = [torch.Generator().manual_seed(seed) for seed in range(start, min(start + BATCH, number))]
        z = torch.stack([torch.randn(dimension, generator=rng) for rng in rngs])
        samples = from_diffusion(generator.sample(z, draw_noise(generator.image_size, rngs))).clamp(0, 1)
        images += [chw_to_hwc(image) for image in to_uint8(samples)]
    return images


def embed(images: Sequence[np.ndarray]) -> np.ndarray:
    """Compute features of aligned faces, which are assumed to have the landmarks of the template."""
    size = len(images[0])
    return load_identity().embed([from_uint8(image) for image in images], [ffhq_landmarks(size)] * len(images))


def score(images: Sequence[np.ndarray], real: np.ndarray) -> dict[str, float]:
    """Return the distances of images to the features of real faces, and the share of the first ones with a face."""
    features, detector = embed(images), load_builtin("cpu", 512)
    found = [len(detector.detect(image)) > 0 for image in images[:NUM_SEARCHED]]
    return {
        "frechet": frechet_distance(features, real),
        "kernel": kernel_distance(features, real),
        "faces found": float(np.mean(found)),
    }


def measure(run: Path, every: int, num_images: int) -> tuple[dict[str, Any], list[list[np.ndarray]]]:
    """Return the log and the scores of a run, and the first samples of every measured checkpoint."""
    config = load_config(run / "config.yaml", GANConfig)
    faces = config.data.source.build(config.data.image_size, config.seed)
    chosen = [faces[int(i)].image for i in np.linspace(0, len(faces) - 1, 2 * num_images)]
    real = embed(chosen[::2])
    rows, pictures = [], []
    for checkpoint in list_checkpoints(run / "checkpoints")[::-1][::every][::-1]:
        samples = draw_samples(build_generator(config, checkpoint), num_images)
        rows.append({"step": step_of(checkpoint), **score(samples, real)})
        pictures.append(samples[: SHEET[0] * SHEET[1]])
        print(run, rows[-1], flush=True)
    log = [{name: row[name] for name in LOGGED} for row in read_log(run / "log.jsonl")]
    result = {
        "image_size": config.data.image_size,
        "batch_size": config.train.batch_size,
        "log": log,
        "checkpoints": rows,
        "other real faces": score(chosen[1::2], real),
    }
    return result, pictures


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot loss and accuracies of the critics and the scores of the samples over the core-minutes."""
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.2), constrained_layout=True)
    titles = ("critic's loss", "critic's accuracy", "Frechet distance of samples", "samples with a face")
    start = 0.0
    for run, colour in zip(runs, ("tab:blue", "tab:orange", "tab:green"), strict=False):
        log, label = run["log"], f"{run['image_size']} px"
        minutes = [start + row["processor_seconds"] / 60 for row in log]
        axes[0].plot(minutes, [row["discriminator"] for row in log], color=colour, label=label)
        axes[1].plot(minutes, [row["real_accuracy"] for row in log], color=colour, label=f"{label}, real")
        axes[1].plot(minutes, [row["fake_accuracy"] for row in log], ":", color=colour, label=f"{label}, generated")
        steps = [row["step"] for row in log]
        measured = np.interp([row["step"] for row in run["checkpoints"]], steps, minutes)
        axes[2].plot(measured, [row["frechet"] for row in run["checkpoints"]], "o-", color=colour, label=label)
        axes[2].axhline(run["other real faces"]["frechet"], linestyle="--", color=colour, label=f"{label}, real faces")
        axes[3].plot(measured, [row["faces found"] for row in run["checkpoints"]], "o-", color=colour, label=label)
        start = minutes[-1]
    axes[0].axhline(2 * np.log(2), linestyle="--", color="tab:gray", label="chance")
    axes[1].axhline(0.5, linestyle="--", color="tab:gray", label="chance")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(xlabel="core-minutes", ylabel=title, ylim=(0, None))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    figure.savefig(path, dpi=90)


def enlarge(image: np.ndarray, size: int) -> np.ndarray:
    """Repeat pixels up to a size."""
    return image.repeat(size // len(image), axis=0).repeat(size // len(image), axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders `prior` of runs, in the order of their training")
    parser.add_argument("-o", "--output", type=Path, required=True, help="path of the results, without a suffix")
    parser.add_argument("--every", type=int, default=1, help="measure every n-th checkpoint up to the last (default 1)")
    parser.add_argument("--num-images", type=int, default=256, help="samples of each checkpoint (default 256)")
    arguments = parser.parse_args()
    output = arguments.output
    torch.set_num_threads(1)
    results, shown, labels = [], [], []
    for run in arguments.runs:
        result, pictures = measure(run, arguments.every, arguments.num_images)
        results.append(result)
        shown += pictures
        labels += [f"{result['image_size']} px, {row['step']}" for row in result["checkpoints"]]
    size = len(shown[-1][0])
    chosen = np.linspace(0, len(shown) - 1, min(COLUMNS, len(shown))).round().astype(int)
    growth = [[enlarge(shown[column][seed], size) for column in chosen] for seed in range(SHOWN)]
    write_image(output.with_name(f"{output.name}_growth.png"), image_grid(growth, [labels[i] for i in chosen]))
    rows, columns = SHEET
    sheet = [np.concatenate(shown[-1][row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    write_image(output.with_name(f"{output.name}_samples.png"), np.concatenate(sheet, axis=0))
    plot(results, output.with_suffix(".png"))
    details = {"data": "assets:train", "num_images": arguments.num_images, "runs": results}
    write_json(output.with_suffix(".json"), details | provenance())


if __name__ == "__main__":
    main()
