"""The programs that run f_theta. Does not import torch."""

from typing import Literal

Exported = Literal["onnxruntime", "openvino"]
Backend = Literal["torch", Exported]
