"""The measures that a command line asks for, and the folder of their results."""

import sys
from pathlib import Path

from idm.apps.cli.options.measure import MeasureOptions
from idm.evaluation.cache import MetricCache
from idm.evaluation.metrics import METRICS, Metrics, build_metrics
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


def list_metrics() -> str:
    """The names that ``--metrics`` takes, each with its protocol and what it needs."""
    return "\n".join(
        f"{name:14} {metric.heading} ({metric.kind}"
        + (f", {metric.smallest} px or more" if metric.smallest > 16 else "")
        + f")\n{'':14} {metric.protocol}"
        + (f" Weights: {', '.join(metric.weights)}." if metric.weights else "")
        for name, metric in METRICS.items()
    )


def check_output(folder: Path) -> None:
    """Refuse a path where no folder can be, before any work; nothing is created.

    Raises:
        NotADirectoryError: it, or what it would lie in, is a file.
    """
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise NotADirectoryError(f"{existing}: is a file, but the results need a folder")
