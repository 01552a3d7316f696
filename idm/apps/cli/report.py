"""``idm report``."""

from idm.apps.cli.options.measure import ReportOptions
from idm.evaluation.report import read_result, render_page
from idm.io.atomic import write_text


def report_command(options: ReportOptions) -> int:
    """``idm report``: 0 if the page was written."""
    results = [read_result(folder, not options.no_images) for folder in options.results]
    write_text(options.output, render_page(results))
    print(options.output)
    return 0
