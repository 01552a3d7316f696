"""Compare the bundled model in float32 with ONNX files of 8 bits: quality, size, and seconds on one core.

    IDM_ASSETS=... python experiments/benchmarks/int8.py -o experiments/benchmarks/results/int8.json

All variants restore the same held-out photographs, degraded as GFP-GAN's, with ONNX Runtime and the model's own chain.
They take turns at every face, so that drift of the machine affects all of them alike. The exported variant is what
``idm export --int8`` writes.
"""

import argparse
import os
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from rounds import speedup, write_result
from table import int8_table
from torch import Tensor

from idm.data.pairs import FrozenPairs, Pair
from idm.data.sources import FolderFaces, Part, assets_folder
from idm.degradation import GFPGAN
from idm.diffusion.samplers import sample
from idm.evaluation.pixels import psnr, sharpness, ssim
from idm.faces.recognition import cosine_similarity, load_identity
from idm.io.machine import keep_freed_memory, provenance, quieten_libraries, share_cores
from idm.io.ranges import chw_to_hwc, from_diffusion, from_uint8, hwc_to_chw, to_diffusion, to_uint8
from idm.restorers.export import KEPT, GraphRunner, load_onnxruntime, quantise_graph, write_onnx
from idm.restorers.idm import IDM, generators_of
from idm.restorers.load import load_restorer

SEED = 2026
EXPORTED = "int8, exported"
# Beginnings of the names of layers that stay in float32, by variant.
KEPT_LAYERS = {
    EXPORTED: KEPT,
    "int8, and conv_in": tuple(name for name in KEPT if name != "conv_in."),
    "int8, and conv_out": tuple(name for name in KEPT if name != "conv_out."),
    "int8, and the refinement": tuple(name for name in KEPT if name != "refine."),
    "int8, all convolutions": (),
}
PHOTOGRAPHS = f"{EXPORTED}, calibrated on photographs"


def spread(split: str, num_faces: int, size: int) -> list[Pair]:
    """Faces of a split of the assets, spread evenly over it, each degraded from the seed."""
    faces = FolderFaces(assets_folder() / "faces256" / split, size)
    chosen = np.linspace(0, len(faces) - 1, num_faces).round().astype(int)
    pairs = FrozenPairs(Part(faces, chosen), GFPGAN, SEED)
    return [pairs[index] for index in range(num_faces)]


def restore(
    idm: IDM, run: GraphRunner, pair: Pair, index: int, calls: list[dict[str, Tensor]] | None = None
) -> np.ndarray:
    """Restore one face with an ONNX file, and append the inputs of each step to ``calls``."""

    def f(**inputs: Tensor) -> Tensor:
        if calls is not None:
            calls.append(inputs)
        return torch.from_numpy(run({name: x.numpy() for name, x in inputs.items()}))

    x_d = to_diffusion(hwc_to_chw(from_uint8(pair.lq)))[None]
    generators = generators_of([SEED + index])
    restored = sample(f, x_d, idm.gammas, idm.chain, prediction=idm.prediction, generators=generators)
    return to_uint8(chw_to_hwc(from_diffusion(restored)[0]))


def store_weights_in_8_bits(path: Path, output: Path) -> None:
    """Store the weights of convolutions and matrix products as int8 per output channel, computed with in float32."""
    model = onnx.load(path)
    axes = {"Conv": 0, "Gemm": 0, "MatMul": 1}
    axis_of = {node.input[1]: axes[node.op_type] for node in model.graph.node if node.op_type in axes}
    stored, nodes = [], []
    for tensor in model.graph.initializer:
        weight, axis = numpy_helper.to_array(tensor), axis_of.get(tensor.name)
        if axis is None or weight.size < 1000:
            stored.append(tensor)
            continue
        others = tuple(i for i in range(weight.ndim) if i != axis)
        scale = np.maximum(np.abs(weight).max(others, keepdims=True) / 127, np.finfo(np.float32).tiny)
        names = [f"{tensor.name}.int8", f"{tensor.name}.scale"]
        levels = (np.rint(weight / scale).astype(np.int8), scale.astype(np.float32).ravel())
        stored += [numpy_helper.from_array(array, name) for array, name in zip(levels, names, strict=True)]
        nodes.append(helper.make_node("DequantizeLinear", names, [tensor.name], axis=axis))
    nodes += model.graph.node
    for field, values in ((model.graph.initializer, stored), (model.graph.node, nodes)):
        del field[:]
        field.extend(values)
    onnx.save(model, output)


