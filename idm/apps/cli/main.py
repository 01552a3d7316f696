"""The ``idm`` command. Heavy packages are imported by the subcommand that needs them."""

import argparse
import sys

from idm.apps.cli.options.app import AppOptions, add_app
from idm.apps.cli.options.measure import (
    CompareOptions,
    DataOptions,
    EvaluateOptions,
    PrepareOptions,
    ReportOptions,
    add_compare,
    add_data,
    add_evaluate,
    add_report,
)
from idm.apps.cli.options.models import (
    AdaptOptions,
    CleanOptions,
    ExportOptions,
    WeightsOptions,
    add_adapt,
    add_clean,
    add_export,
    add_weights,
)
from idm.apps.cli.options.restore import RestoreOptions, add_restore
from idm.apps.cli.options.shared import read
from idm.io.errors import UserError
from idm.io.openmp import limit_spinning


def main(arguments: list[str] | None = None) -> None:
    """Run a subcommand; exits with 0 if all went well, 1 if anything failed, 2 for a wrong command line."""
    parsed = build_parser().parse_args(arguments)
    limit_spinning()
    from idm.io.machine import quieten_libraries

    quieten_libraries()

    try:
        sys.exit(run(parsed))
    except KeyboardInterrupt:
        sys.exit("interrupted; completed files are intact")


def run(parsed: argparse.Namespace) -> int:
    """Run a parsed command line and return its exit status.

    A mistake that the user can correct is printed as one line on the error stream. Any other exception is a bug and
    shows its traceback.
    """
    try:
        return _run(parsed)
    except (UserError, OSError) as error:
        from idm.io.find import as_text

        print(as_text(f"error: {error}"), file=sys.stderr)
        return 1


def _run(parsed: argparse.Namespace) -> int:
    match parsed.command:
        case "restore":
            from idm.apps.cli.restore import restore_command

            return restore_command(read(RestoreOptions, parsed))
        case "evaluate":
            from idm.apps.cli.evaluate import evaluate_command

            return evaluate_command(read(EvaluateOptions, parsed))
        case "compare":
            from idm.apps.cli.compare import compare_command

            return compare_command(read(CompareOptions, parsed))
        case "data":
            from idm.apps.cli.data import check_command, prepare_command

            if parsed.action == "prepare":
                return prepare_command(read(PrepareOptions, parsed))
            return check_command(read(DataOptions, parsed))
        case "report":
            from idm.apps.cli.report import report_command

            return report_command(read(ReportOptions, parsed))
        case "weights":
            from idm.apps.cli.weights import weights_command

            return weights_command(read(WeightsOptions, parsed))
        case "export":
            from idm.apps.cli.export import export_command

            return export_command(read(ExportOptions, parsed))
        case "clean":
            from idm.apps.cli.clean import clean_command

            return clean_command(read(CleanOptions, parsed))
        case "adapt":
            from idm.apps.cli.adapt import adapt_command

            return adapt_command(read(AdaptOptions, parsed))
        case "app":
            from idm.apps.cli.app import app_command

            return app_command(read(AppOptions, parsed))
    raise AssertionError(f"argparse let {parsed.command!r} through")


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``idm`` and of all its commands. It imports none of them, so that ``--help`` is fast."""
    parser = argparse.ArgumentParser(prog="idm", description="Restore degraded faces with IDM, and measure it.")
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_restore(commands.add_parser("restore", help="restore the faces of photographs and videos, or aligned faces"))
    add_evaluate(commands.add_parser("evaluate", help="measure a model on faces, or compare two folders"))
    add_compare(commands.add_parser("compare", help="measure several restorers side by side"))
    add_report(commands.add_parser("report", help="write the results of idm compare as one page"))
    add_data(commands.add_parser("data", help="check a downloaded test set, or make a set of faces"))
    add_weights(commands.add_parser("weights", help="list third-party weights files and their terms"))
    add_export(commands.add_parser("export", help="export a model to ONNX or to published weights"))
    add_clean(commands.add_parser("clean", help="restore a data set and keep what improves"))
    add_adapt(commands.add_parser("adapt", help="fine-tune a model to your own photographs, and measure it"))
    add_app(commands.add_parser("app", help="serve a web page that restores photographs"))
    return parser


class _Version(argparse.Action):
    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from idm import __version__

        parser.exit(message=f"idm {__version__}\n")


if __name__ == "__main__":
    main()
