"""Feature networks for losses and metrics: frozen, with third-party weights.

Images are in [-1, 1]. Gradients flow to the images; the networks themselves are never trained.
"""

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from idm.faces.align import invert, scale_of
from idm.faces.mobilefacenet import HEIGHT, WIDTH, MobileFaceNet
from idm.faces.recognition import IDENTITY_LANDMARKS, load_identity
from idm.faces.template import ffhq_landmarks, umeyama
from idm.io.known_weights import ARCFACE_WEIGHTS
from idm.io.machine import on_device
from idm.io.weights import fill, find_weights, read_weights

VGG19_WEIGHTS = "vgg19-dcbb9e9d.pth"

Images = Float[Tensor, "b 3 s s"]
Landmarks = Float[Tensor, "b 5 2"]
Maps = Sequence[Float[Tensor, "b _ _ _"]]
FrozenNetwork = TypeVar("FrozenNetwork", bound=nn.Module)


# -------------------------------------------------------------------------------------------------- VGG-19


class VGG19(nn.Module):
    """The convolutions of VGG-19 (Simonyan and Zisserman, arXiv 1409.1556, configuration E), up to conv5_4.

    Gives the maps of conv1_2, conv2_2, conv3_4, conv4_4 and conv5_4 before their ReLU, which GFP-GAN weighs
    .1, .1, 1, 1, 1. Names of the weights are those of torchvision.
    """

    layer_weights = (0.1, 0.1, 1.0, 1.0, 1.0)
    _MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
    _CONVOLUTIONS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))  # channels and number at each size

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        taps, channels = [], 3
        for width, number in self._CONVOLUTIONS:
            for _ in range(number):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            taps.append(len(layers) - 2)
            layers.append(nn.MaxPool2d(2))
        self.taps = frozenset(taps)
        self.features = nn.Sequential(*layers[: taps[-1] + 1])

    def forward(self, images: Images, landmarks: Landmarks) -> list[Float[Tensor, "b _ _ _"]]:
        of_channels = torch.tensor([self._MEAN, self._STD], dtype=images.dtype)
        mean, std = on_device(of_channels, images.device)[..., None, None]
        h, maps = ((images + 1) / 2 - mean) / std, []
        for index, layer in enumerate(self.features):
            h = layer(h)
            if index in self.taps:
                maps.append(h)
        return maps


def load_vgg19(weights: Path | None = None) -> VGG19:
    """VGG-19 with torchvision's ImageNet weights.

    Raises:
        FileNotFoundError: the file is missing; says where to put it.
        WeightsError: the file is broken or holds another network.
    """
    path = find_weights(VGG19_WEIGHTS, weights)
    convolutions = {name: value for name, value in read_weights(path).items() if name.startswith("features.")}
    return _frozen(VGG19(), convolutions, path)


# -------------------------------------------------------------------------------------------- MobileFaceNet


class MobileFaceNetMaps(nn.Module):
    """Feature maps of MobileFaceNet at 1/2, 1/4, 1/8 and 1/16 of its aligned crop: an alternative to VGG-19 for faces.

    Which maps, and that all count the same, is our choice.
    """

    layer_weights = (1.0, 1.0, 1.0, 1.0)
    _TAPPED_BLOCKS = (4, 11, 14)  # the last of each size

    def __init__(self, network: MobileFaceNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images, landmarks: Landmarks) -> list[Float[Tensor, "b _ _ _"]]:
        h = self.network.dw_conv1(self.network.conv1(face_crops(images, landmarks)))
        maps = [h]
        for index, block in enumerate(self.network.blocks):
            h = block(h)
            if index in self._TAPPED_BLOCKS:
                maps.append(h)
        return maps


class MobileFaceNetEmbedding(nn.Module):
    """MobileFaceNet's 128 features of the aligned crop."""

    def __init__(self, network: MobileFaceNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Images, landmarks: Landmarks) -> Float[Tensor, "b 128"]:
        return self.network(face_crops(images, landmarks))


def load_mobilefacenet(weights: Path | None = None) -> MobileFaceNet:
    """The network of the metric "identity"; raises what :func:`~idm.faces.recognition.load_identity` raises."""
    return load_identity(weights).network


def face_crops(images: Images, landmarks: Landmarks) -> Float[Tensor, "b 3 112 96"]:
    """MobileFaceNet's input: its aligned crop, values (level - 127.5) / 128; differentiable in the images.

    The crop is that of :func:`idm.faces.recognition.align_for_identity`. A face of unknown landmarks (nan) is taken
    to lie as the FFHQ template does, which is what its alignment means.
    """
    size = images.shape[-1]
    template = ffhq_landmarks(size)
    points = [p if np.isfinite(p).all() else template for p in landmarks.cpu().numpy().astype(np.float64)]
    num_samples = max(1, ceil(1 / scale_of(umeyama(template, IDENTITY_LANDMARKS)) - 1e-6))
    to_images = torch.from_numpy(np.stack([invert(umeyama(p, IDENTITY_LANDMARKS)) for p in points]))
    to_images = to_images.float() if images.device.type == "mps" else to_images  # Apple's GPUs have no float64
    grid = sampling_grid(on_device(to_images, images.device), size, num_samples).to(images.dtype)
    samples = F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return F.avg_pool2d(samples, num_samples) * (127.5 / 128)


