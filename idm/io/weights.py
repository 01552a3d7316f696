"""Third-party weights files: finding, checking and reading them. :mod:`idm.io.known_weights` lists them, and
:mod:`idm.io.fetch` downloads them on request."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idm.io.atomic import sha256
from idm.io.errors import InvalidInput
from idm.io.known_weights import KNOWN, Checkpoint, WeightsFile


class WeightsError(InvalidInput):
    """Weights cannot be read or written; the message begins with their path."""


def find_weights(filename: str, explicit: Path | None = None, also: Sequence[Path] = ()) -> Path:
    """The path of a weights file.

    Args:
        filename: its name, possibly below a folder, such as ``pyiqa/niqe_modelparameters.mat``; it is accepted with and
            without that folder.
        explicit: the file itself or a folder that holds it. When given, no other place is tried.
        also: folders where other libraries keep this file, tried last.

    Without ``explicit`` the places are ``$IDM_HOME/weights`` (IDM_HOME defaults to ``~/.cache/idm``), then
    ``$IDM_ASSETS/weights``, then ``also``.

    Raises:
        FileNotFoundError: states what the file is, its terms, the searched folders and where to put it.
    """
    folders = weights_folders(explicit, also)
    path = look_up(filename, folders)
    if path is None:
        raise missing_weights(filename, folders, folders[0])
    return path


def home() -> Path:
    """The user's folder for weights and for cached results: ``$IDM_HOME``, else ``~/.cache/idm``."""
    given = os.environ.get("IDM_HOME")
    return Path(given) if given else Path.home() / ".cache" / "idm"


def weights_folders(explicit: Path | None = None, also: Sequence[Path] = ()) -> list[Path]:
    """The folders that :func:`find_weights` searches, in order; a missing file belongs into the first."""
    if explicit is not None:
        return [explicit]
    folders = [home() / "weights"]
    if assets := os.environ.get("IDM_ASSETS"):
        folders.append(Path(assets) / "weights")
    return [*folders, *also]


def look_up(filename: str, folders: Sequence[Path]) -> Path | None:
    """The file in the first of these places that has it; a place may be the file itself."""
    for place in folders:
        for candidate in (place, place / filename, place / Path(filename).name):
            if candidate.is_file():
                return candidate
    return None


def flaw(path: Path, known: WeightsFile) -> str | None:
    """How a file differs from the known one in size or checksum; None if it does not."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        return f"has {size} bytes, not {known.size}: cut short, or another copy"
    if known.sha256 is not None:
        digest = sha256(path)
        if not digest.startswith((known.sha256, *known.copies)):
            return f"has sha256 {digest}, not {known.sha256}: damaged, or another copy"
    return None


def missing_weights(filename: str, looked_in: Sequence[Path], put_into: Path) -> FileNotFoundError:
    """The error for a missing weights file."""
    name = Path(filename).name
    places = ", ".join(str(folder) for folder in looked_in)
    known = KNOWN.get(name)
    note = f" {known.what}; {known.licence}: {known.url}." if known else ""
    elsewhere = "" if put_into == weights_folders()[0] else f" --weights-dir {put_into}"
    fetch = f" `idm weights fetch {name}{elsewhere}` downloads it." if known else ""
    return FileNotFoundError(
        f"{name}: weights file not found (looked in {places}).{note} "
        f"Put it into {put_into}; nothing is downloaded automatically.{fetch}"
    )


def read_weights(path: Path, entries: Sequence[str] = ("params_ema", "params")) -> Mapping[str, Tensor]:
    """Read the weights of a ``.safetensors`` file or of a file from ``torch.save``.

    Args:
        entries: keys under which ``torch.save`` may have stored the weights; the first that exists is used, else the
            whole file.

    Raises:
        WeightsError: the file is broken, holds something else, or a weight is not finite.
    """
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickle(path, entries)
    except Exception as error:  # pickle, zipfile, safetensors and torch each have their own
        raise WeightsError(f"{path}: is not a complete weights file ({_reason(error)})") from error
    if not (isinstance(content, dict) and all(isinstance(weight, Tensor) for weight in content.values())):
        raise WeightsError(f"{path}: does not hold named weights")
    if nameless := [name for name in content if not isinstance(name, str)]:
        raise WeightsError(f"{path}: does not hold named weights, the first is called {nameless[0]!r}")
    if broken := [name for name, weight in content.items() if not torch.isfinite(weight).all()]:
        raise WeightsError(
            f"{path}: holds numbers that are not finite, in {len(broken)} of {len(content)} weights, first {broken[0]}"
        )
    return content


def _unpickle(path: Path, entries: Sequence[str]) -> Any:
    """What ``torch.save`` wrote, or the part of it under an entry."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in entries:
        if isinstance(content, dict) and key in content:
            return content[key]
    return content


def convert(path: Path, checkpoint: Checkpoint, target: Path) -> None:
    """Save a checkpoint's entry of weights with safetensors.

    Raises:
        WeightsError: the file is broken or has no such entry.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        weights = {name: weight.contiguous() for name, weight in content[checkpoint.entry].items()}
        save_file(weights, target, metadata={"source": checkpoint.source})
    except Exception as error:  # pickle, zipfile, safetensors and torch each have their own
        raise WeightsError(f"{path}: holds no weights under {checkpoint.entry!r} ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def fill(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights that were read from ``path`` into a network, strictly.

    Raises:
        WeightsError: they are those of another network.
    """
    if found := difference(network, weights):
        raise WeightsError(f"{path}: does not hold the weights of this {type(network).__name__}: {found}")
    network.load_state_dict(weights)


def difference(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """How the names, shapes or kinds of weights differ from those of a network; None if they do not."""
    wanted = {name: _kind(weight) for name, weight in network.state_dict().items()}
    found = {name: _kind(weight) for name, weight in weights.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if not wrong:
        return None
    first = wrong[0]
    return (
        f"{len(wrong)} of {len(wanted)} weights differ, first {first} "
        f"({found.get(first, 'nothing')} instead of {wanted.get(first, 'nothing')})"
    )


def _kind(weight: Tensor) -> str:
    shape = "x".join(map(str, weight.shape)) or "a single number"
    return shape if weight.is_floating_point() else f"{shape} of integers"
