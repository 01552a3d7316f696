"""The forward process and its three readings against numbers worked out by hand."""

import pytest
import torch

from idm.diffusion.process import add_noise, coefficients, target, to_eps, to_x_0

# gamma = 0.36: sqrt(gamma) = 0.6 and sqrt(1 - gamma) = 0.8; x_0 = 0.5, eps = -1
X_0, EPS = torch.full((1, 3, 2, 2), 0.5), torch.full((1, 3, 2, 2), -1.0)
GAMMA = torch.tensor([0.36], dtype=torch.float64)
X_T = 0.6 * 0.5 + 0.8 * -1
ANSWERS = {"epsilon": -1.0, "sample": 0.5, "v": 0.6 * -1 - 0.8 * 0.5}


def filled(value: float) -> torch.Tensor:
    return torch.full((1, 3, 2, 2), value)


def test_coefficients_are_square_roots_that_multiply_images():
    signal, noise = coefficients(torch.tensor([0.36, 0.64], dtype=torch.float64), torch.zeros(2, 3, 4, 4))
    assert signal.shape == noise.shape == (2, 1, 1, 1)
    torch.testing.assert_close(signal.flatten(), torch.tensor([0.6, 0.8]))
    torch.testing.assert_close(noise.flatten(), torch.tensor([0.8, 0.6]))


def test_add_noise_mixes_image_and_noise():
    torch.testing.assert_close(add_noise(X_0, EPS, GAMMA), filled(X_T))


@pytest.mark.parametrize("prediction", ANSWERS)
def test_the_target_of_each_prediction(prediction):
    torch.testing.assert_close(target(prediction, X_0, EPS, GAMMA), filled(ANSWERS[prediction]))


@pytest.mark.parametrize("prediction", ANSWERS)
def test_each_prediction_stands_for_the_same_x_0(prediction):
    restored = to_x_0(prediction, filled(ANSWERS[prediction]), filled(X_T), GAMMA)
    torch.testing.assert_close(restored, X_0)


def test_the_noise_that_leads_from_x_0_to_x_t():
    torch.testing.assert_close(to_eps(X_0, filled(X_T), GAMMA), EPS)


def test_each_sample_has_its_own_level():
    x_0, eps = torch.ones(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    x_t = add_noise(x_0, eps, torch.tensor([0.25, 1.0]))
    assert x_t[0].unique().tolist() == [0.5]
    assert x_t[1].unique().tolist() == [1.0]


@pytest.mark.parametrize("prediction", ANSWERS)
def test_all_arithmetic_is_float32_whatever_comes_in(prediction):
    low = torch.randn(1, 3, 2, 2).bfloat16()
    assert add_noise(low, low, GAMMA).dtype == torch.float32
    assert target(prediction, low, low, GAMMA).dtype == torch.float32
    assert to_x_0(prediction, low, low, GAMMA).dtype == torch.float32
    assert to_eps(low, low, GAMMA).dtype == torch.float32


def test_an_unknown_prediction_is_an_error():
    with pytest.raises(Exception, match="score"):
        target("score", X_0, EPS, GAMMA)