def sampling_grid(to_images: Float[Tensor, "b 2 3"], size: int, num_samples: int) -> Float[Tensor, "b h w 2"]:
    """The places in faces of ``size`` pixels of the samples of their crops, as ``grid_sample`` counts
    (``align_corners=False``), num_samples x num_samples for each pixel.

    Args:
        to_images: from pixel indices (x, y) of a crop to those of its face.
    """

    def places(length: int) -> Tensor:
        count = torch.arange(length * num_samples, dtype=to_images.dtype, device=to_images.device)
        return (count + 0.5) / num_samples - 0.5

    x, y, one = to_images[:, None, None].unbind(dim=-1)  # no product of matrices: TF32 would round it
    points = x * places(WIDTH)[:, None] + y * places(HEIGHT)[:, None, None] + one
    return (2 * points + 1) / size - 1


# -------------------------------------------------------------------------------------------------- ArcFace


class ArcFaceBlock(nn.Module):
    """bn - conv - bn - prelu - conv - bn plus the input, then prelu; the last convolution may halve the size."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            skip = nn.Conv2d(channels_in, channels_out, 1, stride, bias=False)
            self.downsample = nn.Sequential(skip, nn.BatchNorm2d(channels_out))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c2 h2 w2"]:
        h = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.bn2(self.conv2(h)) + self.downsample(x))


class ArcFace(nn.Module):
    """GFP-GAN's identity network: ResNet-18 of IR blocks [2, 2, 2, 2], grey faces of 128 px -> 512 features.

    The faces are used whole, without another alignment. Names of the weights are those of ``arcface_resnet18.pth`` as
    far as we know them; the file itself was not at hand, and one that does not fit is refused.
    """

    _WIDTHS = (64, 128, 256, 512)
    _GREY = (0.2989, 0.5870, 0.1140)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2)
        channels, layers = 64, []
        for width in self._WIDTHS:
            stride = 1 if width == channels else 2
            layers.append(nn.Sequential(ArcFaceBlock(channels, width, stride), ArcFaceBlock(width, width, 1)))
            channels = width
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self.bn4 = nn.BatchNorm2d(512)
        self.fc5 = nn.Linear(512 * 8 * 8, 512)
        self.bn5 = nn.BatchNorm1d(512)

    def forward(self, images: Images, landmarks: Landmarks) -> Float[Tensor, "b 512"]:
        grey = (images * on_device(torch.tensor(self._GREY, dtype=images.dtype), images.device).view(3, 1, 1)).sum(
            dim=1, keepdim=True
        )
        return self.embed(F.interpolate(grey, (128, 128), mode="bilinear", align_corners=False))

    def embed(self, grey: Float[Tensor, "b 1 128 128"]) -> Float[Tensor, "b 512"]:
        """The features of grey faces in [-1, 1]."""
        h = self.maxpool(self.prelu(self.bn1(self.conv1(grey))))
        h = self.layer4(self.layer3(self.layer2(self.layer1(h))))
        return self.bn5(self.fc5(self.bn4(h).flatten(1)))


def load_arcface(weights: Path | None = None) -> ArcFace:
    """GFP-GAN's identity network with its published weights.

    Raises:
        FileNotFoundError: the file is missing; says where to put it.
        WeightsError: the file is broken or holds another network.
    """
    path = find_weights(ARCFACE_WEIGHTS, weights)
    found = {name.removeprefix("module."): value for name, value in read_weights(path).items()}
    return _frozen(ArcFace(), found, path)


def _frozen(network: FrozenNetwork, weights: dict[str, Tensor], path: Path) -> FrozenNetwork:
    fill(network, weights, path)
    return network.eval().requires_grad_(False)


FeatureMaps = VGG19 | MobileFaceNetMaps
"""Gives feature maps of faces, for the perceptual and the style loss."""

Embedding = MobileFaceNetEmbedding | ArcFace
"""Gives one vector for each face, for the identity loss."""


def feature_l1(ours: Maps, theirs: Maps, weights: Sequence[float]) -> Float[Tensor, ""]:
    """Perceptual loss: weighted sum over feature maps of their L1."""
    pairs = zip(weights, ours, theirs, strict=True)
    return torch.stack([weight * F.l1_loss(a.float(), b.float()) for weight, a, b in pairs]).sum()
