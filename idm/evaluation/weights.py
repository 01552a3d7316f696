"""Where weights files are looked for. Nothing is ever downloaded."""

import os
from collections.abc import Sequence
from pathlib import Path

# What each file is, where it comes from and on what terms; shown when it is missing.
_NOTES = {
    "mobilefacenet_casia.safetensors": (
        "MobileFaceNet face embedding trained on CASIA-WebFace, research use only: the net_state_dict of "
        "model/best/068.ckpt in github.com/Xiaoccer/MobileFaceNet_Pytorch, saved with safetensors."
    ),
    "niqe_modelparameters.mat": (
        "NIQE's model of pristine images (pyiqa's file): "
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/niqe_modelparameters.mat."
    ),
    "alexnet-owt-7be5be79.pth": (
        "AlexNet trunk of LPIPS (torchvision, BSD; trained on ImageNet): "
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth."
    ),
    "pt_inception-2015-12-05-6726825d.pth": (
        "Inception network of FID (pytorch-fid, Apache-2.0; trained on ImageNet): https://huggingface.co/"
        "chaofengc/IQA-PyTorch-Weights/resolve/main/pt_inception-2015-12-05-6726825d.pth."
    ),
    "vgg19-dcbb9e9d.pth": (
        "VGG-19 of the perceptual loss (torchvision, BSD; trained on ImageNet): "
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth."
    ),
    "arcface_resnet18.pth": (
        "ArcFace ResNet-18 of GFP-GAN's identity loss (no terms of its own stated, treat as research only): "
        "https://github.com/TencentARC/GFPGAN/releases/download/v0.1.0/arcface_resnet18.pth."
    ),
    "detection_mobilenet0.25_Final.pth": (
        "RetinaFace detector with a MobileNet-0.25 backbone: "
        "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth."
    ),
}


def find_weights(filename: str, explicit: Path | None = None, also: Sequence[Path] = ()) -> Path:
    """The path of a weights file.

    Args:
        filename: its name, possibly below a folder, as ``pyiqa/niqe_modelparameters.mat``; in every place
            it is accepted with and without that folder.
        explicit: the file itself or a folder that holds it. When given, no other place is tried.
        also: folders where other libraries keep this file, tried last.

    Without ``explicit`` the places are ``$IDM_HOME/weights`` (IDM_HOME defaults to ``~/.cache/idm``), then
    ``$IDM_ASSETS/weights``, then ``also``.

    Raises:
        FileNotFoundError: says what the file is, its terms, where it was looked for and where to put it.
    """
    if explicit is not None:
        folders = [explicit]
        if explicit.is_file():
            return explicit
    else:
        folders = [_home(), *also]
        if assets := os.environ.get("IDM_ASSETS"):
            folders.insert(1, Path(assets) / "weights")
    for folder in folders:
        for candidate in (folder / filename, folder / Path(filename).name):
            if candidate.is_file():
                return candidate
    raise missing_weights(filename, folders, folders[0] if explicit is not None else _home())


def missing_weights(filename: str, looked_in: Sequence[Path], put_into: Path) -> FileNotFoundError:
    """The one error for a weights file that is not there."""
    name = Path(filename).name
    places = ", ".join(str(folder) for folder in looked_in)
    note = f" {_NOTES[name]}" if name in _NOTES else ""
    return FileNotFoundError(
        f"{name}: weights file not found (looked in {places}).{note} "
        f"Put it into {put_into}; nothing is downloaded automatically."
    )


def _home() -> Path:
    home = os.environ.get("IDM_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "idm") / "weights"
