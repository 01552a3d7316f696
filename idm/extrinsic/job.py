"""A cleaning job over all processes: their shares of the shards, the overall progress, and the summary."""

import sys
import time
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from idm.extrinsic.clean import Cleaning
from idm.extrinsic.manifest import SUMMARY, write_manifest
from idm.extrinsic.shards import POLL_SECONDS, is_finished
from idm.io.atomic import CheckpointError, read_json


@runtime_checkable
class Processes(Protocol):
    """The part of :class:`accelerate.PartialState` that a job needs."""

    @property
    def process_index(self) -> int:
        """The number of this process, from 0."""
        ...

    @property
    def num_processes(self) -> int:
        """The number of processes that work on the job."""
        ...

    @property
    def is_main_process(self) -> bool:
        """Whether this process claims the folder and writes the summary."""
        ...

    def wait_for_everyone(self) -> None:
        """Return when all processes have called it."""
        ...


def run_job(job: Cleaning, state: Processes) -> dict[str, Any]:
    """Make this process's share of the missing shards; return the summary of the whole job once it is finished.

    Raises:
        CleanError: see :class:`~idm.extrinsic.clean.Cleaning` and :func:`~idm.extrinsic.manifest.write_manifest`.
    """
    summary = job.output / SUMMARY
    if state.is_main_process:
        job.claim()
    state.wait_for_everyone()
    job.count_stream(state.process_index, state.num_processes)
    if state.is_main_process:
        job.verify()
        if job.todo() or not _is_whole(summary):
            summary.unlink(missing_ok=True)
    state.wait_for_everyone()
    todo = job.todo()
    state.wait_for_everyone()  # all have seen the same shards
    mine = share(todo, state.process_index, state.num_processes)
    with ProgressBar(job, todo, mine, shown=state.is_main_process) as progress:
        job.run(mine, progress.add)
        # The others may take longer than a barrier waits.
        while not all(is_finished(job.paths[number]) for number in todo):
            progress.add(0)
            time.sleep(POLL_SECONDS)
        progress.add(0)
    if state.is_main_process and not summary.exists():
        write_manifest(job.output, job.paths, job.metadata)
    state.wait_for_everyone()
    return read_json(summary)


def share(shards: list[int], rank: int, world: int) -> list[int]:
    """A process's shards: consecutive ones, so that it reads few parts of a stream."""
    return shards[len(shards) * rank // world : len(shards) * (rank + 1) // world]


def _is_whole(summary: Path) -> bool:
    try:
        return isinstance(read_json(summary), dict)
    except (CheckpointError, OSError):
        return False


class ProgressBar:
    """A progress bar over the whole job: this process's faces one by one, other processes' by finished shards."""

    def __init__(self, job: Cleaning, todo: list[int], mine: list[int], shown: bool) -> None:
        self.job, self.own = job, 0
        self.others = set(todo) - set(mine)
        total = sum(len(faces) for faces in job.ranges)
        self.bar = tqdm(
            total=total,
            initial=total - sum(len(job.ranges[number]) for number in todo),
            unit="face",
            disable=not shown,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 10,  # a log file gets a line now and then
        )
        self.start = self.bar.n

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def add(self, num_faces: int) -> None:
        """Count ``num_faces`` more faces of this process, and the finished shards of the others."""
        if self.bar.disable:
            return
        self.own += num_faces
        others = sum(len(self.job.ranges[n]) for n in self.others if is_finished(self.job.paths[n]))
        self.bar.update(self.start + self.own + others - self.bar.n)
