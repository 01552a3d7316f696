"""Names of restorers, and of the programs that run f_theta. Does not import torch."""

from typing import Literal

DEFAULT_NAME = "idm"
"""The default bundled model."""

PUBLISHED = {"gfpgan": "GFPGANv1.4.pth", "codeformer": "codeformer.pth", "restoreformer": "RestoreFormer.pth"}
"""Published weights files of other authors, by name."""

Exported = Literal["onnxruntime", "openvino"]
Backend = Literal["torch", Exported]
