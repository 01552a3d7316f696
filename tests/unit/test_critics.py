"""The critics against closed forms, numpy and scipy, and what they can learn."""

from math import sqrt

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.signal import convolve2d
from torch import Tensor

from idm.models.critics import (
    EqualisedConv2d,
    FacialComponentDiscriminator,
    PatchCritic,
    StyleGAN2Discriminator,
    binomial_blur,
    minibatch_stddev,
    widths,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Sizes


def test_the_widths_at_512_px_are_the_published_ones():
    wide = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}
    assert widths(512, channel_multiplier=2, narrow=1.0) == wide
    assert widths(512, channel_multiplier=1, narrow=1.0) == {**wide, 64: 256, 128: 128, 256: 64, 512: 32}
    assert widths(64, channel_multiplier=1, narrow=0.25) == {4: 128, 8: 128, 16: 128, 32: 128, 64: 64}


@pytest.mark.parametrize("image_size", [0, 4, 48, 500])
def test_a_size_that_is_not_a_power_of_two_is_refused(image_size):
    with pytest.raises(ValueError, match=f"image_size {image_size} is not a power of two"):
        widths(image_size, channel_multiplier=1, narrow=1.0)


def test_widths_that_have_no_halves_are_refused():
    with pytest.raises(ValueError, match="even widths"):
        widths(64, channel_multiplier=1, narrow=3 / 512)


# Layers


def test_the_blur_is_the_outer_product_of_1_3_3_1():
    x = randn(2, 3, 7, 8)
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    expected = np.stack([[convolve2d(c, kernel) for c in image] for image in x.numpy()])  # full: zeros around
    torch.testing.assert_close(binomial_blur(x, padding=3), torch.from_numpy(expected).float())


@pytest.mark.parametrize(("kernel_size", "cut"), [(1, 2), (3, 1)])
def test_a_halving_convolution_is_a_blur_a_convolution_and_every_second_pixel(kernel_size, cut):
    """What is cut of the full blur leaves the result centred: output i lies between pixels 2i and 2i + 1."""
    layer = EqualisedConv2d(3, 4, kernel_size, downsample=True)
    layer.bias.data = randn(4)
    x = randn(2, 3, 8, 8)
    blurred = binomial_blur(x, padding=3)[..., cut:-cut, cut:-cut]
    h = F.conv2d(blurred, layer.weight)[..., ::2, ::2] / sqrt(3 * kernel_size**2) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), sqrt(2) * F.leaky_relu(h, 0.2))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 7, 8])
def test_the_minibatch_standard_deviation_is_that_of_numpy(batch):
    x = randn(batch, 3, 2, 2)
    num_groups = -(-batch // 4)
    values = minibatch_stddev(x, 4)
    assert values.shape == (batch, 1, 2, 2)
    for i in range(batch):
        group = x.numpy()[[j for j in range(batch) if j % num_groups == i % num_groups]]
        assert 1 <= len(group) <= 4
        torch.testing.assert_close(values[i], torch.full((1, 2, 2), np.sqrt(group.var(axis=0) + 1e-8).mean().item()))


def tiny_critic() -> StyleGAN2Discriminator:
    torch.manual_seed(0)
    return StyleGAN2Discriminator(8, narrow=1 / 128).double()


def test_the_critic_has_the_second_derivatives_that_r1_needs():
    critic = tiny_critic()
    x = randn(3, 3, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(critic, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(critic, x, fast_mode=True)


def test_r1_has_the_gradient_of_finite_differences():
    critic = tiny_critic()
    weight = critic.blocks[0].conv2.weight

    def penalty() -> Tensor:
        x = randn(3, 3, 8, 8).double().requires_grad_()
        (gradient,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
        return gradient.square().sum()

    penalty().backward()
    direction = randn(*weight.shape, seed=3).double()
    slope = (weight.grad * direction).sum()
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight += step * direction
        values.append(penalty().item())
        with torch.no_grad():
            weight -= step * direction
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(slope.item(), rel=1e-5)


def test_the_critic_of_components_gives_patches_and_two_feature_maps():
    torch.manual_seed(0)
    critic = FacialComponentDiscriminator().requires_grad_(False)
    logits, (half, quarter) = critic(randn(2, 3, 40, 40))
    assert logits.shape == (2, 1, 10, 10)
    assert half.shape == (2, 128, 20, 20)
    assert quarter.shape == (2, 256, 10, 10)
    assert 0.1 < logits.std() < 3
    torch.testing.assert_close(critic.final_conv(critic.conv5(critic.conv4(half))), logits)


def test_every_layer_of_the_critic_of_components_has_a_bias_and_of_a_whole_face_all_but_the_skips():
    critic = FacialComponentDiscriminator().requires_grad_(False)
    assert all(layer.bias is not None for layer in critic.children())
    x = randn(1, 3, 16, 16)
    before, _ = critic(x)
    critic.final_conv.bias += 3
    torch.testing.assert_close(critic(x)[0], before + 3)
    whole = StyleGAN2Discriminator(16, narrow=1 / 64)
    without = {
        name for name, layer in whole.named_modules() if isinstance(layer, EqualisedConv2d) and layer.bias is None
    }
    assert without == {"blocks.0.skip", "blocks.1.skip"}


# Patches


def test_the_patch_critic_judges_every_16_px_of_a_face():
    torch.manual_seed(0)
    critic = PatchCritic().requires_grad_(False)
    assert critic(randn(2, 3, 256, 256)).shape == (2, 1, 16, 16)
    assert PatchCritic(2, (8, 16))(randn(1, 3, 32, 32)).shape == (1, 1, 8, 8)


def test_the_patch_critic_takes_less_than_a_gflop_for_a_face_of_256_px():
    from torch.utils.flop_counter import FlopCounterMode

    critic = PatchCritic().eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        critic(torch.zeros(1, 3, 256, 256))
    assert 0.6e9 < counter.get_total_flops() < 0.8e9


def test_a_logit_of_the_patch_critic_sees_68_px():
    torch.manual_seed(0)
    critic = PatchCritic()
    face = randn(1, 3, 256, 256).requires_grad_()
    critic(face)[0, 0, 8, 8].backward()
    seen = face.grad.abs().sum(dim=(0, 1)).nonzero()
    assert (seen.amax(dim=0) - seen.amin(dim=0) + 1).tolist() == [68, 68]


def test_the_patch_critic_starts_with_he_weights_for_its_leaky_relu_and_normalises_nothing():
    torch.manual_seed(0)
    critic = PatchCritic()
    for conv in critic.convs:
        wanted = sqrt(2 / (1 + 0.2**2) / conv.weight[0].numel())  # He et al., arXiv 1502.01852, eq. 15
        assert conv.weight.std().item() == pytest.approx(wanted, rel=0.02)
    assert {type(layer) for layer in critic.modules()} == {PatchCritic, torch.nn.ModuleList, torch.nn.Conv2d}


def test_the_patch_critic_turns_patches_into_channels_as_pytorch_does():
    torch.manual_seed(0)
    critic = PatchCritic(4, (8,))
    x = randn(2, 3, 16, 16)
    h = F.leaky_relu(critic.convs[0](F.pixel_unshuffle(x, 4)), 0.2)
    torch.testing.assert_close(critic(x), critic.final_conv(h))
    assert critic(x[:0]).shape == (0, 1, 4, 4)


def test_the_patch_critic_has_the_second_derivatives_that_r1_needs():
    torch.manual_seed(0)
    critic = PatchCritic(2, (4, 6)).double()
    x = randn(2, 3, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(critic, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(critic, x, fast_mode=True)
