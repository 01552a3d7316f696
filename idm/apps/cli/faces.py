"""The clean faces, the degradation and the measures that a command line asks for."""

import argparse
from dataclasses import replace
from pathlib import Path

from idm.config.assembly.data import assets_folder, evenly
from idm.data.sources import FaceSource, FolderFaces, Part, SyntheticFaces
from idm.degradation import GFPGAN, PRESETS, Recipe
from idm.evaluation.metrics import METRICS, PairMetric, SetMetric, SingleMetric, build_metric


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


def build_metrics(names: str) -> tuple[dict[str, PairMetric], dict[str, SetMetric]]:
    """The metrics named by ``--metrics``: those of each face, of which one without reference ignores the original, and
    those of all faces together.

    Raises:
        ValueError: an unknown name, or none of the metrics looks at single faces.
    """
    each: dict[str, PairMetric] = {}
    together: dict[str, SetMetric] = {}
    for name in names.split(","):
        match name:
            case "psnr" | "ssim" | "lpips" | "identity":
                each[name] = build_metric(name)
            case "niqe":
                each[name] = _without_reference(build_metric(name))
            case "frechet" | "fid":
                together[name] = build_metric(name)
            case _:
                raise ValueError(f"--metrics: {name!r} is unknown; known: {', '.join(METRICS)}")
    if not each:
        raise ValueError(f"--metrics: {names} looks at all faces together only; add one of single faces, such as psnr")
    return each, together


def _without_reference(metric: SingleMetric) -> PairMetric:
    return lambda image, hq: metric(image)
