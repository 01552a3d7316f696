"""The losses of GFP-GAN against values worked out by hand."""

import pytest
import torch

from gan_baseline import losses
from idm.faces.features import feature_l1

# Reconstruction


def test_the_pyramid_compares_every_scale_with_the_face_halved_to_it():
    hq = torch.arange(16.0).view(1, 1, 4, 4).expand(2, 3, 4, 4)
    halved = torch.tensor([[2.5, 4.5], [10.5, 12.5]]).expand(2, 3, 2, 2)  # means of 2 x 2 pixels
    assert losses.pyramid_l1([halved, hq], hq).item() == 0
    assert losses.pyramid_l1([halved + 0.5, hq - 0.25], hq).item() == pytest.approx(0.75)


def test_the_pyramid_weight_falls_after_the_published_number_of_steps():
    weights = [losses.pyramid_weight(step, 1.0, 50_000, 1e-12) for step in (0, 49_999, 50_000, 799_999)]
    assert weights == [1.0, 1.0, 1e-12, 1e-12]


# Features


def test_the_gram_matrix_is_divided_by_all_elements_of_a_map():
    features = torch.tensor([[[[1.0, 2.0]], [[3.0, -1.0]]]])  # two channels of 1 x 2
    wanted = torch.tensor([[[5.0, 1.0], [1.0, 10.0]]]) / 4
    torch.testing.assert_close(losses.gram(features), wanted)


def test_the_gram_matrix_is_computed_in_float32():
    features = torch.full((1, 8, 16, 16), 304.0, dtype=torch.bfloat16)
    assert losses.gram(features).dtype == torch.float32
    torch.testing.assert_close(losses.gram(features), torch.full((1, 8, 8), 304.0**2 / 8))


def test_the_perceptual_loss_weighs_the_l1_of_each_map():
    a = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2)]
    b = [torch.full((2, 3, 4, 4), 0.5), torch.full((2, 5, 2, 2), -2.0)]
    assert feature_l1(a, b, (0.1, 1.0)).item() == pytest.approx(0.1 * 0.5 + 2.0)


def test_the_style_loss_weighs_the_l1_of_each_gram_matrix():
    a = [torch.ones(2, 2, 4, 4), torch.ones(2, 3, 2, 2)]  # Gram matrices: everywhere 1/2, 1/3
    b = [torch.zeros(2, 2, 4, 4), torch.zeros(2, 3, 2, 2)]
    assert losses.style_l1(a, b, (0.5, 1.0)).item() == pytest.approx(0.5 / 2 + 1 / 3)
    assert losses.style_l1(a, b, (0.5, 1.0), torch.tensor([1.0, 0.0])).item() == pytest.approx((0.5 / 2 + 1 / 3) / 2)


def test_the_style_loss_does_not_see_where_things_are():
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(3))
    assert losses.style_l1([x], [x.flip(-1)], (1.0,)).item() == pytest.approx(0, abs=1e-6)
