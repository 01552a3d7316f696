"""Does a run that is killed at random moments resume bit for bit, and leave no process behind?

    make kills                                      30 kills with one process and 30 with two, as the nightly job does
    python tests/kills.py --kills 3 --processes 1   a few of them

``accelerate launch`` starts a tiny training over and over in one folder. Each start is killed at a random moment in one
of the ways of ``KILLS``, until the training reaches its end. Its weights, averages, optimizer state, log and best mark
must then equal those of a training that nobody disturbed, and another folder begins. After every kill no process of the
run may be left, and no checkpoint may be lost. The steps follow from the seed, the moments within them do not.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = {1: "cpu", 2: "cpu2"}
NUM_STEPS = 96
TINY = (
    *("data.image_size=16", "denoiser.patch_size=1", f"train.num_steps={NUM_STEPS}", "train.checkpoint_every=8"),
    *("validation.every=48", "validation.num_images=2", "validation.num_shown=1"),
)
KILLS = ("TERM", "INT", "HUP", "KILL of the launcher", "KILL of a trainer", "KILL of everything")
EXACT = ("model.safetensors", "optimizer.bin", "pipeline/denoiser/diffusion_pytorch_model.safetensors")
TIMES = {"seconds", "processor_seconds", "images_per_second"}
MARK = "IDM_KILLS_RUN"
PATIENCE = 300.0  # seconds until a start that hangs, or a process that stays, counts as a fault


class Fault(Exception):
    """A run did not do what it promises."""


@dataclass
class Start:
    """One ``accelerate launch``, whose processes are recognised by a variable in their environment."""

    folder: Path
    num_processes: int

    def __post_init__(self) -> None:
        self.mark = f"{self.folder}:{time.monotonic_ns()}"
        self.errors = self.folder.with_suffix(".stderr").open("w+")
        recipe = REPOSITORY / "configs" / "accelerate" / f"{RECIPES[self.num_processes]}.yaml"
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(recipe)]
        launch += ["--main_process_port", "0"] if self.num_processes > 1 else []
        config = REPOSITORY / "tests" / "e2e" / "tiny.yaml"
        self.launcher = subprocess.Popen(
            [*launch, "train_idm.py", "--config", str(config), f"output_dir={self.folder}", *TINY],
            cwd=REPOSITORY,
            env=os.environ | {MARK: self.mark},
            stdout=subprocess.DEVNULL,
            stderr=self.errors,
            start_new_session=True,
        )
        self.begun, self.begun_at = time.monotonic(), time.time()

    def processes(self) -> list[int]:
        """Those of this start that live; the dead have no environment."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if f"{MARK}={self.mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return sorted(found)

    def trainers(self) -> list[int]:
        return [process for process in self.processes() if process != self.launcher.pid]

    def is_training(self) -> bool:
        """Whether it has written to the log, as a start does when it has resumed and after every step."""
        log = self.folder / "log.jsonl"
        return log.exists() and log.stat().st_mtime > self.begun_at

    def step(self) -> int:
        """The last one that this start has logged, or resumed from; -1 before."""
        if not self.is_training():
            return -1
        lines = (self.folder / "log.jsonl").read_text().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith("\n")]
        return json.loads(whole[-1])["step"] if whole else 0

    def wait_until(self, condition: Callable[[], bool]) -> float:
        """Seconds since the launch, once the condition holds or the launcher has ended."""
        while not condition() and self.launcher.poll() is None:
            if time.monotonic() - self.begun > PATIENCE:
                self.end()
                raise Fault(f"hangs\n{self.tail()}")
            time.sleep(0.01)
        return time.monotonic() - self.begun

    def kill(self, how: str, rng: random.Random) -> None:
        match how:
            case "KILL of a trainer":
                victims, number = rng.sample(self.trainers(), k=min(1, len(self.trainers()))), signal.SIGKILL
            case "KILL of everything":
                victims, number = self.processes(), signal.SIGKILL
            case "KILL of the launcher":
                victims, number = [self.launcher.pid], signal.SIGKILL
            case _:
                victims, number = [self.launcher.pid], signal.Signals[f"SIG{how}"]
        for victim in victims:
            try:
                os.kill(victim, number)
            except ProcessLookupError:
                continue

    def end(self) -> None:
        """Kill what is left."""
        self.kill("KILL of everything", random.Random(0))
        self.launcher.wait()

    def require_no_process(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while self.launcher.poll() is None or self.processes():
            if time.monotonic() > deadline:
                left = self.processes()
                self.end()
                raise Fault(f"leaves processes behind: {left}")
            time.sleep(0.05)

    def tail(self) -> str:
        self.errors.seek(0)
        return self.errors.read()[-2000:]


def checkpoints(folder: Path) -> list[int]:
    """The steps of the complete ones."""
    return sorted(int(path.name.removeprefix("step_")) for path in (folder / "checkpoints").glob("step_*"))


def read_log(folder: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def differences(folder: Path, expected: Path) -> list[str]:
    """In what a finished run differs from another one."""
    last, wanted = (path / "checkpoints" / f"step_{NUM_STEPS:08d}" for path in (folder, expected))
    found = [name for name in EXACT if (last / name).read_bytes() != (wanted / name).read_bytes()]
    found += ["log.jsonl"] if read_log(folder) != read_log(expected) else []
    best = [(path / "checkpoints" / "best.json").read_text() for path in (folder, expected)]
    found += ["best.json"] if best[0] != best[1] else []
    return found + ([".unfinished"] if list((folder / "checkpoints").glob(".unfinished*")) else [])


def train_undisturbed(folder: Path, num_processes: int) -> float:
    """Seconds until the training begins."""
    start = Start(folder, num_processes)
    seconds = start.wait_until(start.is_training)
    start.wait_until(lambda: False)
    if start.launcher.returncode:
        raise Fault(f"the undisturbed run fails with status {start.launcher.returncode}\n{start.tail()}")
    return seconds


def disturb(folder: Path, num_processes: int, how: str, seconds: float, rng: random.Random) -> bool:
    """Start the run and kill it: nine times of ten after a random step to come, else while it starts.

    Args:
        seconds: that a start takes.

    Returns:
        False if the run ended first.
    """
    before = checkpoints(folder)
    start = Start(folder, num_processes)
    if rng.random() < 0.9:
        step = rng.randint(max(before, default=0), NUM_STEPS)
        moment = start.begun + start.wait_until(lambda: start.step() >= step) + rng.random() * 0.2
    else:
        moment = start.begun + rng.random() * seconds
    start.wait_until(lambda: time.monotonic() > moment)
    if start.launcher.poll() is not None:
        start.require_no_process()
        if start.launcher.returncode:
            raise Fault(f"does not resume from steps {before}: status {start.launcher.returncode}\n{start.tail()}")
        return False
    start.kill(how, rng)
    start.require_no_process()
    after = checkpoints(folder)
    if before and (not after or after[-1] < before[-1]):
        raise Fault(f"lost a checkpoint: {before} became {after}")
    return True


def attack(temporary: Path, num_processes: int, num_kills: int, seed: int) -> None:
    """Kill runs of so many processes so many times.

    Raises:
        Fault: the first thing that went wrong.
    """
    rng = random.Random(f"{seed}, {num_processes}")
    expected = temporary / f"undisturbed_{num_processes}"
    seconds = train_undisturbed(expected, num_processes)
    killed, ended, folder = 0, 0, temporary / f"run_{num_processes}_0"
    while killed < num_kills:
        how = KILLS[killed % len(KILLS)]
        try:
            alive = disturb(folder, num_processes, how, seconds, rng)
        except Fault as fault:
            raise Fault(f"{num_processes} process(es), kill {killed + 1}, {how}: {fault}") from None
        if alive:
            killed += 1
            print(f"{num_processes} process(es), kill {killed}, {how}: checkpoints {checkpoints(folder)}", flush=True)
        if killed == num_kills or not alive or NUM_STEPS in checkpoints(folder):
            train_undisturbed(folder, num_processes)
            require_equal(folder, expected)
            ended, folder = ended + 1, temporary / f"run_{num_processes}_{ended + 1}"
    print(f"{num_processes} process(es): {killed} kills, {ended} runs to the end, all equal to the undisturbed run")


def require_equal(folder: Path, expected: Path) -> None:
    if found := differences(folder, expected):
        raise Fault(f"{folder.name} resumed to something else than the undisturbed run: {', '.join(found)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30, help="with each number of processes")
    parser.add_argument("--processes", type=int, nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            for num_processes in arguments.processes:
                attack(Path(temporary), num_processes, arguments.kills, arguments.seed)
        except Fault as fault:
            print(f"FAULT: {fault}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
