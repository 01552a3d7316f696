"""Shared by all tests: shapes and types in signatures become checks, and where the optional assets lie."""

import atexit
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # Each worker, and the processes that its tests start, have cores of their own: threads of several processes that
    # share cores wait for one another up to ten times as long as they compute.
    cores, first = sorted(os.sched_getaffinity(0)), int(worker.removeprefix("gw"))
    os.sched_setaffinity(0, cores[first :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])] or {cores[first % len(cores)]})
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) == signal.SIG_IGN:  # by nohup or a background shell; tests' processes inherit it
        signal.signal(number, handler)

os.environ["IDM_HOME"] = tempfile.mkdtemp(prefix="idm-home-")  # not the user's weights and cached results
atexit.register(shutil.rmtree, os.environ["IDM_HOME"], ignore_errors=True)

install_import_hook(["idm", "gan_baseline"], "beartype.beartype")  # before anything imports them

hypothesis.settings.register_profile("idm", deadline=None, report_multiple_bugs=False)
hypothesis.settings.load_profile("idm")


@pytest.fixture(scope="session")
def assets() -> Path:
    """Faces and weights that are not part of the repository: ``$IDM_ASSETS``, or ``../shared/assets``."""
    named = os.environ.get("IDM_ASSETS")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip(f"the optional assets are not here: {folder} (set IDM_ASSETS)")
    return folder


@pytest.fixture
def peak_of() -> Callable[[Callable[[], object]], int]:
    """Gives the bytes by which the resident memory of this process rises at most while something is done."""
    import peaks  # not before the hook above

    if not peaks.MEASURABLE:
        pytest.skip("peaks are read from /proc")
    return peaks.peak_of


@pytest.fixture(scope="module")
def drawn_once() -> Iterator[None]:
    """Draw each procedural face once for all tests of a module."""
    from idm.data.sources import Face, SyntheticFaces  # not before the hook above

    draw, drawn = SyntheticFaces.__getitem__, {}

    def known(self: SyntheticFaces, index: int) -> Face:
        key = (self.seed, index, self.size)
        if key not in drawn:
            drawn[key] = draw(self, index)
        return drawn[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SyntheticFaces, "__getitem__", known)
        yield
