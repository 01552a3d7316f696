"""The loss against numbers worked out by hand."""

import pytest
import torch

from idm.diffusion.objective import min_snr_weight, p_norm, training_loss
from idm.diffusion.process import add_noise, target

PREDICTIONS = ("epsilon", "sample", "v")


def batch(size: int = 4) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    images = {name: torch.rand(size, 3, 4, 4, generator=rng) * 2 - 1 for name in ("x_0", "x_d")}
    gamma = torch.linspace(0.05, 0.95, size, dtype=torch.float64)
    return {**images, "eps": torch.randn(size, 3, 4, 4, generator=rng), "gamma": gamma}


@pytest.mark.parametrize(("p", "answer"), [(1, 0.75), (2, 1.25)])
def test_the_p_norm_of_each_sample_is_divided_by_its_elements(p, answer):
    output = torch.zeros(2, 1, 2, 2)
    wanted = torch.tensor([[[[0.0, 1.0], [-2.0, 0.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    assert p_norm(output, wanted, p).tolist() == pytest.approx([answer, 0])


def test_any_other_p_is_refused():
    with pytest.raises(ValueError, match="p must be 1 or 2"):
        p_norm(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2), 3)


def test_a_low_precision_output_is_compared_in_float32():
    wanted = torch.full((1, 3, 2, 2), 1.001)
    output = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)
    assert p_norm(output, wanted, 1).item() == pytest.approx(1e-3, rel=1e-3)


# SNR = 1/4, 1 and 9, clamped at 4
@pytest.mark.parametrize(
    ("prediction", "weights"),
    [("sample", [0.25, 1, 4]), ("epsilon", [1, 1, 4 / 9]), ("v", [0.25 / 1.25, 0.5, 0.4])],
)
def test_min_snr_weights_never_rise_above_the_clamp(prediction, weights):
    gamma = torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64)
    assert min_snr_weight(prediction, gamma, 4.0).tolist() == pytest.approx(weights)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("clamp", [None, 5.0])
def test_a_perfect_output_has_no_loss(prediction, p, clamp):
    images = batch()
    wanted = target(prediction, images["x_0"], images["eps"], images["gamma"])
    loss = training_loss(lambda *, x_d, x_t, gamma: wanted, **images, prediction=prediction, p=p, min_snr_clamp=clamp)
    assert loss.item() == 0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_an_output_off_by_one_tenth_has_that_loss_under_each_norm(prediction):
    images = batch()
    off = target(prediction, images["x_0"], images["eps"], images["gamma"]) + 0.1
    for p in (1, 2):
        loss = training_loss(lambda *, x_d, x_t, gamma: off, **images, prediction=prediction, p=p)
        assert loss.item() == pytest.approx(0.1**p, rel=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weights_multiply_each_sample(prediction):
    images = batch()
    weights = min_snr_weight(prediction, images["gamma"], 5.0)
    off = target(prediction, images["x_0"], images["eps"], images["gamma"]) + torch.arange(4.0).view(4, 1, 1, 1)
    loss = training_loss(lambda *, x_d, x_t, gamma: off, **images, prediction=prediction, p=1, min_snr_clamp=5.0)
    assert loss.item() == pytest.approx((weights * torch.arange(4.0)).mean().item(), rel=1e-5)


def test_the_denoiser_is_given_the_condition_the_noisy_image_and_the_level():
    images, given = batch(), {}

    def f(*, x_d, x_t, gamma):
        given.update(x_d=x_d, x_t=x_t, gamma=gamma)
        return torch.zeros_like(x_t)

    training_loss(f, **images, prediction="sample", p=1)
    torch.testing.assert_close(given["x_d"], images["x_d"])
    torch.testing.assert_close(given["gamma"], images["gamma"])
    torch.testing.assert_close(given["x_t"], add_noise(images["x_0"], images["eps"], images["gamma"]))


def test_gradients_flow_through_the_output_only():
    images = batch()
    output = torch.zeros(4, 3, 4, 4, requires_grad=True)
    training_loss(lambda *, x_d, x_t, gamma: output, **images, prediction="sample", p=2).backward()
    # d/d output of mean (output - x_0)^2
    torch.testing.assert_close(output.grad, -2 * images["x_0"] / output.numel())
