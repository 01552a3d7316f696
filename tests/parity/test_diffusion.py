"""The same numbers as diffusers, wherever it computes the same thing."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from diffusers.training_utils import compute_snr
from diffusers.utils.torch_utils import randn_tensor

from idm.diffusion.chain import SAMPLER_NAMES, Chain
from idm.diffusion.objective import min_snr_weight
from idm.diffusion.process import add_noise, target, to_eps, to_x_0
from idm.diffusion.samplers import SAMPLERS, langevin_step, sample
from idm.diffusion.schedule import cosine, linear, to_betas
from idm.diffusion.schedulers import build_scheduler

LINEAR, COSINE = linear(), cosine()


def ddpm(gammas: torch.Tensor, **settings) -> DDPMScheduler:
    betas = to_betas(gammas).tolist()
    return DDPMScheduler(num_train_timesteps=len(betas), trained_betas=betas, clip_sample=False, **settings)


def picture(seed: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def noise(seed: int, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


# Levels


def test_the_linear_schedule_equals_that_of_ddpm():
    # diffusers multiplies 2000 float32 numbers; numpy in float64 is the finer key
    theirs = DDPMScheduler(num_train_timesteps=2000, beta_start=1e-6, beta_end=1e-2, beta_schedule="linear")
    torch.testing.assert_close(LINEAR[1:].float(), theirs.alphas_cumprod, rtol=2e-4, atol=0)
    torch.testing.assert_close(LINEAR[1:].float(), ddpm(LINEAR).alphas_cumprod, rtol=2e-4, atol=0)
    np.testing.assert_allclose(LINEAR[1:], np.cumprod(1 - np.linspace(1e-6, 1e-2, 2000)), rtol=1e-12)


def test_the_cosine_schedule_equals_that_of_ddpm():
    theirs = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    torch.testing.assert_close(to_betas(COSINE).float(), theirs.betas, rtol=1e-5, atol=0)
    torch.testing.assert_close(COSINE[1:].float(), theirs.alphas_cumprod, rtol=2e-4, atol=0)


# The forward process


@pytest.mark.parametrize("t", [0, 5, 100, 999, 1999])
def test_noise_is_added_as_by_ddpm(t):
    x_0, eps = picture(0), noise(1)
    theirs = ddpm(LINEAR).add_noise(x_0, eps, torch.tensor([t, t]))
    torch.testing.assert_close(add_noise(x_0, eps, LINEAR[[t + 1, t + 1]]), theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize("t", [0, 5, 100, 999, 1999])
def test_the_v_target_is_the_velocity_of_ddpm(t):
    x_0, eps = picture(0), noise(1)
    theirs = ddpm(LINEAR).get_velocity(x_0, eps, torch.tensor([t, t]))
    torch.testing.assert_close(target("v", x_0, eps, LINEAR[[t + 1, t + 1]]), theirs, rtol=0, atol=5e-5)


@pytest.mark.parametrize(("ours", "theirs"), [("epsilon", "epsilon"), ("sample", "sample"), ("v", "v_prediction")])
def test_each_prediction_is_read_as_by_ddim(ours, theirs):
    output, x_t, t = noise(0), noise(1), 700
    scheduler = DDIMScheduler(
        num_train_timesteps=2000,
        trained_betas=to_betas(LINEAR).tolist(),
        prediction_type=theirs,
        clip_sample=False,
    )
    scheduler.set_timesteps(2000)
    wanted = scheduler.step(output, t, x_t).pred_original_sample
    torch.testing.assert_close(to_x_0(ours, output, x_t, LINEAR[[t + 1, t + 1]]), wanted, rtol=1e-4, atol=1e-4)


SIGMAS = [(0, 0.0010), (5, 0.0090), (20, 0.0327)]


@pytest.mark.parametrize(("t", "sigma"), SIGMAS)
def test_the_first_levels_of_sr3_have_noise(t, sigma):
    x_t = add_noise(torch.zeros(1, 3, 2, 2), torch.ones(1, 3, 2, 2), LINEAR[[t + 1]])
    assert x_t.unique().item() == pytest.approx(sigma, abs=5e-5)


@pytest.mark.parametrize(("t", "sigma"), SIGMAS)
def test_the_first_levels_of_sr3_have_noise_under_bfloat16_autocast(t, sigma):
    x_0 = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)
    eps = torch.ones(1, 3, 2, 2, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x_t = add_noise(x_0, eps, LINEAR[[t + 1]])
    assert x_t.dtype == torch.float32
    signal = LINEAR[t + 1].sqrt().item()
    assert x_t.unique().item() - signal == pytest.approx(sigma, abs=5e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        back = to_eps(x_0, x_t, LINEAR[[t + 1]])
    torch.testing.assert_close(back, eps.float(), rtol=0, atol=1e-3)


# The objective


@pytest.mark.parametrize("gammas", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("clamp", [1.0, 5.0])
def test_min_snr_weights_equal_those_of_diffusers_training_scripts(gammas, clamp):
    t = torch.arange(0, len(gammas) - 1, 17)
    snr = compute_snr(ddpm(gammas), t)
    clamped = torch.minimum(snr, torch.full_like(snr, clamp))
    wanted = {"sample": clamped, "epsilon": clamped / snr, "v": clamped / (snr + 1)}
    for prediction, weights in wanted.items():
        ours = min_snr_weight(prediction, gammas[t + 1], clamp).float()
        torch.testing.assert_close(ours, weights, rtol=1e-3, atol=1e-7)


# The reverse process


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("num_steps", [1, 4, 10, 25])
@pytest.mark.parametrize("gammas", [LINEAR, COSINE], ids=["linear", "cosine"])
def test_a_ddim_trajectory_equals_the_loop_of_diffusers_in_epsilon_prediction(gammas, num_steps, eta):
    def predict_noise(x_t: torch.Tensor, x_d: torch.Tensor) -> torch.Tensor:
        return 0.9 * x_t - 0.2 * x_d

    x_d = picture(3)
    scheduler = DDIMScheduler(
        num_train_timesteps=len(gammas) - 1,
        trained_betas=to_betas(gammas).tolist(),
        prediction_type="epsilon",
        timestep_spacing="trailing",
        clip_sample=True,
    )
    scheduler.set_timesteps(num_steps)
    rngs = [torch.Generator().manual_seed(i) for i in range(2)]
    x, wanted = randn_tensor(x_d.shape, generator=rngs), []
    for t in scheduler.timesteps:
        step = scheduler.step(predict_noise(x, x_d), t, x, eta=eta, use_clipped_model_output=True, generator=rngs)
        x = step.prev_sample
        wanted.append(step.pred_original_sample)

    ours = []
    drawn = sample(
        lambda *, x_d, x_t, gamma: predict_noise(x_t, x_d),
        x_d,
        gammas,
        Chain("ddim", num_steps, eta=eta),
        prediction="epsilon",
        generators=[torch.Generator().manual_seed(i) for i in range(2)],
        on_step=lambda step, total, x_0: ours.append(x_0),
    )
    torch.testing.assert_close(torch.stack(ours), torch.stack(wanted), rtol=0, atol=2e-3)
    torch.testing.assert_close(drawn, x.clamp(-1, 1), rtol=0, atol=2e-3)


@pytest.mark.parametrize("t", [1, 20, 500, 1999])
def test_a_langevin_step_equals_a_ddpm_step_with_the_forward_variance(t):
    theirs = ddpm(LINEAR, prediction_type="epsilon", variance_type="fixed_large")
    theirs.set_timesteps(2000)
    x_t, eps = noise(0), noise(1)
    gamma, gamma_next = LINEAR[t + 1].item(), LINEAR[t].item()
    mean = langevin_step(x_t, eps, gamma, gamma_next, None)
    wanted = theirs.step(eps, t, x_t, generator=torch.Generator().manual_seed(2)).prev_sample
    fresh = torch.randn(x_t.shape, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(langevin_step(x_t, eps, gamma, gamma_next, fresh), wanted, rtol=0, atol=5e-4)

    beta = to_betas(LINEAR)[t].item()
    torch.testing.assert_close(wanted - mean, beta**0.5 * fresh, rtol=0, atol=5e-4)


def test_the_last_langevin_step_equals_the_last_ddpm_step_and_adds_no_noise():
    theirs = ddpm(LINEAR, prediction_type="epsilon", variance_type="fixed_large")
    theirs.set_timesteps(2000)
    x_t, eps = noise(0), noise(1)
    wanted = theirs.step(eps, 0, x_t).prev_sample
    torch.testing.assert_close(langevin_step(x_t, eps, LINEAR[1].item(), 1.0, None), wanted, rtol=0, atol=5e-5)


@pytest.mark.parametrize("t", [0, 1, 20, 999])
def test_the_langevin_scheduler_takes_the_step_that_ddpm_takes(t):
    gammas = linear(1e-4, 0.02, 1000)
    theirs = ddpm(gammas, prediction_type="sample", variance_type="fixed_large")
    ours = build_scheduler("langevin", gammas)
    for scheduler in (theirs, ours):
        scheduler.set_timesteps(1000)
    x_0, x_t = picture(0), noise(1)
    steps = [
        scheduler.step(x_0, t, x_t, generator=torch.Generator().manual_seed(3)).prev_sample
        for scheduler in (ours, theirs)
    ]
    torch.testing.assert_close(*steps, rtol=0, atol=5e-4)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("num_steps", [4, 5, 10, 25])
@pytest.mark.parametrize("gammas", [LINEAR, COSINE], ids=["linear", "cosine"])
@pytest.mark.parametrize("name", SAMPLER_NAMES)
def test_a_trajectory_equals_that_of_the_scheduler_as_which_it_is_saved(name, gammas, num_steps, first):
    """diffusers' loop over its scheduler, against the function over the same levels: every x_t and the result."""
    scheduler = build_scheduler(name, gammas)
    scheduler.alphas_cumprod = gammas[1:]  # diffusers' own are products of float32 numbers
    scheduler.set_timesteps(num_steps)
    if hasattr(scheduler, "set_begin_index"):  # the multistep ones
        scheduler.set_begin_index(first)
    start = noise(5)

    def estimate(x_t: torch.Tensor, gamma: float) -> torch.Tensor:
        return (0.3 * gamma * x_t.roll(1, -1) + 0.4 * x_t.sin() + 0.2).clamp(-1, 1)

    rngs = [torch.Generator().manual_seed(i) for i in range(2)]
    draws = {"generator": rngs} if name in ("ddim", "langevin") else {}
    x, wanted = start, []
    for t in scheduler.timesteps[first:num_steps]:
        wanted.append(x)
        x = scheduler.step(estimate(x, gammas[t + 1].item()), t, x, **draws).prev_sample

    again = [torch.Generator().manual_seed(i) for i in range(2)]
    ours = []

    def recorded(x_t: torch.Tensor, gamma: float) -> torch.Tensor:
        ours.append(x_t)
        return estimate(x_t, gamma)

    levels = gammas[scheduler.timesteps[first:num_steps] + 1].tolist()
    result = SAMPLERS[name](recorded, start, levels, noise=lambda: randn_tensor(start.shape, generator=again), eta=0.0)
    torch.testing.assert_close(torch.stack(ours), torch.stack(wanted), rtol=0, atol=1e-5)
    torch.testing.assert_close(result, x, rtol=0, atol=1e-5)
