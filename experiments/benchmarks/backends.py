"""Compare PyTorch, ONNX Runtime and OpenVINO: seconds per restored face, and differences in the restored faces.

``[IDM_ASSETS=...] python experiments/benchmarks/backends.py [--rounds N] [-o FILE]``; without IDM_ASSETS the
quality is measured on synthetic faces.
"""

import argparse
import os
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np
import torch
from networks import FACES64
from rounds import Turn, speedup, start, take_turns, write_result
from table import backends_table
from torch import Tensor

from idm.config.assembly.intrinsic import build_denoiser, build_idm
from idm.data.pairs import FrozenPairs
from idm.data.sources import FolderFaces, Part, SyntheticFaces, assets_folder
from idm.degradation import GFPGAN
from idm.evaluation.metrics import psnr
from idm.io.machine import keep_freed_memory, provenance, quieten_libraries, share_cores
from idm.io.ranges import from_uint8, hwc_to_chw, to_uint8
from idm.restorers.idm import IDM
from idm.restorers.names import Backend
from idm.restorers.saved import load_idm

CPU = torch.device("cpu")
BATCH_SIZES = (1, 8)
NUM_STEPS = 4  # the default of idm-faces-128
SEED = 1234


class Variant(NamedTuple):
    backend: Backend
    dtype: torch.dtype

    @property
    def name(self) -> str:
        return f"{self.backend}, {'fp32' if self.dtype == torch.float32 else 'bf16'}"


BASELINE = Variant("torch", torch.float32)
VARIANTS = [
    BASELINE,
    Variant("torch", torch.bfloat16),
    Variant("onnxruntime", torch.float32),
    Variant("openvino", torch.float32),
    Variant("openvino", torch.bfloat16),
]
MODEL = "idm-faces-128"
CASES = (MODEL, FACES64.name)


def build(case: str, variant: Variant) -> IDM:
    """Build the model as ``idm restore --backend`` does; faces64 has random weights."""
    if case == FACES64.name:
        config = FACES64.load()
        idm = build_idm(config, build_denoiser(config))
    else:
        idm = load_idm(Path(MODEL), CPU, torch.float32)
    idm.chain = idm.chain.changed(num_steps=NUM_STEPS)
    if variant.backend == "torch":
        idm.denoiser.type(variant.dtype)
    idm.use_backend(variant.backend, variant.dtype)
    return idm


def prepare(case: str, variant: Variant) -> Turn:
    keep_freed_memory()
    share_cores(1)
    begin = time.perf_counter()
    idm = build(case, variant)
    seconds_to_build = time.perf_counter() - begin

    def turn(batch_size: int) -> float:
        """Return the seconds per face of a whole chain or, for a batch size of 0, the seconds to build the model."""
        if batch_size == 0:
            return seconds_to_build
        lq = torch.rand(batch_size, 3, idm.image_size, idm.image_size)
        begin = time.perf_counter()
        idm.restore(lq, range(batch_size))
        return (time.perf_counter() - begin) / batch_size

    return turn


def compare(case: str, num_rounds: int) -> dict[str, Any]:
    """Measure all variants of one case."""
    with ExitStack() as stack:
        workers = start(stack, {variant.name: partial(prepare, case, variant) for variant in VARIANTS})
        to_build = take_turns(workers, 0, 1)
        seconds = {}
        for batch_size in BATCH_SIZES:
            take_turns(workers, batch_size, 1)  # warm up
            seconds[batch_size] = take_turns(workers, batch_size, num_rounds)
    rows = [
        {
            "variant": variant.name,
            "batch_size": batch_size,
            "seconds_to_build": to_build[variant.name][0],
            "seconds_per_face": median(seconds[batch_size][variant.name]),
            "speedup": speedup(seconds[batch_size][BASELINE.name], seconds[batch_size][variant.name]),
            "all_seconds_per_face": seconds[batch_size][variant.name],
        }
        for batch_size in BATCH_SIZES
        for variant in VARIANTS
    ]
    return {"case": case, "rows": rows}


def quality(num_faces: int) -> dict[str, Any]:
    """Compare faces restored by idm-faces-128 with those of PyTorch in float32, in 8-bit levels and in PSNR."""
    idms = {variant.name: build(CASES[0], variant) for variant in VARIANTS}
    size = idms[BASELINE.name].image_size
    if "IDM_ASSETS" in os.environ:
        faces, name = FolderFaces(assets_folder() / "faces256" / "val", size), "held-out photographs"
    else:
        faces, name = SyntheticFaces(num_faces, SEED, size), "synthetic faces"
    pairs = FrozenPairs(Part(faces, range(num_faces)), GFPGAN, SEED)
    batch = [pairs[index] for index in range(num_faces)]
    lq = torch.stack([hwc_to_chw(from_uint8(pair.lq)) for pair in batch])
    originals = [from_uint8(pair.hq) for pair in batch]
    restored = {name: _restore(idm, lq) for name, idm in idms.items()}
    wanted = restored[BASELINE.name]
    wanted_psnr = mean(map(psnr, wanted, originals))
    rows = []
    for variant in VARIANTS:
        found = restored[variant.name]
        levels = np.abs(to_uint8(found).astype(int) - to_uint8(wanted))
        found_psnr = mean(map(psnr, found, originals))
        rows.append(
            {
                "variant": variant.name,
                "levels_max": int(levels.max()),
                "levels_mean": float(levels.mean()),
                "psnr_between": None if variant == BASELINE else mean(map(psnr, found, wanted)),
                "psnr": found_psnr,
                "psnr_change": found_psnr - wanted_psnr,
            }
        )
    return {"faces": name, "num_faces": num_faces, "rows": rows}


def _restore(idm: IDM, lq: Tensor) -> np.ndarray:
    """Restore faces in batches of eight; the result is (b, h, w, c) in [0, 1]."""
    parts = [idm.restore(part, range(8 * i, 8 * i + len(part))) for i, part in enumerate(lq.split(8))]
    return torch.cat(parts).permute(0, 2, 3, 1).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--faces", type=int, default=32, help="number of faces for the quality")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    quieten_libraries()
    share_cores(1)
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    result = {
        "num_steps": NUM_STEPS,
        "rounds": arguments.rounds,
        "load_average": load_average,
        "quality": quality(arguments.faces),
        "cases": [compare(case, arguments.rounds) for case in CASES],
        **provenance(),
    }
    print(backends_table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
