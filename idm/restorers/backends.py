"""Run the denoiser with ONNX Runtime or OpenVINO instead of PyTorch, on the CPU."""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from jaxtyping import Float
from torch import Tensor, nn

from idm.diffusion.process import Image, SignalLevel
from idm.io.errors import InvalidInput
from idm.models.denoiser import Denoiser
from idm.restorers.export import (
    ExportError,
    Graph,
    GraphRunner,
    check_graph,
    load_onnxruntime,
    require_extra,
    write_onnx,
)
from idm.restorers.names import Exported


class ExportedDenoiser:
    """f_theta(x_d, x_t, gamma) as an ONNX graph that ONNX Runtime or OpenVINO runs.

    PyTorch still embeds gamma: ln(gamma / (1 - gamma)) needs float64 where gamma is nearly 1, which OpenVINO computes
    in float32, and in bfloat16 the sines of the embedding would be noise.

    Args:
        denoiser: in float32 on the CPU. The graph holds its current weights.
        dtype: precision of the computation; ONNX Runtime supports float32 only.

    Raises:
        ExportError: a package is missing, the precision is impossible, or the results are not PyTorch's.
    """

    def __init__(self, denoiser: Denoiser, backend: Exported, dtype: torch.dtype) -> None:
        if (denoiser.dtype, denoiser.device.type) != (torch.float32, "cpu"):
            raise ExportError(f"{backend} needs a denoiser in float32 on the CPU, not {denoiser.dtype}")
        if backend == "onnxruntime" and dtype != torch.float32:
            raise ExportError("onnxruntime computes in fp32 only on a CPU; bf16 needs torch or openvino")
        require_extra(backend)
        self.backend, self.dtype = backend, dtype
        self._denoiser = denoiser
        graph = Graph("denoiser", _UNet(denoiser), _unet_inputs(denoiser))
        with TemporaryDirectory() as folder:
            path = Path(folder) / "unet.onnx"
            write_onnx(graph, path)
            self._run = load_onnxruntime(path) if backend == "onnxruntime" else _load_openvino(path, dtype)
        check_graph(graph, self._run, dtype)

    @torch.no_grad()
    def __call__(self, *, x_d: Image, x_t: Image, gamma: SignalLevel) -> Image:
        """The network's output in float32.

        Raises:
            ValueError: the images do not have the denoiser's own size, for which the graph was exported.
        """
        height, width = x_t.shape[-2:]
        size = self._denoiser.config.image_size
        if (height, width) != (size, size):
            raise InvalidInput(
                f"{self.backend} runs faces of {size} x {size} px, got {height} x {width}: torch runs other sizes"
            )
        inputs = {"x_d": x_d, "x_t": x_t, "embedding": self._denoiser.embed_gamma(gamma)}
        return torch.from_numpy(self._run({name: x.numpy() for name, x in inputs.items()}))


class _UNet(nn.Module):
    """The denoiser without the embedding of gamma."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, x_d: Image, x_t: Image, embedding: Float[Tensor, "b dim"]) -> Image:
        return self.denoiser.forward_embedded(x_d=x_d, x_t=x_t, embedding=embedding)


def denoiser_inputs(denoiser: Denoiser) -> dict[str, Tensor]:
    """Two sample inputs of f_theta, one near each end of the chain."""
    rng = torch.Generator().manual_seed(0)
    shape = (2, denoiser.config.image_channels, denoiser.config.image_size, denoiser.config.image_size)
    return {
        "x_d": torch.rand(shape, generator=rng) * 2 - 1,
        "x_t": torch.randn(shape, generator=rng),
        "gamma": torch.tensor([0.01, 0.9999], dtype=torch.float64),
    }


@torch.no_grad()
def _unet_inputs(denoiser: Denoiser) -> dict[str, Tensor]:
    inputs = denoiser_inputs(denoiser)
    return {"x_d": inputs["x_d"], "x_t": inputs["x_t"], "embedding": denoiser.embed_gamma(inputs["gamma"])}


def _load_openvino(path: Path, dtype: torch.dtype) -> GraphRunner:
    """Load an ONNX file into OpenVINO, on the CPU with PyTorch's number of threads."""
    # importing openvino reports to Google Analytics, unless its package for that cannot be imported
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = openvino.Core().compile_model(os.fspath(path), "CPU", settings)
    return lambda inputs: compiled(inputs)[0]
