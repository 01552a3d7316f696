"""The network's parts against closed forms, and what its constructor refuses."""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from idm.config.assembly.intrinsic import initial_weights
from idm.config.load import ConfigError
from idm.diffusion.schedule import linear
from idm.models.architecture import Architecture
from idm.models.layers import (
    Attention,
    ChannelNorm,
    Downsample,
    NoiseLevelEmbedding,
    ResidualBlock,
    Upsample,
    attend,
    depth_to_space,
    zero_init,
)
from idm.models.refinement import DilatedLevel, Refinement, enlarge
from idm.models.unet import UNet, double_patches
from idm.restorers.idm import IDM
from idm.restorers.saved import save_idm

TINY = {
    "image_size": 16,
    "patch_size": 2,
    "channels": (8, 16),
    "num_blocks": (1, 1),
    "attention_resolutions": (4,),
    "head_dim": 8,
}


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Move every weight off its start, the zero-initialised ones too."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return model


def inputs(size: int = 16, count: int = 2) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    x_d, x_t = (torch.randn(count, 3, size, size, generator=rng) for _ in range(2))
    return {"x_d": x_d, "x_t": x_t, "gamma": torch.linspace(0.2, 0.8, count)}


# Layers


def phases(gamma: list[float]) -> torch.Tensor:
    """The sines and cosines that the embedding's network is given."""
    embedding = NoiseLevelEmbedding(dim=8, num_frequencies=4)
    given = []
    embedding.net = nn.Sequential(nn.Linear(8, 8))
    embedding.net.register_forward_pre_hook(lambda module, arguments: given.append(arguments[0]))
    embedding(torch.tensor(gamma, dtype=torch.float64))
    return given[0]


def test_the_embedding_sees_the_log_snr_in_sines_and_cosines():
    gamma = 0.9
    log_snr = math.log(gamma / (1 - gamma))
    periods = [64 / 2 ** (7 * i / 3) for i in range(4)]  # from 64 down to 0.5
    angles = torch.tensor([2 * math.pi * log_snr / period for period in periods])
    wanted = torch.cat([angles.sin(), angles.cos()])[None]
    torch.testing.assert_close(phases([gamma]), wanted, rtol=0, atol=1e-4)


def test_the_embedding_is_finite_at_both_ends_and_cut_at_16():
    seen = phases([1.0, 1 - 1e-8, 1e-8, 1e-300])
    assert seen.isfinite().all()
    torch.testing.assert_close(seen[0], seen[1])
    torch.testing.assert_close(seen[2], seen[3])
    assert not torch.allclose(seen[0], seen[2])


def test_the_embedding_separates_the_first_levels_of_sr3():
    first, second = phases([1 - 1e-6, 1 - 6e-6])
    assert (first - second).abs().max() > 0.5


def test_channel_norm_normalises_the_channels_of_each_pixel():
    x = torch.randn(2, 8, 3, 5) * 3 + 1
    normal = ChannelNorm(8)(x)
    torch.testing.assert_close(normal.mean(dim=1), torch.zeros(2, 3, 5), rtol=0, atol=1e-5)
    torch.testing.assert_close(normal.var(dim=1, unbiased=False), torch.ones(2, 3, 5), rtol=0, atol=1e-3)


def test_a_residual_block_begins_as_the_identity():
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(ResidualBlock(8, 16, 0.0)(x, torch.randn(2, 16)), x)


def test_a_residual_block_is_film_between_norm_and_convolutions():
    block = randomised(ResidualBlock(8, 16, 0.0))
    x, embedding = torch.randn(2, 8, 4, 4), torch.randn(2, 16)
    scale, shift = block.film(embedding)[:, :8, None, None], block.film(embedding)[:, 8:, None, None]
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    wanted = x + block.conv_out(F.silu(block.conv_in((1 + scale) * normal + shift)))
    torch.testing.assert_close(block(x, embedding), wanted, rtol=1e-4, atol=1e-5)


def test_attention_begins_as_the_identity():
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(Attention(16, 8)(x), x)


