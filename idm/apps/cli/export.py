"""``idm export``."""

from dataclasses import replace

import torch

from idm import __version__
from idm.apps.cli.options.models import ExportOptions
from idm.io.errors import InvalidInput
from idm.io.machine import share_cores
from idm.restorers.export import OPSET, Exportable, Publishable, Quantisable, export_onnx
from idm.restorers.load import load_restorer


def export_command(options: ExportOptions) -> int:
    """``idm export``: 0 if the file was written; an ONNX file then computes what the model does, in int8 nearly."""
    share_cores(1)
    loaded = load_restorer(options.model, torch.device("cpu"), torch.float32)
    path = options.output
    if path.suffix == ".pth":
        if options.int8:
            raise InvalidInput("--int8 is for ONNX files, not for .pth")
        if not isinstance(loaded.restorer, Publishable):
            raise InvalidInput(f"{options.model or 'idm'}: has no .pth format; name an .onnx file or a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        loaded.restorer.publish(path)
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, for programs that read published weights of its kind")
        return 0
    if not isinstance(loaded.restorer, Exportable):
        raise InvalidInput(f"{options.model or 'idm'}: this kind of model cannot be exported")
    if not options.int8:
        graph = loaded.restorer.graph()
    elif isinstance(loaded.restorer, Quantisable):
        graph = loaded.restorer.int8_graph()
    else:
        raise InvalidInput(f"{options.model}: cannot be exported in int8; --int8 is for IDM")
    metadata = {name: str(value) for name, value in loaded.metadata.items() if name not in ("backend", "precision")}
    graph = replace(graph, metadata={"made_by": f"idm {__version__}", **metadata, **graph.metadata})
    if path.suffix != ".onnx":
        path = path / f"{graph.name}.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    difference = export_onnx(graph, path)
    print(
        f"{path}: {path.stat().st_size / 1e6:.1f} MB, opset {OPSET}, inputs {', '.join(graph.inputs)}; run by "
        f"ONNX Runtime it differs from PyTorch by at most {difference:.1e} of the output's largest value"
    )
    return 0
