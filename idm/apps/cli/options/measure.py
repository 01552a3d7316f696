"""The options of ``idm evaluate``, ``compare``, ``report`` and ``data``."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from idm.apps.cli.options.shared import MachineOptions, ModelOptions, add_machine, add_model, choices


@dataclass(frozen=True, kw_only=True)
class MeasureOptions(MachineOptions):
    """The faces, the degradation, the metrics and the results of a measurement; ``training_data`` None is that of the
    assets, ``preset`` None is gfpgan for faces that are not degraded yet, ``reference`` None is the originals if there
    are any."""

    data: str
    training_data: str | None
    preset: str | None
    metrics: str
    num_images: int | None
    seed: int
    real: str | None
    reference: Literal["originals", "real"] | None
    no_cache: bool
    processes: int
    output: Path


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(MeasureOptions, ModelOptions):
    """``idm evaluate``; ``pairs`` are two folders to compare instead of a model to measure."""

    pairs: list[Path] | None


@dataclass(frozen=True, kw_only=True)
class CompareOptions(MeasureOptions):
    """``idm compare``; ``size`` None is that of the smallest restorer."""

    restorers: list[str]
    size: int | None
    no_stranger: bool
    samples: int
    breakdown: bool


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """``idm report``."""

    results: list[Path]
    output: Path
    no_images: bool


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """``idm data check``."""

    name: str
    path: Path


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """``idm data prepare``; ``val`` and ``test`` are shares of the faces."""

    input: list[Path]
    output: Path
    size: int
    aligned: bool
    people: str
    val: float
    test: float
    seed: int
    weights_dir: Path | None


def add_evaluate(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm evaluate``."""
    parser.add_argument(
        "--pairs",
        nargs=2,
        type=Path,
        metavar=("RESTORED", "HQ"),
        help="measure the images of one folder against those of another",
    )
    _add_measuring(parser, "metrics.json, scores.csv, grid.png")
    add_model(parser)


def add_compare(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm compare``."""
    parser.add_argument(
        "restorers",
        nargs="+",
        metavar="LABEL=PATH",
        help="a restorer as for idm restore --restorer, with a label for the table; named restorers need no label; "
        "@STEPS sets the sampling steps of an IDM, as in idm@1 idm@4",
    )
    _add_measuring(parser, "table.md, comparison.json, scores.csv, differences.csv, grid.png, pictures")
    parser.add_argument("--size", type=int, help="side of the faces in pixels (default: that of the smallest restorer)")
    parser.add_argument(
        "--no-stranger",
        action="store_true",
        help="leave out the row of strangers (the most similar other face of each)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        metavar="N",
        help="restore each face N times by each IDM: scores are means over the samples, and the table shows how much "
        "they differ (default 1)",
    )
    parser.add_argument(
        "--breakdown", action="store_true", help="also write tables by source, group and strength of degradation"
    )
    add_machine(parser)


def _add_measuring(parser: argparse.ArgumentParser, results: str) -> None:
    parser.add_argument(
        "--data",
        default="synthetic",
        help="aligned faces: clean ones, which --preset degrades, as a folder, assets:SPLIT, synthetic[:N] (default), "
        "a training configuration, or a data.source such as '{name: huggingface, path: my/set, split: test}'; "
        "pairs:FOLDER with degraded faces in FOLDER/lq and originals of the same names in FOLDER/hq; or lq:FOLDER of "
        "degraded faces without originals",
    )
    parser.add_argument(
        "--training-data",
        metavar="DATA",
        help="faces that the models were trained on, given as for --data: the command stops if a face of --data is one "
        "of them (default: assets:train for assets:val and assets:test)",
    )
    parser.add_argument(
        "--preset",
        help="degradation of clean faces: the name of a preset, clean for none, settings of the degradation section "
        "such as '{preset: mild, down: [2, 4]}', or a training configuration (default gfpgan)",
    )
    parser.add_argument(
        "--metrics",
        default="psnr,ssim",
        metavar="NAMES",
        help="names separated by commas (default psnr,ssim); see --list-metrics",
    )
    parser.add_argument("--list-metrics", action=_ListMetrics, help="print all metrics with their protocols and exit")
    parser.add_argument("--num-images", type=int, help="number of faces (default: all, or 64 synthetic ones)")
    parser.add_argument("--seed", type=int, default=1234, help="seed of the degradations and the noise (default 1234)")
    parser.add_argument(
        "--real",
        metavar="DATA",
        help="other real faces, given as for --data, for the set metrics: as many as there are originals are a row of "
        "their own, or see --reference",
    )
    parser.add_argument(
        "--reference",
        choices=choices(MeasureOptions, "reference"),
        help="what set metrics such as fid compare faces with: their originals (default if there are any), or all "
        "faces of --real",
    )
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="neither use nor keep the scores and features of earlier runs, which are in $IDM_HOME/metrics.sqlite",
    )
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N", help="share the faces among N processes (default 1)"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help=f"folder for {results}; run the same command again to resume",
    )


def add_report(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm report``."""
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="output folders of idm compare")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the page, such as report.html"
    )
    parser.add_argument("--no-images", action="store_true", help="leave out the pictures of faces")


def add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm data check`` and ``idm data prepare``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = actions.add_parser("check", help="count and decode the images of a test set (see docs/test_sets.md)")
    check.add_argument("name", help="name of the set, such as celeba-test or lfw-test")
    check.add_argument("path", type=Path, help="folder of the set")
    prepare = actions.add_parser("prepare", help="make a set of aligned faces from photographs")
    prepare.add_argument("input", nargs="+", type=Path, metavar="INPUT", help="folders of photographs, or photographs")
    prepare.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for train, val and test with metadata.jsonl, a card and prepare.json; run the same command again "
        "to resume",
    )
    prepare.add_argument("--size", type=int, default=256, help="side of the faces in pixels (default 256)")
    prepare.add_argument("--aligned", action="store_true", help="inputs are aligned, square faces")
    prepare.add_argument(
        "--people",
        default="auto",
        metavar="HOW",
        help="how to tell who is shown, so that no person is in two parts: auto (file names that repeat their "
        "folder's, as in LFW), "
        "folders, none, or a file with lines of file name and person (default auto)",
    )
    for name in ("val", "test"):
        prepare.add_argument(
            f"--{name}", type=float, default=0.05, metavar="SHARE", help=f"share of the faces for {name} (default 0.05)"
        )
    prepare.add_argument("--seed", type=int, default=0, help="seed of the split (default 0)")
    prepare.add_argument("--weights-dir", type=Path, metavar="DIR", help="folder of the detector's weights")


class _ListMetrics(argparse.Action):
    """Print the names that ``--metrics`` takes, each with its protocol and what it needs."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from idm.evaluation.metrics import METRICS

        for name, metric in METRICS.items():
            size = f", {metric.smallest} px or more" if metric.smallest > 16 else ""
            weights = f" Weights: {', '.join(metric.weights)}." if metric.weights else ""
            print(f"{name:14} {metric.heading} ({metric.kind}{size})\n{'':14} {metric.protocol}{weights}")
        parser.exit()
