"""Weights of GFP-GAN: the published files, our own, and ours for programs that read the published ones."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from gan_baseline.gfpgan import GFPGAN
from idm.io.atomic import sync

PUBLISHED = {
    "image_size": 512,
    "num_style_feat": 512,
    "channel_multiplier": 2,
    "num_mlp": 8,
    "narrow": 1.0,
    "sft_half": True,
}
"""The architecture of v1.2, v1.3 and v1.4."""


class WeightsError(ValueError):
    """Weights cannot be read or written; the message begins with their path."""


def load_gfpgan(path: Path) -> GFPGAN:
    """GFP-GAN with the weights of a file, in float32 on the CPU.

    Args:
        path: a published ``.pth`` (v1.2, v1.3, v1.4, or one of :func:`export_gfpgan`; 512 px, the channel multiplier
            is read off its shapes), or a ``.safetensors`` of :func:`save_gfpgan`, which names its architecture.

    Raises:
        WeightsError: no such file, no weights of this kind, or names and shapes that differ from the architecture's.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; nothing is downloaded automatically")
    match path.suffix:
        case ".pth":
            weights = read_weights(path)
            first = weights.get("conv_body_first.weight")
            if first is None:
                raise WeightsError(
                    f"{path}: is no GFP-GAN of the clean architecture (conv_body_first.weight is missing); "
                    "use v1.2, v1.3 or v1.4, the first release (GFPGANv1.pth) has another one"
                )
            architecture = {**PUBLISHED, "channel_multiplier": len(first) // 16}
        case ".safetensors":
            architecture, weights = _read_safetensors(path)
        case other:
            raise WeightsError(f"{path}: unknown suffix {other!r}; .pth or .safetensors wanted")
    return _build(path, architecture, weights)


def holds_gfpgan(path: Path) -> bool:
    """Whether a file is a GFP-GAN's, also one of the first release, which :func:`load_gfpgan` refuses and says why;
    broken files and those of others are not."""

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


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The weights of a ``.safetensors`` file, or of one that ``torch.save`` wrote: those under "params_ema" or
    "params", where there are such.

    Raises:
        WeightsError: the file is broken or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zipfile, safetensors and torch each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"{path}: is no whole file of weights ({reason})") from error
    for key in ("params_ema", "params"):
        if isinstance(content, dict) and key in content:
            content = content[key]
            break
    if not (isinstance(content, dict) and all(isinstance(weight, Tensor) for weight in content.values())):
        raise WeightsError(f"{path}: holds no weights by name")
    return content


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Give a network weights that were read from ``path``: all of its, and no others.

    Raises:
        WeightsError: they are those of another network.
    """
    if difference := _difference(network, weights):
        raise WeightsError(f"{path}: does not hold the weights of this {type(network).__name__}: {difference}")
    network.load_state_dict(weights)


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
    architecture = json.loads(metadata.get("architecture", "{}"))
    if architecture.keys() != PUBLISHED.keys():
        raise WeightsError(f"{path}: does not say its architecture; write it with save_gfpgan")
    return architecture, weights


def _build(path: Path, architecture: dict[str, Any], weights: Mapping[str, Tensor]) -> GFPGAN:
    with torch.device("meta"):
        model = GFPGAN(**architecture)
    if difference := _difference(model, weights):
        raise WeightsError(f"{path}: holds another architecture than {architecture}: {difference}")
    model.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
    return model


def _difference(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """How names and shapes of weights differ from those of a network; None if they do not."""
    wanted = {name: weight.shape for name, weight in network.state_dict().items()}
    found = {name: weight.shape for name, weight in weights.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if not wrong:
        return None
    first = wrong[0]
    return (
        f"{len(wrong)} of {len(wanted)} weights differ, first {first} "
        f"({_shape(found.get(first))} instead of {_shape(wanted.get(first))})"
    )


def _shape(shape: torch.Size | None) -> str:
    return "nothing" if shape is None else "x".join(map(str, shape))


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
