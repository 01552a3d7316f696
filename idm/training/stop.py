"""Stopping a training run: by signals, and when its launcher dies."""

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType

from idm.io.signals import STOP_SIGNALS

LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""Environment variables that ``accelerate launch`` and torchrun set for the processes that they start."""


def has_launcher() -> bool:
    """Whether a launcher started this process. A shell does not count: the processes that it starts may outlive it."""
    return any(name in os.environ for name in LAUNCHED)


def stop_with_launcher() -> None:
    """Let this process receive SIGTERM when its launcher dies, so that no trainer outlives it.

    The kernel sends it on Linux only; elsewhere :class:`StopSignals` notices between two steps.
    """
    if has_launcher() and sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM))


class StopSignals:
    """A context in which a termination signal asks the run to stop instead of ending the process. Ignored signals stay
    ignored, such as SIGHUP under nohup.

    Attributes:
        received: the first received signal, if any.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._launcher = os.getppid() if has_launcher() else None

    def __enter__(self) -> "StopSignals":
        heeded = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Return whether to stop: a signal was received, or the launcher has died."""
        if self._launcher is not None and os.getppid() != self._launcher:
            self._receive(signal.SIGTERM, None)
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
