"""The table of metrics: the exact definition of each number in our tables, and the function that computes it.

A metric is one row of the ``METRICS`` of its module (:mod:`~idm.evaluation.pixels`, :mod:`~idm.evaluation.identity`,
:mod:`~idm.evaluation.shape`, :mod:`~idm.evaluation.perceptual`, :mod:`~idm.evaluation.sets`). Every command reads the
table here, so that a new metric needs only a row and its test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from idm.evaluation import identity, perceptual, pixels, sets, shape
from idm.evaluation.cache import KnownValues, MetricCache
from idm.evaluation.metric import Image01, Metric, MetricNetworks, PairMetric, SetMetric
from idm.evaluation.pixels import psnr, psnr_y, ssim
from idm.io.errors import InvalidInput, MissingPackage

__all__ = [
    "METRICS",
    "PERCEPTUAL",
    "Metrics",
    "MissingPackage",
    "build_metric",
    "build_metrics",
    "psnr",
    "psnr_y",
    "ssim",
    "why_undefined",
]

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (*pixels.METRICS, *perceptual.METRICS, *identity.METRICS, *shape.METRICS, *sets.METRICS)
}

PERCEPTUAL = (*(metric.name for metric in (*perceptual.METRICS, *sets.METRICS)), "deg", "sharpness")
"""The metrics that a report plots against PSNR, the first that was measured: how natural faces look, or else what
stands in for it with fewer weights."""


@dataclass(frozen=True)
class Metrics:
    """Built metrics by name.

    Attributes:
        each: of single faces, functions (restored, hq) -> score.
        together: of all faces together.
        missing: metrics that could not be built, with the reason.
        networks: the networks that they share.
    """

    each: dict[str, PairMetric]
    together: dict[str, SetMetric]
    missing: dict[str, str]
    networks: MetricNetworks


def build_metric(name: str, weights_dir: Path | None = None, device: str = "cpu") -> PairMetric | SetMetric:
    """The function of one metric, with its weights loaded.

    Args:
        name: a key of ``METRICS``.
        weights_dir: folder of weights files; by default searched as :func:`idm.io.weights.find_weights` says.
        device: where networks run, such as "cpu" or "cuda:0".

    Raises:
        FileNotFoundError: a weights file is missing; names it and where to put it.
        MissingPackage: the extra ``[metrics]`` is not installed.
        ValueError: an unknown name.
    """
    return _build(_row(name), MetricNetworks(weights_dir, device))


def build_metrics(
    names: Sequence[str],
    size: int | None = None,
    weights_dir: Path | None = None,
    device: str = "cpu",
    *,
    has_originals: bool = True,
    has_reference: bool = True,
    cache: MetricCache | None = None,
) -> Metrics:
    """The metrics of several names. One whose weights or package are missing, or that is not defined for these faces,
    is a gap with its reason.

    Args:
        size: of the faces; None if it is not known.
        has_originals: the original of each face is known.
        has_reference: a set of faces is known that the set metrics compare with.
        cache: keeps the features and scores of metrics with weights for later runs.

    Raises:
        ValueError: an unknown name, or none of the metrics is of single faces.
        FileNotFoundError: none of the metrics of single faces could be built.
    """
    rows = [_row(name) for name in names]
    if all(row.kind == "set" for row in rows):
        raise InvalidInput(f"{', '.join(names)} needs all faces together; add a metric of single faces, such as psnr")
    built = Metrics({}, {}, {}, MetricNetworks(weights_dir, device, cache))
    errors: list[str] = []
    for row in rows:
        reason = why_undefined(row, size, has_originals, has_reference)
        if reason is None:
            try:
                metric = _build(row, built.networks)
            except FileNotFoundError as error:
                errors.append(str(error))
                reason = f"its weights are missing; `{_fetch_missing(row, weights_dir)}` gets them"
            except MissingPackage as error:
                errors.append(str(error))
                reason = str(error)
        if reason is not None:
            built.missing[row.name] = reason
        elif isinstance(metric, SetMetric):
            built.together[row.name] = metric
        else:
            built.each[row.name] = metric
    if not built.each:
        raise FileNotFoundError("; ".join(errors or [f"{name}: {why}" for name, why in built.missing.items()]))
    return built


def why_undefined(
    metric: Metric, size: int | None, has_originals: bool = True, has_reference: bool = True
) -> str | None:
    """Return the reason why a metric is not defined for faces, as in :func:`build_metrics`; None if it is."""
    if size is not None and size < metric.smallest:
        return f"needs faces of {metric.smallest} px or more"
    if metric.kind == "pair" and not has_originals:
        return "needs the originals of the faces"
    if metric.kind == "set" and not has_reference:
        return "needs originals, or other faces to compare with"
    return None


def _build(row: Metric, networks: MetricNetworks) -> PairMetric | SetMetric:
    try:
        metric = row.build(networks)
    except ModuleNotFoundError as error:
        if row.package is None or (error.name or "").partition(".")[0] != row.package:
            raise
        remedy = "pip install 'idm-face-restoration[metrics]'"
        raise MissingPackage(f"{row.name} needs the package {row.package}: {remedy}") from None
    if networks.cache is None or not row.weights or isinstance(metric, SetMetric):
        return metric
    return _remember(metric, networks.known(row.name, row.weights), needs_original=row.full_reference)


def _remember(metric: PairMetric, known: KnownValues, needs_original: bool) -> PairMetric:
    """A metric of single faces that is computed once for equal images."""

    def remembered(restored: Image01, hq: Image01) -> float:
        images = [restored, hq] if needs_original else [restored]
        return float(known.get(images, lambda: np.array(metric(restored, hq))))

    return remembered


def _fetch_missing(row: Metric, weights_dir: Path | None) -> str:
    """The command that downloads the weights files of a metric that are not present."""
    from idm.io.weights import fetch_command, path_of_weights, weights_folders

    folders = weights_folders(weights_dir)
    return fetch_command([name for name in row.weights if path_of_weights(name, folders) is None], weights_dir)


def _row(name: str) -> Metric:
    if name not in METRICS:
        raise InvalidInput(f"{name!r} is unknown; known: {', '.join(METRICS)}")
    return METRICS[name]
