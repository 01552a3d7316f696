"""experiments/benchmarks/cost.py: operations counted by hand, and gaps where weights are missing."""

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from idm.restorers.load import Loaded

FOLDER = Path(__file__).parents[2] / "experiments" / "benchmarks"


@pytest.fixture
def cost(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which is in no package and imports its neighbours."""
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("rounds", "table"):  # others' modules of these names
        monkeypatch.delitem(sys.modules, name, raising=False)
    spec = importlib.util.spec_from_file_location("benchmarks_cost", FOLDER / "cost.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name in ("rounds", "table"):
        monkeypatch.delitem(sys.modules, name)
    return module


class Twice:
    """A restorer that applies one convolution twice."""

    image_size = 16

    def __init__(self) -> None:
        self.network = nn.Conv2d(3, 3, 3, padding=1)

    @torch.inference_mode()
    def restore(self, lq: Tensor, seeds: Sequence[int]) -> Tensor:
        return self.network(self.network(lq))


def test_every_pass_counts_and_a_multiply_add_counts_as_two(cost: ModuleType) -> None:
    assert cost.gflop(Twice()) == pytest.approx(2 * 2 * 16 * 16 * 3 * 3 * 9 / 1e9)


def test_missing_weights_are_a_gap_with_the_command_that_gets_them(cost, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    monkeypatch.chdir(tmp_path)
    load = cost.load
    metadata = {"name": "two passes", "image_size": 16, "parameters": 84}
    monkeypatch.setattr(cost, "load", lambda name: Loaded(Twice(), metadata) if name == "mine=m" else load(name))
    monkeypatch.setattr(cost, "start", lambda stack, variants: {name: Turns() for name in variants})
    rows = cost.measure(["mine=m", "codeformer"], 3)
    assert rows[0]["seconds_per_face"] == 0.5
    assert rows[1] == {"label": "codeformer", "missing": "idm weights fetch codeformer.pth"}
    table = cost.cost_table({"rows": rows})
    assert "| mine (two passes) | 16 | 0.0 | 0.0 | 0.500 | 7 |" in table
    assert "| codeformer | – | – | – | – | – |" in table
    assert "`idm weights fetch codeformer.pth` gets them." in table
    with pytest.raises(FileNotFoundError):
        load("restoreformer")


class Turns:
    """In place of a process."""

    def __call__(self, request: object) -> float:
        return 0.5

    def peak_memory(self) -> float:
        return 7.0
