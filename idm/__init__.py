"""IDM: iterative diffusion models for blind face restoration (Zhao et al., ICCV 2023)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from idm.restorers.pipeline import IDMPipeline

__version__ = "0.1.0"
__all__ = ["IDMPipeline", "__version__"]


def __getattr__(name: str) -> Any:
    """``from idm import IDMPipeline``, imported when it is asked for: torch and diffusers take seconds."""
    if name == "IDMPipeline":
        from idm.restorers.pipeline import IDMPipeline

        return IDMPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
