"""The protocol that every face restorer implements."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Restorer(Protocol):
    """Restores aligned faces of its own size."""

    @property
    def image_size(self) -> int:
        """Side in pixels of the faces it takes and gives."""
        ...

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore degraded faces in [0, 1]. Each result, also in [0, 1], depends only on its face and its seed."""
        ...
