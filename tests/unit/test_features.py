"""The networks that faces are compared by, with weights of our own making: theirs are files of others."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from idm.faces import features
from idm.faces.features import VGG19, ArcFace, MobileFaceNetEmbedding, MobileFaceNetMaps, face_crops
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import MOBILEFACENET_WEIGHTS, align_for_identity
from idm.faces.template import ffhq_landmarks
from idm.io.weights import WeightsError

UNKNOWN = torch.full((1, 5, 2), torch.nan)


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A place for weights, empty at first."""
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


# VGG-19


def test_vgg19_gives_torchvisions_convolutions_before_their_relu(home):
    torch.manual_seed(0)
    theirs = torchvision.models.vgg19(weights=None)
    theirs = torch.nn.ModuleDict({"features": theirs.features}).eval()  # without its 120 million classifier weights
    torch.save(theirs.state_dict(), home / features.VGG19_WEIGHTS)
    ours = features.load_vgg19()
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    h, wanted = ((images + 1) / 2 - mean.view(3, 1, 1)) / std.view(3, 1, 1), []
    for index, layer in enumerate(theirs["features"]):
        h = layer(h)
        if index in (2, 7, 16, 25, 34):  # conv1_2, conv2_2, conv3_4, conv4_4, conv5_4
            wanted.append(h.clone())
    for ours_map, theirs_map in zip(ours(images, UNKNOWN), wanted, strict=True):
        torch.testing.assert_close(ours_map, theirs_map)
        assert (ours_map < 0).any()


def test_vgg19_has_the_published_layer_weights():
    assert VGG19.layer_weights == (0.1, 0.1, 1.0, 1.0, 1.0)


# MobileFaceNet


@pytest.mark.parametrize("size", [64, 256])
def test_a_face_crop_is_that_of_the_identity_metric(size):
    rng = np.random.default_rng(0)
    image = rng.random((size, size, 3), dtype=np.float32)
    landmarks = (ffhq_landmarks(size) + rng.normal(0, size / 100, (5, 2))).astype(np.float32)
    wanted = torch.from_numpy(align_for_identity(image, landmarks)).permute(2, 0, 1)
    images = torch.from_numpy(image).permute(2, 0, 1)[None] * 2 - 1
    ours = face_crops(images, torch.from_numpy(landmarks)[None])
    torch.testing.assert_close(ours[0], (wanted * 255 - 127.5) / 128, rtol=0, atol=1e-4)


def test_a_face_of_unknown_landmarks_lies_as_the_template_does():
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    known = torch.from_numpy(ffhq_landmarks(64)).float()[None]
    mixed = face_crops(images, torch.cat([known, UNKNOWN]))
    torch.testing.assert_close(mixed, face_crops(images, known.expand(2, 5, 2)))


def test_mobilefacenets_maps_are_on_the_way_to_its_embedding():
    torch.manual_seed(0)
    network = MobileFaceNet().eval()
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    maps = MobileFaceNetMaps(network)(images, UNKNOWN.expand(2, 5, 2))
    assert [tuple(m.shape[1:]) for m in maps] == [(64, 56, 48), (64, 28, 24), (128, 14, 12), (128, 7, 6)]
    rest = network.linear1(network.linear7(network.conv2(maps[-1]))).flatten(1)
    torch.testing.assert_close(MobileFaceNetEmbedding(network)(images, UNKNOWN.expand(2, 5, 2)), rest)
    assert len(maps) == len(MobileFaceNetMaps.layer_weights)


# ArcFace


def test_arcface_is_a_resnet_18_of_grey_faces(home):
    torch.manual_seed(0)
    weights = {f"module.{name}": value for name, value in ArcFace().state_dict().items()}
    torch.save(weights, home / features.ARCFACE_WEIGHTS)
    network = features.load_arcface()
    face = torch.rand(1, 3, 64, 64) * 2 - 1
    grey = (face * torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)).sum(dim=1, keepdim=True).expand(1, 3, -1, -1)
    embedding = network(face, UNKNOWN)
    assert embedding.shape == (1, 512)
    torch.testing.assert_close(network(grey / 0.9999, UNKNOWN), embedding, rtol=1e-3, atol=1e-4)
    convolutions = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    assert sum(conv.stride == (2, 2) for conv in convolutions) == 6  # three halvings, each with its skip
    assert sum(conv.kernel_size == (3, 3) for conv in convolutions) == 17  # and one linear layer: 18


# All of them


@pytest.mark.parametrize(
    ("load", "file"),
    [
        (features.load_vgg19, "vgg19-dcbb9e9d.pth"),
        (features.load_arcface, "arcface_resnet18.pth"),
        (features.load_mobilefacenet, MOBILEFACENET_WEIGHTS),
    ],
)
def test_a_missing_network_stops_with_its_file_place_and_terms(home, load, file):
    with pytest.raises(FileNotFoundError) as caught:
        load()
    for text in (file, str(home), "research" if "vgg" not in file else "ImageNet", "nothing is downloaded"):
        assert text in str(caught.value)


@pytest.mark.parametrize("load", [features.load_vgg19, features.load_arcface])
def test_a_broken_file_and_one_of_another_network_are_refused_in_one_line(home, load):
    path = home / {features.load_vgg19: "vgg19-dcbb9e9d.pth", features.load_arcface: "arcface_resnet18.pth"}[load]
    torch.save({"features.0.weight": torch.zeros(2)}, path)
    with pytest.raises(WeightsError, match=rf"{path}: does not hold the weights of this \w+: \d+ of \d+ [^\n]+$"):
        load()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(WeightsError, match=rf"{path}: is not a complete weights file [^\n]+$"):
        load()
    torch.save({"epoch": 3}, path)
    with pytest.raises(WeightsError, match=rf"{path}: does not hold named weights$"):
        load()


def test_networks_are_frozen_and_let_gradients_through(home):
    save_file(MobileFaceNet().state_dict(), home / MOBILEFACENET_WEIGHTS)
    network = features.load_mobilefacenet()
    images = torch.rand(1, 3, 64, 64, requires_grad=True)
    MobileFaceNetEmbedding(network)(images, UNKNOWN).sum().backward()
    assert images.grad.abs().sum() > 0
    assert not network.training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
