"""Measure how much cleaning sharpens soft portraits: ``idm clean`` with idm-faces-128 and several chains.

``python experiments/extrinsic/portraits.py -o OUT [--num-images 200]`` cleans the same portraits of ``faces256/train``
once with each chain. The same command resumes.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from idm.config.assembly.data import evenly
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.evaluation.statistics import mean_and_interval
from idm.extrinsic.manifest import read_manifest
from idm.io.atomic import write_json
from idm.io.image_writer import write_image
from idm.io.machine import provenance

SIZE = 128
CHAINS = {
    "10 steps from noise": ["sampler.name=ddim", "sampler.num_steps=10"],
    "1 step": ["sampler.name=ddim", "sampler.num_steps=1"],
    "last 0.2 of 10 steps": [
        "sampler.name=ddim",
        "sampler.num_steps=10",
        "sampler.start_from=degraded",
        "sampler.strength=0.2",
    ],
}


def write_portraits(folder: Path, num_images: int) -> None:
    source = FolderFaces(assets_folder() / "faces256" / "train", SIZE)
    portraits = [i for i, path in enumerate(source.paths) if path.name.startswith("portrait_")]
    chosen = Part(source, [portraits[i] for i in evenly(len(portraits), num_images)])
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(len(chosen)):
        path = folder / f"{i:04d}.png"
        if not path.exists():
            write_image(path, chosen[i].image)


def summarise(output: Path) -> dict[str, Any]:
    """Summarise all x*, and those that the gate accepted."""
    entries = read_manifest(output)
    taken = [entry for entry in entries if entry.accepted]
    reasons = {reason: sum(e.reason == reason for e in entries) for reason in sorted({e.reason for e in entries})}
    row: dict[str, Any] = {"num_images": len(entries), "reasons": reasons}
    for name, group in (("all", entries), ("taken", taken)):
        if not group:
            continue
        values = {
            "identity": [e.identity for e in group],
            "sharpness_change": [e.sharpness_after / e.sharpness_before - 1 for e in group],
            "noise_change": [e.noise_after - e.noise_before for e in group],
            "psnr_to_x": [e.psnr for e in group if e.psnr is not None],
        }
        row[name] = {key: [round(v, 4) for v in mean_and_interval(np.array(x))] for key, x in values.items()}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--num-images", type=int, default=200)
    arguments = parser.parse_args()
    portraits = arguments.output / "portraits"
    write_portraits(portraits, arguments.num_images)
    rows = {}
    for name, settings in CHAINS.items():
        output = arguments.output / name.replace(" ", "_")
        command = [sys.executable, "-m", "idm", "clean", "--model=idm-faces-128"]
        command += [f"--data={portraits}", f"--output={output}", "--report"]
        subprocess.run([*command, *settings], check=True)
        rows[name] = summarise(output)
        print(name, rows[name], flush=True)
    write_json(arguments.output / "portraits.json", {"rows": rows, **provenance()})


if __name__ == "__main__":
    main()
