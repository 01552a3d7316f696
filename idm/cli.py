"""The ``idm`` command. Heavy packages are imported by the subcommand that needs them."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; exits with 0 if all went well, 1 if anything failed, 2 for a wrong command line."""
    parsed = build_parser().parse_args(arguments)
    from idm.runtime import quieten_libraries

    quieten_libraries()
    from idm.commands import evaluate_command, restore_command

    try:
        if parsed.command == "clean":
            from idm.clean_command import clean_command

            sys.exit(clean_command(parsed))
        sys.exit({"restore": restore_command, "evaluate": evaluate_command}[parsed.command](parsed))
    except KeyboardInterrupt:
        sys.exit("interrupted; what was finished is whole")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="idm", description="Restore degraded faces with IDM, and measure it.")
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_restore(commands.add_parser("restore", help="restore aligned faces: files or folders"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a model on faces, or a folder against another"))
    _add_clean(commands.add_parser("clean", help="restore a whole data set; what is better takes the old one's place"))
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
    parser.add_argument(
        "--data", default="synthetic", help="folder of clean aligned faces, assets:SPLIT, or synthetic (default)"
    )
    parser.add_argument("--pairs", nargs=2, type=Path, metavar=("RESTORED", "HQ"), help="compare two folders instead")
    parser.add_argument("--preset", default="gfpgan", help="degradation preset, or clean for none (default gfpgan)")
    parser.add_argument(
        "--metrics", default="psnr,ssim", help="of psnr, ssim, lpips, identity, niqe (default psnr,ssim)"
    )
    parser.add_argument("--num-images", type=int, help="how many faces (default all; 64 synthetic ones)")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="folder for metrics.json, scores.csv, grid.png"
    )
    parser.add_argument("--seed", type=int, default=1234, help="seed of degradations and noise (default 1234)")
    _add_model(parser)


def _add_clean(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="training run or saved pipeline (default: the model in the box)")
    parser.add_argument(
        "--data",
        required=True,
        help="folder of aligned faces, assets:SPLIT, synthetic[:N], a training configuration, or a data.source such as "
        "'{name: huggingface, path: parquet, data_files: faces.parquet}'",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the cleaned data set")
    parser.add_argument("--num-images", type=int, help="how many faces, spread evenly (default all)")
    parser.add_argument("--seed", type=int, default=0, help="from which each face's noise follows (default 0)")
    parser.add_argument("--report", action="store_true", help="also make a page of faces before and after")
    parser.add_argument(
        "settings", nargs="*", metavar="key=value", help="as in a training's extrinsic section: gate.min_identity=0.7"
    )


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, help="training run or saved pipeline (default: the model in the box)")
    parser.add_argument("--sampler", choices=["langevin", "ddim", "dpmpp_2m", "unipc"], help="default: the model's")
    parser.add_argument("--steps", type=int, help="evaluations of the whole chain (default: the model's)")
    parser.add_argument("--start-from", choices=["noise", "degraded"], help="where the chain starts")
    parser.add_argument("--strength", type=float, help="share of the chain to run from degraded, in (0, 1]")
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
