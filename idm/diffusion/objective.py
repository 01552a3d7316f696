"""The objective: L = E_(x, x_d) E_gamma || f_theta(x_d, x_t, gamma) - target ||_p^p (document A; SR3 eq. 6)."""

from typing import Protocol, runtime_checkable

import torch
from einops import reduce
from jaxtyping import Float
from torch import Tensor

from idm.diffusion.process import Image, Prediction, SignalLevel, add_noise, target


@runtime_checkable
class DenoiserFunction(Protocol):
    """f_theta(x_d, x_t, gamma): a network, or in tests a closed form."""

    def __call__(self, *, x_d: Image, x_t: Image, gamma: SignalLevel) -> Image: ...


def p_norm(output: Image, wanted: Image, p: int) -> Float[Tensor, " b"]:
    """||output - wanted||_p^p of each sample, divided by its number of elements; p in {1, 2}."""
    difference = output.float() - wanted.float()
    match p:
        case 1:
            difference = difference.abs()
        case 2:
            difference = difference.square()
        case _:
            raise ValueError(f"p must be 1 or 2, got {p}")
    return reduce(difference, "b c h w -> b", "mean")


def min_snr_weight(prediction: Prediction, gamma: SignalLevel, clamp: float) -> SignalLevel:
    """Min-SNR-gamma weights (Hang et al., arXiv 2303.09556, section 3.4), SNR = gamma / (1 - gamma).

    On x_0 the weight is min(SNR, clamp); on eps it is that over SNR, on v over SNR + 1.
    """
    snr = gamma / (1 - gamma)
    clamped = snr.clamp(max=clamp)
    return {"sample": clamped, "epsilon": clamped / snr, "v": clamped / (snr + 1)}[prediction]


def training_loss(
    f: DenoiserFunction,
    *,
    x_0: Image,
    x_d: Image,
    eps: Image,
    gamma: SignalLevel,
    prediction: Prediction,
    p: int,
    min_snr_clamp: float | None = None,
) -> Float[Tensor, ""]:
    """Mean loss of a batch. All noise arithmetic is float32; only ``f`` sees the caller's autocast."""
    output = f(x_d=x_d, x_t=add_noise(x_0, eps, gamma), gamma=gamma)
    loss = p_norm(output, target(prediction, x_0, eps, gamma), p)
    if min_snr_clamp is not None:
        loss = loss * min_snr_weight(prediction, gamma, min_snr_clamp).to(loss.device, torch.float32)
    return loss.mean()
