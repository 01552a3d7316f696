"""The ``idm`` command. Heavy packages are imported by the subcommand that needs them."""

import argparse
import sys
from pathlib import Path

from idm.diffusion.chain import SAMPLER_NAMES, SPACINGS


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; exits with 0 if all went well, 1 if anything failed, 2 for a wrong command line."""
    parsed = build_parser().parse_args(arguments)
    from idm.io.machine import quieten_libraries

    quieten_libraries()

    try:
        sys.exit(run(parsed))
    except KeyboardInterrupt:
        sys.exit("interrupted; completed files are intact")


def run(parsed: argparse.Namespace) -> int:
    """What a parsed command line asks for; returns the exit status."""
    match parsed.command:
        case "restore":
            from idm.apps.cli.restore import restore_command

            return restore_command(parsed)
        case "evaluate":
            from idm.apps.cli.evaluate import evaluate_command

            return evaluate_command(parsed)
        case "compare":
            from idm.apps.cli.compare import compare_command

            return compare_command(parsed)
        case "data":
            from idm.apps.cli.data import data_command

            return data_command(parsed)
        case "report":
            from idm.apps.cli.report import report_command

            return report_command(parsed)
        case "weights":
            from idm.apps.cli.weights import weights_command

            return weights_command(parsed)
        case "export":
            from idm.apps.cli.export import export_command

            return export_command(parsed)
        case "clean":
            from idm.apps.cli.clean import clean_command

            return clean_command(parsed)
        case "adapt":
            from idm.apps.cli.adapt import adapt_command

            return adapt_command(parsed)
        case "app":
            from idm.apps.cli.app import app_command

            return app_command(parsed)
    raise AssertionError(f"argparse let {parsed.command!r} through")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="idm", description="Restore degraded faces with IDM, and measure it.")
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_restore(commands.add_parser("restore", help="restore the faces of photographs and videos, or aligned faces"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model on faces, or compare two folders"))
    _add_compare(commands.add_parser("compare", help="measure several restorers side by side"))
    _add_report(commands.add_parser("report", help="write the results of idm compare as one page"))
    _add_data(commands.add_parser("data", help="check a downloaded test set"))
    _add_weights(commands.add_parser("weights", help="list third-party weights files and their terms"))
    _add_export(commands.add_parser("export", help="export a model to ONNX or to published weights"))
    _add_clean(commands.add_parser("clean", help="restore a data set and keep what improves"))
    _add_adapt(commands.add_parser("adapt", help="fine-tune a model to your own photographs, and measure it"))
    _add_app(commands.add_parser("app", help="serve a web page that restores photographs"))
    return parser


def _add_restore(parser: argparse.ArgumentParser) -> None:
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
    _add_memory(parser)
    _add_detection(parser.add_argument_group("faces in photographs"))
    _add_result(parser.add_argument_group("the restored photograph"))
    _add_trust(parser.add_argument_group("identity and uncertainty"))
    _add_video(parser.add_argument_group("videos"))
    aligned = parser.add_argument_group("aligned faces")
    aligned.add_argument(
        "--aligned", action="store_true", help="the inputs are aligned, square faces; results are PNG files"
    )
    aligned.add_argument("--output-size", choices=["model", "input"], help="size of the results (default model)")
    model = parser.add_argument_group("model and sampling")
    _add_model(model)
    model.add_argument("--seed", type=int, default=0, help="seed of each face's noise (default 0)")


def _add_memory(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--max-memory",
        type=_gigabytes,
        metavar="GB",
        help="memory for pictures, besides the model; files that need more are rejected before they are decoded "
        "(default: half of the machine's memory, at most 4)",
    )


def _gigabytes(text: str) -> int:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of gigabytes above 0, got {text}")
    return round(number * 1e9)


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
        choices=["auto", "retinaface", "retinaface_resnet50", "builtin"],
        help="auto: retinaface if its weights are present, otherwise builtin, which needs none (default auto)",
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
        "--format", choices=["same", "png"], help="same: JPEG and WebP keep their format, others become PNG (default)"
    )
    group.add_argument(
        "--color-fix",
        choices=["none", "mean", "wavelet"],
        help="match the photograph's colours: not at all, their mean, or all coarse tones (default wavelet)",
    )
    group.add_argument(
        "--grayscale",
        choices=["auto", "keep", "off"],
        help="restore the lightness only: if the picture is grey or has one tint, always, or never (default auto)",
    )
    group.add_argument(
        "--detail",
        choices=["auto", "keep", "clean", "replace"],
        help="detail finer than the model: keep the photograph's, keep it without grain, or replace it; auto keeps it "
        "in large faces (default)",
    )


def _add_trust(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--fidelity",
        type=float,
        metavar="F",
        help="in [0, 1]: start from the degraded face and run the last 1 - F of the chain; 0 runs all of it, from "
        "noise (default: the model's)",
    )
    group.add_argument(
        "--min-identity",
        type=float,
        metavar="C",
        help="keep the given face if the identity cosine of the restored one is below C",
    )
    group.add_argument(
        "--change",
        choices=["auto", "full"],
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
        choices=["identity", "median"],
        help="choose the sample closest in identity, or the median of each pixel (default identity)",
    )
    group.add_argument(
        "--uncertainty", action="store_true", default=None, help="write a map of where the N samples differ"
    )


def _add_video(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--video-codec",
        choices=["libx264", "libx265", "libvpx-vp9", "libsvtav1", "ffv1"],
        help="default libx264, in WebM libvpx-vp9; ffv1 is lossless",
    )
    group.add_argument(
        "--crf",
        type=int,
        metavar="N",
        help="constant rate factor of the codec; lower means higher quality (default 18)",
    )


def _turn(text: str) -> str | int:
    if text not in ("auto", "0", "90", "180", "270"):
        raise argparse.ArgumentTypeError(f"{text!r} is not one of auto, 0, 90, 180, 270")
    return text if text == "auto" else int(text)


def _faces(text: str) -> str | tuple[int, ...]:
    if text in ("all", "largest"):
        return text
    try:
        return tuple(int(number) for number in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither all, largest nor numbers such as 0,2") from None


def _add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="search this folder only")
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


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pairs",
        nargs=2,
        type=Path,
        metavar=("RESTORED", "HQ"),
        help="measure the images of one folder against those of another",
    )
    _add_measuring(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for metrics.json, scores.csv, grid.png"
    )
    _add_model(parser)


def _add_compare(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "restorers",
        nargs="+",
        metavar="LABEL=PATH",
        help="a restorer as for idm restore --restorer, with a label for the table; named restorers need no label; "
        "@STEPS sets the sampling steps of an IDM, as in idm@1 idm@4",
    )
    _add_measuring(parser)
    parser.add_argument("--size", type=int, help="side of the faces in pixels (default: that of the smallest restorer)")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        help="folder for table.md, comparison.json, scores.csv, differences.csv, grid.png; the same command resumes an "
        "interrupted comparison",
    )
    parser.add_argument(
        "--real", metavar="DATA", help="other real faces, given as for --data, for a reference row of the set metrics"
    )
    parser.add_argument(
        "--no-stranger",
        action="store_true",
        help="leave out the row of strangers (the most similar other face of each)",
    )
    parser.add_argument(
        "--breakdown", action="store_true", help="also write tables by source, group and strength of degradation"
    )
    _add_machine(parser)


def _add_report(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULTS", help="output folders of idm compare")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the page, such as report.html"
    )
    parser.add_argument("--images", action="store_true", help="also show the faces of each grid.png")


def _add_data(parser: argparse.ArgumentParser) -> None:
    check = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "check", help="count and decode the images of a test set (see docs/test_sets.md)"
    )
    check.add_argument("name", help="name of the set, such as celeba-test or lfw-test")
    check.add_argument("path", type=Path, help="folder of the set")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", nargs="?", help="a model as for idm restore --model (default: the bundled model)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="an ONNX file, a folder for it, or a .pth file for a GFP-GAN"
    )


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="synthetic", help="folder of clean aligned faces, assets:SPLIT, or synthetic (default)"
    )
    parser.add_argument("--preset", default="gfpgan", help="degradation preset, or clean for none (default gfpgan)")
    parser.add_argument(
        "--metrics",
        default="psnr,ssim",
        metavar="NAMES",
        help="names separated by commas (default psnr,ssim); see --list-metrics",
    )
    parser.add_argument("--list-metrics", action=_ListMetrics, help="print all metrics with their protocols and exit")
    parser.add_argument("--num-images", type=int, help="number of faces (default: all, or 64 synthetic ones)")
    parser.add_argument("--seed", type=int, default=1234, help="seed of the degradations and the noise (default 1234)")


def _add_clean(parser: argparse.ArgumentParser) -> None:
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


def _add_adapt(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="+", type=Path, metavar="INPUT", help="photographs, or folders of them")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="for the model, which idm restore --model takes, and adapt.json; the same command resumes",
    )
    parser.add_argument("--model", help="training run, saved pipeline or bundled model (default: the bundled one)")
    parser.add_argument("--aligned", action="store_true", help="inputs are aligned, square faces")
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="of training (default 10)")
    parser.add_argument("--steps", type=int, metavar="N", help="of training, instead of --minutes")
    parser.add_argument("--learning-rate", type=float, default=1e-4, metavar="R", help="peak (default 1e-4)")
    parser.add_argument("--batch-size", type=int, default=8, help="faces of a step (default 8)")
    parser.add_argument("--preset", default="gfpgan", help="degradation of most faces (default gfpgan)")
    parser.add_argument("--lora-rank", type=int, metavar="R", help="train low-rank adapters instead of all weights")
    parser.add_argument(
        "--min-sharpness",
        type=float,
        default=1.12,
        metavar="S",
        help="of the faces to learn from; 1 takes soft ones, too (default 1.12)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the training (default 0)")
    parser.add_argument("--weights-dir", type=Path, metavar="DIR", help="where the detector's weights lie")


def _add_model(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--model",
        "--restorer",
        help="training run, saved model, weights file, or a name: idm (the default, bundled), gfpgan, codeformer, "
        "restoreformer (their published weights, see idm weights)",
    )
    parser.add_argument("--sampler", choices=SAMPLER_NAMES, help="default: the model's")
    parser.add_argument("--steps", type=int, help="sampling steps of the whole chain (default: the model's)")
    spacings = [name for name in SPACINGS if name != "levels"]  # explicit ones are part of a model
    parser.add_argument("--spacing", choices=spacings, help="spacing of the noise levels (default: the model's)")
    parser.add_argument("--start-from", choices=["noise", "degraded"], help="where the chain starts")
    parser.add_argument(
        "--strength", type=float, help="share of the chain to run with --start-from degraded, in (0, 1]"
    )
    parser.add_argument(
        "--backend",
        choices=["torch", "onnxruntime", "openvino"],
        default="torch",
        help="inference backend of an IDM; onnxruntime and openvino run on the CPU (default torch)",
    )
    _add_machine(parser)


def _add_machine(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--batch-size", type=int, default=8, help="faces per batch (default 8)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16"],
        default="auto",
        help="default: bf16 if the device is fast at it",
    )


def _add_app(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        nargs="+",
        default=["idm"],
        metavar="LABEL=PATH",
        help="restorers to choose from, given as for idm restore --model, each with a label; named restorers need no "
        "label (default idm, the bundled model)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default 7860)")
    parser.add_argument(
        "--max-mb", type=float, default=32.0, metavar="MB", help="maximum size of an upload (default 32)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=50.0, metavar="MP", help="maximum size of a picture (default 50)"
    )
    parser.add_argument("--queue-size", type=int, default=16, metavar="N", help="requests that may wait (default 16)")
    parser.add_argument(
        "--user-mb", type=float, default=256.0, metavar="MB", help="uploads from one address in an hour (default 256)"
    )
    parser.add_argument(
        "--total-mb",
        type=float,
        default=2048.0,
        metavar="MB",
        help="uploads from all addresses in an hour (default 2048)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name under which the page may be requested, such as that of a reverse proxy",
    )
    _add_memory(parser)
    parser.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="folder of the weights of the detector and the identity network"
    )
    _add_machine(parser)


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from idm import __version__

        parser.exit(message=f"idm {__version__}\n")


class _ListMetrics(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from idm.apps.cli.faces import list_metrics

        print(list_metrics())
        parser.exit()


if __name__ == "__main__":
    main()
