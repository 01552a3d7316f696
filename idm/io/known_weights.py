"""The third-party weights files that IDM can use: their content, terms, sources and checksums."""

from dataclasses import dataclass

MOBILEFACENET_WEIGHTS = "mobilefacenet_casia.safetensors"
ARCFACE_WEIGHTS = "arcface_resnet18.pth"
LANDMARK_WEIGHTS = "alignment_WFLW_4HG.pth"
INCEPTION_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"


@dataclass(frozen=True)
class Checkpoint:
    """The origin of a converted weights file: the weights under ``entry`` of the checkpoint at ``url``, saved with
    safetensors and a note on their ``source``."""

    url: str
    entry: str
    source: str


@dataclass(frozen=True)
class WeightsFile:
    """A file that the user can download from ``url``, or convert from the checkpoint there.

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
        """The URL of the file to download."""
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
    MOBILEFACENET_WEIGHTS: WeightsFile(
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
    LANDMARK_WEIGHTS: WeightsFile(
        "AWing landmark network of LMD, trained on WFLW, as facexlib distributes it",
        "no terms of its own stated; WFLW's images are for research",
        "https://github.com/xinntao/facexlib/releases/download/v0.1.0/alignment_WFLW_4HG.pth",
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
    INCEPTION_WEIGHTS: WeightsFile(
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
    "CLIP-IQA+_learned_prompts-603f3273.pth": WeightsFile(
        "Learned prompts of CLIP-IQA+, as pyiqa distributes them",
        "no terms of its own stated; pyiqa is non-commercial",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/CLIP-IQA%2B_learned_prompts-603f3273.pth",
        "603f3273",
    ),
    "topiq_nr_cgfiqa_res50-0a8b8e4f.pth": WeightsFile(
        "TOPIQ for faces, trained on CGFIQA, as pyiqa distributes it",
        "no terms of its own stated; pyiqa is non-commercial",
        "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/topiq_nr_cgfiqa_res50-0a8b8e4f.pth",
        "0a8b8e4f",
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
    ARCFACE_WEIGHTS: WeightsFile(
        "ArcFace ResNet-18 of GFP-GAN's identity loss and of published Deg columns",
        "no terms of its own stated; treat as research only",
        "https://github.com/TencentARC/GFPGAN/releases/download/v0.1.0/arcface_resnet18.pth",
    ),
}
