"""The metrics that a command line names, and the check of the folder for their results."""

import sys

from idm.apps.cli.options.measure import MeasureOptions
from idm.evaluation.cache import MetricCache
from idm.evaluation.metrics import Metrics, build_metrics
from idm.io.errors import InvalidInput
from idm.io.weights import home


def build_measures(
    options: MeasureOptions, size: int | None, has_originals: bool = True, has_reference: bool = True
) -> Metrics:
    """Build the metrics named by ``--metrics``, see :func:`~idm.evaluation.metrics.build_metrics`, with the user's
    cache unless ``--no-cache``; print on the error stream what is missing.

    Raises:
        ValueError: an unknown name, or none of the metrics looks at single faces.
        FileNotFoundError: none of the metrics of single faces could be built.
    """
    names, cache = options.metrics.split(","), None if options.no_cache else MetricCache(home() / "metrics.sqlite")
    try:
        metrics = build_metrics(names, size, has_originals=has_originals, has_reference=has_reference, cache=cache)
    except InvalidInput as error:
        raise InvalidInput(f"--metrics: {error}") from None
    for name, reason in metrics.missing.items():
        print(f"warning: {name} is not measured: {reason}", file=sys.stderr)
    return metrics


def check_results(options: MeasureOptions) -> None:
    """Check the options that every measurement has in common, before any work; creates nothing.

    Raises:
        InvalidInput: the number of processes is below 1.
        NotADirectoryError: the folder of the results, or one of its parents, is a file.
    """
    if options.processes < 1:
        raise InvalidInput(f"--processes must be at least 1, got {options.processes}")
    folder = options.output
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing}: is a file, but the results need a folder")
