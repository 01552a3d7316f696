"""The clean faces, the degradation and the measures that a command line asks for."""

import argparse
from dataclasses import replace
from pathlib import Path

from idm.build.data import assets_folder, evenly
from idm.data.faces import FaceSource, FolderFaces, Part, SyntheticFaces
from idm.degradation import GFPGAN, PRESETS, Recipe
from idm.evaluation.metrics import PairMetric, build_metric


def build_faces(arguments: argparse.Namespace, size: int) -> FaceSource:
    """The faces named by ``--data``, as many as ``--num-images``."""
    source: FaceSource
    wanted = arguments.num_images
    if wanted is not None and wanted < 1:
        raise ValueError(f"--num-images must be at least 1, got {wanted}")
    if arguments.data == "synthetic":
        return SyntheticFaces(wanted or 64, arguments.seed, size)
    if arguments.data.startswith("assets:"):
        source = FolderFaces(assets_folder() / "faces256" / arguments.data.removeprefix("assets:"), size)
    else:
        source = FolderFaces(Path(arguments.data), size)
    if wanted is not None and wanted > len(source):
        raise ValueError(f"--num-images: {wanted} of the {len(source)} faces there are")
    return Part(source, evenly(len(source), wanted)) if wanted else source


def build_preset(preset: str) -> Recipe:
    """The degradation named by ``--preset``."""
    if preset == "clean":
        return replace(GFPGAN, clean_probability=1.0)
    if preset not in PRESETS:
        raise ValueError(f"--preset: {preset!r} is unknown; known: clean, {', '.join(PRESETS)}")
    return PRESETS[preset]


def build_metrics(names: str) -> dict[str, PairMetric]:
    """The metrics named by ``--metrics``; one without reference ignores the original."""
    return {name: _build_metric(name) for name in names.split(",")}


def _build_metric(name: str) -> PairMetric:
    match name:
        case "psnr" | "ssim" | "lpips" | "identity":
            return build_metric(name)
        case "niqe":
            niqe = build_metric(name)
            return lambda image, hq: niqe(image)
        case _:
            raise ValueError(f"--metrics: {name!r} is unknown here; known: psnr, ssim, lpips, identity, niqe")
