"""The intrinsic iteration at inference: x_T -> ... -> x_0, a face refined step by step, in float32.

A sampler is a function of the estimator of x_0, the start x_T and the rising signal levels gamma at which the estimator
is evaluated. Its result is the last estimate, which equals a step to gamma = 1.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from idm.diffusion.chain import Chain, SamplerName, signal_levels
from idm.diffusion.objective import DenoiserFunction
from idm.diffusion.process import Image, Prediction, add_noise, to_x_0

Estimate = Callable[[Image, float], Image]
"""(x_t, gamma) -> the estimate of x_0, in [-1, 1]."""
Noise = Callable[[], Image]
"""Draws N(0, I) in the shape of x_t."""


class Sampler(Protocol):
    """One of :data:`SAMPLERS`; a deterministic one takes ``noise`` and ``eta`` and uses neither."""

    def __call__(self, estimate: Estimate, x: Image, gammas: Sequence[float], *, noise: Noise, eta: float) -> Image: ...


# x_{t-1} = 1/sqrt(alpha_t) (x_t - (1 - alpha_t)/sqrt(1 - gamma_t) f_theta(x_t, x_d, gamma_t)) + sqrt(1 - alpha_t) eps_t
def langevin_step(x_t: Image, eps: Image, gamma: float, gamma_next: float, noise: Image | None) -> Image:
    """One reverse step from signal level ``gamma`` to ``gamma_next``, alpha = gamma / gamma_next.

    Document A's equation (SR3 eq. 11), with alpha taken between the two levels so that it serves any respaced
    chain. ``noise`` is None on the last step (SR3, algorithm 2).
    """
    alpha = gamma / gamma_next
    mean = (x_t - (1 - alpha) / (1 - gamma) ** 0.5 * eps) / alpha**0.5
    return mean if noise is None else mean + (1 - alpha) ** 0.5 * noise


def langevin(estimate: Estimate, x: Image, gammas: Sequence[float], *, noise: Noise, eta: float = 0.0) -> Image:
    """Ancestral sampling with the forward variance 1 - alpha (document A; SR3, algorithm 2)."""
    x_0 = estimate(x, gammas[0])
    for gamma, gamma_next in pairwise(gammas):
        x = langevin_step(x, _eps(x_0, x, gamma), gamma, gamma_next, noise())
        x_0 = estimate(x, gamma_next)
    return x_0


# x_{t-1} = sqrt(gamma_{t-1}) x_0 + sqrt(1 - gamma_{t-1} - s_t^2) eps + s_t z
def ddim(estimate: Estimate, x: Image, gammas: Sequence[float], *, noise: Noise, eta: float = 0.0) -> Image:
    """DDIM (Song et al., arXiv 2010.02502, eq. 12); ``eta`` scales s_t, the deviation of fresh noise (eq. 16)."""
    x_0 = estimate(x, gammas[0])
    for gamma, gamma_next in pairwise(gammas):
        s = eta * math.sqrt((1 - gamma_next) / (1 - gamma) * (1 - gamma / gamma_next))
        eps = _eps(x_0, x, gamma)
        x = math.sqrt(gamma_next) * x_0 + math.sqrt(max(0.0, 1 - gamma_next - s**2)) * eps
        if s > 0:
            x = x + s * noise()
        x_0 = estimate(x, gamma_next)
    return x_0


def half_log_snr(gamma: float) -> float:
    """lambda = ln(sqrt(gamma) / sqrt(1 - gamma)), gamma in (0, 1)."""
    return math.log(math.sqrt(gamma) / math.sqrt(1 - gamma))


# x(lambda + h) = sqrt(1 - gamma')/sqrt(1 - gamma) x(lambda) + sqrt(gamma') (1 - e^-h) D
def follow(x: Image, D: Image, gamma: float, gamma_next: float) -> Image:
    """The probability flow from ``gamma`` to ``gamma_next``, solved exactly for an estimate of x_0 that stays D
    (DPM-Solver++, arXiv 2211.01095, section 4). DDIM with eta = 0 is this with D = x_0."""
    h = half_log_snr(gamma_next) - half_log_snr(gamma)
    return math.sqrt((1 - gamma_next) / (1 - gamma)) * x - math.sqrt(gamma_next) * math.expm1(-h) * D


def dpmpp_2m(estimate: Estimate, x: Image, gammas: Sequence[float], **_: object) -> Image:
    """DPM-Solver++(2M) (Lu et al., arXiv 2211.01095, algorithm 2): D = x_0 + h/2 dx_0/dlambda.

    The slope dx_0/dlambda is that of the last two estimates; with r = h_before / h this is the paper's
    D = (1 + 1/(2r)) x_0 - 1/(2r) x_0_before.
    """
    x_0 = estimate(x, gammas[0])
    slope = torch.zeros_like(x_0)
    for gamma, gamma_next in pairwise(gammas):
        h = half_log_snr(gamma_next) - half_log_snr(gamma)
        x = follow(x, x_0 + h / 2 * slope, gamma, gamma_next)
        x_0, before = estimate(x, gamma_next), x_0
        slope = (x_0 - before) / h
    return x_0


def unipc(estimate: Estimate, x: Image, gammas: Sequence[float], **_: object) -> Image:
    """UniPC of order 2 with B(h) = e^-h - 1 (Zhao et al., arXiv 2302.04867, multistep, data prediction): the step of
    :func:`dpmpp_2m` predicts x, and the estimate that it leads to corrects x."""
    x_0 = estimate(x, gammas[0])
    slope, h_before = torch.zeros_like(x_0), None
    for gamma, gamma_next in pairwise(gammas):
        h = half_log_snr(gamma_next) - half_log_snr(gamma)
        predicted = follow(x, x_0 + h / 2 * slope, gamma, gamma_next)
        x_0_next = estimate(predicted, gamma_next)
        a, b = corrector_weights(h, h_before)
        x = follow(x, x_0 + a * h * slope + b * (x_0_next - x_0), gamma, gamma_next)
        slope, h_before = (x_0_next - x_0) / h, h
        x_0 = x_0_next
    return x_0


def corrector_weights(h: float, h_before: float | None) -> tuple[float, float]:
    """UniC's weights: a of the difference before, stretched to h, and b of the new one.

    With B = e^-h - 1 they solve a + b = -1/h - 1/B and -(h_before / h) a + b = 2/h^2 + (2/h - 1)/B.
    The first step has the new difference only, with b = 1/2.
    """
    if h_before is None:
        return 0.0, 0.5
    B = math.expm1(-h)
    first, second = -1 / h - 1 / B, 2 / h**2 + (2 / h - 1) / B
    a = (first - second) / (1 + h_before / h)
    return a, first - a


SAMPLERS: dict[SamplerName, Sampler] = {
    "langevin": langevin,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
}


@torch.no_grad()
def sample(
    f: DenoiserFunction,
    x_d: Image,
    gammas: Float[Tensor, " T1"],
    chain: Chain,
    *,
    prediction: Prediction,
    generators: Sequence[torch.Generator],
    on_step: Callable[[int, int, Image], None] | None = None,
) -> Image:
    """Draw x_0 ~ p(x_0 | x_d), one image for each degraded face.

    Args:
        x_d: degraded faces in [-1, 1].
        gammas: the schedule that f was trained with, see :mod:`idm.diffusion.schedule`.
        generators: one for each face; a face's result depends on its own generator, not on its batch.
        on_step: called with (step, number of steps, current x_0 estimate) after each step.

    Returns:
        Images in [-1, 1], float32.

    Raises:
        ValueError: the number of generators differs from that of faces, or the schedule does not have the chain's
            levels.
    """
    if len(generators) != len(x_d):
        raise ValueError(f"{len(x_d)} faces need {len(x_d)} generators, got {len(generators)}")
    x_d = x_d.float()
    levels = signal_levels(chain, gammas.tolist())
    steps_done = 0

    def estimate(x_t: Image, gamma: float) -> Image:
        """f_theta's estimate of x_0, clipped to [-1, 1]."""
        nonlocal steps_done
        level = torch.full((len(x_d),), gamma, dtype=torch.float64, device=x_d.device)
        x_0 = to_x_0(prediction, f(x_d=x_d, x_t=x_t, gamma=level), x_t, level).clamp(-1, 1)
        steps_done += 1
        if on_step is not None:
            on_step(steps_done, len(levels), x_0)
        return x_0

    def noise() -> Image:
        return torch.stack([torch.randn(x_d.shape[1:], generator=g, device=g.device) for g in generators]).to(x_d)

    x = noise()
    if chain.start_from == "degraded":
        x = add_noise(x_d, x, torch.full((len(x_d),), levels[0], dtype=torch.float64))
    return SAMPLERS[chain.sampler](estimate, x, levels, noise=noise, eta=chain.eta)


def _eps(x_0: Image, x_t: Image, gamma: float) -> Image:
    """eps = (x_t - sqrt(gamma) x_0) / sqrt(1 - gamma)."""
    return (x_t - math.sqrt(gamma) * x_0) / math.sqrt(1 - gamma)
