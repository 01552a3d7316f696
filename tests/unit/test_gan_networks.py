"""GFP-GAN's networks against closed forms and naive loops."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.stylegan2 import (
    ModulatedConv2d,
    StyleGAN2Generator,
    draw_noise,
    noise_maps,
    noise_sides,
    noise_size,
    spatial_feature_transform,
)

TINY = {"image_size": 32, "num_style_feat": 16, "channel_multiplier": 1, "num_mlp": 2, "narrow": 1 / 64}


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight off its start: noise strengths, biases and the ends of the branches are 0 or 1 there."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def gfpgan() -> nn.Module:
    torch.manual_seed(0)
    return randomised(GFPGAN(**TINY))


@pytest.fixture(scope="module")
def prior() -> nn.Module:
    torch.manual_seed(0)
    return randomised(StyleGAN2Generator(**TINY))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# Sizes


def test_each_convolution_has_its_noise_map():
    assert noise_sides(32) == [4, 8, 8, 16, 16, 32, 32]


# Modulated convolution


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize("upsample", [True, False])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_modulated_convolution_is_one_convolution_for_each_image(demodulate, upsample, batch):
    layer = randomised(ModulatedConv2d(4, 6, 3, 8, demodulate=demodulate, upsample=upsample)).double()
    x, code, bias = randn(batch, 4, 5, 5).double(), randn(batch, 8, seed=1).double(), randn(1, 6, 1, 1, seed=2).double()
    expected = []
    for x_i, s in zip(x, F.linear(code, layer.modulation.weight, layer.modulation.bias), strict=True):
        weight = layer.weight[0] * s[None, :, None, None]
        if demodulate:
            weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()
        if upsample:
            x_i = F.interpolate(x_i[None], scale_factor=2, mode="bilinear")[0]
        expected.append(1.7 * F.conv2d(x_i[None], weight, padding=1) + bias)
    torch.testing.assert_close(layer(x, code, bias, gain=1.7), torch.cat(expected))


def test_demodulated_filters_have_unit_norm():
    layer = randomised(ModulatedConv2d(4, 6, 3, 8, demodulate=True))
    s = 3 * randn(2, 4)
    filters = layer.weight * s[:, None, :, None, None] * layer.demodulation(s)[:, :, None, None, None]
    torch.testing.assert_close(filters.square().sum(dim=(2, 3, 4)), torch.ones(2, 6))


# Spatial feature transform


def test_the_transform_leaves_the_first_half_of_the_channels_untouched():
    x, scale, shift = randn(2, 6, 4, 4), randn(2, 3, 4, 4, seed=1), randn(2, 3, 4, 4, seed=2)
    h = spatial_feature_transform(x, scale, shift)
    assert torch.equal(h[:, :3], x[:, :3])
    torch.testing.assert_close(h[:, 3:], x[:, 3:] * scale + shift)


def test_scale_1_and_shift_0_are_the_identity():
    x = randn(2, 6, 4, 4)
    assert torch.equal(spatial_feature_transform(x, torch.ones(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)), x)


@pytest.mark.parametrize("sft_half", [True, False])
def test_an_untrained_gfpgan_does_not_yet_steer_its_generator(sft_half):
    torch.manual_seed(0)
    model = GFPGAN(**TINY, sft_half=sft_half).requires_grad_(False)
    codes = []
    model.stylegan_decoder.register_forward_pre_hook(lambda module, arguments: codes.append(arguments[0]))
    restored, _ = model(randn(2, 3, 32, 32))
    torch.testing.assert_close(restored, model.stylegan_decoder(codes[0]))


# Starting weights


def test_untrained_images_are_of_the_order_of_one():
    torch.manual_seed(0)
    model = GFPGAN(64, channel_multiplier=1, narrow=0.25).requires_grad_(False)
    restored, rgbs = model(F.interpolate(randn(4, 3, 8, 8), scale_factor=8.0).clamp(-1, 1))
    sampled = model.stylegan_decoder.sample(randn(4, 512))
    assert 0.5 < restored.std() < 3
    assert 0.5 < sampled.std() < 4
    assert all(0.05 < rgb.std() < 1.5 for rgb in rgbs)


# Generator


def test_a_prior_is_fed_by_z_of_any_length(prior):
    z = randn(2, 16)
    torch.testing.assert_close(prior.sample(z), prior.sample(5 * z), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(prior.sample(z), prior.sample(z.flip(0)), atol=0.1)


def test_codes_reach_the_layers_in_order(prior):
    """Style mixing: image b's codes from layer k on change nothing before that layer."""
    ours, theirs = prior.codes_of(randn(1, 16)), prior.codes_of(randn(1, 16, seed=1))
    assert ours.shape == (1, prior.num_codes, 16)
    layers = [prior.style_conv1]
    for i in range(0, len(prior.style_convs), 2):
        layers += [prior.style_convs[i], prior.style_convs[i + 1]]
    taken: list[Tensor] = []
    for layer in layers:
        layer.register_forward_hook(lambda module, arguments, h: taken.append(h.clone()))
    prior(ours)
    pure, taken[:] = list(taken), []
    for number in range(len(layers)):  # layer number uses code number, RGB heads share
        mixed = torch.cat([ours[:, :number], theirs[:, number:]], dim=1)
        prior(mixed)
        same = [torch.equal(a, b) for a, b in zip(pure, taken, strict=True)]
        assert same == [True] * number + [False] * (len(layers) - number)
        taken.clear()


