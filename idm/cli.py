"""The ``idm`` command. Heavy packages are imported by the subcommand that needs them."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; exits with 0 if all went well, 1 if anything failed, 2 for a wrong command line."""
    parsed = build_parser().parse_args(arguments)
    from idm.runtime import quieten_libraries

    quieten_libraries()

    try:
        sys.exit(run(parsed))
    except KeyboardInterrupt:
        sys.exit("interrupted; what was finished is whole")


def run(parsed: argparse.Namespace) -> int:
    """What a parsed command line asks for; returns the exit status."""
    match parsed.command:
        case "restore":
            from idm.commands.restore import restore_command

            return restore_command(parsed)
        case "evaluate":
            from idm.commands.evaluate import evaluate_command

            return evaluate_command(parsed)
        case "compare":
            from idm.commands.compare import compare_command

            return compare_command(parsed)
        case "export":
            from idm.commands.export import export_command

            return export_command(parsed)
    raise AssertionError(f"argparse let {parsed.command!r} through")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="idm", description="Restore degraded faces with IDM, and measure it.")
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_restore(commands.add_parser("restore", help="restore aligned faces: files or folders"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model on faces, or a folder against another"))
    _add_compare(commands.add_parser("compare", help="measure several restorers side by side"))
    _add_export(commands.add_parser("export", help="write a model's network as an ONNX file, checked"))
    return parser


def _add_restore(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="+", type=Path, help="image files or folders of aligned, square faces")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the restored PNG files")
    _add_model(parser)
    parser.add_argument("--seed", type=int, default=0, help="seed of each face's noise (default 0)")
    parser.add_argument(
        "--output-size", choices=["model", "input"], default="model", help="size of the results (default model)"
    )
    parser.add_argument("--skip-existing", action="store_true", help="leave out what is already restored")


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", nargs=2, type=Path, metavar=("RESTORED", "HQ"), help="compare two folders instead")
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
        help="training run, saved model, or weights file that spandrel knows; idm alone is the model in the box",
    )
    _add_measuring(parser)
    parser.add_argument("--size", type=int, help="side in pixels of the faces (default: the smallest restorer's)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for table.md, comparison.json, scores.csv, grid.png"
    )
    _add_machine(parser)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", nargs="?", type=Path, help="training run or saved model (default: the model in the box)"
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="ONNX file, or a folder for it")


def _add_measuring(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data", default="synthetic", help="folder of clean aligned faces, assets:SPLIT, or synthetic (default)"
    )
    parser.add_argument("--preset", default="gfpgan", help="degradation preset, or clean for none (default gfpgan)")
    parser.add_argument(
        "--metrics", default="psnr,ssim", help="of psnr, ssim, lpips, identity, niqe (default psnr,ssim)"
    )
    parser.add_argument("--num-images", type=int, help="how many faces (default all; 64 synthetic ones)")
    parser.add_argument("--seed", type=int, default=1234, help="seed of degradations and noise (default 1234)")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", type=Path, help="training run, saved model or weights file (default: the model in the box)"
    )
    parser.add_argument("--sampler", choices=["langevin", "ddim", "dpmpp_2m", "unipc"], help="default: the model's")
    parser.add_argument("--steps", type=int, help="evaluations of the whole chain (default: the model's)")
    parser.add_argument("--start-from", choices=["noise", "degraded"], help="where the chain starts")
    parser.add_argument("--strength", type=float, help="share of the chain to run from degraded, in (0, 1]")
    parser.add_argument(
        "--backend",
        choices=["torch", "onnxruntime", "openvino"],
        default="torch",
        help="what runs an IDM's denoiser; the others on a CPU only (default torch)",
    )
    _add_machine(parser)


def _add_machine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, default=8, help="faces at once (default 8)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from idm import __version__

        parser.exit(message=f"idm {__version__}\n")


if __name__ == "__main__":
    main()
