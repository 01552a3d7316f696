"""What a user can put right is a UserError and one line; any other exception is a bug and shows its traceback."""

import ast
import builtins
import errno
import os
import sys
import threading
from pathlib import Path

import pytest

import idm.apps.cli.report as report_module
from idm.apps.cli import main as cli
from idm.apps.cli.faces import build_pairs
from idm.apps.cli.options.measure import MeasureOptions
from idm.apps.cli.options.shared import read
from idm.config.load import ConfigError, load_config
from idm.config.schema import IDMConfig
from idm.io.atomic import CheckpointError, read_json
from idm.io.errors import InvalidInput, MissingPackage, UserError
from idm.training.launch import Fittable, launch

ROOT = Path(__file__).parents[2]


def test_a_damaged_file_of_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for content in (b"", b"{", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"a\.json: is damaged"):
            read_json(path)


def test_a_configuration_that_is_not_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"a\.yaml: is not a text file"):
        load_config(tmp_path / "a.yaml", IDMConfig)


@pytest.mark.parametrize("command", [["evaluate"], ["compare", "idm"]])
@pytest.mark.parametrize("seed", [-1, 2**63])
def test_an_impossible_seed_is_refused(command: list[str], seed: int) -> None:
    parsed = cli.build_parser().parse_args([*command, "-o", "out", f"--seed={seed}"])
    with pytest.raises(UserError, match="--seed must lie in"):
        build_pairs(read(MeasureOptions, parsed), 16)


def bases_of_classes() -> dict[str, list[str]]:
    """The names of the bases of every public class of both packages."""
    paths = [path for package in ("idm", "gan_baseline") for path in (ROOT / package).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text()))]
    classes = [node for node in nodes if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    return {node.name: [ast.unparse(base) for base in node.bases] for node in classes}


def test_every_public_exception_is_a_user_error() -> None:
    bases = bases_of_classes()

    def ancestors(name: str) -> set[str]:
        return {name}.union(*(ancestors(base) for base in bases.get(name, [])))

    builtin = {
        name for name, value in vars(builtins).items() if isinstance(value, type) and issubclass(value, BaseException)
    }
    exceptions = {name for name in bases if ancestors(name) & builtin}
    assert {"ConfigError", "ModelError", "WeightsError", "TrainingError", "FetchError"} <= exceptions
    assert {name for name in exceptions if "UserError" not in ancestors(name)} == set()


@pytest.mark.parametrize(("error", "builtin"), [(InvalidInput, ValueError), (MissingPackage, ImportError)])
def test_a_user_error_is_also_what_python_calls_it(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, UserError)
    assert issubclass(error, builtin)


def reported(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """The exit status of a command that raises."""

    def command(options: object) -> int:
        raise error

    monkeypatch.setattr(report_module, "report_command", command)
    return cli.run(cli.build_parser().parse_args(["report", "a", "-o", "b.html"]))


@pytest.mark.parametrize(
    "error", [InvalidInput("a: is wrong"), CheckpointError("a: is wrong"), FileNotFoundError("a: is wrong")]
)
def test_a_command_reports_an_error_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reported(error, monkeypatch) == 1
    assert capsys.readouterr().err == "error: a: is wrong\n"


@pytest.mark.parametrize("bug", [ValueError("a bug"), RuntimeError("a bug"), ImportError("a bug"), KeyError("a bug")])
def test_a_command_does_not_hide_a_bug(bug: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(type(bug), match="a bug"):
        reported(bug, monkeypatch)


@pytest.mark.parametrize(
    "error", [CheckpointError("a: is wrong"), FileNotFoundError("a: is wrong"), PermissionError("a: is wrong")]
)
def test_a_training_reports_an_error_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match=r"^error: a: is wrong$"):
        launched(error, monkeypatch)


def test_a_tracker_on_a_full_disk_is_an_error_in_one_line_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    writer = pytest.importorskip("tensorboard.summary.writer.record_writer")
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    class Run:
        def fit(self) -> None:
            monkeypatch.setattr(writer.RecordWriter, "write", full)
            tracker = SummaryWriter(str(tmp_path))
            tracker.add_scalar("loss", 1.0, 0)
            tracker.flush()

    with pytest.raises(SystemExit, match="No space left on device"):
        launched(Run(), monkeypatch)
    assert "Traceback" not in capfd.readouterr().err


def test_a_training_does_not_hide_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="a bug"):
        launched(ValueError("a bug"), monkeypatch)


def launched(outcome: Exception | Fittable, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(config: IDMConfig) -> Fittable:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    config = str(ROOT / "configs" / "quickstart.yaml")
    monkeypatch.setattr(sys, "argv", ["train", "--config", config])
    monkeypatch.setattr("idm.training.launch.stop_with_launcher", lambda: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # so that it is put back
    launch("A test.", IDMConfig, build)
