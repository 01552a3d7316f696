"""How a training run learns that it should stop: by signals, and by the death of its launcher."""

import ctypes
import os
import signal
import sys
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")
"""Environment variables that ``accelerate launch`` and torchrun set for the processes that they start."""


def has_launcher() -> bool:
    """Whether a launcher started this process. A shell is none: what it starts may outlive it."""
    return any(name in os.environ for name in LAUNCHED)


def follow_launcher() -> None:
    """Let this process receive SIGTERM when its launcher dies, so that no trainer is left without one.

    The kernel sends it on Linux only; elsewhere :class:`StopSignals` notices between two steps.
    """
    if has_launcher() and sys.platform == "linux":
        pr_set_pdeathsig = 1  # linux/prctl.h
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(signal.SIGTERM))


class StopSignals:
    """Within, a signal to end asks the run to stop, and does not end the process.

    A signal that is ignored stays so, as nohup wants it of SIGHUP.

    Attributes:
        received: the first signal that came, if one came.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._launcher = os.getppid() if has_launcher() else None

    def __enter__(self) -> "StopSignals":
        heeded = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def requested(self) -> bool:
        """Whether to stop: a signal came, or the launcher is gone."""
        if self._launcher is not None and os.getppid() != self._launcher:
            self._receive(signal.SIGTERM, None)
        return self.received is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
