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
from idm.io.atomic import sha256
from idm.io.ranges import from_diffusion, to_diffusion
from idm.io.run_folder import best_checkpoint, damage, list_checkpoints
from idm.io.weights import WeightsError
from idm.restorers.export import Graph
from idm.restorers.load import Loaded

MODEL = "gfpgan.safetensors"
"""File name of the publishable model in a checkpoint."""


class GFPGANRestorer:
    """GFP-GAN as an :class:`idm.restorers.protocol.Restorer`. Each face's seed determines its noise maps."""

    def __init__(self, generator: GFPGAN) -> None:
        self.generator = generator

    @property
    def image_size(self) -> int:
        """The side in pixels of the faces that the generator restores."""
        return self.generator.image_size

    def graph(self) -> Graph:
        """Return the generator, with its stored noise, for :func:`idm.restorers.export.export_onnx`."""
        return generator_graph(self.generator)

    def publish(self, path: Path) -> None:
        """See :func:`gan_baseline.weights.export_gfpgan`."""
        export_gfpgan(self.generator, path)

    @torch.no_grad()
    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore faces in [0, 1]; one seed per face.

        Raises:
            ValueError: the faces have another size.
        """
        weight = self.generator.final_linear.weight
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = draw_noise(self.image_size, generators, weight.device)
        restored, _ = self.generator(to_diffusion(lq.to(weight)), noise)
        return from_diffusion(restored.float())


def find_gfpgan(path: Path) -> Path:
    """Return the weights file of a run, of a checkpoint, or the given file itself.

    A run stands for its best checkpoint, or for the newest one if none is marked as the best.

    Raises:
        FileNotFoundError: the path does not exist, or the run has no checkpoint.
        WeightsError: the file differs from what the run wrote.
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


def load_gfpgan_restorer(path: Path, device: torch.device, dtype: torch.dtype = torch.float32) -> GFPGANRestorer:
    """Load a training run, one of its checkpoints or a weights file, in evaluation mode and without gradients.

    Raises:
        FileNotFoundError, WeightsError: see :func:`find_gfpgan` and :func:`gan_baseline.weights.load_gfpgan`.
    """
    return GFPGANRestorer(load_gfpgan(find_gfpgan(path)).to(device, dtype).eval().requires_grad_(False))


def open_restorer(path: Path, device: torch.device, dtype: torch.dtype) -> Loaded | None:
    """Load a GFP-GAN for :func:`idm.restorers.load.load_restorer`, which calls this function as an entry point.

    Returns:
        The restorer and its metadata, or None if the path is not a GFP-GAN.

    Raises:
        WeightsError: the path is a GFP-GAN that cannot be loaded.
    """
    if not is_gfpgan(path):
        return None
    restorer, file = load_gfpgan_restorer(path, device, dtype), find_gfpgan(path)
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
    """Return whether a path is a run of this baseline, one of its checkpoints, or a weights file of GFP-GAN."""
    if path.is_dir():
        return any((folder / MODEL).exists() for folder in (path, *list_checkpoints(path / "checkpoints")))
    return holds_gfpgan(path)
