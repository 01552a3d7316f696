"""The options of ``idm app``."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from idm.apps.cli.options.shared import MachineOptions, add_machine, add_memory


@dataclass(frozen=True, kw_only=True)
class AppOptions(MachineOptions):
    """``idm app``; sizes in MB and megapixels as they are given, ``max_memory`` in bytes."""

    model: list[str]
    host: str
    port: int
    max_mb: float
    max_megapixels: float
    queue_size: int
    user_mb: float
    total_mb: float
    allow_host: list[str]
    max_memory: int | None
    weights_dir: Path | None


def add_app(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``idm app``."""
    parser.add_argument(
        "--model",
        nargs="+",
        default=["idm"],
        metavar="LABEL=PATH",
        help="restorers to choose from, given as for idm restore --model, each with a label; named restorers need no "
        "label (default idm, the bundled model)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1: this machine only)"
    )
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (default 7860)")
    parser.add_argument(
        "--max-mb", type=float, default=32.0, metavar="MB", help="maximum size of an upload (default 32)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=50.0, metavar="MP", help="maximum size of a picture (default 50)"
    )
    parser.add_argument("--queue-size", type=int, default=16, metavar="N", help="requests that may wait (default 16)")
    parser.add_argument(
        "--user-mb", type=float, default=256.0, metavar="MB", help="uploads from one address in an hour (default 256)"
    )
    parser.add_argument(
        "--total-mb",
        type=float,
        default=2048.0,
        metavar="MB",
        help="uploads from all addresses in an hour (default 2048)",
    )
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further host name under which the page may be requested, such as that of a reverse proxy",
    )
    add_memory(parser)
    parser.add_argument(
        "--weights-dir", type=Path, metavar="DIR", help="folder of the weights of the detector and the identity network"
    )
    add_machine(parser)
