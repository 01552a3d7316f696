"""The exponential moving average of the weights, which is what is validated and published."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


class EMA:
    """Averages the parameters of a network.

    Args:
        parameters: to average. If they are sharded over processes, the averages are sharded likewise.
        decay: in [0, 1), see :meth:`decay_at`.

    Attributes:
        shadow_params: the averages, in the order of the parameters.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self.decay = decay
        self.shadow_params = [parameter.detach().clone() for parameter in parameters]

    def decay_at(self, step: int) -> float:
        """The decay after optimiser step ``step`` (from 0): 0, then (1 + step) / (10 + step) up to its limit."""
        return min(self.decay, (1 + step) / (10 + step)) if step else 0.0

    @torch.no_grad()
    def update(self, parameters: Iterable[Tensor], step: int, updated: Bool[Tensor, ""]) -> None:
        """Average in the parameters after optimiser step ``step`` (from 0), unless the step left its update out.

        Args:
            updated: whether the parameters were updated; on the device, so that no step waits for it.
        """
        weight = torch.where(updated, 1 - self.decay_at(step), 0.0)
        difference = torch._foreach_sub(list(parameters), self.shadow_params)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self.shadow_params, difference)

    @torch.no_grad()
    def publish(self, parameters: Iterable[Tensor]) -> None:
        """Copy the averages into the parameters of an unsharded network; call it on all processes, since it gathers
        shards."""
        for published, averaged in zip(parameters, self.shadow_params, strict=True):
            published.copy_(averaged.full_tensor() if isinstance(averaged, DTensor) else averaged)

    @torch.no_grad()
    def restore(self, parameters: Iterable[Tensor]) -> None:
        """Take the averages from the parameters of an unsharded network: the reverse of :meth:`publish`."""
        for averaged, published in zip(self.shadow_params, parameters, strict=True):
            if isinstance(averaged, DTensor):
                published = distribute_tensor(published.to(averaged.device), averaged.device_mesh, averaged.placements)
            averaged.copy_(published)
