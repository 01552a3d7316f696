"""Does each schedule give the levels that its paper defines, and refuse what is none?"""

import math

import pytest
import torch

from idm.diffusion.schedule import cosine, from_betas, linear, piecewise_uniform, to_betas


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_a_schedule_has_one_level_more_than_steps_in_float64(schedule):
    gammas = schedule(num_steps=7)
    assert gammas.shape == (8,)
    assert gammas.dtype == torch.float64
    assert gammas[0] == 1


def test_the_linear_schedule_has_the_betas_of_sr3():
    betas = to_betas(linear())
    assert len(betas) == 2000
    assert betas[0].item() == pytest.approx(1e-6, rel=1e-9)
    assert betas[-1].item() == pytest.approx(1e-2, rel=1e-9)
    steps = betas[1:] - betas[:-1]
    torch.testing.assert_close(steps, torch.full_like(steps, (1e-2 - 1e-6) / 1999), rtol=1e-8, atol=0)


def test_the_linear_schedule_leaves_almost_no_signal():
    assert 0 < linear()[-1] < 1e-4


def test_gamma_is_a_product_of_alphas():
    gammas = from_betas(torch.tensor([0.1, 0.2, 0.5], dtype=torch.float64))
    assert gammas.tolist() == pytest.approx([1, 0.9, 0.72, 0.36], rel=1e-12)


@pytest.mark.parametrize("offset", [0.008, 0.1])
@pytest.mark.parametrize("t", [1, 250, 500, 900])
def test_the_cosine_schedule_follows_its_closed_form(t, offset):
    def f(u: float) -> float:
        return math.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2

    assert cosine(1000, offset)[t].item() == pytest.approx(f(t / 1000) / f(0), rel=1e-9)


def test_the_cosine_schedule_limits_its_betas():
    betas = to_betas(cosine(100, max_beta=0.5))
    assert betas.max().item() == pytest.approx(0.5, rel=1e-12)
    assert to_betas(cosine(100)).max().item() == pytest.approx(0.999, rel=1e-9)


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.01), (-1e-6, 0.01), (0.02, 0.01), (1e-6, 1.0)])
def test_a_linear_schedule_refuses_betas_that_do_not_rise_within_0_and_1(start, end):
    with pytest.raises(ValueError, match="beta_start"):
        linear(start, end)


@pytest.mark.parametrize("schedule", [linear, cosine])
def test_a_schedule_without_steps_is_refused(schedule):
    with pytest.raises(ValueError, match="at least one step"):
        schedule(num_steps=0)


def test_a_schedule_that_underflows_to_zero_signal_is_refused():
    with pytest.raises(ValueError, match="beta_end"):
        linear(1e-6, 0.9, 2000)


def test_training_levels_are_interpolated_by_their_uniforms():
    gammas = torch.tensor([1.0, 0.8, 0.4, 0.1], dtype=torch.float64)
    u_step = torch.tensor([0.0, 0.34, 0.34, 0.999], dtype=torch.float64)
    u_within = torch.tensor([0.25, 0.0, 0.5, 0.5], dtype=torch.float64)
    drawn = piecewise_uniform(gammas, u_step, u_within)
    assert drawn.tolist() == pytest.approx([0.95, 0.8, 0.6, 0.25], rel=1e-12)
    assert drawn.dtype == torch.float64
