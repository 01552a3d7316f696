"""Workers that take turns.

Each variant runs in its own process, because allocator settings apply to a process, and because memory left by one
variant must not slow down another. Only one variant computes at a time, in interleaved rounds, so that drift of the
machine affects all of them alike. A speed-up is the median of the ratios of the rounds.
"""

import json
import multiprocessing
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

Turn = Callable[[Any], float]
"""Does the work of a request and returns its seconds."""


class Worker:
    """A process that prepares a variant and then waits for its turns.

    Args:
        prepare: builds the variant in the worker process; must be picklable.
    """

    def __init__(self, prepare: Callable[[], Turn]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, prepare))
        self.process.start()
        theirs.close()

    def __enter__(self) -> "Worker":
        self.connection.recv()  # ready
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()
        self.process.join()

    def __call__(self, request: Any) -> float:
        """Run one turn and return its seconds.

        Raises:
            EOFError: the worker has died; its own error output says why.
        """
        self.connection.send(request)
        return self.connection.recv()

    def peak_memory(self) -> float:
        """Return the peak resident memory in MB above the peak before ``prepare``."""
        return self(None)


def _work(connection: Connection, prepare: Callable[[], Turn]) -> None:
    before = _peak_memory()
    turn = prepare()
    connection.send("ready")
    while True:
        try:
            request = connection.recv()
        except EOFError:
            return
        connection.send(_peak_memory() - before if request is None else turn(request))


def _peak_memory() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def start(stack: ExitStack, variants: dict[str, Callable[[], Turn]]) -> dict[str, Worker]:
    """Start the workers of all variants and wait until they are ready."""
    workers = {name: Worker(prepare) for name, prepare in variants.items()}
    return {name: stack.enter_context(worker) for name, worker in workers.items()}


def take_turns(workers: dict[str, Worker], request: Any, num_rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each worker in each round; every other round runs in reverse order."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(num_rounds):
        for name in list(workers)[:: -1 if number % 2 else 1]:
            seconds[name].append(workers[name](request))
    return seconds


def speedup(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Return the median, least and greatest ratio of the rounds."""
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write JSON with floats rounded to four significant digits."""
    path.write_text(json.dumps(_rounded(result), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    match value:
        case float():
            return float(f"{value:.4g}")
        case dict():
            return {key: _rounded(item) for key, item in value.items()}
        case list():
            return [_rounded(item) for item in value]
        case _:
            return value
