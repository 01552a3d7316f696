"""IDM: iterative diffusion models for blind face restoration (Zhao et al., ICCV 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idm.apps.photo.api import load_photo_restorer, restore_folder, restore_photo
    from idm.apps.photo.settings import PhotoSettings
    from idm.diffusion.chain import Chain
    from idm.restorers.idm import IDM
    from idm.restorers.load import load_restorer
    from idm.restorers.pipeline import IDMPipeline
    from idm.restorers.saved import load_idm

__version__ = "0.1.0"
__all__ = [
    "IDM",
    "Chain",
    "IDMPipeline",
    "PhotoSettings",
    "__version__",
    "load_idm",
    "load_photo_restorer",
    "load_restorer",
    "restore_folder",
    "restore_photo",
]

_WHERE = {
    "IDM": "idm.restorers.idm",
    "Chain": "idm.diffusion.chain",
    "IDMPipeline": "idm.restorers.pipeline",
    "PhotoSettings": "idm.apps.photo.settings",
    "load_idm": "idm.restorers.saved",
    "load_photo_restorer": "idm.apps.photo.api",
    "load_restorer": "idm.restorers.load",
    "restore_folder": "idm.apps.photo.api",
    "restore_photo": "idm.apps.photo.api",
}


def __getattr__(name: str) -> Any:
    """``from idm import IDMPipeline``, imported on first use, since torch and diffusers take seconds."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