def test_wrong_numbers_of_codes_or_maps_are_refused(prior):
    with pytest.raises(ValueError, match="codes, noise maps and conditions"):
        prior(torch.zeros(1, prior.num_codes - 1, 16))
    with pytest.raises(ValueError, match="codes, noise maps and conditions"):
        prior(torch.zeros(1, prior.num_codes, 16), draw_noise(64, seeded(0)))


# Noise


def test_stored_noise_makes_runs_repeat_and_may_be_given(gfpgan):
    x_d = randn(2, 3, 32, 32)
    first, second = gfpgan(x_d)[0], gfpgan(x_d)[0]
    assert torch.equal(first, second)
    assert torch.equal(gfpgan(x_d, list(gfpgan.stylegan_decoder.noises.buffers()))[0], first)


def test_a_face_does_not_depend_on_its_batch(gfpgan):
    x_d = randn(3, 3, 32, 32)
    together = gfpgan(x_d, draw_noise(32, seeded(5, 6, 7)))[0]
    alone = gfpgan(x_d[1:2], draw_noise(32, seeded(6)))[0]
    torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-4)
    other = gfpgan(x_d[1:2], draw_noise(32, seeded(8)))[0]
    assert (other - alone).abs().max() > 0.01


def test_each_number_is_in_one_noise_map():
    numbers = torch.arange(2.0 * noise_size(32)).view(2, -1)
    maps = noise_maps(numbers, 32)
    assert [tuple(m.shape) for m in maps] == [(2, 1, side, side) for side in noise_sides(32)]
    assert torch.equal(torch.cat([m.flatten(1) for m in maps], dim=1), numbers)


def test_noise_is_standard_normal_and_differs_from_layer_to_layer():
    maps = draw_noise(128, seeded(0, 1))
    assert [tuple(m.shape) for m in maps] == [(2, 1, side, side) for side in noise_sides(128)]
    assert maps[-1].mean().abs() < 0.03
    assert maps[-1].std() == pytest.approx(1, abs=0.03)
    assert not torch.equal(maps[-1], maps[-2])
    assert not torch.equal(maps[-1][0], maps[-1][1])


def test_every_scale_has_its_image_coarsest_first(gfpgan):
    restored, rgbs = gfpgan(randn(1, 3, 32, 32))
    assert restored.shape == (1, 3, 32, 32)
    assert [rgb.shape[-1] for rgb in rgbs] == [8, 16, 32]


def test_a_face_of_another_size_is_refused(gfpgan):
    with pytest.raises(ValueError, match="expected faces of 32 px, got 64x64"):
        gfpgan(torch.zeros(1, 3, 64, 64))


def test_every_weight_that_restoring_uses_is_trained():
    torch.manual_seed(0)
    model = GFPGAN(**TINY)
    for parameter in model.parameters():
        parameter.data += 0.1 * randn(*parameter.shape)
    restored, rgbs = model(randn(2, 3, 32, 32))
    (restored.square().mean() + sum(rgb.square().mean() for rgb in rgbs)).backward()
    untrained = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0}
    assert untrained == {f"stylegan_decoder.style_mlp.{i}.{kind}" for i in (1, 3) for kind in ("weight", "bias")}
