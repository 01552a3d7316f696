"""The measuring of restorers on faces, as ``idm evaluate`` and ``idm compare`` do it: in one process or in several that
share the faces. Measured faces are kept until the results are written, so that the same command resumes."""

import multiprocessing
import shutil
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from idm.apps.cli.faces import Degraded, SetReference, build_pairs, describe_reference, open_reference
from idm.apps.cli.measures import build_measures
from idm.apps.cli.model import choose_device
from idm.apps.cli.options.measure import MeasureOptions
from idm.evaluation.compare import Comparison, Measured, compare
from idm.evaluation.identity import nearest_others
from idm.evaluation.kept import KeptFaces
from idm.evaluation.metric import Image8
from idm.evaluation.metrics import Metrics
from idm.evaluation.sets import BICUBIC, DEGRADED, ORIGINAL, STRANGER, SetScores
from idm.io.machine import provenance
from idm.restorers.load import Loaded

KEPT = ".kept"  # in the folder of the results

Options = TypeVar("Options", bound=MeasureOptions)


@dataclass(frozen=True)
class Task:
    """The parts of a measurement.

    Attributes:
        loaded: restorers by label.
        settings: what results state, among it all that determines them.
        kept: by method, the measured faces of an interrupted run or of other processes.
        samples: how often each face is restored, by restorer; once by default.
        with_strangers: compare each original with the most similar other face, too.
        absent: the missing weights files of restorers that are not measured, by label.
    """

    loaded: dict[str, Loaded]
    metrics: Metrics
    faces: Degraded
    reference: SetReference
    settings: dict[str, Any]
    kept: dict[str, KeptFaces]
    samples: Mapping[str, int] = field(default_factory=dict)
    with_strangers: bool = False
    absent: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredFaces:
    """The measured faces of a task, and their scores as sets."""

    faces: list[Measured]
    sets: SetScores


def build_task(options: MeasureOptions, loaded: dict[str, Loaded], size: int, **further: int) -> Task:
    """The faces and metrics of a command line, for restorers that are loaded.

    Args:
        size: side in pixels at which faces are measured.
        further: settings of the command that determine its results.
    """
    faces = build_pairs(options, size)
    has_originals = faces.pairs.has_originals
    reference = open_reference(options, size, len(faces.pairs) if has_originals else 0)
    settings = {
        "data": options.data,
        "preset": faces.preset,
        "degradation": faces.degradation,
        "originals": has_originals,
        "seed": options.seed,
        "size": size,
        "batch_size": options.batch_size,
        **further,
    }
    metrics = build_measures(options, size, has_originals, reference.exists)
    # Another device, machine or version computes other last bits, and a resumed run gives those of an undisturbed one.
    made_by = {"device": choose_device(options.device).type, **provenance()}
    known = {label: one.metadata for label, one in loaded.items()}
    kept = {
        label: KeptFaces(options.output / KEPT, {"label": label, **made_by, **known.get(label, {}), **settings})
        for label in (DEGRADED, BICUBIC, STRANGER, *loaded)
    }
    stated = {**settings, "processes": options.processes, **describe_reference(options, reference)}
    return Task(loaded, metrics, faces, reference, stated, kept)


def measure_faces(options: Options, task: Task, prepare: Callable[[Options], Task]) -> MeasuredFaces:
    """Measure every face by every restorer and as a set.

    Args:
        prepare: makes the task of the options, in each of several processes.

    Raises:
        ChildProcessError: one of several processes failed and printed the reason.
    """
    if options.processes > 1:
        _share_out(options, prepare)
    measured = MeasuredFaces([], SetScores(task.metrics.together, task.reference.column))
    comparisons = _compare(options, task)
    for face in tqdm(comparisons, total=len(task.faces.pairs), unit="face", disable=not sys.stderr.isatty()):
        measured.faces.append(face.measured)
        measured.sets.add({label: image for label, image in face.images.items() if label != STRANGER})
    task.reference.add_to(measured.sets)
    return measured


def kept_images(task: Task, position: int, methods: Collection[str]) -> dict[str, Image8]:
    """One measured face by every method, and the original if there is one."""
    pair = task.faces.pairs[position]
    images = {}
    for label in methods:
        face = task.kept[label].load(pair)
        assert face is not None, f"{label} has lost face {position}"
        images[label] = face.image
    return images | ({ORIGINAL: pair.hq} if task.faces.pairs.has_originals else {})


def delete_kept(options: MeasureOptions) -> None:
    """Delete the measured faces, once the results are written."""
    shutil.rmtree(options.output / KEPT, ignore_errors=True)


def _share_out(options: Options, prepare: Callable[[Options], Task]) -> None:
    """Start processes that restore and measure their shares of the faces and save the results, which this process
    reads."""
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=_work, args=(options, prepare, rank), daemon=True) for rank in range(options.processes)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.terminate()
    if any(worker.exitcode for worker in workers):
        raise ChildProcessError("a process of the measurement failed; the same command resumes it")


def _work(options: Options, prepare: Callable[[Options], Task], rank: int) -> None:
    """One process's share; each has a GPU of its own if there are several."""
    if options.device in (None, "cuda") and torch.cuda.device_count() > 1:
        options = replace(options, device=f"cuda:{rank % torch.cuda.device_count()}")
    task = prepare(options)  # with as many threads as one process has: they change the last bits
    for _ in tqdm(
        _compare(options, task, (rank, options.processes)),
        unit="face",
        position=rank,
        leave=False,
        disable=not sys.stderr.isatty(),
    ):
        pass


def _compare(options: MeasureOptions, task: Task, share: tuple[int, int] = (0, 1)) -> Iterator[Comparison]:
    """Every face of a share by every method; what is kept is not restored again."""
    metrics, pairs = task.metrics, task.faces.pairs
    with_strangers = task.with_strangers and {"identity", "deg"} & metrics.each.keys() and len(pairs) > 1
    return compare(
        {label: one.restorer for label, one in task.loaded.items()},
        pairs,
        task.faces.bicubic,
        metrics.each,
        batch_size=options.batch_size,
        seed=options.seed,
        strangers=nearest_others(pairs.source, metrics.networks.faces) if with_strangers else None,
        kept=task.kept,
        samples=task.samples,
        share=share,
    )
