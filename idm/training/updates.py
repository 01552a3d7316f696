"""One update of the weights, skipped if a gradient is not finite.

Everything is decided on the device: a step never waits for a transfer to the CPU.
"""

import math
from collections.abc import Iterable

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def optimizer_step(
    accelerator: Accelerator, network: nn.Module, optimizer: AcceleratedOptimizer, max_grad_norm: float | None
) -> Float[Tensor, ""] | None:
    """Clip the gradients, update the weights and clear the gradients, once all micro-batches have been seen.

    Weights and the optimiser's state stay as they are if the norm of the gradients is not finite.

    Args:
        optimizer: a fused optimiser, which can skip an update.
        max_grad_norm: gradients of a larger norm are scaled down to it; None never scales them.

    Returns:
        The norm before scaling; None while micro-batches are missing.
    """
    norm = None
    if accelerator.sync_gradients:
        limit = math.inf if max_grad_norm is None else max_grad_norm
        norm = torch.as_tensor(accelerator.clip_grad_norm_(network.parameters(), limit))
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        optimizer.optimizer.found_inf = (~torch.isfinite(norm)).float()  # what GradScaler tells fused optimisers
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no tensor, or no part of it that this process holds, has an infinite value or a NaN."""
    local = [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]
    return bool(torch.stack([torch.isfinite(tensor).all() for tensor in local]).all())
