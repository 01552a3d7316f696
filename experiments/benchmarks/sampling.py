"""Compare sampling, in seconds per face: our sampler and denoiser against diffusers' DDIM loop and UNet2DModel.

``python experiments/benchmarks/sampling.py [--rounds N] [-o FILE]``
"""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler
from networks import FACES64, FACES128, WIDE64, Case, build_unet, describe
from rounds import Turn, speedup, start, take_turns, write_result
from table import sampling_table
from torch import Tensor

from idm.config.assembly.intrinsic import build_denoiser, build_gammas
from idm.diffusion import chain
from idm.diffusion.samplers import sample
from idm.io.machine import inference_dtype, keep_freed_memory, provenance, share_cores

BASELINE, OURS = "diffusers", "idm"


class Chain(NamedTuple):
    batch_size: int
    num_steps: int


CHAINS = [Chain(batch_size, num_steps) for batch_size in (1, 8) for num_steps in (4, 10, 25, 50)]
TEN_STEPS = [Chain(batch_size, 10) for batch_size in (1, 8)]


def prepare_ours(case: Case) -> Turn:
    """Prepare our denoiser and sampler with the settings of ``idm restore``."""
    keep_freed_memory()
    share_cores(1)
    config = case.load()
    denoiser = build_denoiser(config).eval().requires_grad_(False).type(inference_dtype(torch.device("cpu")))
    gammas = build_gammas(config.schedule)

    def restore(x_d: Tensor, num_steps: int) -> Tensor:
        return sample(
            denoiser,
            x_d,
            gammas,
            chain.Chain("ddim", num_steps),
            prediction=config.objective.prediction,
            generators=[torch.Generator().manual_seed(seed) for seed in range(len(x_d))],
        )

    return _timed(restore, config.data.image_size)


def prepare_theirs(case: Case) -> Turn:
    """Prepare diffusers with its defaults: float32, eager, under ``no_grad`` as in its own pipelines."""
    share_cores(1)
    size = case.load().data.image_size
    unet, scheduler = build_unet(size, case.unet_widths).eval(), DDIMScheduler()

    @torch.no_grad()
    def restore(x_d: Tensor, num_steps: int) -> Tensor:
        scheduler.set_timesteps(num_steps)
        x = torch.randn(x_d.shape, generator=torch.Generator().manual_seed(0))
        for t in scheduler.timesteps:
            output = unet(torch.cat([x_d, x], dim=1), t).sample
            x = scheduler.step(output, t, x).prev_sample
        return x

    return _timed(restore, size)


def _timed(restore: Callable[[Tensor, int], Tensor], image_size: int) -> Turn:
    def turn(chain: Chain) -> float:
        """Return the seconds per face of a whole chain."""
        x_d = torch.rand(chain.batch_size, 3, image_size, image_size) * 2 - 1
        begin = time.perf_counter()
        restore(x_d, chain.num_steps)
        return (time.perf_counter() - begin) / chain.batch_size

    return turn


def rounds_of(chain: Chain, num_rounds: int) -> int:
    """Return the number of rounds: fewer for long chains, which average over their own steps, but at least one."""
    cost = chain.batch_size * chain.num_steps
    return max(1, min(num_rounds, 80 * num_rounds // cost))


def compare(case: Case, chains: list[Chain], num_rounds: int) -> dict[str, Any]:
    """Measure all chains of one case."""
    row = describe(case)
    seconds: dict[Chain, dict[str, list[float]]] = {chain: {BASELINE: [], OURS: []} for chain in chains}
    with ExitStack() as stack:
        workers = start(stack, {BASELINE: partial(prepare_theirs, case), OURS: partial(prepare_ours, case)})
        for batch_size in sorted({chain.batch_size for chain in chains}):
            take_turns(workers, Chain(batch_size, 2), 1)  # warm up
        for number in range(num_rounds):  # all chains in each round, so that a disturbance affects one round of each
            for chain in chains:
                if number < rounds_of(chain, num_rounds):
                    for name, (measured,) in take_turns(workers, chain, 1).items():
                        seconds[chain][name].append(measured)
    row["chains"] = [_summary(chain, seconds[chain]) for chain in chains]
    return row


def _summary(chain: Chain, seconds: dict[str, list[float]]) -> dict[str, Any]:
    return {
        **chain._asdict(),
        "rounds": len(seconds[OURS]),
        "seconds_per_face": {name: median(values) for name, values in seconds.items()},
        "speedup": speedup(seconds[BASELINE], seconds[OURS]),
        "all_seconds_per_face": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved rounds of the short chains")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    share_cores(1)
    cases = ((FACES64, CHAINS), (FACES128, TEN_STEPS), (WIDE64, TEN_STEPS))
    rows = [compare(case, chains, arguments.rounds) for case, chains in cases]
    result = {"dtype": str(inference_dtype(torch.device("cpu"))), "cases": rows, **provenance()}
    print(sampling_table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
