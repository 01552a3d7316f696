"""IDM: the trained denoiser, its noise levels, and the chain by which faces are sampled from them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from idm.diffusion.chain import SCHEDULERS, Chain, scheduler_settings, signal_levels
from idm.diffusion.process import Image, Prediction
from idm.diffusion.samplers import sample
from idm.diffusion.schedule import to_betas
from idm.io.errors import InvalidInput
from idm.io.ranges import from_diffusion, from_uint8, hwc_to_chw, to_diffusion
from idm.models.denoiser import Denoiser
from idm.restorers.export import Graph, require_extra
from idm.restorers.names import Backend

if TYPE_CHECKING:
    from idm.restorers.backends import ExportedDenoiser


_CHAIN = Chain()


@dataclass(frozen=True)
class Origin:
    """The path that a model was loaded from, and the sha256 of its weights file."""

    folder: Path
    weights_sha256: str


class IDM:
    """Restores aligned faces with f_theta; a :class:`~idm.restorers.protocol.Restorer`.

    It needs only torch and this package. :class:`~idm.restorers.pipeline.IDMPipeline` wraps the same model as a
    diffusers pipeline; :mod:`idm.restorers.saved` reads and writes the files of both.

    Args:
        denoiser: f_theta.
        gammas: the schedule that it was trained with, see :mod:`idm.diffusion.schedule`.
        prediction: how its output is read.
        chain: how faces are sampled unless a call says otherwise.
        origin: the files that it was loaded from, if any.

    Raises:
        ValueError: the schedule does not have the chain's levels.

    Example:
        >>> model = idm.load_idm(None, torch.device("cpu"), torch.float32)
        >>> model.restore(torch.rand(1, 3, 256, 256), seeds=[0]).shape
        torch.Size([1, 3, 256, 256])
    """

    def __init__(
        self,
        denoiser: Denoiser,
        gammas: Float[Tensor, " T1"],
        *,
        prediction: Prediction = "sample",
        chain: Chain = _CHAIN,
        origin: Origin | None = None,
    ) -> None:
        self.denoiser, self.gammas, self.prediction, self.origin = denoiser, gammas, prediction, origin
        self.chain = chain
        self.exported: ExportedDenoiser | None = None

    @property
    def chain(self) -> Chain:
        """The sampling chain; ``idm.chain = idm.chain.changed(num_steps=4)`` changes it.

        Raises:
            ValueError: the schedule does not have the chain's levels; the old chain stays.
        """
        return self._chain

    @chain.setter
    def chain(self, chain: Chain) -> None:
        signal_levels(chain, self.gammas.tolist())
        self._chain = chain

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces that the model restores."""
        return self.denoiser.config.image_size

    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore degraded faces in [0, 1] with the model's own chain; face i draws from ``seeds[i]``."""
        return self.sample(lq, generators_of(seeds))

    def generate(self, seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Generate faces in [0, 1] from noise, with the chain's number of steps; each depends only on its seed.

        Raises:
            ValueError: the denoiser is conditional: it restores faces and does not generate them.
        """
        if self.denoiser.config.conditional:
            raise InvalidInput("generate() needs an unconditional denoiser (denoiser.conditional: false)")
        nothing = torch.zeros(len(seeds), 3, self.image_size, self.image_size)
        return self.sample(nothing, generators_of(seeds), self.chain.changed(fidelity=0.0))

    def sample(
        self,
        lq: Float[Tensor, "b 3 h w"],
        generators: Sequence[torch.Generator],
        chain: Chain | None = None,
        on_step: Callable[[int, int, Image], None] | None = None,
    ) -> Float[Tensor, "b 3 h w"]:
        """Restore degraded faces in [0, 1], of any size, with this chain or the model's own.

        Args:
            on_step: see :func:`idm.diffusion.samplers.sample`, which also says what is refused.
        """
        restored = sample(
            self.exported or self.denoiser.eval(),
            to_diffusion(lq.to(self.denoiser.device, torch.float32)),
            self.gammas,
            self.chain if chain is None else chain,
            prediction=self.prediction,
            generators=generators,
            on_step=on_step,
        )
        return from_diffusion(restored)

    def use_backend(self, backend: Backend, dtype: torch.dtype = torch.float32) -> None:
        """Choose the backend that runs f_theta from now on: PyTorch, or another program on a graph of the current
        weights.

        Everything else stays in PyTorch, including the denoiser that is saved.

        Args:
            dtype: precision of the other backend; PyTorch uses the denoiser's own precision.

        Raises:
            ExportError: see :class:`~idm.restorers.backends.ExportedDenoiser`.
        """
        if backend == "torch":
            self.exported = None
        else:
            from idm.restorers.backends import ExportedDenoiser

            self.exported = ExportedDenoiser(self.denoiser.eval(), backend, dtype)

    def graph(self) -> Graph:
        """f_theta(x_d, x_t, gamma) for :func:`~idm.restorers.export.export_onnx`, with the metadata that a sampler
        needs."""
        from idm.restorers.backends import denoiser_inputs

        sampler = self.chain.sampler
        metadata = {
            "inputs": "x_d: degraded faces in [-1, 1]; x_t = sqrt(gamma) x_0 + sqrt(1 - gamma) eps; gamma in (0, 1)",
            "prediction": self.prediction,  # how the output is read
            "chain": json.dumps(asdict(self.chain)),
            "scheduler": SCHEDULERS[sampler][1],
            "scheduler_config": json.dumps(scheduler_settings(sampler, to_betas(self.gammas).tolist())),
        }
        return Graph("denoiser", self.denoiser, denoiser_inputs(self.denoiser), metadata)

    def int8_graph(self) -> Graph:
        """:meth:`graph` in int8, calibrated with eight procedural faces, degraded as GFP-GAN's, at the levels of the
        chain.

        Raises:
            ExportError: a package is missing.
        """
        require_extra("onnxruntime")
        from idm.data.pairs import FrozenPairs
        from idm.data.sources import SyntheticFaces
        from idm.degradation import GFPGAN

        graph, denoiser = self.graph(), self.denoiser.eval()
        calls: list[dict[str, Tensor]] = []

        def record(**inputs: Tensor) -> Tensor:
            calls.append(inputs)
            return denoiser(**inputs)

        pairs = FrozenPairs(SyntheticFaces(8, 0, self.image_size), GFPGAN, 0)
        for index in range(len(pairs)):
            x_d = to_diffusion(hwc_to_chw(from_uint8(pairs[index].lq)))[None]
            sample(record, x_d, self.gammas, self.chain, prediction=self.prediction, generators=generators_of([index]))
        first, *calibration, last = calls
        return replace(
            graph,
            inputs={name: torch.cat([first[name], last[name]]) for name in graph.inputs},
            metadata={**graph.metadata, "precision": "int8"},
            calibration=calibration,
        )

    def metadata(self) -> dict[str, str | int | float]:
        """The settings of the model that determine its results, for tables and records."""
        chain: dict[str, str | int | float] = asdict(self.chain)
        if not chain.pop("levels"):
            return {**self._network(), **chain}
        return {**self._network(), **chain, "levels": ", ".join(f"{sigma:g}" for sigma in self.chain.levels)}

    def _network(self) -> dict[str, str | int | float]:
        exported = self.exported
        return {
            **({} if self.origin is None else {"weights_sha256": self.origin.weights_sha256}),
            "image_size": self.image_size,
            "parameters": sum(p.numel() for p in self.denoiser.parameters()),
            "backend": exported.backend if exported else "torch",
            "precision": str(exported.dtype if exported else self.denoiser.dtype).removeprefix("torch."),
        }


def generators_of(seeds: Sequence[int]) -> list[torch.Generator]:
    """A generator on the CPU for each seed."""
    return [torch.Generator().manual_seed(seed) for seed in seeds]
