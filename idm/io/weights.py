"""Third-party weights files: what each is, its terms, and where it is searched. :mod:`idm.io.fetch` downloads them on
request."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from idm.io.errors import InvalidInput


class WeightsError(InvalidInput):
    """Weights cannot be read or written; the message begins with their path."""


@dataclass(frozen=True)
class Checkpoint:
    """What a weights file is made of: the weights under ``entry`` of the checkpoint at ``url``, saved with
    safetensors and this note on their ``source``."""

    url: str
    entry: str
    source: str


@dataclass(frozen=True)
class WeightsFile:
    """A file that the user can get from ``url``, or make of the checkpoint there.

    ``sha256`` is the file's checksum, as we or the projects that pin it measured it; the first digits of it if the
    file's name ends with them, as torch's hub names files; or None. ``copies`` are checksums of other files with the
    same use. ``size`` is in bytes.
    """

    what: str
    licence: str
    url: str
    sha256: str | None = None
    size: int | None = None
    copies: tuple[str, ...] = ()
    made_of: Checkpoint | None = None

    @property
    def file_url(self) -> str:
        """Of the file to download."""
        return self.made_of.url if self.made_of else self.url


KNOWN = {
    "detection_mobilenet0.25_Final.pth": WeightsFile(
        "RetinaFace detector with a MobileNet-0.25 backbone (our copy: github.com/m2man/Pytorch_Retinaface)",
        "MIT (Pytorch_Retinaface)",
        "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_mobilenet0.25_Final.pth",
        "2979b33ffafda5d74b6948cd7a5b9a7a62f62b949cef24e95fd15d2883a65220",
        1789735,
        copies=("38ec7bb3c9cbfe2f40edabc05fab970a6d648747cbc534092be85d5eb9b37ed0",),
    ),
    "detection_Resnet50_Final.pth": WeightsFile(
        "RetinaFace detector with a ResNet-50 backbone",
        "MIT (Pytorch_Retinaface)",
        "https://github.com/xinntao/facexlib/releases/download/v0.1.0/detection_Resnet50_Final.pth",
        "6d1de9c2944f2ccddca5f5e010ea5ae64a39845a86311af6fdf30841b0a5a16d",
        109497761,
    ),
    "mobilefacenet_casia.safetensors": WeightsFile(
        "MobileFaceNet face embedding trained on CASIA-WebFace: the net_state_dict of model/best/068.ckpt, saved "
        "with safetensors",
        "research use only (no licence stated; CASIA-WebFace is for research)",
        "https://github.com/Xiaoccer/MobileFaceNet_Pytorch",
        "ed54d66f2bcf743964ab5bbc9ecfaea26b76253b43349ed6e7ef1367a74fc505",
        4106928,
        made_of=Checkpoint(
            "https://github.com/Xiaoccer/MobileFaceNet_Pytorch/raw/master/model/best/068.ckpt",
            "net_state_dict",
            "Xiaoccer/MobileFaceNet_Pytorch model/best/068.ckpt",
        ),
    ),
    "niqe_modelparameters.mat": WeightsFile(
        "NIQE's model of pristine images, as pyiqa distributes it",
        "no terms of its own stated",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/niqe_modelparameters.mat",
        "abf53b7b11fd5f20900d91d8e804450d7cb3665b356828aea1bd64c7085d2d8b",
        10928,
    ),
    "alexnet-owt-7be5be79.pth": WeightsFile(
        "AlexNet trunk of LPIPS, trained on ImageNet",
        "BSD-3-Clause (torchvision)",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "7be5be79",
    ),
    "pt_inception-2015-12-05-6726825d.pth": WeightsFile(
        "Inception network of FID, trained on ImageNet",
        "Apache-2.0 (pytorch-fid)",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/pt_inception-2015-12-05-6726825d.pth",
        "6726825d",
    ),
    "DISTS_weights-f5e65c96.pth": WeightsFile(
        "Weights of DISTS, as pyiqa distributes them",
        "MIT (DISTS)",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/DISTS_weights-f5e65c96.pth",
        "f5e65c96",
    ),
    "vgg16-397923af.pth": WeightsFile(
        "VGG-16 trunk of DISTS, trained on ImageNet",
        "BSD-3-Clause (torchvision)",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "397923af",
    ),
    "musiq_koniq_ckpt-e95806b9.pth": WeightsFile(
        "MUSIQ trained on KonIQ-10k, as pyiqa distributes it",
        "no terms of its own stated; pyiqa is non-commercial",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/musiq_koniq_ckpt-e95806b9.pth",
        "e95806b9",
    ),
    "ckpt_koniq10k.pt": WeightsFile(
        "MANIQA trained on KonIQ-10k, as pyiqa distributes it",
        "no terms of its own stated; pyiqa is non-commercial",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/ckpt_koniq10k.pt",
    ),
    "RN50.pt": WeightsFile(
        "CLIP with the ResNet-50 image encoder",
        "MIT (CLIP)",
        "https://openaipublic.azureedge.net/clip/models/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/RN50.pt",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    ),
    "topiq_nr_cgfiqa_res50-0a8b8e4f.pth": WeightsFile(
        "TOPIQ for faces, trained on CGFIQA, as pyiqa distributes it",
        "no terms of its own stated; pyiqa is non-commercial",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/topiq_nr_cgfiqa_res50-0a8b8e4f.pth",
        "0a8b8e4f",
    ),
    "parsing_parsenet.pth": WeightsFile(
        "Face parser that pyiqa builds with TOPIQ for faces, as facexlib distributes it",
        "no terms of its own stated",
        "https://github.com/xinntao/facexlib/releases/download/v0.2.2/parsing_parsenet.pth",
    ),
    "GFPGANv1.4.pth": WeightsFile(
        "GFP-GAN v1.4, a face restorer trained on FFHQ",
        "Apache-2.0, parts under NVIDIA's StyleGAN2 licence, non-commercial (its LICENSE); FFHQ's own terms",
        "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.0/GFPGANv1.4.pth",
        "e2cd4703ab14f4d01fd1383a8a8b266f9a5833dacee8e6a79d3bf21a1b6be5ad",
        348632874,
    ),
    "codeformer.pth": WeightsFile(
        "CodeFormer, a face restorer trained on FFHQ",
        "S-Lab License 1.0, non-commercial; FFHQ's own terms",
        "https://github.com/sczhou/CodeFormer/releases/download/v0.1.0/codeformer.pth",
        "1009e537e0c2a07d4cabce6355f53cb66767cd4b4297ec7a4a64ca4b8a5684b7",
        376637898,
    ),
    "RestoreFormer.pth": WeightsFile(
        "RestoreFormer, a face restorer trained on FFHQ, as TencentARC/GFPGAN distributes it",
        "see github.com/wzhouxiff/RestoreFormer; FFHQ's own terms",
        "https://github.com/TencentARC/GFPGAN/releases/download/v1.3.4/RestoreFormer.pth",
    ),
    "vgg19-dcbb9e9d.pth": WeightsFile(
        "VGG-19 of the baseline's perceptual loss, trained on ImageNet",
        "BSD-3-Clause (torchvision)",
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        "dcbb9e9d",
    ),
    "arcface_resnet18.pth": WeightsFile(
        "ArcFace ResNet-18 of GFP-GAN's identity loss",
        "no terms of its own stated; treat as research only",
        "https://github.com/TencentARC/GFPGAN/releases/download/v0.1.0/arcface_resnet18.pth",
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
    folders = weights_folders(explicit, also)
    path = look_up(filename, folders)
    if path is None:
        raise missing_weights(filename, folders, folders[0])
    return path


def weights_folders(explicit: Path | None = None, also: Sequence[Path] = ()) -> list[Path]:
    """Where :func:`find_weights` looks, in order; the first is where a missing file is to be put."""
    if explicit is not None:
        return [explicit]
    home = os.environ.get("IDM_HOME")
    folders = [(Path(home) if home else Path.home() / ".cache" / "idm") / "weights"]
    if assets := os.environ.get("IDM_ASSETS"):
        folders.append(Path(assets) / "weights")
    return [*folders, *also]


def look_up(filename: str, folders: Sequence[Path]) -> Path | None:
    """The first of these places that has the file; a place may be the file itself."""
    for place in folders:
        for candidate in (place, place / filename, place / Path(filename).name):
            if candidate.is_file():
                return candidate
    return None


def flaw(path: Path, known: WeightsFile) -> str | None:
    """How a file differs from the known one; None if it does not, as far as size and checksum are known."""
    size = path.stat().st_size
    if known.size is not None and size != known.size:
        return f"has {size} bytes, not {known.size}: cut short, or another copy"
    if known.sha256 is not None:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not digest.startswith((known.sha256, *known.copies)):
            return f"has sha256 {digest}, not {known.sha256}: damaged, or another copy"
    return None


def missing_weights(filename: str, looked_in: Sequence[Path], put_into: Path) -> FileNotFoundError:
    """The one error for a weights file that is not there."""
    name = Path(filename).name
    places = ", ".join(str(folder) for folder in looked_in)
    known = KNOWN.get(name)
    note = f" {known.what}; {known.licence}: {known.url}." if known else ""
    return FileNotFoundError(
        f"{name}: weights file not found (looked in {places}).{note} "
        f"Put it into {put_into}; nothing is downloaded automatically."
        + (f" `{fetch_command(name, put_into)}` downloads it." if known else "")
    )


def fetch_command(name: str, folder: Path) -> str:
    """The command that downloads a known file into a folder, if the user agrees."""
    elsewhere = "" if folder == weights_folders()[0] else f" --weights-dir {folder}"
    return f"idm weights fetch {name}{elsewhere}"


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The weights of a ``.safetensors`` file, or of one that ``torch.save`` wrote: those under "params_ema" or
    "params", where there are such.

    Raises:
        WeightsError: the file is broken, holds something else, or a weight is not finite.
    """
    try:
        content: Any = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except Exception as error:  # pickle, zipfile, safetensors and torch each have their own
        raise WeightsError(f"{path}: is not a complete weights file ({_reason(error)})") from error
    if not (isinstance(content, dict) and all(isinstance(weight, Tensor) for weight in content.values())):
        raise WeightsError(f"{path}: does not hold named weights")
    if nameless := [name for name in content if not isinstance(name, str)]:
        raise WeightsError(f"{path}: does not hold named weights, the first is called {nameless[0]!r}")
    if broken := [name for name, weight in content.items() if not torch.isfinite(weight).all()]:
        raise WeightsError(
            f"{path}: holds numbers that are not finite, in {len(broken)} of {len(content)} weights, first {broken[0]}"
        )
    return content


def _unpickle(path: Path) -> Any:
    """What ``torch.save`` wrote, or the part of it that GFP-GAN's programs read."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("params_ema", "params"):
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
    """Give a network weights that were read from ``path``: all of its, and no others.

    Raises:
        WeightsError: they are those of another network.
    """
    if found := difference(network, weights):
        raise WeightsError(f"{path}: does not hold the weights of this {type(network).__name__}: {found}")
    network.load_state_dict(weights)


def difference(network: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """How names and shapes of weights differ from those of a network; None if they do not."""
    wanted = {name: weight.shape for name, weight in network.state_dict().items()}
    found = {name: weight.shape for name, weight in weights.items()}
    wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if not wrong:
        return None
    first = wrong[0]
    return (
        f"{len(wrong)} of {len(wanted)} weights differ, first {first} "
        f"({_shape(found.get(first))} instead of {_shape(wanted.get(first))})"
    )


def _shape(shape: torch.Size | None) -> str:
    if shape is None:
        return "nothing"
    return "x".join(map(str, shape)) or "a single number"