def write_variants(idm: IDM, folder: Path, num_calibration: int) -> dict[str, Path]:
    """Write the ONNX file of each variant, float32 first."""
    names = ("float32", "int8 weights only", *KEPT_LAYERS, PHOTOGRAPHS)
    paths = {name: folder / f"{number}.onnx" for number, name in enumerate(names)}
    graph = idm.int8_graph()
    write_onnx(graph, paths["float32"])
    store_weights_in_8_bits(paths["float32"], paths["int8 weights only"])
    run, calls = load_onnxruntime(paths["float32"]), []
    for index, pair in enumerate(spread("train", num_calibration, idm.image_size)):
        restore(idm, run, pair, index, calls)
    for name, path in paths.items():
        if name in KEPT_LAYERS or name == PHOTOGRAPHS:
            path.write_bytes(paths["float32"].read_bytes())
            quantise_graph(path, calls if name == PHOTOGRAPHS else graph.calibration, KEPT_LAYERS.get(name, KEPT))
    return paths


def measure(idm: IDM, paths: dict[str, Path], pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Restore all faces with all variants; a row of means for each, with differences from float32."""
    runs = {name: load_onnxruntime(path) for name, path in paths.items()}
    restored, seconds = defaultdict(list), defaultdict(list)
    for run in runs.values():
        restore(idm, run, pairs[0], 0)  # warm up
    for index, pair in enumerate(pairs):
        for name in list(runs)[:: -1 if index % 2 else 1]:
            begin = time.perf_counter()
            restored[name].append(restore(idm, runs[name], pair, index))
            seconds[name].append(time.perf_counter() - begin)
    scores = {name: score(faces, pairs) for name, faces in restored.items()}
    return [
        {
            "variant": name,
            "megabytes": path.stat().st_size / 1e6,
            **{metric: float(values.mean()) for metric, values in scores[name].items()},
            "change": {
                metric: {"mean": float(change.mean()), "min": float(change.min())}
                for metric, values in scores[name].items()
                for change in [values - scores["float32"][metric]]
            },
            "seconds_per_face": median(seconds[name]),
            "speedup": speedup(seconds["float32"], seconds[name]),
        }
        for name, path in paths.items()
    ]


def score(faces: Sequence[np.ndarray], pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """The metrics of each face."""
    network, landmarks = load_identity(), [pair.landmarks for pair in pairs]
    images, originals = [from_uint8(face) for face in faces], [from_uint8(pair.hq) for pair in pairs]
    return {
        "psnr": np.array(list(map(psnr, images, originals))),
        "ssim": np.array(list(map(ssim, images, originals))),
        "identity": cosine_similarity(network.embed(images, landmarks), network.embed(originals, landmarks)),
        "sharpness": np.array(list(map(sharpness, images, originals))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="training run or saved pipeline (default: the bundled model)")
    parser.add_argument("--faces", type=int, default=40, help="number of faces of the split val")
    parser.add_argument("--calibration", type=int, default=32, help="number of photographs of the split train")
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the result")
    arguments = parser.parse_args()
    quieten_libraries()
    keep_freed_memory()
    share_cores(1)
    load_average = os.getloadavg()[0]  # before the benchmark adds its own load
    loaded = load_restorer(arguments.model, torch.device("cpu"), torch.float32)
    idm = loaded.restorer
    assert isinstance(idm, IDM)
    with TemporaryDirectory() as folder:
        paths = write_variants(idm, Path(folder), arguments.calibration)
        rows = measure(idm, paths, spread("val", arguments.faces, idm.image_size))
    result = {
        "model": loaded.metadata,
        "num_faces": arguments.faces,
        "num_calibration": arguments.calibration,
        "seed": SEED,
        "load_average": load_average,
        "rows": rows,
        **provenance(),
    }
    print(int8_table(result))
    if arguments.output:
        write_result(arguments.output, result)


if __name__ == "__main__":
    main()
