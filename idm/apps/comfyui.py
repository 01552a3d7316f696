"""A node for ComfyUI. It needs nothing but IDM in ComfyUI's environment and, as ``custom_nodes/idm_faces.py``, the line

from idm.apps.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
"""

from typing import Any, get_args, get_type_hints

import numpy as np
import torch
from jaxtyping import Float, UInt16
from torch import Tensor

from idm.apps.photo.api import load_photo_restorer, restore_photo
from idm.apps.photo.face import FaceReport
from idm.apps.photo.settings import PhotoSettings

_LEVELS = np.iinfo(np.uint16).max
_NO_LIMIT = -1.0  # of min_identity: no cosine is below it


def _choices(name: str) -> list[str]:
    """The values of a setting, as texts."""
    return [str(value) for value in get_args(get_type_hints(PhotoSettings)[name])]


class RestoreFaces:
    """Restores the faces of each picture of a batch, as ``idm restore`` does with the settings of the same names."""

    CATEGORY = "image/postprocessing"
    RETURN_TYPES = ("IMAGE", "STRING")
    RETURN_NAMES = ("image", "report")
    FUNCTION = "restore"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs, in ComfyUI's form."""
        limit = {"default": _NO_LIMIT, "min": _NO_LIMIT, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "image": ("IMAGE",),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**32 - 1}),
                "change": (_choices("change"),),
                "turn": (_choices("turn"),),
                "detail": (_choices("detail"),),
                "grain": ("FLOAT", {"default": PhotoSettings.grain, "min": 0.0, "max": 1.0, "step": 0.05}),
                "grayscale": (_choices("grayscale"),),
                "min_identity": ("FLOAT", limit),
            },
            "optional": {"model": ("STRING", {"default": ""})},
        }

    def restore(
        self,
        image: Float[Tensor, "b h w 3"],
        seed: int,
        change: str,
        turn: str,
        detail: str,
        grain: float,
        grayscale: str,
        min_identity: float,
        model: str = "",
    ) -> tuple[Float[Tensor, "b h w 3"], str]:
        """The pictures with their faces restored, and a line for each face.

        Args:
            image: levels in [0, 1]; they are rounded to 16 bits.
            min_identity: -1 sets no limit; other values need the weights of the identity network.
            model: a run, a saved model or a bundled model; empty is the default bundled model.
        """
        settings = PhotoSettings(
            seed=seed,
            change=change,  # type: ignore[arg-type]
            turn="auto" if turn == "auto" else int(turn),  # type: ignore[arg-type]
            detail=detail,  # type: ignore[arg-type]
            grain=grain,
            grayscale=grayscale,  # type: ignore[arg-type]
            min_identity=None if min_identity == _NO_LIMIT else min_identity,
        )
        restorer = load_photo_restorer(model or None)
        pictures, lines = [], []
        for index, picture in enumerate(image):
            result = restore_photo(_levels(picture), settings, restorer=restorer)
            pictures.append(torch.from_numpy(result.photo.pixels.astype(np.float32) / _LEVELS))
            lines += [f"picture {index}, {_line(face)}" for face in (*result.faces, *result.left_alone)]
        return torch.stack(pictures), "\n".join(lines)


def _levels(picture: Float[Tensor, "h w 3"]) -> UInt16[np.ndarray, "h w 3"]:
    return np.rint(picture.clamp(0, 1).cpu().numpy() * np.float32(_LEVELS)).astype(np.uint16)


def _line(face: FaceReport) -> str:
    identity = "" if face.identity is None else f", identity {face.identity:.2f}"
    return f"face {face.number}: {face.state}{identity}{f', {face.note}' if face.note else ''}"


NODE_CLASS_MAPPINGS = {"IDMRestoreFaces": RestoreFaces}
NODE_DISPLAY_NAME_MAPPINGS = {"IDMRestoreFaces": "Restore faces (IDM)"}
