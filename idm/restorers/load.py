"""Any restorer from its path: an IDM, one that another installed package provides, or a weights file for spandrel."""

from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import torch

from idm.io.atomic import sha256
from idm.io.errors import InvalidInput
from idm.io.weights import find_weights
from idm.restorers.idm import IDM
from idm.restorers.names import PUBLISHED
from idm.restorers.protocol import Restorer
from idm.restorers.saved import BUNDLED, ModelError, is_idm, load_idm
from idm.restorers.third_party import load_third_party

ENTRY_POINTS = "idm.restorers"

Setting = str | int | float


@dataclass(frozen=True)
class Loaded:
    """A restorer with the facts that tables state: its name, parameters, weights and settings."""

    restorer: Restorer
    metadata: dict[str, Setting]


class Opener(Protocol):
    """The type of an entry point in the group "idm.restorers": opens a path of its own kind, and returns None for
    others."""

    def __call__(self, path: Path, device: torch.device, dtype: torch.dtype) -> Loaded | None:
        """The restorer of the path, or None if the path is of another kind."""
        ...


def load_restorer(model: str | Path | None, device: torch.device, dtype: torch.dtype) -> Loaded:
    """Load a restorer by its path or name.

    Args:
        model: a training run, a saved model, a weights file, or a name: ``idm``, a bundled model, or one of
            :data:`~idm.restorers.names.PUBLISHED`; None is the default model, like ``idm``.

    Raises:
        FileNotFoundError: the published weights are missing; says where to put them.
        ModelError, ThirdPartyModelError: it cannot be loaded; the message begins with the path.

    Example:
        >>> loaded = idm.load_restorer("idm-faces-128", torch.device("cpu"), torch.float32)
        >>> loaded.restorer.restore(torch.rand(1, 3, 128, 128), seeds=[0]).shape
        torch.Size([1, 3, 128, 128])
    """
    path = None if model is None else Path(model)
    if path is None or is_idm(path):
        idm = load_idm(path, device, dtype)
        return Loaded(idm, describe(idm))
    if str(path) in PUBLISHED and not path.exists():
        path = find_weights(PUBLISHED[str(path)])
    if not path.exists():
        raise ModelError(f"{path}: no such file or folder; name a training run, a saved model or a weights file")
    for entry in entry_points(group=ENTRY_POINTS):
        opener: Opener = entry.load()
        loaded = opener(path, device, dtype)
        if loaded is not None:
            return loaded
    if path.is_dir():
        raise ModelError(
            f"{path}: does not hold a model: neither a training run with a checkpoint nor a saved pipeline"
        )
    third_party = load_third_party(path, device)
    network = third_party.descriptor
    return Loaded(
        third_party,
        {
            "name": f"{network.architecture.name} ({path.name})",
            "weights_sha256": sha256(path),
            "image_size": third_party.image_size,
            "parameters": sum(p.numel() for p in network.model.parameters()),
        },
    )


def load_with_steps(model: str, device: torch.device, dtype: torch.dtype) -> Loaded:
    """:func:`load_restorer` for a path or name that may end with the number of steps of an IDM's chain, as in idm@4.

    Raises:
        InvalidInput: the restorer has no chain, or its chain cannot have these steps.
        FileNotFoundError, ModelError, ThirdPartyModelError: as :func:`load_restorer`.
    """
    name, steps = split_steps(model)
    loaded = load_restorer(name, device, dtype)
    if steps is None:
        return loaded
    if not isinstance(loaded.restorer, IDM):
        raise InvalidInput(f"{model}: has no sampling chain; @STEPS is for IDM")
    try:
        loaded.restorer.chain = loaded.restorer.chain.changed(num_steps=steps)
    except ValueError as error:
        raise InvalidInput(f"{model}: {error}") from None
    return Loaded(loaded.restorer, describe(loaded.restorer))


def split_steps(name: str) -> tuple[str, int | None]:
    """(name, steps) of ``name@steps``; a path that exists is taken as it is."""
    before, at, steps = name.rpartition("@")
    if at and steps.isdigit() and not Path(name).exists():
        return before, int(steps)
    return name, None


def describe(model: IDM) -> dict[str, Setting]:
    """The facts that tables state about a loaded IDM."""
    assert model.origin is not None
    folder = model.origin.folder
    bundled = {path: name for name, path in BUNDLED.items()}
    return {"name": bundled.get(folder, folder.as_posix()), **model.metadata()}
