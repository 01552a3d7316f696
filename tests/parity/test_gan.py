"""GFP-GAN against the network of spandrel, which loads the published weights."""

from math import sqrt
from pathlib import Path
from typing import Any

import pytest
import torch
from spandrel import ModelLoader
from spandrel.architectures.GFPGAN import GFPGAN as SpandrelGFPGAN
from torch import Tensor, nn

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.stylegan2 import noise_sides
from gan_baseline.weights import export_gfpgan, load_gfpgan


def theirs(image_size: int, **architecture: Any) -> nn.Module:
    model = SpandrelGFPGAN(out_size=image_size, input_is_latent=True, different_w=True, **architecture)
    return model.eval().requires_grad_(False)


def exercised(**architecture: Any) -> GFPGAN:
    """Random weights that use everything: no bias, noise strength or condition is where it starts."""
    torch.manual_seed(0)
    model = GFPGAN(**architecture).requires_grad_(False)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or name.endswith("bias"):
            parameter += 0.1 * torch.randn_like(parameter)
        elif not parameter.any():  # the ends of the condition branches
            parameter += 0.3 * torch.randn_like(parameter) / sqrt(parameter[0].numel())
    return model


def faces(image_size: int, count: int = 1) -> Tensor:
    return torch.rand(count, 3, image_size, image_size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def largest_difference(ours: nn.Module, theirs: nn.Module, x_d: Tensor) -> float:
    """Over the restored faces and the images of all scales, relative to the size of the restored ones."""
    restored, rgbs = ours(x_d)
    their_restored, their_rgbs = theirs(x_d, randomize_noise=False)
    pairs = zip([restored, *rgbs], [their_restored, *their_rgbs], strict=True)
    assert 0.3 < restored.std() < 5
    return max((a - b).abs().max().item() for a, b in pairs) / max(1.0, restored.abs().max().item())


@pytest.mark.parametrize(("channel_multiplier", "million"), [(2, 86.44), (1, 76.21)])
def test_names_shapes_and_counts_are_those_of_the_published_weights(channel_multiplier: int, million: float) -> None:
    with torch.device("meta"):
        ours = GFPGAN(channel_multiplier=channel_multiplier)
        published = theirs(512, channel_multiplier=channel_multiplier)
    shapes = {name: weight.shape for name, weight in ours.state_dict().items()}
    assert shapes == {name: weight.shape for name, weight in published.state_dict().items()}
    assert sum(parameter.numel() for parameter in ours.parameters()) / 1e6 == pytest.approx(million, abs=0.005)
    noise = sum(buffer.numel() for buffer in ours.buffers())
    assert noise == sum(side * side for side in noise_sides(512)) == 699024


@pytest.mark.parametrize("sft_half", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_small_networks_equal_those_of_spandrel(sft_half: bool, batch: int) -> None:
    small = {"num_style_feat": 32, "channel_multiplier": 1, "num_mlp": 3, "narrow": 0.125, "sft_half": sft_half}
    ours, published = exercised(image_size=64, **small), theirs(64, **small)
    published.load_state_dict(ours.state_dict(), strict=True)
    assert largest_difference(ours, published, faces(64, batch)) < 1e-5
    ours.load_state_dict(published.state_dict(), strict=True)


def test_the_prior_alone_equals_that_of_spandrel() -> None:
    small = {"num_style_feat": 32, "channel_multiplier": 1, "num_mlp": 8, "narrow": 0.125}
    ours, published = exercised(image_size=64, **small), theirs(64, **small)
    published.load_state_dict(ours.state_dict(), strict=True)
    z = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    sampled = ours.stylegan_decoder.sample(z)
    expected, _ = published.stylegan_decoder([z], conditions=[], randomize_noise=False)
    torch.testing.assert_close(sampled, expected, rtol=1e-4, atol=1e-4)


def test_an_exported_network_is_loaded_by_spandrel_and_restores_the_same_512_px_face(tmp_path: Path) -> None:
    ours = exercised()
    path = tmp_path / "exported.pth"
    export_gfpgan(ours, path)
    published = ModelLoader().load_from_file(path).model.requires_grad_(False)
    assert largest_difference(ours, published, faces(512)) < 1e-4
    loaded = load_gfpgan(path).state_dict()
    assert all(torch.equal(weight, loaded[name]) for name, weight in ours.state_dict().items())


def test_the_network_of_the_paper_restores_a_512_px_face_like_spandrels(tmp_path: Path) -> None:
    ours, published = exercised(channel_multiplier=1), theirs(512, channel_multiplier=1)
    published.load_state_dict(ours.state_dict(), strict=True)
    assert largest_difference(ours, published, faces(512)) < 1e-4
    torch.save({"params": published.state_dict()}, tmp_path / "paper.pth")
    loaded = load_gfpgan(tmp_path / "paper.pth")
    assert loaded.architecture["channel_multiplier"] == 1
    assert torch.equal(loaded.final_linear.weight, ours.final_linear.weight)
