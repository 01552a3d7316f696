"""Shared by the training commands: read the configuration, build, fit, report; one line for a user's mistake."""

import argparse
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from idm.config.load import load_config
from idm.config.schema import RunConfig
from idm.io.errors import UserError
from idm.io.openmp import limit_spinning
from idm.training.stop import stop_with_launcher

Config = TypeVar("Config", bound=RunConfig)


class Fittable(Protocol):
    """A training run, or several in a row."""

    def fit(self) -> None:
        """Train to the end, from the newest checkpoint if there is one."""
        ...

    def report(self) -> None:
        """Print where the results are."""
        ...


def launch(description: str, schema: type[Config], build: Callable[[Config], Fittable]) -> None:
    """Run a training command to its end; on an error, exit with status 1 and one message.

    Args:
        schema: schema of the file named by ``--config``.
        build: builds the run. It is called after the configuration was checked, and imports the slow packages.
    """
    stop_with_launcher()
    limit_spinning()
    threading.excepthook = _report_in_thread
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings to change")
    arguments = parser.parse_intermixed_args()
    try:
        config = load_config(arguments.config, schema, arguments.overrides)

        from idm.io.machine import quieten_libraries

        quieten_libraries()
        run = build(config)
        run.fit()
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    run.report()

    from accelerate import PartialState

    PartialState().destroy_process_group()


def _report_in_thread(error: threading.ExceptHookArgs) -> None:
    """TensorBoard writes in a thread, and raises what ended it at the tracker's next call, in the main thread."""
    if not type(error.thread).__module__.startswith("tensorboard."):
        threading.__excepthook__(error)
