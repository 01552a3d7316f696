"""The options of every command: a frozen dataclass holds exactly what its parser reads."""

import argparse
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from idm.apps.cli.main import build_parser
from idm.apps.cli.options.app import AppOptions
from idm.apps.cli.options.measure import CompareOptions, DataOptions, EvaluateOptions, PrepareOptions, ReportOptions
from idm.apps.cli.options.models import AdaptOptions, CleanOptions, ExportOptions, WeightsOptions
from idm.apps.cli.options.restore import RestoreOptions
from idm.apps.cli.options.shared import choices, read
from idm.apps.photo.settings import PhotoSettings

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


@pytest.mark.parametrize(("line", "kind"), COMMANDS.items(), ids=COMMANDS)
def test_an_option_takes_the_values_of_its_type(line: str, kind: type) -> None:
    parser = build_parser()
    for command in line.split()[:2]:
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        parser = inner[0].choices[command] if inner and command in inner[0].choices else parser
    limited = {action.dest: action.choices for action in parser._actions if action.choices is not None}
    typed = get_type_hints(kind)
    for name in limited.keys() - {"action", "spacing"}:  # a spacing by explicit levels is part of a model
        assert limited[name] == choices(kind, name)
    words = {name for name, annotation in typed.items() if literals(annotation)} - {"faces", "turn", "spacing"}
    assert words == limited.keys() - {"action", "spacing"}


def literals(annotation: object) -> set[object]:
    """The values of the Literals in an annotation."""
    inner = get_args(annotation)
    return set(inner) if get_origin(annotation) is Literal else set().union(*map(literals, inner))


def test_restore_takes_every_setting_of_photographs_with_its_values() -> None:
    options, settings = get_type_hints(RestoreOptions), get_type_hints(PhotoSettings)
    for name, annotation in settings.items():
        assert literals(options[name]) == literals(annotation), name


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