def test_attention_does_not_know_where_its_pixels_lie():
    attention, x = randomised(Attention(16, 8)), torch.randn(2, 16, 4, 6)
    torch.testing.assert_close(attention(x.flip(-1)), attention(x).flip(-1), rtol=1e-4, atol=1e-5)


def test_attention_to_equal_keys_is_the_mean_of_the_values():
    q, v = torch.randn(2, 1, 2, 6, 4)
    mean = v.mean(dim=-2, keepdim=True).expand_as(v)
    torch.testing.assert_close(attend(q, torch.ones_like(q), v), mean)


def test_attention_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="16 channels do not divide into attention heads of 6"):
        Attention(16, 6)


def test_down_halves_and_up_doubles():
    x = torch.randn(1, 8, 6, 10)
    assert Downsample(8, 16)(x).shape == (1, 16, 3, 5)
    assert Upsample(8, 4)(x).shape == (1, 4, 12, 20)


def test_zero_init_clears_weight_and_bias():
    layer = zero_init(nn.Conv2d(3, 4, 3))
    assert not layer.weight.any()
    assert not layer.bias.any()


# The network


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_blocks": (1,)}, "differ in length"),
        ({"channels": (), "num_blocks": ()}, "differ in length"),
        ({"image_size": 15}, "patch_size 2 does not divide image_size 15"),
        ({"head_dim": 5}, "attention heads of 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{**TINY, **change})


def test_a_denoiser_is_rebuilt_from_its_config_and_weights():
    denoiser = randomised(UNet(**TINY, inject_degraded=True, add_degraded=True)).eval()
    again = UNet(**json.loads(json.dumps(asdict(denoiser.config)))).eval()
    again.load_state_dict(denoiser.state_dict())
    assert again.config.channels == [8, 16]
    assert torch.equal(again(**inputs()), denoiser(**inputs()))


def test_the_output_is_float32_in_a_bfloat16_network():
    denoiser = randomised(UNet(**TINY, add_degraded=True)).eval()
    wanted = denoiser(**inputs())
    output = denoiser.bfloat16()(**inputs())
    assert output.dtype == torch.float32
    torch.testing.assert_close(output, wanted, rtol=0, atol=0.15)


def test_the_output_is_float32_under_autocast():
    denoiser = randomised(UNet(**TINY))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert denoiser(**inputs()).dtype == torch.float32


def test_a_bfloat16_network_separates_close_levels_too():
    denoiser = randomised(UNet(**TINY)).bfloat16().eval()
    near = {**inputs(), "gamma": torch.tensor([1 - 1e-6, 1 - 1e-6], dtype=torch.float64)}
    off = {**near, "gamma": torch.tensor([1 - 6e-6, 1 - 6e-6], dtype=torch.float64)}
    assert (denoiser(**near) - denoiser(**off)).abs().max() > 1e-3


def test_feature_maps_are_channels_last():
    denoiser, seen = randomised(UNet(**TINY, inject_degraded=True)), []
    for module in denoiser.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    denoiser(**inputs())
    assert len(seen) > 8
    assert all(x.is_contiguous(memory_format=torch.channels_last) for x in seen)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Tensors on a GPU that is not there: shapes, layouts and types follow as they would, and nothing is computed."""
    with FakeTensorMode():
        torch.set_autocast_enabled("cuda", True)
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        try:
            yield
        finally:
            torch.set_autocast_enabled("cuda", False)


def like_cudnn(module: nn.Module, arguments: tuple[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
    """What cuDNN gives keeps channels_last; PyTorch without it assumes another layout."""
    kept = arguments[0].is_contiguous(memory_format=torch.channels_last)
    return output.contiguous(memory_format=torch.channels_last) if kept else output


@pytest.mark.parametrize(
    "change", [{"inject_degraded": True}, {"refine_channels": 8, "refine_blocks": 1, "add_degraded": True}]
)
def test_on_a_gpu_feature_maps_are_channels_last_and_bfloat16(change):
    layouts, types = [], []
    with pretended_gpu():
        with torch.device("cuda"):
            denoiser = UNet(**{**TINY, "channels": (8, 16, 24), "num_blocks": (1, 1, 1), **change})
            ask = {"x_d": torch.empty(2, 3, 16, 16), "x_t": torch.empty(2, 3, 16, 16), "gamma": torch.empty(2)}
        for module in denoiser.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_pre_hook(lambda m, arguments: layouts.append(arguments[0]))
                module.register_forward_hook(like_cudnn)
            if isinstance(module, ChannelNorm | ResidualBlock | Attention | Upsample):
                module.register_forward_hook(lambda m, arguments, output: types.append((type(m), output.dtype)))
        denoiser(**ask)
        assert len(layouts) > 12
        assert all(x.is_contiguous(memory_format=torch.channels_last) for x in layouts)
        assert {kind for kind, _ in types} == {ChannelNorm, ResidualBlock, Attention, Upsample}
        assert {dtype for _, dtype in types} == {torch.bfloat16}


def test_depth_to_space_on_a_gpu_moves_what_pixel_shuffle_moves():
    x = torch.randn(2, 12, 3, 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "device", SimpleNamespace(type="cuda"))
        there = depth_to_space(x.contiguous(memory_format=torch.channels_last), 2)
    assert torch.equal(there, F.pixel_shuffle(x, 2))
    assert there.is_contiguous(memory_format=torch.channels_last)


def test_dropout_acts_in_training_only():
    denoiser = randomised(UNet(**TINY, dropout=0.5))
    assert not torch.equal(denoiser.train()(**inputs()), denoiser.train()(**inputs()))
    assert torch.equal(denoiser.eval()(**inputs()), denoiser.eval()(**inputs()))


def test_num_blocks_counts_the_residual_blocks_of_encoder_and_decoder():
    denoiser = UNet(**{**TINY, "channels": (8, 8, 16), "num_blocks": (1, 3, 2)})
    count = sum(isinstance(module, ResidualBlock) for module in denoiser.modules())
    assert count == (1 + 3 + 2) + (1 + 3)  # the lowest level has no decoder


@pytest.mark.parametrize("inject", [False, True])
def test_doubled_patches_see_the_image_shrunk_to_half(inject):
    small = randomised(
        UNet(
            image_size=16,
            patch_size=2,
            channels=(16,),
            num_blocks=(1,),
            head_dim=16,
            attention_resolutions=(),
            inject_degraded=inject,
        )
    )
    large = UNet(
        image_size=32,
        patch_size=4,
        channels=(16,),
        num_blocks=(1,),
        head_dim=16,
        attention_resolutions=(),
        inject_degraded=inject,
    )
    large.load_state_dict(double_patches(small.state_dict()))
    half, twice = inputs(16), inputs(32)
    half["x_d"], half["x_t"] = (F.avg_pool2d(twice[name], 2) for name in ("x_d", "x_t"))
    wanted = F.interpolate(small(**half), scale_factor=2, mode="nearest")
    torch.testing.assert_close(large(**{**twice, "gamma": half["gamma"]}), wanted, rtol=1e-4, atol=1e-5)


# Refinement


@pytest.mark.parametrize("num_blocks", [0, 1])
def test_an_added_refinement_changes_nothing_before_it_is_trained(num_blocks):
    plain = randomised(UNet(**TINY))
    refined = UNet(**TINY, refine_channels=8, refine_blocks=num_blocks)
    assert refined.refine.blurring is None
    missing = refined.load_state_dict(plain.state_dict(), strict=False).missing_keys
    assert missing
    assert {name.split(".")[0] for name in missing} == {"refine"}
    torch.testing.assert_close(refined(**inputs()), plain(**inputs()), rtol=0, atol=0)


@pytest.mark.parametrize("side", [16, 13])
def test_the_refinement_sees_every_image_at_its_own_pixels(side):
    """With all weights of the trunk at zero only x_d and x_t remain: a changed pixel reaches three pixels around it by
    the convolutions, and four by the blur of x_d."""
    refined = UNet(**TINY, refine_channels=8, add_degraded=True)
    randomised(refined.refine)
    nn.init.zeros_(refined.refine.features.weight)
    before = inputs(side)
    for name, reach in (("x_d", 4), ("x_t", 3)):
        changed = before[name].clone()
        changed[:, :, 6, 7] += 1
        difference = (refined(**{**before, name: changed}) - refined(**before)).abs().amax(dim=(0, 1))
        rows, columns = difference.nonzero(as_tuple=True)
        assert (rows.min(), rows.max()) == (6 - reach, 6 + reach)
        assert (columns.min(), columns.max()) == (7 - reach, 7 + reach)


def test_the_refinement_can_replace_a_noisy_input_by_a_blurred_one():
    refined = UNet(**TINY, refine_channels=8, add_degraded=True)
    nn.init.ones_(refined.refine.blurring.bias)
    x_d = inputs()["x_d"]
    kernel = torch.tensor([1.0, 2, 4, 6, 6, 6, 4, 2, 1]) / 32
    weight = torch.outer(kernel, kernel).expand(3, 1, 9, 9)
    wanted = F.conv2d(F.pad(x_d, (4, 4, 4, 4), mode="replicate"), weight, groups=3)
    torch.testing.assert_close(refined(**inputs()), wanted)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_the_dilated_level_sees_the_noise_level_and_the_features_in_their_places(patch_size):
    refined = UNet(**{**TINY, "patch_size": patch_size}, refine_channels=8, refine_blocks=1)
    level = randomised(refined.refine.level)
    h, features, embedding = (
        torch.randn(1, 8, 16, 16),
        torch.randn(1, TINY["channels"][0], 16 // patch_size, 16 // patch_size),
        torch.randn(1, 4 * TINY["channels"][0]),
    )
    before = level(h, features, embedding)
    assert not torch.allclose(level(h, features, embedding + 1), before)
    changed = features.clone()
    changed[:, :, -1, -1] += 1
    rows, columns = (level(h, changed, embedding) - before).abs().amax(dim=(0, 1)).nonzero(as_tuple=True)
    # doubling the features until they have the size of the image, three convolutions with dilation 2, and a blur
    reach = (patch_size - 1) + 3 * 2 + 1
    assert rows.min() == columns.min() == 16 - patch_size - reach


def test_the_refinement_treats_all_pixels_of_a_patch_alike():
    """Mirrored weights on mirrored images give the mirrored correction, and even images an even one."""
    sizes = Architecture(**{**TINY, "patch_size": 4}, refine_channels=8, refine_blocks=1, add_degraded=True)
    refinement = randomised(Refinement(sizes, 32))
    mirrored = deepcopy(refinement)
    with torch.no_grad():
        for module in mirrored.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.copy_(module.weight.flip(3))
    rng = torch.Generator().manual_seed(0)
    h, images, pixels = (
        torch.randn(shape, generator=rng) for shape in ((2, 8, 16, 16), (2, 6, 64, 64), (2, 3, 64, 64))
    )
    embedding = torch.randn(2, 32, generator=rng)

    def refined(network: Refinement, *seen: torch.Tensor) -> torch.Tensor:
        h, images, pixels = seen
        return network(h, F.pixel_unshuffle(images, 4), pixels, embedding)

    there = refined(refinement, h, images, pixels)
    back = refined(mirrored, h.flip(3), images.flip(3), pixels.flip(3)).flip(3)
    torch.testing.assert_close(back, there)
    even = refined(refinement, torch.ones_like(h), torch.ones_like(images), torch.ones_like(pixels))
    inside = even[..., 24:40, 24:40]
    torch.testing.assert_close(inside, inside[..., :1, :1].expand_as(inside))


def test_the_refinement_treats_all_pixels_of_the_images_alike():
    """Images moved by less than a patch give the moved correction."""
    sizes = Architecture(**{**TINY, "patch_size": 4}, refine_channels=8, refine_blocks=1, add_degraded=True)
    refinement = randomised(Refinement(sizes, 32)).double()
    h, embedding = torch.ones(1, 8, 16, 16).double(), torch.ones(1, 32).double()
    images, pixels = torch.randn(1, 6, 64, 64).double(), torch.randn(1, 3, 64, 64).double()

    def refined(by: tuple[int, int]) -> torch.Tensor:
        moved_images, moved = (image.roll(by, dims=(2, 3)) for image in (images, pixels))
        return refinement(h, F.pixel_unshuffle(moved_images, 4), moved, embedding).roll((-by[0], -by[1]), dims=(2, 3))

    wanted = refined((0, 0))[..., 28:36, 28:36]
    for by in ((0, 1), (1, 0), (2, 3)):
        torch.testing.assert_close(refined(by)[..., 28:36, 28:36], wanted)


def test_enlarging_keeps_ramps_and_halves_the_kinks_of_a_linear_interpolation():
    ramp = torch.arange(12.0).expand(1, 1, 12, 12)
    inside = enlarge(ramp, 4)[..., 8:-8]
    torch.testing.assert_close(inside.diff(dim=-1), torch.full_like(inside[..., 1:], 0.25))
    peak = F.pad(torch.ones(1, 1, 1, 1), (6, 6, 6, 6))
    linear = F.interpolate(peak, scale_factor=4, mode="bilinear", align_corners=False)
    kink, linear_kink = (images.sum(dim=2).diff(n=2).abs().amax() for images in (enlarge(peak, 4), linear))
    assert kink <= 0.6 * linear_kink


def test_a_refinement_needs_patches_that_doubling_reaches():
    with pytest.raises(ValueError, match="power of two"):
        UNet(**{**TINY, "image_size": 48, "patch_size": 3}, refine_channels=8)


def test_a_dilated_level_needs_a_refinement():
    with pytest.raises(ValueError, match="refine_channels"):
        UNet(**TINY, refine_blocks=1)


REFINED = {"refine_channels": 8, "refine_blocks": 1}


@pytest.mark.parametrize(
    ("saved", "larger"),
    [
        ({}, REFINED),
        ({"refine_channels": 8}, REFINED),
        (REFINED, {**REFINED, "refine_blocks": 3}),
        ({}, {"num_blocks": (1, 3)}),
        (REFINED, {**REFINED, "num_blocks": (2, 2)}),
    ],
)
def test_training_starts_from_a_model_with_fewer_layers(tmp_path, saved, larger):
    small = randomised(UNet(**{**TINY, **saved}))
    save_idm(IDM(small, linear(num_steps=50)), tmp_path)
    large = UNet(**{**TINY, **larger})
    large.load_state_dict(initial_weights(tmp_path, large))
    torch.testing.assert_close(large(**inputs()), small(**inputs()), rtol=0, atol=0)


@pytest.mark.parametrize("larger", [{"num_blocks": (2, 1)}, {"num_blocks": (1, 2, 1), "channels": (8, 16, 16)}])
def test_training_does_not_start_from_a_model_with_more_layers(tmp_path, larger):
    save_idm(IDM(UNet(**{**TINY, **larger}), linear(num_steps=50)), tmp_path)
    with pytest.raises(ConfigError, match="another architecture"):
        initial_weights(tmp_path, UNet(**TINY))


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a compiler")
def test_compiled_blocks_compute_what_they_computed():
    torch.manual_seed(0)
    sizes = {
        "channels": (8,),
        "num_blocks": (1,),
        "attention_resolutions": (),
        "refine_channels": 2,
        "refine_blocks": 1,
    }
    network = UNet(**{**TINY, **sizes})
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.1)
    x_d, x_t = torch.rand(2, 2, 3, 16, 16) * 2 - 1

    def output_and_gradients() -> list[torch.Tensor]:
        output = network(x_d=x_d, x_t=x_t, gamma=torch.tensor([0.3, 0.7]))
        return [output.detach(), *torch.autograd.grad(output.square().mean(), list(network.parameters()))]

    expected = output_and_gradients()
    network.compile_parts()
    compiled = [module for module in network.modules() if module._compiled_call_impl is not None]
    assert {type(module) for module in compiled} == {ResidualBlock, DilatedLevel}
    for found, wanted in zip(output_and_gradients(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
