"""Third-party models: networks that spandrel loads from a weights file.

Spandrel (an optional extra) knows GFPGAN and RestoreFormer. CodeFormer is in the package spandrel_extra_arches,
because its licence (S-Lab 1.0) is non-commercial; it is used if it is installed.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor

from idm.io.errors import InvalidInput
from idm.io.ranges import from_diffusion, to_diffusion

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor

# Networks that compute in [-1, 1] while their spandrel descriptor passes [0, 1] on to them as it is (0.4.2).
_UNSCALED = ("GFPGAN", "CodeFormer")


class ThirdPartyModelError(InvalidInput):
    """A weights file cannot be used; the message begins with its path."""


class SpandrelRestorer:
    """A :class:`~idm.restorers.protocol.Restorer` around a face-restoration network that spandrel has loaded.

    Faces are restored one by one, each with its own seed, so that a network that draws noise (GFPGAN) gives the same
    result in every batch.
    """

    image_size = 512  # of all face restorers that spandrel knows

    def __init__(self, descriptor: "ImageModelDescriptor", device: torch.device) -> None:
        self.descriptor, self.device = descriptor.to(device).eval(), device

    @torch.inference_mode()
    def restore(self, lq: Float[Tensor, "b 3 s s"], seeds: Sequence[int]) -> Float[Tensor, "b 3 s s"]:
        """Restore degraded faces in [0, 1], one by one; face i draws from ``seeds[i]``."""
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            faces = [self._restore_one(face.to(self.device), seed) for face, seed in zip(lq, seeds, strict=True)]
        return torch.stack(faces)

    def _restore_one(self, face: Float[Tensor, "3 s s"], seed: int) -> Float[Tensor, "3 s s"]:
        torch.manual_seed(seed)
        batch = rearrange(face, "c h w -> 1 c h w")
        if self.descriptor.architecture.id in _UNSCALED:
            return from_diffusion(self.descriptor.model(to_diffusion(batch))[0][0])
        return self.descriptor(batch)[0]


def load_third_party(path: Path, device: torch.device) -> SpandrelRestorer:
    """Load a face restorer from a ``.pth`` or ``.safetensors`` file.

    Raises:
        ThirdPartyModelError: see :func:`load_network`; or the network does not restore faces.
    """
    network = load_network(path)
    if network.purpose != "FaceSR":
        raise ThirdPartyModelError(f"{path}: is a {network.architecture.name} network, which does not restore faces")
    return SpandrelRestorer(network, device)


def load_network(path: Path) -> "ImageModelDescriptor":
    """Load an image-to-image network, on the CPU.

    Raises:
        ThirdPartyModelError: spandrel is not installed, the file does not hold a network that it knows, or its weights
            are all zero or integers.
    """
    weights = _read_weights(path)
    try:
        import spandrel
    except ImportError:
        raise ThirdPartyModelError(f"{path}: needs spandrel: pip install 'idm-face-restoration[spandrel]'") from None
    _add_codeformer()
    try:
        weights = spandrel.canonicalize_state_dict(weights)
        has_numbers = any(weight.is_floating_point() and weight.any() for weight in weights.values())
        network = spandrel.ModelLoader().load_from_state_dict(weights)
    except Exception as error:  # on weights of other kinds spandrel raises whatever it runs into
        raise ThirdPartyModelError(
            f"{path}: does not hold a network that spandrel knows (for CodeFormer, whose licence is non-commercial: "
            "pip install spandrel_extra_arches)"
        ) from error
    if not has_numbers:
        raise ThirdPartyModelError(f"{path}: is damaged: its weights are all zero, or integers")
    if not isinstance(network, spandrel.ImageModelDescriptor):
        raise ThirdPartyModelError(f"{path}: is a {network.architecture.name} network, which needs several inputs")
    return network


def _add_codeformer() -> None:
    try:
        extra = importlib.import_module("spandrel_extra_arches")
    except ImportError:
        return
    extra.install(ignore_duplicates=True)


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        is_pickle = path.suffix != ".safetensors"
        weights = torch.load(path, "cpu", weights_only=True) if is_pickle else load_file(path)
    except Exception as error:  # pickle, zipfile, safetensors and torch each have their own
        raise ThirdPartyModelError(
            f"{path}: is not a plain weights file of named tensors ({type(error).__name__})"
        ) from error
    if not isinstance(weights, dict):
        raise ThirdPartyModelError(f"{path}: is not a plain weights file of named tensors ({type(weights).__name__})")
    return weights
