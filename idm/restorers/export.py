"""Networks as ONNX files, each compared with PyTorch before it can be used."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from idm.io.errors import InvalidInput
from idm.restorers.names import Exported

OPSET = 18  # what PyTorch writes without converting; of December 2022
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05, torch.int8: 0.2}  # of the output's largest value; ours
KEPT = ("conv_in.", "conv_out.", "refine.")  # layers that int8 would visibly harm: experiments/benchmarks/int8.py

GraphRunner = Callable[[dict[str, np.ndarray]], np.ndarray]
"""Runs a graph: arrays by the names of its inputs -> its one output."""


class ExportError(InvalidInput):
    """A network cannot be exported, or its graph cannot be used; the message says why."""


@dataclass(frozen=True)
class Graph:
    """A network to export, with example inputs.

    Args:
        name: of the file, without its suffix.
        network: in float32 on the CPU; takes ``inputs`` as keyword arguments and gives one tensor.
        inputs: an example of two samples; the first axis of each input is the batch, which stays free in the graph.
        metadata: stored in the file.
        strict: trace by Dynamo, which takes more than twice as long and keeps the batch free even if the network calls
            len(x).
        calibration: inputs to quantise the graph with, see :func:`quantise_graph`; without any, the graph is float32.
    """

    name: str
    network: nn.Module
    inputs: dict[str, Tensor]
    metadata: dict[str, str] = field(default_factory=dict)
    strict: bool = False
    calibration: Sequence[dict[str, Tensor]] = ()


@runtime_checkable
class Exportable(Protocol):
    """A restorer whose network ``idm export`` can write."""

    def graph(self) -> Graph:
        """The network with example inputs, for :func:`export_onnx`."""
        ...


@runtime_checkable
class Quantisable(Protocol):
    """A restorer whose network ``idm export --int8`` can write."""

    def int8_graph(self) -> Graph:
        """The network with example inputs and with those that calibrate it, for :func:`export_onnx`."""
        ...


@runtime_checkable
class Publishable(Protocol):
    """A restorer whose weights ``idm export`` can also write in the published ``.pth`` format of its kind."""

    def publish(self, path: Path) -> None:
        """Write the weights to a file."""
        ...


def export_onnx(graph: Graph, path: Path) -> float:
    """Write a network with its weights as an ONNX file that ONNX Runtime runs with PyTorch's results, or nearly so in
    int8.

    Returns:
        The largest difference between the two, as a share of the output's largest value.

    Raises:
        ExportError: a package is missing, the file cannot be written, or its results differ. No file is left then.
    """
    require_extra("onnxruntime")
    draft = path.with_name(f".{path.name}.part")
    try:
        write_onnx(graph, draft)
        if graph.calibration:
            quantise_graph(draft, graph.calibration)
        precision = torch.int8 if graph.calibration else torch.float32
        difference = check_graph(graph, load_onnxruntime(draft), precision)
        draft.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        draft.unlink(missing_ok=True)
    return difference


def write_onnx(graph: Graph, path: Path) -> None:
    """Write a network as an ONNX file, not yet checked."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # on names of axes, and from inside the exporter
        traced = torch.export.export(
            graph.network.eval(),
            (),
            graph.inputs,
            dynamic_shapes={name: {0: batch} for name in graph.inputs},
            strict=graph.strict,
        )
        program = torch.onnx.export(
            traced, kwargs=graph.inputs, dynamo=True, opset_version=OPSET, output_names=["output"], verbose=False
        )
    assert program is not None
    program.model.metadata_props.update(graph.metadata)
    program.save(os.fspath(path), external_data=False)


def quantise_graph(path: Path, calibration: Sequence[dict[str, Tensor]], kept: tuple[str, ...] = KEPT) -> None:
    """Quantise the convolutions and the matrix products with weights in an ONNX file, in place.

    Weights get 8 bits per output channel, of which 7 are used, because sums of products of 8 bits
    saturate on x86 processors without VNNI. Activations get 8 bits per tensor.

    Args:
        calibration: inputs of the graph, whose activations set the ranges of 8 bits.
        kept: beginnings of the names of weights that stay in float32.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_static

    quant_pre_process(path, path, skip_symbolic_shape=True)
    graph = onnx.load(path).graph
    weights = {x.name for x in graph.initializer if "." in x.name or len(x.dims) == 2}  # of modules, transposed ones
    layers = [
        node.name
        for node in graph.node
        if node.op_type in ("Conv", "MatMul") and node.input[1] in weights and not node.input[1].startswith(kept)
    ]
    feeds = iter([{name: x.numpy() for name, x in inputs.items()} for inputs in calibration])
    quantize_static(
        path,
        path,
        SimpleNamespace(get_next=partial(next, feeds, None)),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=True,
        nodes_to_quantize=layers,
    )


@torch.no_grad()
def check_graph(graph: Graph, run: GraphRunner, dtype: torch.dtype) -> float:
    """Compare a running graph with its network for one sample, for two and for three.

    Args:
        dtype: precision that ``run`` computes in.

    Returns:
        The largest difference as a share of the output's largest value.

    Raises:
        ExportError: it is above ``TOLERANCE``.
    """
    worst = 0.0
    for samples in ([0], [0, 1], [1, 0, 1]):
        batch = {name: x[samples] for name, x in graph.inputs.items()}
        wanted = graph.network(**batch)
        found = torch.from_numpy(run({name: x.numpy() for name, x in batch.items()}))
        if found.shape != wanted.shape:
            raise ExportError(f"the exported {graph.name} gives {tuple(found.shape)}, not {tuple(wanted.shape)}")
        difference = ((found - wanted).abs().max() / wanted.abs().max()).item()
        if not difference <= TOLERANCE[dtype]:  # NaN too
            raise ExportError(
                f"the exported {graph.name} differs from PyTorch by {difference:.1e} of its output's largest value, "
                f"which is more than {TOLERANCE[dtype]:.0e}"
            )
        worst = max(worst, difference)
    return worst


def load_onnxruntime(path: Path) -> GraphRunner:
    """Load an ONNX file into ONNX Runtime, on the CPU with PyTorch's number of threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, inputs)[0]


def require_extra(extra: Exported) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        ExportError: it is not.
    """
    missing = [package for package in ("onnx", "onnxscript", extra) if find_spec(package) is None]
    if missing:
        raise ExportError(f"{', '.join(missing)} not installed: pip install 'idm-face-restoration[{extra}]'")
