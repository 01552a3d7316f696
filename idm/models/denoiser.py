"""The base of every denoiser f_theta(x_d, x_t, gamma)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from idm.models.architecture import Architecture


class Denoiser(nn.Module, ABC):
    """A denoiser f_theta(x_d, x_t, gamma), as training, sampling and export use it.

    A subclass embeds gamma with ``embed_gamma`` and computes the rest in :meth:`forward_embedded`.

    Args:
        sizes: of :class:`~idm.models.architecture.Architecture`, which stays here as ``config``.

    Attributes:
        stride: image sides are padded to a multiple of it, in pixels.
        gradient_checkpointing: compute activations again in the backward pass instead of keeping them.
    """

    embed_gamma: nn.Module

    def __init__(self, **sizes: Any) -> None:
        super().__init__()
        self.config = Architecture(**sizes)
        self.stride = self.config.patch_size * 2 ** (len(self.config.channels) - 1)
        self.gradient_checkpointing = False

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def forward(
        self,
        *,
        x_d: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        gamma: Float[Tensor, " b"],
    ) -> Float[Tensor, "b c h w"]:
        """The network's output in float32: eps, x_0 or v, as it was trained.

        Args:
            x_d: degraded faces in [-1, 1]; not used by an unconditional denoiser.
            x_t: noisy targets, x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps.
            gamma: cumulative signal level of each sample, in (0, 1].
        """
        return self.forward_embedded(x_d=x_d, x_t=x_t, embedding=self.embed_gamma(gamma))

    @abstractmethod
    def forward_embedded(
        self,
        *,
        x_d: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
        embedding: Float[Tensor, "b dim"],
    ) -> Float[Tensor, "b c h w"]:
        """:meth:`forward` after gamma has become its embedding, the only part that needs more than bfloat16."""

    def compile_parts(self) -> None:
        """Compile the network with `torch.compile`, or those parts that gain from it."""
        self.compile()

    def _to_patches(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b cp hp wp"]:
        """Pad to a multiple of the stride, space to depth, in the weights' precision, channels_last."""
        height, width = x.shape[-2:]
        pad_h, pad_w = -height % self.stride, -width % self.stride
        if pad_h or pad_w:
            x = F.pad(x, (0, pad_w, 0, pad_h), mode="replicate")
        x = F.pixel_unshuffle(x.to(self.dtype), self.config.patch_size)
        return x.contiguous(memory_format=torch.channels_last)

    def _to_output(
        self,
        pixels: Float[Tensor, "b c padded_h padded_w"],
        x_d: Float[Tensor, "b c h w"],
        x_t: Float[Tensor, "b c h w"],
    ) -> Float[Tensor, "b c h w"]:
        """Crop the padding and, with ``add_degraded``, add x_d; in float32."""
        height, width = x_t.shape[-2:]
        output = pixels[..., :height, :width].float()
        return x_d.float() + output if self.config.add_degraded else output

    def _checkpointed(self, block: Callable[..., Tensor], *arguments: Any) -> Tensor:
        """``block(*arguments)``, with gradient checkpointing if it is on."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)
