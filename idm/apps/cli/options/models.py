"""The options of ``idm weights``, ``export``, ``clean`` and ``adapt``."""

import argparse
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """``idm weights`` and ``idm weights fetch``; only the latter has names and consent."""

    weights_dir: Path | None
    action: str | None
    names: list[str]
    yes: bool


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """``idm export``; ``model`` None is the bundled one."""

    model: str | None
    output: Path
    int8: bool


@dataclass(frozen=True, kw_only=True)
class CleanOptions:
    """``idm clean``; ``num_images`` None is all of them."""

    model: Path | None
    data: str
    output: Path
    num_images: int | None
    seed: int
    report: bool
    settings: list[str]


@dataclass(frozen=True, kw_only=True)
class AdaptOptions:
    """``idm adapt``; ``steps`` None is as many as fit into ``minutes``."""

    input: list[Path]
    output: Path
    model: str | None
    aligned: bool
    minutes: float
    steps: int | None
    learning_rate: float
    batch_size: int
    preset: str
    lora_rank: int | None
    min_sharpness: float
    seed: int
    weights_dir: Path | None


def add_weights(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm weights`` and ``idm weights fetch``."""
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="search this folder only")
    parser.set_defaults(names=[], yes=False)
    fetch = parser.add_subparsers(dest="action", metavar="fetch").add_parser(
        "fetch", help="download weights after showing their terms"
    )
    fetch.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="names of files as idm weights lists them, or unique parts of these "
        "(default: RetinaFace and the identity network)",
    )
    fetch.add_argument("--yes", action="store_true", help="do not ask; states that you accept the licences")
    fetch.add_argument(
        "--weights-dir", type=Path, metavar="DIR", default=argparse.SUPPRESS, help="download into this folder"
    )


def add_export(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm export``."""
    parser.add_argument("model", nargs="?", help="a model as for idm restore --model (default: the bundled model)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="an ONNX file, a folder for it, or a .pth file for a GFP-GAN"
    )
    parser.add_argument("--int8", action="store_true", help="quantise most layers of an IDM to 8 bits")


def add_clean(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm clean``."""
    parser.add_argument("--model", type=Path, help="training run or saved pipeline (default: the bundled model)")
    parser.add_argument(
        "--data",
        required=True,
        help="folder of aligned faces, assets:SPLIT, synthetic[:N], a training configuration, or a data.source such as "
        "'{name: huggingface, path: parquet, data_files: faces.parquet}'",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the cleaned data set")
    parser.add_argument("--num-images", type=int, help="number of faces, spread evenly (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the noise of all faces (default 0)")
    parser.add_argument("--report", action="store_true", help="also write a page with faces before and after")
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="key=value",
        help="settings of the extrinsic section, such as gate.min_identity=0.7",
    )


def add_adapt(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm adapt``."""
    parser.add_argument("input", nargs="+", type=Path, metavar="INPUT", help="photographs, or folders of them")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="folder for the model (for idm restore --model) and adapt.json; run the same command again to resume",
    )
    parser.add_argument("--model", help="training run, saved pipeline or bundled model (default: the bundled one)")
    parser.add_argument("--aligned", action="store_true", help="inputs are aligned, square faces")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="minutes of training (default 10)")
    parser.add_argument("--steps", type=int, metavar="N", help="training steps, instead of --minutes")
    parser.add_argument(
        "--learning-rate", type=float, default=1e-4, metavar="R", help="peak learning rate (default 1e-4)"
    )
    parser.add_argument("--batch-size", type=int, default=8, help="faces per step (default 8)")
    parser.add_argument(
        "--preset",
        default="gfpgan",
        help="degradation of most faces: the name of a preset, settings of the degradation section that differ, such "
        "as '{mixture: {mild: 0.5}}', or a training configuration (default gfpgan)",
    )
    parser.add_argument("--lora-rank", type=int, metavar="R", help="train low-rank adapters instead of all weights")
    parser.add_argument(
        "--min-sharpness",
        type=float,
        default=1.12,
        metavar="S",
        help="minimum sharpness of the faces to train on; 1 also takes soft faces (default 1.12)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the training (default 0)")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="folder of the detector's weights")
