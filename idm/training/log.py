"""The log of a run: means over the steps between two lines, and the lines."""

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from idm.io.atomic import CheckpointError, write_text


class Window:
    """Sums and counts over the steps since the last line of the log, kept on the device.

    Attributes:
        steps: their number.
        seconds: their duration.
        longest: the longest sequence of skipped updates, including those before the window.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.row = torch.zeros((), device=device)
        self.clear()

    def clear(self) -> None:
        """Begin a new line: forget all values but the sequence of skipped updates."""
        self.totals: dict[str, Float[Tensor, " 2"]] = {}
        self.skipped = torch.zeros((), device=self.device)
        self.longest = self.row.clone()
        self.steps, self.seconds = 0, 0.0

    def add(self, values: dict[str, Tensor], skipped: Float[Tensor, ""]) -> None:
        """Add the values of one step; they are not counted if its update was skipped.

        Args:
            values: scalars, or (sum, count) for a mean over something other than steps.
            skipped: 1 or 0.
        """
        for name, value in values.items():
            value = value.to(self.device, torch.float32)
            total = value if value.ndim else torch.stack([value, torch.ones_like(value)])
            total = torch.where(skipped > 0, 0.0, total)
            self.totals[name] = self.totals[name] + total if name in self.totals else total
        self.skipped = self.skipped + skipped
        self.row = (self.row + skipped) * skipped
        self.longest = torch.maximum(self.longest, self.row)
        self.steps += 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """Means over the steps of all processes; values without a count are left out."""
        names = sorted(self.totals)
        if not names:
            return {}
        totals = torch.stack([self.totals[name] for name in names])
        totals = totals.double() if self.device.type != "mps" else totals
        totals = accelerator.reduce(totals, "sum").tolist()
        return {name: total / count for name, (total, count) in zip(names, totals, strict=True) if count}

    def state(self) -> dict[str, Any]:
        """The state as JSON, without loss of precision."""
        totals = {name: total.tolist() for name, total in self.totals.items()}
        return {
            "window": totals,
            "window_skipped": [self.skipped.item(), self.longest.item(), self.row.item()],
            "window_steps": self.steps,
            "window_seconds": self.seconds,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a state, including older ones that hold only sums."""
        self.steps, self.seconds = state["window_steps"], state["window_seconds"]
        pairs = {n: v if isinstance(v, list) else [v, self.steps] for n, v in state["window"].items()}
        self.totals = {name: torch.tensor(pair, device=self.device) for name, pair in pairs.items()}
        skipped = torch.tensor(state.get("window_skipped", [0.0, 0.0, 0.0]), device=self.device)
        self.skipped, self.longest, self.row = skipped


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's log or history; a last line that was cut short by a kill is left out.

    Raises:
        CheckpointError: another line is damaged.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return [_read_row(path, number, line) for number, line in enumerate(lines, 1)]


def _read_row(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise _damaged(path, number)
    return row


def _damaged(path: Path, number: int) -> CheckpointError:
    return CheckpointError(f"{path}: line {number} is damaged; delete this line, and start the same command again")


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Raises CheckpointError where the disk is full."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror})") from error


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace a log in one step, a line of JSON for each row."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def record_settings(path: Path, step: int, settings: dict[str, Any]) -> None:
    """Add a row to a run's history if its settings have changed: the settings that differ, and the first step that uses
    them.

    The first row holds all settings; each later one replaces what the rows above it say. A setting that no longer
    exists is null. Rows of later steps are dropped: their steps were lost with a damaged checkpoint.
    """
    rows = read_log(path)
    for number, row in enumerate(rows, 1):
        if not isinstance(row.get("settings"), dict):
            raise _damaged(path, number)
    rows = [row for row in rows if row["step"] <= step]
    held: dict[str, Any] = {}
    for row in rows:
        held |= row["settings"]
    now = {**dict.fromkeys(held), **json.loads(json.dumps(settings))}
    changed = {key: value for key, value in now.items() if key not in held or held[key] != value}
    if changed:
        write_rows(path, [*rows, {"step": step, "settings": changed}])
