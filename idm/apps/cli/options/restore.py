"""The options of ``idm restore``."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from idm.apps.cli.options.shared import ModelOptions, add_memory, add_model, choices
from idm.apps.photo.settings import Change, Detail, FileFormat, Grayscale, OutputSize, PhotoSettings, Pick
from idm.faces.names import ColorFix, DetectorName, FaceGroup, Turn
from idm.io.encoding import Codec


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(ModelOptions):
    """``idm restore``. None stands for an option that was not given; most of these are for photographs only."""

    input: list[Path]
    output: Path
    skip_existing: bool
    overwrite: bool
    max_memory: int | None
    aligned: bool
    output_size: OutputSize | None
    seed: int
    preview: bool
    faces: FaceGroup | tuple[int, ...] | None
    turn: Turn | None
    min_score: float | None
    min_face: float | None
    detect_side: int | None
    detector: DetectorName | None
    weights_dir: Path | None
    upscale: float | None
    background: Path | None
    format: FileFormat | None
    color_fix: ColorFix | None
    grayscale: Grayscale | None
    detail: Detail | None
    grain: float | None
    min_identity: float | None
    change: Change | None
    reference: str | None
    samples: int | None
    pick: Pick | None
    uncertainty: bool | None
    video_codec: Codec | None
    crf: int | None


def add_restore(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm restore``."""
    parser.usage = "idm restore INPUT [INPUT ...] -o FOLDER [options]"
    parser.add_argument(
        "input", nargs="+", type=Path, metavar="INPUT", help="images, videos (mp4, mov, mkv, webm, avi) or folders"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FOLDER", help="folder for the results and status.json"
    )
    parser.add_argument(
        "--skip-existing", action="store_true", help="skip files that are already restored with the same settings"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="also replace files that no job wrote, but never inputs"
    )
    add_memory(parser)
    _add_detection(parser.add_argument_group("faces in photographs"))
    _add_result(parser.add_argument_group("the restored photograph"))
    _add_trust(parser.add_argument_group("identity and uncertainty"))
    _add_video(parser.add_argument_group("videos"))
    aligned = parser.add_argument_group("aligned faces")
    aligned.add_argument(
        "--aligned", action="store_true", help="the inputs are aligned, square faces; results are PNG files"
    )
    aligned.add_argument(
        "--output-size", choices=choices(RestoreOptions, "output_size"), help="size of the results (default model)"
    )
    model = parser.add_argument_group("model and sampling")
    add_model(model)
    model.add_argument("--seed", type=int, default=0, help="seed of each face's noise (default 0)")


# Options for photographs default to None here, which shows whether they were given.


def _add_detection(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--faces",
        type=_faces,
        metavar="WHICH",
        help="faces to restore: all (default), largest, or numbers such as 0,2 (see --preview)",
    )
    group.add_argument(
        "--turn",
        type=_turn,
        metavar="DEGREES",
        help="search for faces in the picture turned clockwise by 0, 90, 180 or 270 degrees; auto tries all if it "
        "finds no upright face (default auto)",
    )
    group.add_argument("--preview", action="store_true", help="only draw the detected faces, numbered, into copies")
    group.add_argument(
        "--min-score", type=float, metavar="P", help="minimum confidence (default: that of the detector)"
    )
    group.add_argument("--min-face", type=float, metavar="PIXELS", help="minimum size of a face (default 24)")
    group.add_argument(
        "--detect-side", type=int, metavar="PIXELS", help="longer side of the copy that is searched (default 1600)"
    )
    group.add_argument(
        "--detector",
        choices=choices(RestoreOptions, "detector"),
        help="auto: retinaface if its weights and facexlib are present, else builtin, which needs none (default auto)",
    )
    group.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="folder of the weights of the detector and the identity network"
    )


def _add_result(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--upscale", type=float, metavar="S", help="enlarge the whole picture (default 1)")
    group.add_argument(
        "--background",
        type=Path,
        metavar="FILE",
        help="weights of an upscaling network that spandrel loads (default: bicubic)",
    )
    group.add_argument(
        "--format",
        choices=choices(RestoreOptions, "format"),
        help="same: JPEG and WebP keep their format, others become PNG (default)",
    )
    group.add_argument(
        "--color-fix",
        choices=choices(RestoreOptions, "color_fix"),
        help="match the photograph's colours: not at all, their mean, or all coarse tones (default wavelet)",
    )
    group.add_argument(
        "--grayscale",
        choices=choices(RestoreOptions, "grayscale"),
        help="restore the lightness only: if the picture is grey or has one tint, always, or never (default auto)",
    )
    group.add_argument(
        "--detail",
        choices=choices(RestoreOptions, "detail"),
        help="detail finer than the model: keep the photograph's, keep it without grain, or replace it; auto keeps it "
        "in large faces (default)",
    )
    group.add_argument(
        "--grain",
        type=float,
        metavar="SHARE",
        help="share of the photograph's grain that restored faces keep: 0 none, 1 as much as their surroundings "
        f"(default {PhotoSettings.grain})",
    )


def _add_trust(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--min-identity",
        type=float,
        metavar="C",
        help="keep the given face if the identity cosine of the restored one is below C",
    )
    group.add_argument(
        "--change",
        choices=choices(RestoreOptions, "change"),
        help="auto: use as much of the model's change as each face needs, and none if it does not improve; full: all "
        "of it (default auto)",
    )
    group.add_argument(
        "--reference",
        metavar="ALBUM",
        help="photographs of the same person, each showing them alone: --pick and --min-identity compare with them "
        "instead of with the given face",
    )
    group.add_argument("--samples", type=int, metavar="N", help="restore each face N times (default 1)")
    group.add_argument(
        "--pick",
        choices=choices(RestoreOptions, "pick"),
        help="choose the sample closest in identity, or the median of each pixel (default identity)",
    )
    group.add_argument(
        "--uncertainty", action="store_true", default=None, help="write a map of where the N samples differ"
    )


def _add_video(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--video-codec",
        choices=choices(RestoreOptions, "video_codec"),
        help="default libx264, in WebM libvpx-vp9; ffv1 is lossless",
    )
    group.add_argument(
        "--crf",
        type=int,
        metavar="N",
        help="constant rate factor of the codec; lower means higher quality (default 18)",
    )


def _turn(text: str) -> Turn:
    turns: dict[str, Turn] = {str(turn): turn for turn in get_args(Turn)}
    if text not in turns:
        raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(turns)}")
    return turns[text]


def _faces(text: str) -> str | tuple[int, ...]:
    if text in get_args(FaceGroup):
        return text
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither all, largest nor numbers such as 0,2") from None
