"""The interface of a training run to what it trains, which IDM and the baseline implement."""

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
    """A model in training. The run knows steps, data, time and files; the trainable knows the method.

    Attributes:
        optimizer: of the network that is published, whose learning rate is logged.
        skipped: 1 if an update of the last step, of any network, was skipped because a gradient was not finite; else 0.
    """

    optimizer: AcceleratedOptimizer
    skipped: Float[Tensor, ""]

    def train_step(self, step: int, batches: Iterator[Batch]) -> dict[str, Tensor]:
        """Optimiser step number ``step`` (from 0); consumes as many micro-batches as it accumulates.

        Returns the values for :meth:`idm.training.log.Window.add`, including "loss", on the device, so that no step
        waits for them.
        """
        ...

    def tensors(self) -> list[Tensor]:
        """All trained weights and their averages; the run does not save them if one is not finite."""
        ...

    def save(self, folder: Path) -> None:
        """Write the complete state, on all processes, and on the main one the publishable model."""
        ...

    def load(self, folder: Path) -> None:
        """Restore a saved state."""
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
