"""``idm report``."""

import argparse
import sys

from idm.evaluation.report import ReportError, read_result, render_page
from idm.io.atomic import CheckpointError, write_text


def report_command(arguments: argparse.Namespace) -> int:
    """``idm report``: 0 if the page was written."""
    try:
        results = [read_result(folder, arguments.images) for folder in arguments.results]
        write_text(arguments.output, render_page(results))
    except (ReportError, CheckpointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(arguments.output)
    return 0
