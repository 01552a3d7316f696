"""Train the same denoiser without condition on the spoiled and on the cleaned faces, and compare the generated faces.

``python experiments/extrinsic/unconditional.py --experiment FOLDER -o OUT [--seed 0] [section.key=value ...]`` uses one
seed of ``run.py``'s experiment and trains on its spoiled and on its cleaned targets with equal settings. It compares
the losses and gradients of the two training runs, and the Frechet distance of MobileFaceNet features (not FID) between
generated faces and originals that were held out of both. The same command resumes.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from run import BASE

from idm.data.sources import FaceSource, FolderFaces
from idm.evaluation.frechet import NAME, frechet_distance
from idm.extrinsic.shards import cleaned_faces
from idm.faces.recognition import load_identity
from idm.faces.template import ffhq_landmarks
from idm.io.atomic import write_json
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.machine import inference_dtype, keep_freed_memory, provenance
from idm.io.ranges import chw_to_hwc, from_uint8, to_uint8
from idm.restorers.saved import load_idm
from idm.training.log import read_log

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "unconditional64.yaml"
SIZE = 64
HELD_OUT = 8  # one face in eight is held out


def write_faces(source: FaceSource, folder: Path) -> None:
    """Write all faces except the held-out ones as PNG files."""
    for i in range(len(source)):
        path = folder / f"{i:05d}.png"
        if i % HELD_OUT and not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_image(path, source[i].image)


def generate(run: Path, num_images: int, batch_size: int) -> list[np.ndarray]:
    device = torch.device("cpu")
    pipeline = load_idm(run, device, inference_dtype(device))
    images: list[np.ndarray] = []
    for start in range(0, num_images, batch_size):
        seeds = range(start, min(start + batch_size, num_images))
        images += [chw_to_hwc(image) for image in to_uint8(pipeline.generate(seeds))]
    return images


def embed(images: Sequence[np.ndarray]) -> np.ndarray:
    """Compute features of aligned faces; generated faces are assumed to have the landmarks of the template."""
    return load_identity().embed([from_uint8(image) for image in images], [ffhq_landmarks(SIZE)] * len(images))


def stability(run: Path) -> dict[str, float]:
    """Summarise the log: mean loss of its last fifth and, after its first fifth, the mean change of the loss between
    rows and the gradient norms."""
    rows = [row for row in read_log(run / "log.jsonl") if "loss" in row]
    loss, gradient = (np.array([row[name] for row in rows]) for name in ("loss", "grad_norm"))
    tail = max(1, len(rows) // 5)
    return {
        "final_loss": float(loss[-tail:].mean()),
        "loss_jump": float(np.abs(np.diff(loss[tail:])).mean()),
        "largest_gradient": float(gradient[tail:].max()),
        "mean_gradient": float(gradient[tail:].mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiment", type=Path, required=True, help="output folder of run.py")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--num-images", type=int, default=518, help="generated faces (default 518, as many as are held out)"
    )
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_intermixed_args()
    keep_freed_memory()
    torch.set_num_threads(1)
    output, experiment = arguments.output.resolve(), arguments.experiment.resolve()
    originals = FolderFaces(experiment / "originals", SIZE)
    sets = {
        "spoiled": FolderFaces(experiment / f"spoiled_{arguments.seed}", SIZE),
        "cleaned": cleaned_faces(experiment / f"seed_{arguments.seed}" / BASE / "clean_0", SIZE),
    }
    held_out = embed([originals[i].image for i in range(0, len(originals), HELD_OUT)])
    rows: dict[str, Any] = {}
    shown = []
    for name, source in sets.items():
        write_faces(source, output / f"faces_{name}")
        run = output / name
        command = [sys.executable, str(ROOT / "train_idm.py"), f"--config={CONFIG}", f"output_dir={run}"]
        faces = f"data.source.path={output / f'faces_{name}'}"
        subprocess.run([*command, faces, "train.trackers=[]", *arguments.overrides], check=True)
        images = generate(run, arguments.num_images, 16)
        shown.append(images[:12])
        rows[name] = {"frechet": frechet_distance(embed(images), held_out), **stability(run)}
        print(name, json.dumps(rows[name]), flush=True)
    reference = embed([originals[i].image for i in range(1, len(originals), HELD_OUT)])
    rows["originals of the training part"] = {"frechet": frechet_distance(reference, held_out)}
    write_image(output / "generated.png", image_grid(list(zip(*shown, strict=True)), list(sets)))
    metadata = {"distance": NAME, "num_generated": arguments.num_images, "num_held_out": len(held_out)}
    write_json(
        output / f"unconditional_{arguments.seed}.json",
        {**metadata, "seed": arguments.seed, "rows": rows, **provenance()},
    )


if __name__ == "__main__":
    main()
