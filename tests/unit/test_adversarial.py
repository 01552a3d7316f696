"""Adversarial losses against values worked out by hand, and DiffAugment against its definition."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from idm.diffusion.adversarial import (
    change_colour,
    cutout,
    diff_augment,
    discriminator_logistic,
    generator_logistic,
    r1,
    relativistic_logistic,
    translate,
)

LN2 = math.log(2)


# Losses


def test_the_generators_loss_is_softplus_of_the_negative_logit():
    assert generator_logistic(torch.zeros(4, 1)).item() == pytest.approx(LN2)
    value = generator_logistic(torch.tensor([[2.0], [-1.0]])).item()
    assert value == pytest.approx((math.log(1 + math.exp(-2)) + math.log(1 + math.exp(1))) / 2)


def test_the_generators_loss_falls_when_the_discriminator_believes_it():
    assert generator_logistic(torch.full((2, 1), 5.0)) < generator_logistic(torch.full((2, 1), -5.0))


def test_the_discriminators_loss_is_that_of_both_sides():
    real, fake = torch.tensor([[2.0]]), torch.tensor([[-3.0]])
    wanted = math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-3))
    assert discriminator_logistic(real, fake).item() == pytest.approx(wanted)


def test_the_relativistic_loss_is_softplus_of_the_difference_within_each_pair():
    better, worse = torch.tensor([[2.0], [-1.0]]), torch.tensor([[-3.0], [1.0]])
    wanted = (math.log(1 + math.exp(-5)) + math.log(1 + math.exp(2))) / 2
    assert relativistic_logistic(better, worse).item() == pytest.approx(wanted)
    assert relativistic_logistic(better + 7, worse + 7).item() == pytest.approx(wanted)
    assert relativistic_logistic(better, better).item() == pytest.approx(LN2)


def test_the_logistic_losses_are_binary_cross_entropy():
    """What the authors call vanilla and wgan_softplus is one function."""
    logits = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
    entropy = F.binary_cross_entropy_with_logits
    torch.testing.assert_close(generator_logistic(logits), entropy(logits, ones))
    both = entropy(logits, ones) + entropy(logits + 1, zeros)
    torch.testing.assert_close(discriminator_logistic(logits, logits + 1), both)


def test_unknown_faces_contribute_nothing_and_known_ones_the_same_whatever_else_is_in_the_batch():
    logits = torch.tensor([[1.0], [-2.0], [30.0]])
    known = torch.tensor([1.0, 1.0, 0.0])
    value = generator_logistic(logits, known).item()
    assert value == pytest.approx(2 / 3 * generator_logistic(logits[:2]).item())
    assert generator_logistic(logits, torch.zeros(3)).item() == 0


def test_r1_of_a_linear_discriminator_is_the_square_of_its_weights():
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    real = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    value = r1(lambda x: (w * x).sum(dim=(1, 2, 3))[:, None] + 3, real)
    assert value.item() == pytest.approx(w.square().sum().item(), rel=1e-6)


def test_r1_of_a_square_is_four_times_its_mean_square():
    real = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    value = r1(lambda x: x.square().sum(dim=(1, 2, 3))[:, None], real)
    assert value.item() == pytest.approx(4 * real.square().sum(dim=(1, 2, 3)).mean().item(), rel=1e-6)


def test_r1_can_be_lowered_by_the_discriminators_weights():
    w = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    real = torch.randn(4, 3, 1, 1)
    r1(lambda x: (w[:, None, None] * x).sum(dim=(1, 2, 3))[:, None], real).backward()
    torch.testing.assert_close(w.grad, 2 * w.detach())


# DiffAugment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(number: int = 200, side: int = 16) -> Tensor:
    return torch.rand(number, 3, side, side, generator=seeded(9)) * 1.8 - 0.9


def test_colour_scales_hues_and_contrasts_and_shifts_brightness_within_the_published_ranges():
    images = pictures()
    changed = change_colour(images, seeded())

    def parts(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean, grey picture without it, and what is not grey."""
        grey, mean = x.mean(dim=1, keepdim=True), x.mean(dim=(1, 2, 3), keepdim=True)
        return mean.flatten(), (grey - mean).flatten(1), (x - grey).flatten(1)

    (mean, grey, hue), (new_mean, new_grey, new_hue) = parts(images), parts(changed)
    contrast = (new_grey * grey).sum(dim=1) / grey.square().sum(dim=1)
    saturation = (new_hue * hue).sum(dim=1) / hue.square().sum(dim=1) / contrast
    torch.testing.assert_close(new_grey, contrast[:, None] * grey, rtol=0, atol=1e-5)
    torch.testing.assert_close(new_hue, (saturation * contrast)[:, None] * hue, rtol=0, atol=1e-5)
    for values, low, high in ((new_mean - mean, -0.5, 0.5), (contrast, 0.5, 1.5), (saturation, 0.0, 2.0)):
        assert low - 1e-4 <= values.min() < low + 0.05 * (high - low)
        assert high - 0.05 * (high - low) < values.max() <= high + 1e-4


def test_translation_moves_by_whole_pixels_up_to_an_eighth_and_fills_with_zeros():
    images = pictures()
    moved = translate(images, seeded())
    seen = set()
    for before, after in zip(images, moved, strict=True):
        canvas = F.pad(before, (2, 2, 2, 2))
        fits = [(y, x) for y in range(5) for x in range(5) if torch.equal(canvas[:, y : y + 16, x : x + 16], after)]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) == 25  # every move comes


def test_cutout_sets_a_square_of_half_the_side_to_zero_and_nothing_else():
    images = torch.ones(500, 3, 16, 16)
    cut = cutout(images, seeded())
    assert torch.equal(cut, cut[:, :1].expand_as(cut))
    corners = set()
    for mask in cut[:, 0]:
        rows, columns = (mask == 0).any(dim=1).nonzero()[:, 0], (mask == 0).any(dim=0).nonzero()[:, 0]
        assert 4 <= len(rows) <= 8  # less at the edge, where part of the square lies outside
        assert 4 <= len(columns) <= 8
        assert (mask == 0).sum() == len(rows) * len(columns)
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        corners |= {(int(rows[0]), len(rows))}
    assert {first for first, length in corners if length == 8} == set(range(9))
    assert (0, 4) in corners
    assert (12, 4) in corners


def test_the_same_generator_gives_the_same_pictures_and_another_others():
    images = pictures(4)
    assert torch.equal(diff_augment(images, seeded(1)), diff_augment(images, seeded(1)))
    assert not torch.equal(diff_augment(images, seeded(1)), diff_augment(images, seeded(2)))


def test_augmentation_is_linear_in_its_pictures_but_for_the_brightness_so_r1_can_pass():
    images = pictures(2, side=8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: diff_augment(x, seeded(3)), images, fast_mode=True)
    assert torch.autograd.gradgradcheck(lambda x: diff_augment(x, seeded(3)).square(), images, fast_mode=True)
    assert torch.isfinite(r1(lambda x: diff_augment(x, seeded(3)).square().sum(dim=(1, 2, 3))[:, None], images))
