"""Compare our GFP-GAN with spandrel's, which has the same architecture, on restoring a 512 px face.

``python experiments/benchmarks/gan_generator.py [--rounds N] [-o FILE]``
"""

import argparse
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
from rounds import Turn, speedup, start, take_turns, write_result
from table import gan_table
from torch import Tensor

from gan_baseline.gfpgan import GFPGAN
from idm.io.machine import keep_freed_memory, provenance, share_cores

IMAGE_SIZE = 512


@dataclass(frozen=True)
class Variant:
    """A network with its settings: one row of the comparison."""

    network: Literal["spandrel", "gan_baseline"]
    settings: str
    dtype: torch.dtype = torch.float32
    keep_memory: bool = False

    @property
    def name(self) -> str:
        return f"{self.network}, {self.settings}"


BASELINE = Variant("spandrel", "as it comes")
VARIANTS = (
    BASELINE,
    Variant("gan_baseline", "float32", keep_memory=True),
    Variant("gan_baseline", "bfloat16", dtype=torch.bfloat16, keep_memory=True),
    Variant("gan_baseline", "float32, without allocator settings"),
    Variant("spandrel", "our allocator settings", keep_memory=True),
)


def ours(channel_multiplier: int) -> GFPGAN:
    """Build our network with random weights, the same in every process."""
    torch.manual_seed(0)
    return GFPGAN(IMAGE_SIZE, channel_multiplier=channel_multiplier).eval().requires_grad_(False)


def theirs(channel_multiplier: int) -> torch.nn.Module:
    """Build spandrel's network, also with random weights."""
    from spandrel.architectures.GFPGAN import GFPGAN as SpandrelGFPGAN

    torch.manual_seed(0)
    model = SpandrelGFPGAN(
        out_size=IMAGE_SIZE, channel_multiplier=channel_multiplier, input_is_latent=True, different_w=True
    )
    return model.eval().requires_grad_(False)


def face(batch_size: int = 1) -> Tensor:
    return torch.rand(batch_size, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1


def prepare(variant: Variant, channel_multiplier: int) -> Turn:
    """Build a network and warm it up. Both networks use stored noise, so that neither draws any."""
    if variant.keep_memory:
        keep_freed_memory()
    share_cores(1)
    x_d = face().to(variant.dtype)
    restore: Callable[[], object]
    if variant.network == "spandrel":
        restore = partial(theirs(channel_multiplier).to(variant.dtype), x_d, randomize_noise=False)
    else:
        restore = partial(ours(channel_multiplier).to(variant.dtype), x_d)

    @torch.inference_mode()
    def turn(request: Any) -> float:
        """Return the seconds for one face."""
        begin = time.perf_counter()
        restore()
        return time.perf_counter() - begin

    turn(None)
    return turn


def compare(channel_multiplier: int, num_rounds: int) -> dict[str, Any]:
    """Measure all variants with one channel multiplier."""
    variants = {variant.name: variant for variant in VARIANTS}
    with ExitStack() as stack:
        workers = start(stack, {name: partial(prepare, v, channel_multiplier) for name, v in variants.items()})
        seconds = take_turns(workers, "face", num_rounds)
        memory = {name: worker.peak_memory() for name, worker in workers.items()}
    rows = [
        {
            **{key: str(value) for key, value in asdict(variant).items() if key != "keep_memory"},
            "seconds_per_face": median(seconds[name]),
            "peak_memory_mb": memory[name],
            "speedup": speedup(seconds[BASELINE.name], seconds[name]),
            "all_seconds_per_face": seconds[name],
        }
        for name, variant in variants.items()
    ]
    return {"channel_multiplier": channel_multiplier, "variants": rows}


@torch.inference_mode()
def bfloat16_deviation(channel_multiplier: int) -> float:
    """Return the RMS difference between faces restored in bfloat16 and float32, relative to the latter's standard
    deviation."""
    network = ours(channel_multiplier)
    expected = network(face())[0]
    deviation = network.bfloat16()(face().bfloat16())[0].float() - expected
    return (deviation.square().mean().sqrt() / expected.std()).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    share_cores(1)
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    cases = [compare(channel_multiplier, arguments.rounds) for channel_multiplier in (2, 1)]
    for case in cases:  # last, because a worker's peak memory starts at this process's peak so far
        case["bfloat16_deviation"] = bfloat16_deviation(case["channel_multiplier"])
    result = {
        "image_size": IMAGE_SIZE,
        "batch_size": 1,
        "rounds": arguments.rounds,
        "load_average": load_average,
        "cases": cases,
        **provenance(),
    }
    print(gan_table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
