"""Options that several commands share: what the command line says, as typed, frozen values."""

import argparse
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from idm.diffusion.chain import SPACINGS, SamplerName, Spacing, Start
from idm.restorers.names import DEFAULT_NAME, PUBLISHED, Backend

Options = TypeVar("Options")


def read(kind: type[Options], parsed: argparse.Namespace) -> Options:
    """The options of a command, from a parsed command line."""
    return kind(**{field.name: getattr(parsed, field.name) for field in fields(kind)})  # type: ignore[arg-type]


def choices(kind: type, name: str) -> tuple[Any, ...]:
    """The values of an option: those of the Literal in the annotation of its field."""
    annotation = get_type_hints(kind)[name]
    return next(get_args(part) for part in (annotation, *get_args(annotation)) if get_origin(part) is Literal)


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Device and precision of a command."""

    batch_size: int
    device: str | None
    precision: Literal["auto", "fp32", "bf16"]


def add_machine(parser: argparse._ActionsContainer) -> None:
    """Add the options of :class:`MachineOptions`."""
    parser.add_argument("--batch-size", type=int, default=8, help="faces per batch (default 8)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: the best available)")
    parser.add_argument(
        "--precision",
        choices=choices(MachineOptions, "precision"),
        default="auto",
        help="default: bf16 if the device is fast at it",
    )


@dataclass(frozen=True, kw_only=True)
class ModelOptions(MachineOptions):
    """A restorer and, if it is an IDM, its chain; None is the model's own."""

    model: str | None
    sampler: SamplerName | None
    steps: int | None
    spacing: Spacing | None
    start_from: Start | None
    strength: float | None
    fidelity: float | None
    backend: Backend

    @property
    def chain_changes(self) -> dict[str, Any]:
        """The settings of the chain, for :meth:`idm.diffusion.chain.Chain.changed`."""
        names = ("sampler", "spacing", "start_from", "strength", "fidelity")
        return {"num_steps": self.steps, **{name: getattr(self, name) for name in names}}


def add_model(parser: argparse._ActionsContainer) -> None:
    """Add the options of :class:`ModelOptions`."""
    parser.add_argument(
        "--model",
        "--restorer",
        help=f"training run, saved model, weights file, or a name: {DEFAULT_NAME} (the default, bundled), "
        f"{', '.join(PUBLISHED)} (their published weights, see idm weights)",
    )
    parser.add_argument("--sampler", choices=choices(ModelOptions, "sampler"), help="default: the model's")
    parser.add_argument("--steps", type=int, help="sampling steps of the whole chain (default: the model's)")
    spacings = [name for name in SPACINGS if name != "levels"]  # explicit ones are part of a model
    parser.add_argument("--spacing", choices=spacings, help="spacing of the noise levels (default: the model's)")
    parser.add_argument("--start-from", choices=choices(ModelOptions, "start_from"), help="where the chain starts")
    parser.add_argument(
        "--strength", type=float, help="share of the chain to run with --start-from degraded, in (0, 1]"
    )
    parser.add_argument(
        "--fidelity",
        type=float,
        metavar="F",
        help="in [0, 1]: start from the degraded face and run the last 1 - F of the chain; 0 runs all of it, from "
        "noise (default: the model's)",
    )
    parser.add_argument(
        "--backend",
        choices=choices(ModelOptions, "backend"),
        default="torch",
        help="inference backend of an IDM; onnxruntime and openvino run on the CPU (default torch)",
    )
    add_machine(parser)


def add_memory(parser: argparse._ActionsContainer) -> None:
    """Add ``--max-memory``, which is given in gigabytes and stored in bytes."""
    parser.add_argument(
        "--max-memory",
        type=_gigabytes,
        metavar="GB",
        help="memory for pictures, besides the model; files that need more are rejected before they are decoded "
        "(default: half of the machine's memory, at most 4)",
    )


def _gigabytes(text: str) -> int:
    number = float(text)
    if not 0 < number < 1e6:
        raise argparse.ArgumentTypeError(f"must be a number of gigabytes above 0, got {text}")
    return round(number * 1e9)
