"""Weights of GFP-GAN: the published files, our own, and ours for programs that read the published ones."""

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
    """GFP-GAN with the weights of a file, in float32 on the CPU.

    Args:
        path: a published ``.pth`` (v1 to v1.4, or one of :func:`export_gfpgan`; 512 px, the channel multiplier is
            read off its shapes), or a ``.safetensors`` of :func:`save_gfpgan`, which names its architecture.

    Raises:
        WeightsError: no such file, no weights of this kind, or names and shapes that differ from the architecture's.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; nothing is downloaded automatically")
    match path.suffix:
        case ".pth":
            weights = read_weights(path)
            smooth = is_equalised(weights)  # v1, the first release
            weights = fold(weights) if smooth else weights
            first = weights.get("conv_body_first.weight")
            if first is None:
                raise WeightsError(f"{path}: is not a GFP-GAN (conv_body_first.weight is missing)")
            architecture = {**PUBLISHED, "channel_multiplier": _multiplier(first), "smooth": smooth}
        case ".safetensors":
            architecture, weights = _read_safetensors(path)
        case other:
            raise WeightsError(f"{path}: unknown suffix {other!r}; .pth or .safetensors wanted")
    return _build(path, architecture, weights)


def _multiplier(first: Tensor) -> int:
    """The channel multiplier of a U-Net for 512 px whose first weights these are; 1 if they cannot be."""
    return max(1, (first.shape[0] if first.ndim else 0) // 16)


def holds_gfpgan(path: Path) -> bool:
    """Whether a file is a GFP-GAN's; broken files and those of others are not."""

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
    """Write weights and architecture to a ``.safetensors`` file, whole or not at all.

    Raises:
        WeightsError: another suffix, or the file cannot be written.
    """
    metadata = {"format": "pt", "architecture": json.dumps(model.architecture)}
    _write(path, ".safetensors", lambda draft: save_file(_weights(model), draft, metadata))


def export_gfpgan(model: GFPGAN, path: Path) -> None:
    """Write a ``.pth`` like the published ones, for spandrel, chaiNNer, ComfyUI and GFPGAN's own program.

    Those take the architecture of the published files for granted, so no other can be exported.

    Raises:
        WeightsError: another architecture or suffix, or the file cannot be written.
    """
    if differing := {name: value for name, value in model.architecture.items() if value != PUBLISHED[name]}:
        wanted = {name: PUBLISHED[name] for name in differing}
        raise WeightsError(
            f"{path}: cannot be exported, the programs that read this format take {wanted} for granted and "
            f"this model has {differing}; keep it as .safetensors"
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
    """The arguments of :class:`~gan_baseline.gfpgan.GFPGAN`, each of its type, as the metadata of a file say them."""
    try:
        named = json.loads(text)
    except ValueError as error:
        raise WeightsError(f"{path}: its architecture is not JSON ({error})") from error
    if isinstance(named, dict):
        named.setdefault("smooth", False)  # files that were written before there was a choice
    if not isinstance(named, dict) or named.keys() != PUBLISHED.keys():
        raise WeightsError(f"{path}: does not state its architecture; write it with save_gfpgan")
    for name, example in PUBLISHED.items():
        value, wanted = named[name], type(example)
        if wanted is float and type(value) is int:
            value = named[name] = float(value)
        if type(value) is not wanted or (wanted is not bool and not 0 < value < 1e5):
            raise WeightsError(f"{path}: its architecture has {name} {value!r}, which is no {wanted.__name__} above 0")
    return named


def _build(path: Path, architecture: dict[str, Any], weights: Mapping[str, Tensor]) -> GFPGAN:
    try:
        with torch.device("meta"):
            model = GFPGAN(**architecture)
    except ValueError as error:
        raise WeightsError(f"{path}: its architecture is impossible: {error}") from error
    if found := difference(model, weights):
        raise WeightsError(f"{path}: holds another architecture than {architecture}: {found}")
    if not any(weight.any() for weight in weights.values()):
        raise WeightsError(f"{path}: is damaged: all weights are zero")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    return model


def _write(path: Path, suffix: str, write: Callable[[Path], None]) -> None:
    """Write beside the target, force it to the disk, rename."""
    if path.suffix != suffix:
        raise WeightsError(f"{path}: unknown suffix {path.suffix!r}; {suffix} wanted")
    draft = path.with_name(f".{path.name}.part")
    try:
        write(draft)
        sync(draft)
        draft.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors report a full disk by their own
        draft.unlink(missing_ok=True)
        raise WeightsError(f"{path}: cannot be written ({error})") from error
