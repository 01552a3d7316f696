"""IDM: iterative diffusion models for blind face restoration (Zhao et al., ICCV 2023)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idm.apps.photo.api import load_photo_restorer, restore_folder, restore_photo
    from idm.apps.photo.settings import PhotoSettings
    from idm.restorers.pipeline import IDMPipeline

__version__ = "0.1.0"
__all__ = ["IDMPipeline", "PhotoSettings", "__version__", "load_photo_restorer", "restore_folder", "restore_photo"]

_WHERE = {
    "IDMPipeline": "idm.restorers.pipeline",
    "PhotoSettings": "idm.apps.photo.settings",
    "load_photo_restorer": "idm.apps.photo.api",
    "restore_folder": "idm.apps.photo.api",
    "restore_photo": "idm.apps.photo.api",
}


def __getattr__(name: str) -> Any:
    """``from idm import IDMPipeline``, imported on first use, since torch and diffusers take seconds."""
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
