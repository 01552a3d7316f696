"""Commands in processes of their own that start without the seconds of their imports.

Each is forked from a process that has imported PyTorch and our packages. It has the arguments, the output and the exit
status of a command, and it can be killed. A test of what a command imports needs a fresh process instead.
"""

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path

ROOT = Path(__file__).parents[1]
FORKSERVER = multiprocessing.get_context("forkserver")
FORKSERVER.set_forkserver_preload(
    [
        *("idm.config.assembly.intrinsic", "idm.config.assembly.extrinsic", "gan_baseline.build", "torch._dynamo"),
        *("idm.apps.photo.files", "idm.apps.photo.video"),
    ]
)
SECONDS = 300


def be_the_command(arguments: Sequence[str], streams: Path, environment: dict[str, str]) -> None:
    """Run in the new process: ``python ARGUMENTS`` in the root of the repository."""
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(streams / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(ROOT)
    os.environ.update(environment)
    if arguments[0] == "-m":
        sys.argv = list(arguments[1:])
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = list(arguments)
        runpy.run_path(arguments[0], run_name="__main__")


def environments(num_processes: int) -> list[dict[str, str]]:
    """What ``accelerate launch`` tells each of the processes of a run on the CPU."""
    if num_processes == 1:
        return [{}]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        run = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1])}
    run |= {"ACCELERATE_USE_CPU": "true", "WORLD_SIZE": str(num_processes)}
    return [run | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]


@contextmanager
def started(arguments: Sequence[str], num_processes: int = 1) -> Iterator[tuple[list[ForkServerProcess], Path]]:
    """The processes of a command, and the folder of their files stdout and stderr; they end with the context."""
    with tempfile.TemporaryDirectory() as folder:
        processes = [
            FORKSERVER.Process(target=be_the_command, args=(arguments, Path(folder), environment))
            for environment in environments(num_processes)
        ]
        try:
            for process in processes:
                process.start()
            yield processes, Path(folder)
        finally:
            for process in processes:
                process.kill()
                process.join()


def run(arguments: Sequence[str], num_processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run ``python ARGUMENTS`` to its end, as one process or as several that work together.

    Returns:
        The exit status, of the first process that failed if any did, and what all processes have written.
    """
    with started(arguments, num_processes) as (processes, streams):
        deadline = time.monotonic() + SECONDS
        while any(process.is_alive() for process in processes) and not any(process.exitcode for process in processes):
            assert time.monotonic() < deadline, arguments
            time.sleep(0.01)
        status = next((process.exitcode for process in processes if process.exitcode), 0)
        written = [(streams / name).read_text() for name in ("stdout", "stderr")]
    return subprocess.CompletedProcess(arguments, status, *written)


def kill_when(arguments: Sequence[str], folder: Path, pattern: str, number: int = signal.SIGKILL) -> None:
    """Run ``python ARGUMENTS`` and send it a signal as soon as ``folder`` holds a path that matches ``pattern``."""
    with started(arguments) as ([process], streams):
        deadline = time.monotonic() + SECONDS
        while not list(folder.glob(pattern)):
            assert process.is_alive(), (streams / "stderr").read_text()
            assert time.monotonic() < deadline, arguments
            time.sleep(0.001)
        os.kill(process.pid, number)
        process.join(SECONDS)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.exitcode == expected, (streams / "stderr").read_text()
