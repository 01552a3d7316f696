"""Noise schedules: the cumulative signal level gamma_t = prod_{i<=t} alpha_i, with gamma_0 = 1.

A schedule is a tensor ``gammas`` of T + 1 float64 numbers that fall strictly from 1 towards 0. They are float64,
because SR3's first levels differ from 1 by 1e-6, where float32 keeps only one digit.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def linear(beta_start: float = 1e-6, beta_end: float = 1e-2, num_steps: int = 2000) -> Float[Tensor, " T1"]:
    """SR3's schedule: beta_t rises linearly (SR3, arXiv 2104.07636, section 2.4; Palette, appendix B)."""
    if not 0 < beta_start <= beta_end < 1:
        raise ValueError(f"need 0 < beta_start <= beta_end < 1, got {beta_start} and {beta_end}")
    return from_betas(torch.linspace(beta_start, beta_end, num_steps, dtype=torch.float64))


def cosine(num_steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Float[Tensor, " T1"]:
    """gamma_t = f(t) / f(0), f(t) = cos^2((t/T + s) / (1 + s) * pi/2), betas clipped
    (Nichol & Dhariwal, arXiv 2102.09672, eq. 17)."""
    t = torch.arange(num_steps + 1, dtype=torch.float64) / num_steps
    f = torch.cos((t + offset) / (1 + offset) * math.pi / 2) ** 2
    return from_betas((1 - f[1:] / f[:-1]).clamp(max=max_beta))


def log_sigma(
    sigma_min: float = 0.02, sigma_max: float = 1.5, start_sigma: float = 100.0, num_steps: int = 64
) -> Float[Tensor, " T1"]:
    """Noise levels for chains of few steps: a start in nearly pure noise, and below it T - 1 levels that are
    evenly spaced in ln sigma, sigma = sqrt((1 - gamma) / gamma). Our own choice.

    A restoration that starts at ``start_sigma`` sees its face in x_d and little in x_t; the levels between are those
    at which an estimate of x_0 can still be refined. A chain of n steps with trailing spacing always begins at the
    start, so a chain of one step is one evaluation there.
    """
    if not 0 < sigma_min < sigma_max < start_sigma:
        raise ValueError(f"need 0 < sigma_min < sigma_max < start_sigma, got {sigma_min}, {sigma_max}, {start_sigma}")
    if num_steps < 3:
        raise ValueError(f"need at least 3 steps: the start and both ends of the range below it, got {num_steps}")
    low, high = math.log(sigma_min), math.log(sigma_max)
    sigmas = torch.linspace(low, high, num_steps - 1, dtype=torch.float64).exp()
    sigmas = torch.cat([sigmas.new_zeros(1), sigmas, sigmas.new_full((1,), start_sigma)])
    return to_gamma(sigmas)


def to_gamma(sigma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """gamma = 1 / (1 + sigma^2): x_t = sqrt(gamma) (x_0 + sigma eps)."""
    return 1 / (1 + sigma.square())


def to_sigma(gamma: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """sigma = sqrt((1 - gamma) / gamma), the inverse of :func:`to_gamma`."""
    return ((1 - gamma) / gamma).sqrt()


def from_betas(betas: Float[Tensor, " T"]) -> Float[Tensor, " T1"]:
    """gamma_t = prod_{i<=t} (1 - beta_i), with gamma_0 = 1 in front.

    Raises:
        ValueError: there are no betas, they leave no signal, or the levels do not fall.
    """
    if len(betas) < 1:
        raise ValueError("a schedule needs at least one step")
    gammas = torch.cat([betas.new_ones(1), torch.cumprod(1 - betas, dim=0)])
    if gammas[-1] <= 0:
        raise ValueError(f"no signal is left after {len(betas)} steps: lower beta_end or take fewer steps")
    if not (gammas.diff() < 0).all():  # true for NaN too
        raise ValueError("betas must lie between 0 and 1")
    return gammas


def to_betas(gammas: Float[Tensor, " T1"]) -> Float[Tensor, " T"]:
    """beta_t = 1 - gamma_t / gamma_{t-1}, the inverse of :func:`from_betas`."""
    return 1 - gammas[1:] / gammas[:-1]


def piecewise_uniform(
    gammas: Float[Tensor, " T1"], u_step: Float[Tensor, " b"], u_within: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Draw training noise levels: t ~ U{1..T}, gamma ~ U(gamma_t, gamma_{t-1}), one per sample (SR3, 2.4).

    ``u_step`` and ``u_within`` are uniform on [0, 1) and are the only randomness.
    """
    num_steps = len(gammas) - 1
    t = (u_step.double() * num_steps).long().clamp(max=num_steps - 1) + 1
    return gammas[t - 1] + u_within.double() * (gammas[t] - gammas[t - 1])


def start_and_log_uniform(
    gammas: Float[Tensor, " T1"], start_share: float, u_start: Float[Tensor, " b"], u_within: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Draw training noise levels where a chain of few steps needs them (our own choice).

    A share of the samples stands at the chain's start, gamma_T; the others are log-uniform in sigma between the
    schedule's lowest level, gamma_1, and the last one before the start, gamma_{T-1}.
    ``u_start`` and ``u_within`` are uniform on [0, 1) and are the only randomness.
    """
    if len(gammas) < 3:
        raise ValueError("a schedule of one step has no level below its start")
    low, high = to_sigma(gammas[1]).log(), to_sigma(gammas[-2]).log()
    below = to_gamma((low + u_within.double() * (high - low)).exp())
    return torch.where(u_start.double() < start_share, gammas[-1], below)
