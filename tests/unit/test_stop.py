"""A folder has one holder, and a run stops when it or its launcher is told to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from idm.io.lock import FolderInUse, lock_folder
from idm.training import stop
from idm.training.stop import StopSignals, stop_with_launcher

HOLD = """
import os, pathlib, sys, time
from idm.io.lock import lock_folder
lock_folder(pathlib.Path(sys.argv[1]))
if os.fork():
    print("held", flush=True)
time.sleep(60)  # the child, a worker for example, outlives a killed parent
"""


def test_a_lock_is_held_by_one_process_and_dies_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUse, match=rf"run is in use by process {holder.pid} on \S+ since 20\d\d-"):
            lock_folder(folder)
    finally:
        holder.kill()
        holder.wait()
    lock_folder(folder)
    lock_folder(folder)  # again, by its holder
    assert f"process {os.getpid()} " in (folder / ".lock").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_asks_to_stop_and_later_has_its_old_meaning_again(number: int) -> None:
    before = signal.getsignal(number)
    with StopSignals() as signals:
        assert not signals.requested()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)  # a second one changes nothing
        assert signals.requested()
        assert signals.received == number
    assert signal.getsignal(number) is before


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not signals.requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_death_of_the_launcher_asks_to_stop_and_that_of_a_shell_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for launched, stopped in ((True, True), (False, False)):
        monkeypatch.setattr(stop, "has_launcher", lambda launched=launched: launched)
        monkeypatch.setattr(stop.os, "getppid", lambda: 2)  # whatever has started this test
        with StopSignals() as signals:
            assert not signals.requested()
            with monkeypatch.context() as patch:
                patch.setattr(stop.os, "getppid", lambda: 1)
                assert signals.requested() == stopped
            assert signals.received == (signal.SIGTERM if stopped else None)


CHILD = """
import sys, time
from idm.training.stop import StopSignals, stop_with_launcher
stop_with_launcher()
with StopSignals() as signals:
    print("ready", flush=True)
    for _ in range(3000):
        if signals.received:  # by the kernel's signal, not by looking at the parent
            print("stopped", flush=True)
            break
        time.sleep(0.01)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells of a parent's death on Linux only")
@pytest.mark.parametrize("launched", [True, False])
def test_a_trainer_stops_when_its_launcher_dies(launched: bool) -> None:
    start = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {CHILD!r}])"
    environment = {name: value for name, value in os.environ.items() if name not in stop.LAUNCHED}
    environment |= {"ACCELERATE_MIXED_PRECISION": "no"} if launched else {}
    launcher = subprocess.Popen([sys.executable, "-c", start], stdout=subprocess.PIPE, text=True, env=environment)
    assert launcher.stdout.readline() == "ready\n"
    launcher.kill()
    begun = time.monotonic()
    if launched:
        assert launcher.stdout.readline() == "stopped\n"
        assert time.monotonic() - begun < 20
    else:
        os.set_blocking(launcher.stdout.fileno(), False)
        time.sleep(0.5)
        assert not launcher.stdout.readline()
    launcher.wait()


def test_following_a_launcher_without_one_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in stop.LAUNCHED:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(stop.ctypes, "CDLL", lambda name: pytest.fail("no launcher to follow"))
    stop_with_launcher()
