"""Third-party weights files: finding, checking and reading them. :mod:`idm.io.known_weights` lists them, and
:mod:`idm.io.fetch` downloads them on request."""

import os
import shlex
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


# Folders of libraries, below a weights folder or below torch's hub, that may hold files.
_LIBRARIES = ("facexlib", "pyiqa", "checkpoints", "clip")


def find_weights(name: str, explicit: Path | None = None) -> Path:
    """The path of a weights file.

    Args:
        name: of the file.
        explicit: the file itself or a folder that holds it. When given, no other place is tried.

    Without ``explicit`` the places are those of :func:`weights_folders`.

    Raises:
        FileNotFoundError: states what the file is, its terms, the searched folders and the command that downloads it.
    """
    folders = weights_folders(explicit)
    path = path_of_weights(name, folders)
    if path is None:
        raise _missing(name, folders, explicit)
    return path


def home() -> Path:
    """The user's folder for weights and for cached results: ``$IDM_HOME``, else ``~/.cache/idm``."""
    given = os.environ.get("IDM_HOME")
    return Path(given) if given else Path.home() / ".cache" / "idm"


def weights_folders(explicit: Path | None = None) -> list[Path]:
    """The folders that :func:`find_weights` searches, in order; a missing file belongs into the first.

    They are ``explicit`` alone if it is given, else ``$IDM_HOME/weights`` (IDM_HOME defaults to ``~/.cache/idm``),
    ``$IDM_ASSETS/weights``, and the folder where torchvision and pyiqa keep their files, torch's hub.
    """
    if explicit is not None:
        return [explicit]
    folders = [home() / "weights"]
    if assets := os.environ.get("IDM_ASSETS"):
        folders.append(Path(assets) / "weights")
    return [*folders, Path(torch.hub.get_dir())]


def path_of_weights(name: str, folders: Sequence[Path]) -> Path | None:
    """Where a weights file is: in the first of these folders that has it, directly or below the name of a library. An
    entry of ``folders`` may be the file itself. None if none has it."""
    for place in folders:
        for candidate in (place, place / name, *(place / library / name for library in _LIBRARIES)):
            if candidate.is_file():
                return candidate
    return None


def fetch_command(names: Sequence[str], explicit: Path | None = None) -> str:
    """The command that downloads known weights files to where :func:`find_weights` finds them."""
    elsewhere = ["--weights-dir", str(explicit)] if explicit is not None else []
    return shlex.join(["idm", "weights", "fetch", *names, *elsewhere])


def flaw(path: Path, known: WeightsFile) -> str | None:
    """Return how a file differs from the known one in size or checksum; None if it does not."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        return f"has {size} bytes, not {known.size}: cut short, or another copy"
    if known.sha256 is not None:
        digest = sha256(path)
        if not digest.startswith((known.sha256, *known.copies)):
            return f"has sha256 {digest}, not {known.sha256}: damaged, or another copy"
    return None


def _missing(name: str, looked_in: Sequence[Path], explicit: Path | None) -> FileNotFoundError:
    places = ", ".join(str(folder) for folder in looked_in)
    known = KNOWN.get(name)
    note = f" {known.what}; {known.licence}: {known.url}." if known else ""
    fetch = f" `{fetch_command([name], explicit)}` downloads it." if known else ""
    return FileNotFoundError(
        f"{name}: weights file not found (looked in {places}).{note} "
        f"Put it into {looked_in[0]}; nothing is downloaded automatically.{fetch}"
    )


def read_weights(
    path: Path, entries: Sequence[str] = ("params_ema", "params"), single: str | None = None
) -> Mapping[str, Tensor]:
    """Read the weights of a ``.safetensors`` file or of a file from ``torch.save``.

    Args:
        entries: keys under which ``torch.save`` may have stored the weights; the first that exists is used, else the
            whole file.
        single: the name to give to the weight of a file that holds one tensor without a name.

    Raises:
        WeightsError: the file is broken, holds something else, or a weight is not finite.
    """
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickle(path, entries)
    except Exception as error:  # pickle, zipfile, safetensors and torch each have their own
        raise WeightsError(f"{path}: is not a complete weights file ({_reason(error)})") from error
    if single is not None and isinstance(content, Tensor):
        content = {single: content}
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
    """Return the object that ``torch.save`` wrote, or the part of it under an entry."""
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
    """Return how the names, shapes or kinds of weights differ from those of a network; None if they do not.

    BatchNorm's counts of batches may be missing: torch wrote none before version 0.4.1, and inference reads none.
    """
    wanted = {
        name: _kind(weight)
        for name, weight in network.state_dict().items()
        if name in weights or not name.endswith(".num_batches_tracked")
    }
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
