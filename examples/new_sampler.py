"""A sampler of your own: ``python examples/new_sampler.py``.

A sampler is a function of the estimator of x_0, the start x_T and the rising signal levels gamma. This program writes
Heun's rule and compares it with DDIM at the same number of evaluations of the network. CONTRIBUTING.md shows how a
sampler becomes a choice of the configuration and of ``--sampler``.
"""

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from idm.data.pairs import FrozenPairs
from idm.data.sources import SyntheticFaces
from idm.degradation import GFPGAN
from idm.diffusion.chain import Chain, signal_levels
from idm.diffusion.process import Image, to_x_0
from idm.diffusion.samplers import Estimate, ddim, follow
from idm.evaluation.pixels import psnr
from idm.io.ranges import chw_to_hwc, from_diffusion, from_uint8, hwc_to_chw, to_diffusion
from idm.restorers.idm import IDM
from idm.restorers.saved import load_idm


def heun(estimate: Estimate, x: Image, gammas: Sequence[float], **_: object) -> Image:
    """Heun's rule for the probability flow in lambda: D is the mean of the estimates at both ends of a step."""
    for gamma, gamma_next in pairwise(gammas):
        x_0 = estimate(x, gamma)
        x_0_next = estimate(follow(x, x_0, gamma, gamma_next), gamma_next)
        x = follow(x, (x_0 + x_0_next) / 2, gamma, gamma_next)
    return estimate(x, gammas[-1])


def estimator(model: IDM, x_d: Image) -> Estimate:
    """(x_t, gamma) -> f_theta's estimate of x_0, in [-1, 1]."""

    def estimate(x_t: Image, gamma: float) -> Image:
        level = torch.full((len(x_d),), gamma, dtype=torch.float64)
        output = model.denoiser(x_d=x_d, x_t=x_t, gamma=level)
        return to_x_0(model.prediction, output, x_t, level).clamp(-1, 1)

    return estimate


@torch.no_grad()
def main(arguments: Sequence[str] | None = None) -> None:
    """Restore faces with DDIM and with the sampler, and print the PSNR of both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="default: the default bundled model")
    parser.add_argument("--num-images", type=int, default=4)
    parsed = parser.parse_args(arguments)

    model = load_idm(parsed.model, torch.device("cpu"), torch.float32)
    pairs = FrozenPairs(SyntheticFaces(parsed.num_images, 0, model.image_size), GFPGAN, seed=0)
    faces = [pairs[i] for i in range(len(pairs))]
    x_d = to_diffusion(torch.stack([hwc_to_chw(from_uint8(face.lq)) for face in faces]))
    x_T = torch.randn(x_d.shape, generator=torch.Generator().manual_seed(0))

    # n levels are n evaluations for DDIM and 2n - 1 for Heun's rule.
    for name, sampler, num_levels in (("ddim", ddim, 5), ("heun", heun, 3)):
        levels = signal_levels(Chain(num_steps=num_levels), model.gammas.tolist())
        restored = from_diffusion(sampler(estimator(model, x_d), x_T, levels, noise=lambda: x_T, eta=0.0))
        scores = [psnr(chw_to_hwc(one), from_uint8(face.hq)) for one, face in zip(restored, faces, strict=True)]
        print(f"{name}: PSNR {sum(scores) / len(scores):.2f} dB with 5 evaluations")


if __name__ == "__main__":
    main()
