"""The options of every command: a frozen dataclass holds exactly what its parser reads."""

import argparse
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from idm.apps.cli.main import build_parser
from idm.apps.cli.options.app import AppOptions
from idm.apps.cli.options.measure import CompareOptions, DataOptions, EvaluateOptions, PrepareOptions, ReportOptions
from idm.apps.cli.options.models import AdaptOptions, CleanOptions, ExportOptions, WeightsOptions
from idm.apps.cli.options.restore import RestoreOptions
from idm.apps.cli.options.shared import read

COMMANDS = {
    "restore a.png -o out": RestoreOptions,
    "evaluate -o out": EvaluateOptions,
    "compare idm -o out": CompareOptions,
    "report results -o page.html": ReportOptions,
    "data check lfw-test faces": DataOptions,
    "data prepare a -o out": PrepareOptions,
    "weights": WeightsOptions,
    "weights fetch": WeightsOptions,
    "export -o out": ExportOptions,
    "clean --data synthetic -o out": CleanOptions,
    "adapt a.png -o out": AdaptOptions,
    "app": AppOptions,
}


def test_every_command_is_here() -> None:
    parser = build_parser()
    (commands,) = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    assert {line.split()[0] for line in COMMANDS} == set(commands.choices)


@pytest.mark.parametrize(("line", "kind"), COMMANDS.items(), ids=COMMANDS)
def test_the_options_are_what_the_parser_reads(line: str, kind: type) -> None:
    parsed = build_parser().parse_args(line.split())
    unnamed = {"command", "version", "list_metrics"} | ({"action"} if kind in (DataOptions, PrepareOptions) else set())
    assert {field.name for field in fields(kind)} == vars(parsed).keys() - unnamed
    options = read(kind, parsed)
    assert all(getattr(options, name) == value for name, value in vars(parsed).items() if name not in unnamed)
    with pytest.raises(FrozenInstanceError):
        options.output = Path("elsewhere")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("restore a b -o out", "input", [Path("a"), Path("b")]),
        ("restore a -o out --faces 0,2", "faces", (0, 2)),
        ("restore a -o out --turn 90", "turn", 90),
        ("restore a -o out --max-memory 0.5", "max_memory", 500_000_000),
        ("evaluate -o out --pairs a b", "pairs", [Path("a"), Path("b")]),
        ("clean --data synthetic -o out gate.min_identity=0.7", "settings", ["gate.min_identity=0.7"]),
        ("weights fetch retinaface --yes", "names", ["retinaface"]),
        ("weights --weights-dir a fetch", "weights_dir", Path("a")),
        ("app --allow-host a --allow-host b", "allow_host", ["a", "b"]),
    ],
)
def test_an_option_has_its_value(line: str, name: str, value: object) -> None:
    kinds = {command.split()[0]: kind for command, kind in COMMANDS.items()}
    assert getattr(read(kinds[line.split()[0]], build_parser().parse_args(line.split())), name) == value
