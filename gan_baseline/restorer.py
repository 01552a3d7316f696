"""GFP-GAN as a restorer: faces in [0, 1] to faces in [0, 1]."""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from gan_baseline.export import generator_graph
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.stylegan2 import draw_noise
from gan_baseline.weights import export_gfpgan, holds_gfpgan, load_gfpgan
from idm.io.ranges import from_diffusion, to_diffusion
from idm.io.run_folder import best_checkpoint, damage, list_checkpoints, sha256
from idm.io.weights import WeightsError
from idm.restorers.export import Graph
from idm.restorers.load import Loaded

MODEL = "gfpgan.safetensors"
"""The publishable model within a checkpoint."""


class GFPGANRestorer:
    """An :class:`idm.restorers.protocol.Restorer`. The generator's noise maps follow from each face's seed."""

    def __init__(self, generator: GFPGAN) -> None:
        self.generator = generator

    @property
    def image_size(self) -> int:
        return self.generator.image_size

    def graph(self) -> Graph:
        """The generator for :func:`idm.restorers.export.export_onnx`, with its stored noise."""
        return generator_graph(self.generator)

    def publish(self, path: Path) -> None:
        """See :func:`gan_baseline.weights.export_gfpgan`."""
        export_gfpgan(self.generator, path)

    @torch.no_grad()
    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        weight = self.generator.final_linear.weight
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = draw_noise(self.image_size, generators, weight.device)
        restored, _ = self.generator(to_diffusion(lq.to(weight)), noise)
        return from_diffusion(restored.float())


def find_gfpgan(path: Path) -> Path:
    """The file that a path stands for: that of a run's best (or newest) checkpoint, of a checkpoint, or itself.

    Raises:
        FileNotFoundError: there is nothing, or a run without a checkpoint.
        WeightsError: the file is not as the run wrote it.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; name a training run or the weights of a GFP-GAN")
    checkpoints = path / "checkpoints"
    if checkpoints.is_dir():
        complete = list_checkpoints(checkpoints)
        if not complete:
            raise FileNotFoundError(f"{path}: this run has no checkpoint yet")
        path = best_checkpoint(checkpoints) or complete[-1]
    file = path / MODEL if path.is_dir() else path
    if fault := damage(file.parent, file.name):
        raise WeightsError(f"{file}: is damaged: {fault}; name another checkpoint")
    return file


def load_restorer(path: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> GFPGANRestorer:
    """A trained run, one of its checkpoints, or third-party weights, ready to restore; raises what finding and
    loading raise."""
    return GFPGANRestorer(load_gfpgan(find_gfpgan(path)).to(device, dtype).eval().requires_grad_(False))


def open_restorer(path: Path, device: torch.device, dtype: torch.dtype) -> Loaded | None:
    """The entry point by which :func:`idm.restorers.load.load_restorer` finds GFP-GANs; None for what is none.

    Raises:
        WeightsError: it is one, and cannot be loaded.
    """
    if not is_gfpgan(path):
        return None
    restorer, file = load_restorer(path, device, dtype), find_gfpgan(path)
    return Loaded(
        restorer,
        {
            "name": f"GFP-GAN ({path.as_posix()})",
            "weights_sha256": sha256(file),
            "image_size": restorer.image_size,
            "parameters": sum(p.numel() for p in restorer.generator.parameters()),
            "precision": str(dtype).removeprefix("torch."),
        },
    )


def is_gfpgan(path: Path) -> bool:
    """Whether a path is a run of this baseline, a checkpoint of one, or a file of GFP-GAN's weights."""
    if path.is_dir():
        return any((folder / MODEL).exists() for folder in (path, *list_checkpoints(path / "checkpoints")))
    return holds_gfpgan(path)
