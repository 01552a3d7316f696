"""What a run trains: the methods that it calls, which IDM and the baseline implement."""

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, runtime_checkable

from accelerate.optimizer import AcceleratedOptimizer
from jaxtyping import Float
from torch import Tensor

from idm.data.pairs import Batch
from idm.restorers.protocol import Restorer


@runtime_checkable
class Trainable(Protocol):
    """What a training run trains. The run knows steps, data, time and files; the trainable knows the method.

    Attributes:
        optimizer: of the network that is published, whose learning rate is logged.
        skipped: 1 if an update of the last step was left out, since a gradient was not finite; else 0.
    """

    optimizer: AcceleratedOptimizer
    skipped: Float[Tensor, ""]

    def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Optimiser step number ``step`` (from 0); takes as many micro-batches as it accumulates.

        Gives what :meth:`idm.training.log.Window.add` takes, "loss" among it, on the device: nothing waits for it.
        """
        ...

    def tensors(self) -> list[Tensor]:
        """All weights that are trained, and their averages: none is ever saved that is not finite."""
        ...

    def save(self, folder: Path) -> None:
        """Write the complete state, on all processes, and on the main one the publishable model."""
        ...

    def load(self, folder: Path) -> None:
        """Go back to a saved state."""
        ...


@runtime_checkable
class Learner(Trainable, Protocol):
    """A trainable whose model restores faces, so that the run can validate it.

    Attributes:
        model_name: of the publishable model, a file or folder, within a checkpoint.
    """

    model_name: str

    def restorer(self) -> Restorer:
        """The model as it would be published now."""
        ...
