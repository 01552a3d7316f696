"""Workers that take turns.

Each variant lives in a process of its own, because allocator settings are a process's, and because what one
variant leaves in memory must not slow another one. Only one computes at a time, in interleaved rounds, so
that the machine's drift meets all of them alike; a speed-up is the median of the rounds' own ratios.
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
"""Does a request's work and gives its seconds."""


class Worker:
    """A process that prepares a variant and then waits for its turns.

    Args:
        prepare: builds the variant, in the worker; must be picklable.
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
        """One turn; EOFError if the worker died, which has then said why."""
        self.connection.send(request)
        return self.connection.recv()

    def peak_memory(self) -> float:
        """MB of resident memory at most, over what the process held before ``prepare``."""
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
    """Start all variants' workers and wait until the last is ready."""
    workers = {name: Worker(prepare) for name, prepare in variants.items()}
    return {name: stack.enter_context(worker) for name, worker in workers.items()}


def take_turns(workers: dict[str, Worker], request: Any, num_rounds: int) -> dict[str, list[float]]:
    """Each worker's seconds in each round; every other round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for number in range(num_rounds):
        for name in list(workers)[:: -1 if number % 2 else 1]:
            seconds[name].append(workers[name](request))
    return seconds


def speedup(slow: Sequence[float], fast: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest ratio of the rounds."""
    ratios = [s / f for s, f in zip(slow, fast, strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write JSON, numbers rounded to four digits."""
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
