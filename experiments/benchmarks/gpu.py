"""Measure training on GPUs by batch size: throughput, share of peak performance, memory, and time waiting for data.

    python experiments/benchmarks/gpu.py --config configs/ffhq512.yaml -o FILE
    accelerate launch --config_file configs/accelerate/gpu8.yaml experiments/benchmarks/gpu.py --config ... -o FILE

Our UNet is measured with and without gradient checkpointing, and diffusers' UNet2DModel with the same widths. Batch
sizes are per process; a batch that does not fit into memory has no numbers. The share of peak performance is the FLOPs
of three forward passes per second (recomputation by checkpointing does not count) over those of a large bfloat16 matrix
product on the same GPU. Without a GPU the script runs on the CPU, so that it can be tested.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from networks import build_unet, forward_gflop
from rounds import write_result
from torch import Tensor, nn

from idm.config.assembly.data import build_mixture
from idm.config.assembly.intrinsic import build_denoiser
from idm.config.load import load_config
from idm.config.schema import IDMConfig
from idm.data.pairs import Pairing, Partition, training_batches
from idm.data.sources import SyntheticFaces
from idm.io.machine import provenance, set_gpu_arithmetic

PASSES = 3  # a backward pass costs about two forward passes
NUM_FACES = 64  # procedural faces; every epoch degrades them again

Forward = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def ours(network: nn.Module, x_d: Tensor, x_t: Tensor, gamma: Tensor) -> Tensor:
    return network(x_d=x_d, x_t=x_t, gamma=gamma)


def theirs(network: nn.Module, x_d: Tensor, x_t: Tensor, gamma: Tensor) -> Tensor:
    return network(torch.cat([x_d, x_t], dim=1), 1000 * gamma).sample


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_tflops(device: torch.device) -> float:
    """Measure the peak TFLOP/s as the best of ten products of bfloat16 matrices."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(10):
        wait(device)
        begin = time.perf_counter()
        a @ b
        wait(device)
        seconds.append(time.perf_counter() - begin)
    return 2 * side**3 / min(seconds) / 1e12


def seconds_per_step(
    accelerator: Accelerator, network: nn.Module, forward: Forward, size: int, batch: int, num_steps: int
) -> tuple[float, float] | None:
    """Return (seconds per step, peak memory in GB), or None if the batch does not fit into memory."""
    device = accelerator.device
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    network, optimizer = accelerator.prepare(network, optimizer)
    x_d, x_t, wanted = (torch.rand(batch, 3, size, size, device=device) * 2 - 1 for _ in range(3))
    gamma = torch.linspace(0.05, 0.95, batch, device=device)
    seconds = []
    try:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(3 + num_steps):  # the first three warm up
            wait(device)
            begin = time.perf_counter()
            with accelerator.autocast():
                output = forward(network, x_d, x_t, gamma)
            accelerator.backward(F.l1_loss(output.float(), wanted))
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            wait(device)
            seconds.append(time.perf_counter() - begin)
    except torch.OutOfMemoryError:
        return None
    memory = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
    return median(seconds[3:]), memory


def seconds_per_batch(config: IDMConfig, batch: int, num_batches: int) -> float:
    """Return the seconds to prepare a batch with the workers of the configuration, without training."""
    source = SyntheticFaces(NUM_FACES, 0, config.data.image_size)
    pairing = Pairing(build_mixture(config.degradation), 0, config.data.flip_probability)
    workers = config.data.num_workers
    batches = training_batches(source, pairing, Partition(batch), first=0, num_workers=workers, pin=False)
    for _ in range(1 + 2 * workers):  # skip the prefetched batches
        next(batches)
    begin = time.perf_counter()
    for _ in range(num_batches):
        next(batches)
    return (time.perf_counter() - begin) / num_batches


def build(name: str, config: IDMConfig) -> Any:
    if name == "idm":
        return build_denoiser(config)
    return build_unet(config.data.image_size, tuple(config.denoiser.channels))


def measure(config: IDMConfig, accelerator: Accelerator, batches: list[int], num_steps: int) -> list[dict[str, Any]]:
    """Return a row for each network and batch size."""
    size, peak = config.data.image_size, peak_tflops(accelerator.device)
    rows = []
    for name, forward, checkpointing in (("idm", ours, False), ("idm", ours, True), ("diffusers", theirs, False)):
        gflop = forward_gflop(build(name, config), size)
        for batch in batches:
            network = build(name, config)
            if checkpointing:
                network.gradient_checkpointing = True
            found = seconds_per_step(accelerator, network, forward, size, batch, num_steps)
            del network
            accelerator.free_memory()
            row = {"network": name, "gradient_checkpointing": checkpointing, "batch": batch, "gflop_per_image": gflop}
            if found is not None:
                seconds, memory = found
                row["seconds_per_step"] = seconds
                row["images_per_second"] = batch * accelerator.num_processes / seconds
                row["share_of_peak"] = PASSES * gflop * batch / seconds / 1e3 / peak
                row["memory_gb"] = memory
            rows.append(row)
            accelerator.print(row)
    return rows


def measure_data(
    config: IDMConfig, batches: list[int], num_batches: int, rows: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return, for each batch size, the seconds to prepare a batch and the share of time that training waits for it.

    The share is relative to the fastest step with this batch size.
    """
    found = []
    for batch in batches:
        seconds = seconds_per_batch(config, batch, num_batches)
        steps = [row["seconds_per_step"] for row in rows if row["batch"] == batch and "seconds_per_step" in row]
        stall = max(0.0, 1 - min(steps) / seconds) if steps else None
        found.append({"batch": batch, "seconds_per_batch": seconds, "stall": stall})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32], help="batch sizes per process")
    parser.add_argument("--steps", type=int, default=10, help="number of timed steps")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    config = load_config(arguments.config, IDMConfig, [])
    set_gpu_arithmetic(tf32=config.train.tf32, cudnn_benchmark=config.train.cudnn_benchmark)
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision="bf16")
    rows = measure(config, accelerator, arguments.batches, arguments.steps)
    data = measure_data(config, arguments.batches, arguments.steps, rows)
    accelerator.print(data)
    if arguments.output and accelerator.is_main_process:
        metadata = {
            "config": str(arguments.config),
            "processes": accelerator.num_processes,
            "workers": config.data.num_workers,
        }
        write_result(arguments.output, {**metadata, "rows": rows, "data": data, **provenance()})
    accelerator.end_training()


if __name__ == "__main__":
    main()
