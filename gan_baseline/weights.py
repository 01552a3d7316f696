"""Weights files of GFP-GAN: load published files and our own, save our own, export in the published format."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gan_baseline.equalised import fold, is_equalised
from gan_baseline.gfpgan import GFPGAN
from idm.io.atomic import sync
from idm.io.weights import WeightsError, difference, read_weights

PUBLISHED = {
    "image_size": 512,
    "num_style_feat": 512,
    "channel_multiplier": 2,
    "num_mlp": 8,
    "narrow": 1.0,
    "sft_half": True,
    "smooth": False,
}
"""The architecture of v1.2, v1.3 and v1.4."""


def load_gfpgan(path: Path) -> GFPGAN:
    """Load GFP-GAN from a weights file, in float32 on the CPU.

    Args:
        path: a published ``.pth`` (v1 to v1.4, or a file of :func:`export_gfpgan`; 512 px, the shapes determine the
            channel multiplier), or a ``.safetensors`` of :func:`save_gfpgan`, which states its architecture.

    Raises:
        WeightsError: the file does not exist, is damaged or holds other weights, or names and shapes do not fit the
            architecture.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; nothing is downloaded automatically")
    match path.suffix:
        case ".pth":
            weights = read_weights(path)
            smooth = is_equalised(weights)  # true for v1, the first release
            weights = fold(weights) if smooth else weights
            first = weights.get("conv_body_first.weight")
            if first is None:
                raise WeightsError(f"{path}: does not hold GFP-GAN weights (conv_body_first.weight is missing)")
            architecture = {**PUBLISHED, "channel_multiplier": _multiplier(first), "smooth": smooth}
        case ".safetensors":
            architecture, weights = _read_safetensors(path)
        case other:
            raise WeightsError(f"{path}: unknown suffix {other!r}; expected .pth or .safetensors")
    return _build(path, architecture, weights)


def _multiplier(first: Tensor) -> int:
    """Read the channel multiplier of a 512 px network off the U-Net's first weights; 1 if the shape fits none."""
    return max(1, (first.shape[0] if first.ndim else 0) // 16)


def holds_gfpgan(path: Path) -> bool:
    """Return whether a file holds GFP-GAN weights; False for damaged and unrelated files."""

    def begins_like_one(names: Iterable[str]) -> bool:
        return any(name.startswith("conv_body_first.") for name in names)

    try:
        match path.suffix:
            case ".pth":
                return begins_like_one(read_weights(path))
            case ".safetensors":
                with safe_open(path, framework="pt") as file:
                    return begins_like_one(file.keys())
    except (WeightsError, SafetensorError, OSError):
        pass
    return False


def save_gfpgan(model: GFPGAN, path: Path) -> None:
    """Write weights and architecture to a ``.safetensors`` file atomically.

    Raises:
        WeightsError: the path has another suffix, or the file cannot be written.
    """
    metadata = {"format": "pt", "architecture": json.dumps(model.architecture)}
    _write(path, ".safetensors", lambda draft: save_file(_weights(model), draft, metadata))


def export_gfpgan(model: GFPGAN, path: Path) -> None:
    """Write a ``.pth`` in the published format, for spandrel, chaiNNer, ComfyUI and GFPGAN's own program.

    These programs assume the published architecture, so only models of that architecture can be exported.

    Raises:
        WeightsError: the model has another architecture, the path has another suffix, or the file cannot be written.
    """
    if differing := {name: value for name, value in model.architecture.items() if value != PUBLISHED[name]}:
        wanted = {name: PUBLISHED[name] for name in differing}
        raise WeightsError(
            f"{path}: cannot be exported: programs that read this format assume {wanted}, and this model has "
            f"{differing}; save it as .safetensors"
        )
    _write(path, ".pth", lambda draft: torch.save({"params_ema": _weights(model)}, draft))


def _weights(model: GFPGAN) -> dict[str, Tensor]:
    return {name: weight.detach().cpu().contiguous() for name, weight in model.state_dict().items()}


def _read_safetensors(path: Path) -> tuple[dict[str, Any], Mapping[str, Tensor]]:
    weights = read_weights(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    return _architecture(path, metadata.get("architecture", "{}")), weights


def _architecture(path: Path, text: str) -> dict[str, Any]:
    """Parse and check the arguments of :class:`~gan_baseline.gfpgan.GFPGAN` in a file's metadata."""
    try:
        named = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: its architecture is not JSON ({error})") from error
    if isinstance(named, dict):
        named.setdefault("smooth", False)  # missing in files from before this option existed
    if not isinstance(named, dict) or named.keys() != PUBLISHED.keys():
        raise WeightsError(f"{path}: does not state its architecture; write it with save_gfpgan")
    for name, example in PUBLISHED.items():
        value, wanted = named[name], type(example)
        if wanted is float and type(value) is int:
            value = named[name] = float(value)
        if type(value) is not wanted or (wanted is not bool and not 0 < value < 1e5):
            expected = "bool" if wanted is bool else f"{wanted.__name__} above 0"
            raise WeightsError(f"{path}: its architecture has {name} {value!r}, expected {expected}")
    return named


def _build(path: Path, architecture: dict[str, Any], weights: Mapping[str, Tensor]) -> GFPGAN:
    try:
        with torch.device("meta"):
            model = GFPGAN(**architecture)
    except ValueError as error:
        raise WeightsError(f"{path}: its architecture is impossible: {error}") from error
    if found := difference(model, weights):
        raise WeightsError(f"{path}: its weights do not fit the architecture {architecture}: {found}")
    if not any(weight.any() for weight in weights.values()):
        raise WeightsError(f"{path}: is damaged: all weights are zero")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    return model


def _write(path: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Write a draft beside the target, flush it to disk, and rename it."""
    if path.suffix != suffix:
        raise WeightsError(f"{path}: unknown suffix {path.suffix!r}; expected {suffix}")
    draft = path.with_name(f".{path.name}.part")
    try:
        write(draft)
        sync(draft)
        draft.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors have own errors for a full disk
        draft.unlink(missing_ok=True)
        raise WeightsError(f"{path}: cannot be written ({error})") from error
