"""Compare training steps of our UNet and of diffusers' UNet2DModel with equal FLOPs, with an ablation of settings.

``python experiments/benchmarks/training.py [--rounds N] [-o FILE]``
"""

import argparse
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import torch.nn.functional as F
from networks import FACES64, FACES128, HEAD_DIM, WIDE64, Case, build_unet, describe
from rounds import Turn, speedup, start, take_turns, write_result
from table import training_table
from torch import Tensor, nn

from idm.config.assembly.intrinsic import build_denoiser
from idm.io.machine import computes_in_bf16, keep_freed_memory, provenance, share_cores

BATCH_SIZE = 8
STEPS = 2  # steps per turn
PASSES = 3  # a backward pass costs about two forward passes


def prepare_ours(case: Case, *, bf16: bool = True, keep_memory: bool = True) -> Turn:
    """Prepare our denoiser with the settings of ``train_idm.py``, or without some of them."""
    _set_up_process(keep_memory)
    config = case.load()
    network = build_denoiser(config)
    x_d, x_t, gamma, wanted = _batch(config.data.image_size)

    def forward() -> Tensor:
        with _autocast(bf16):
            return network(x_d=x_d, x_t=x_t, gamma=gamma)

    return _training(network, forward, wanted)


def prepare_theirs(case: Case, *, our_settings: bool = False, head_dim: int = HEAD_DIM) -> Turn:
    """Prepare diffusers' network with its defaults (float32, eager), or with our autocast and allocator settings."""
    _set_up_process(keep_memory=our_settings)
    size = case.load().data.image_size
    network = build_unet(size, case.unet_widths, head_dim)
    x_d, x_t, gamma, wanted = _batch(size)
    timestep = (1000 * gamma).long()

    def forward() -> Tensor:
        with _autocast(our_settings):
            return network(torch.cat([x_d, x_t], dim=1), timestep).sample

    return _training(network, forward, wanted)


def _set_up_process(keep_memory: bool) -> None:
    if keep_memory:
        keep_freed_memory()
    share_cores(1)
    torch.manual_seed(0)


def _autocast(wanted: bool) -> torch.autocast:
    """Return the autocast context of ``train.mixed_precision=auto``."""
    return torch.autocast("cpu", torch.bfloat16, enabled=wanted and computes_in_bf16(torch.device("cpu")))


def _batch(image_size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x_d, x_t, wanted = (torch.rand(BATCH_SIZE, 3, image_size, image_size) * 2 - 1 for _ in range(3))
    return x_d, x_t, torch.linspace(0.05, 0.95, BATCH_SIZE), wanted


def _training(network: nn.Module, forward: Callable[[], Tensor], wanted: Tensor) -> Turn:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def turn(num_steps: int) -> float:
        """Return the seconds per step: forward, backward and update."""
        begin = time.perf_counter()
        for _ in range(num_steps):
            loss = F.l1_loss(forward().float(), wanted)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return (time.perf_counter() - begin) / num_steps

    return turn


@dataclass(frozen=True)
class Variant:
    """A network with its settings."""

    network: Literal["idm", "diffusers"]
    settings: str
    prepare: Callable[[Case], Turn]

    @property
    def name(self) -> str:
        return f"{self.network}, {self.settings}"


BASELINE = Variant("diffusers", "as shipped, heads of 64", prepare_theirs)
COMPARED = (BASELINE, Variant("idm", "as shipped", prepare_ours))
ABLATED = (
    Variant("idm", "without autocast", partial(prepare_ours, bf16=False)),
    Variant("idm", "without allocator settings", partial(prepare_ours, keep_memory=False)),
    Variant("diffusers", "our autocast and allocator, heads of 64", partial(prepare_theirs, our_settings=True)),
    Variant("diffusers", "as shipped, its default heads of 8", partial(prepare_theirs, head_dim=8)),
)


def compare(case: Case, variants: tuple[Variant, ...], num_rounds: int) -> dict[str, Any]:
    """Measure all variants of one case."""
    row = describe(case)
    with ExitStack() as stack:
        workers = start(stack, {variant.name: partial(variant.prepare, case) for variant in variants})
        take_turns(workers, STEPS, 1)  # warm up
        seconds = take_turns(workers, STEPS, num_rounds)
        memory = {name: worker.peak_memory() for name, worker in workers.items()}
    row["variants"] = []
    for variant in variants:
        steps = seconds[variant.name]
        flops = PASSES * row["gflop_per_image"][variant.network]
        row["variants"].append(
            {
                "network": variant.network,
                "settings": variant.settings,
                "images_per_second": BATCH_SIZE / median(steps),
                "gflop_per_second": flops * BATCH_SIZE / median(steps),
                "peak_memory_mb": memory[variant.name],
                "speedup": speedup(seconds[BASELINE.name], steps),
                "seconds_per_step": steps,
            }
        )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4, help="interleaved rounds, of two steps each")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    share_cores(1)
    cases = ((FACES64, COMPARED + ABLATED), (FACES128, COMPARED + ABLATED), (WIDE64, COMPARED))
    rows = [compare(case, variants, arguments.rounds) for case, variants in cases]
    result = {"batch_size": BATCH_SIZE, "rounds": arguments.rounds, "cases": rows, **provenance()}
    print(training_table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
