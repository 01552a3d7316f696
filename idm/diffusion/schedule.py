"""Noise schedules: the cumulative signal level gamma_t = prod_{i<=t} alpha_i, with gamma_0 = 1.

A schedule is a tensor ``gammas`` of T + 1 float64 numbers that fall strictly from 1 towards 0.
float64, because SR3's first steps differ from 1 by 1e-6, where float32 keeps one digit only.
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


def from_betas(betas: Float[Tensor, " T"]) -> Float[Tensor, " T1"]:
    """gamma_t = prod_{i<=t} (1 - beta_i), with gamma_0 = 1 in front."""
    if len(betas) < 1:
        raise ValueError("a schedule needs at least one step")
    gammas = torch.cat([betas.new_ones(1), torch.cumprod(1 - betas, dim=0)])
    if gammas[-1] <= 0:
        raise ValueError(f"no signal is left after {len(betas)} steps: lower beta_end or take fewer steps")
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
