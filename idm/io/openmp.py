"""How the threads of PyTorch's operators wait for one another on a CPU."""

import os

SPINS = "1000"


def limit_spinning() -> None:
    """Let a thread of GNU's OpenMP sleep after a thousand spins at a barrier instead of about three hundred thousand.

    A spinning thread takes a core from the thread for which it waits as soon as another process occupies a core:
    training beside two busy processes on two cores became 1.4 times as fast, and on idle cores it stayed equal
    (``experiments/benchmarks/waiting.py``). The library reads the variable when it is loaded, so this function must be
    called before PyTorch is imported. ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` of the caller are kept.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
