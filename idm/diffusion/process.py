"""The forward process and the three readings of f_theta's output, all in float32 (document A, II.B).

``gamma`` holds one signal level per sample, in (0, 1]; images are in [-1, 1]. The coefficients are taken
in gamma's own precision (float64 from the schedules) before they meet the images: in bfloat16 the noise of
SR3's first steps would be exactly zero.
"""

from typing import Literal, assert_never

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

Prediction = Literal["epsilon", "sample", "v"]
Image = Float[Tensor, "b c h w"]
SignalLevel = Float[Tensor, " b"]


def coefficients(gamma: SignalLevel, like: Image) -> tuple[Tensor, Tensor]:
    """(sqrt(gamma), sqrt(1 - gamma)), shaped to multiply images, float32 on the images' device."""
    signal, noise = gamma.sqrt(), (1 - gamma).sqrt()
    signal, noise = (rearrange(c, "b -> b 1 1 1").to(like.device, torch.float32) for c in (signal, noise))
    return signal, noise


# q(x_t | x_0) = N(sqrt(gamma_t) x_0, (1 - gamma_t) I)
def add_noise(x_0: Image, eps: Image, gamma: SignalLevel) -> Image:
    """x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps."""
    signal, noise = coefficients(gamma, x_0)
    return signal * x_0.float() + noise * eps.float()


def target(prediction: Prediction, x_0: Image, eps: Image, gamma: SignalLevel) -> Image:
    """The training target of f_theta: eps, x_0, or v = sqrt(gamma) eps - sqrt(1 - gamma) x_0 (v: Salimans & Ho, arXiv
    2202.00512, section 4)."""
    match prediction:
        case "epsilon":
            return eps.float()
        case "sample":
            return x_0.float()
        case "v":
            signal, noise = coefficients(gamma, x_0)
            return signal * eps.float() - noise * x_0.float()
        case _:
            assert_never(prediction)


def to_x_0(prediction: Prediction, output: Image, x_t: Image, gamma: SignalLevel) -> Image:
    """The estimate of x_0 that an output of f_theta at (x_t, gamma) implies."""
    output, x_t = output.float(), x_t.float()
    match prediction:
        case "epsilon":
            signal, noise = coefficients(gamma, x_t)
            return (x_t - noise * output) / signal
        case "sample":
            return output
        case "v":
            signal, noise = coefficients(gamma, x_t)
            return signal * x_t - noise * output
        case _:
            assert_never(prediction)


def to_eps(x_0: Image, x_t: Image, gamma: SignalLevel) -> Image:
    """The noise that leads from x_0 to x_t: eps = (x_t - sqrt(gamma) x_0) / sqrt(1 - gamma), gamma < 1."""
    signal, noise = coefficients(gamma, x_t)
    return (x_t.float() - signal * x_0.float()) / noise
