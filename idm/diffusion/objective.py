"""The objective: L = E_(x, x_d) E_gamma || f_theta(x_d, x_t, gamma) - target ||_p^p (document A; SR3 eq. 6)."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from einops import reduce
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from idm.diffusion.process import Image, Prediction, SignalLevel, add_noise, target, to_x_0
from idm.io.machine import on_device


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
    weights: Float[Tensor, " b"] | None = None,
    noised: Image | None = None,
    estimate_loss: Callable[[Image], Float[Tensor, ""]] | None = None,
    report: Callable[[Float[Tensor, " b"]], None] | None = None,
) -> Float[Tensor, ""]:
    """Mean loss of a batch. All noise arithmetic is float32.

    Args:
        weights: of the samples, beside those of ``min_snr_clamp``; None for equal ones.
        noised: replaces x_0 in x_t, see :func:`own_estimates`.
        estimate_loss: a further loss of the estimate of x_0 that the output stands for, in [-1, 1], added without
            weight.
        report: called with the weighted loss of each sample, without ``estimate_loss``, for a log.
    """
    x_t = add_noise(x_0 if noised is None else noised, eps, gamma)
    output = f(x_d=x_d, x_t=x_t, gamma=gamma)
    loss = p_norm(output, target(prediction, x_0, eps, gamma), p)
    if min_snr_clamp is not None:
        loss = loss * min_snr_weight(prediction, gamma, min_snr_clamp).to(loss.device, torch.float32)
    if weights is not None:
        loss = loss * weights
    if report is not None:
        report(loss.detach())
    if estimate_loss is None:
        return loss.mean()
    return loss.mean() + estimate_loss(to_x_0(prediction, output, x_t, gamma))


def own_estimates(
    f: DenoiserFunction,
    *,
    x_0: Image,
    x_d: Image,
    eps: Image,
    gamma_start: Float[Tensor, ""],
    chosen: Bool[Tensor, " b"],
    end_to_end: bool = False,
) -> Image:
    """x_0, where ``chosen`` replaced by what f_theta, an estimator of x_0, gives for it at the chain's start.

    Sampling makes x_t from estimates, training from the true x_0; noising estimates in training closes this gap
    ("exposure bias", Ning et al., arXiv 2308.15321; LPNSR trains on its own estimates as well). With the same ``eps``
    the next x_t is the one that DDIM with eta = 0 makes.

    Args:
        end_to_end: let gradients flow through the estimates, so that the loss after the second step trains the first
            one too. This costs a second backward pass.
    """
    if not chosen.any():
        return x_0
    indices = chosen.nonzero()[:, 0]
    n = len(indices)
    indices = on_device(padded(indices, len(chosen), x_0.device), x_0.device)
    start = on_device(gamma_start.expand(len(indices)), x_0.device)
    x_T = add_noise(x_0[indices], eps[indices], start)
    noised = x_0.clone()
    with torch.set_grad_enabled(end_to_end):
        noised[indices[:n]] = f(x_d=x_d[indices], x_t=x_T, gamma=start)[:n].float().clamp(-1, 1)
    return noised


GPU_BATCH = 16
"""A GPU estimates multiples of this number of faces, or the whole batch: for each size, convolutions are planned and
the network is compiled anew."""


def padded(indices: Int64[Tensor, " n"], batch_size: int, device: torch.device) -> Int64[Tensor, " padded"]:
    """The indices, on a GPU with the last one repeated up to a multiple of :data:`GPU_BATCH`, at most a batch."""
    if device.type != "cuda":
        return indices
    missing = min(-len(indices) % GPU_BATCH, batch_size - len(indices))
    return torch.cat([indices, indices[-1:].expand(missing)])
