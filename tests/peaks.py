"""The peak memory of a piece of work."""

from collections.abc import Callable
from pathlib import Path

from idm.io.memory import release_freed_memory

OWN = Path("/proc/self")
MEASURABLE = (OWN / "clear_refs").exists()


def peak_of(work: Callable[[], object]) -> int:
    """The bytes by which the resident memory of this process rises at most while something is done."""
    release_freed_memory()
    (OWN / "clear_refs").write_text("5")  # proc(5): the peak is counted anew
    before = _kilobytes("VmRSS")
    work()
    return (_kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    line = next(line for line in (OWN / "status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])
