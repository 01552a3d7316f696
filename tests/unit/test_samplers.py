"""Each sampler on data whose best denoiser is known in closed form, and what `sample` promises."""

import inspect

import pytest
import torch
from diffusers import DDIMScheduler

from idm.diffusion.process import add_noise
from idm.diffusion.samplers import build_scheduler, sample
from idm.diffusion.schedule import cosine, linear, to_betas
from idm.diffusion.schedulers import LangevinScheduler, langevin_step

SAMPLERS = ("langevin", "ddim", "dpmpp_2m", "unipc")
FROM_DIFFUSERS = ("ddim", "dpmpp_2m", "unipc")
GAMMAS = linear()
MEAN, DEVIATION = 0.1, 0.15  # six standard deviations fit in [-1, 1]: clipping x_0 has no effect


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + i) for i in range(count)]


class Recorder:
    """A denoiser that gives one number and remembers the levels that it was asked for."""

    def __init__(self, value: float = 0.0) -> None:
        self.value, self.levels = value, []

    def __call__(self, *, x_d, x_t, gamma):
        self.levels.append(gamma[0].item())
        return torch.full_like(x_t, self.value)


def run(name: str, f, num_steps: int, x_d: torch.Tensor | None = None, gammas=GAMMAS, **settings) -> torch.Tensor:
    x_d = torch.zeros(1, 3, 4, 4) if x_d is None else x_d
    settings = {"prediction": "sample", "generators": generators(len(x_d)), **settings}
    return sample(f, x_d, build_scheduler(name, gammas), num_steps=num_steps, **settings)


# Answer keys


def best_for_gaussian_pixels(*, x_d, x_t, gamma):
    """E[x_0 | x_t] for independent pixels x_0 ~ N(MEAN, DEVIATION^2)."""
    gamma = gamma.view(-1, 1, 1, 1).float()
    gain = gamma.sqrt() * DEVIATION**2 / (gamma * DEVIATION**2 + 1 - gamma)
    return MEAN + gain * (x_t - gamma.sqrt() * MEAN)


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize(
    ("name", "num_steps", "eta"),
    [
        ("langevin", 500, 0.0),
        ("ddim", 200, 0.0),
        ("ddim", 500, 1.0),
        ("dpmpp_2m", 100, 0.0),
        ("unipc", 100, 0.0),
    ],
)
def test_gaussian_data_comes_out_with_its_mean_and_standard_deviation(name, num_steps, eta, schedule):
    x_d = torch.zeros(4, 3, 24, 24)
    drawn = run(name, best_for_gaussian_pixels, num_steps, x_d, gammas=schedule(), eta=eta)
    assert drawn.mean().item() == pytest.approx(MEAN, abs=4 * DEVIATION / drawn.numel() ** 0.5)
    assert drawn.std().item() == pytest.approx(DEVIATION, rel=0.06)


@pytest.mark.parametrize("num_steps", [1, 2, 5, 50])
@pytest.mark.parametrize("schedule", [linear, cosine])
def test_ddim_on_gaussian_data_is_eulers_method_on_the_probability_flow(schedule, num_steps):
    """In y = x / sqrt(gamma), sigma^2 = (1 - gamma) / gamma a step multiplies y - MEAN by a known number."""
    gammas = schedule()
    last = len(gammas) - 1
    levels = gammas[[last - i * last // num_steps for i in range(num_steps + 1)]]
    sigma = ((1 - levels) / levels).sqrt()
    factor = (1 + (sigma[1:] - sigma[:-1]) * sigma[:-1] / (DEVIATION**2 + sigma[:-1] ** 2)).prod()
    x_T = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    wanted = MEAN + factor * (x_T / gammas[-1].sqrt() - MEAN)
    drawn = run("ddim", best_for_gaussian_pixels, num_steps, torch.zeros(1, 3, 16, 16), gammas=gammas)
    torch.testing.assert_close(drawn.double(), wanted, rtol=0, atol=2e-3)


def test_the_langevin_step_follows_its_equation():
    x_t, eps, noise = torch.full((1, 1, 1, 1), 0.5), torch.full((1, 1, 1, 1), 2.0), torch.ones(1, 1, 1, 1)
    # gamma 0.36 -> 0.36 / 0.81: alpha = 0.81, 1 - alpha = 0.19, sqrt(1 - gamma) = 0.8
    mean = (0.5 - 0.19 / 0.8 * 2) / 0.9
    assert langevin_step(x_t, eps, 0.36, 0.36 / 0.81, None).item() == pytest.approx(mean, rel=1e-5)
    noisy = langevin_step(x_t, eps, 0.36, 0.36 / 0.81, noise).item()
    assert noisy == pytest.approx(mean + 0.19**0.5, rel=1e-5)


# The chain


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 10, 50, 100])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_whole_chain_evaluates_the_denoiser_num_steps_times(name, num_steps):
    f = Recorder()
    run(name, f, num_steps)
    assert len(f.levels) == num_steps


@pytest.mark.parametrize("num_steps", [61, 103])
@pytest.mark.parametrize("name", SAMPLERS)
def test_rounding_adds_no_step(name, num_steps):
    f = Recorder()
    run(name, f, num_steps)
    assert len(f.levels) == num_steps
    assert f.levels == sorted(f.levels)


@pytest.mark.parametrize(("num_steps", "strength", "calls"), [(10, 0.5, 5), (10, 0.29, 3), (4, 0.01, 1), (8, 1.0, 8)])
@pytest.mark.parametrize("name", SAMPLERS)
def test_only_the_last_share_of_the_chain_is_run(name, num_steps, strength, calls):
    whole, part, steps = Recorder(), Recorder(), []
    run(name, whole, num_steps)
    run(
        name,
        part,
        num_steps,
        start_from="degraded",
        strength=strength,
        on_step=lambda step, total, x_0: steps.append((step, total)),
    )
    assert part.levels == whole.levels[-calls:]
    assert steps == [(i + 1, calls) for i in range(calls)]


@pytest.mark.parametrize("num_steps", [1, 3, 4, 20])
@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_chain_begins_at_the_last_timestep_and_the_signal_rises(name, schedule, num_steps):
    f, gammas = Recorder(), schedule()
    run(name, f, num_steps, gammas=gammas)
    assert f.levels[0] == pytest.approx(gammas[-1].item(), rel=1e-3)
    assert f.levels == sorted(set(f.levels))


@pytest.mark.parametrize("num_steps", [4, 20])
@pytest.mark.parametrize("name", SAMPLERS)
def test_steps_are_spaced_evenly_from_the_end(name, num_steps):
    f = Recorder()
    run(name, f, num_steps)
    wanted = GAMMAS[[2000 - i * 2000 // num_steps for i in range(num_steps)]]
    assert f.levels == pytest.approx(wanted.tolist(), rel=1e-3)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_estimate_of_x_0_is_clipped_at_every_step(name):
    estimates = []
    drawn = run(name, Recorder(3.0), 5, on_step=lambda step, total, x_0: estimates.append(x_0))
    assert len(estimates) == 5
    assert all(x_0.unique().tolist() == [1.0] for x_0 in estimates)
    assert drawn.unique().tolist() == [1.0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_in_the_chain_keeps_its_face_and_its_generator(name):
    x_d = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(7)) * 2 - 1

    def f(*, x_d, x_t, gamma):
        return 0.5 * x_d + 0.1 * x_t

    together = run(name, f, 6, x_d, eta=1.0)
    for i in range(3):
        alone = run(name, f, 6, x_d[i : i + 1], generators=generators(3)[i : i + 1], eta=1.0)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m", "unipc"])
def test_deterministic_samplers_draw_the_starting_noise_only(name):
    before = torch.Generator().manual_seed(5)
    torch.randn(1, 3, 4, 4, generator=before)
    used = torch.Generator().manual_seed(5)
    run(name, Recorder(), 5, generators=[used])
    assert torch.equal(used.get_state(), before.get_state())


def test_langevin_draws_fresh_noise_in_every_step_but_the_last():
    before, used = torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    for _ in range(5):
        torch.randn(1, 3, 4, 4, generator=before)
    run("langevin", Recorder(), 5, generators=[used])
    assert torch.equal(used.get_state(), before.get_state())


def test_eta_adds_noise_to_ddim_alone():
    assert not torch.equal(run("ddim", best_for_gaussian_pixels, 5), run("ddim", best_for_gaussian_pixels, 5, eta=1.0))
    for name in ("langevin", "dpmpp_2m", "unipc"):
        with_eta = run(name, best_for_gaussian_pixels, 5, eta=1.0)
        assert torch.equal(run(name, best_for_gaussian_pixels, 5), with_eta)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_chain_from_the_degraded_face_begins_at_that_face(name):
    x_d = torch.full((1, 3, 4, 4), 0.7)
    seen = []

    def f(*, x_d, x_t, gamma):
        seen.append((x_t, gamma))
        return x_t

    run(name, f, 10, x_d, start_from="degraded", strength=0.3)
    x_t, gamma = seen[0]
    noise = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(x_t, add_noise(x_d, noise, gamma))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_lower_strength_stays_closer_to_the_degraded_face(name):
    x_d = torch.full((4, 3, 16, 16), 0.7)

    def distance(strength: float) -> float:
        drawn = run(name, best_for_gaussian_pixels, 20, x_d, start_from="degraded", strength=strength)
        return (drawn - x_d).abs().mean().item()

    distances = [distance(strength) for strength in (0.05, 0.1, 0.2, 0.4)]
    assert distances == sorted(distances)
    assert distances[0] < 0.6 * distances[-1]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_may_take_as_many_steps_as_it_was_trained_with(name):
    f, gammas = Recorder(0.25), linear(1e-4, 0.2, 20)
    drawn = run(name, f, 20, gammas=gammas)
    assert f.levels == pytest.approx(gammas[1:].flip(0).tolist(), rel=1e-5)
    torch.testing.assert_close(drawn, torch.full_like(drawn, 0.25), rtol=0, atol=1e-4)


# Schedulers


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_scheduler_survives_its_own_config(name, tmp_path):
    scheduler = build_scheduler(name, GAMMAS)
    scheduler.save_pretrained(tmp_path)
    again = type(scheduler).from_pretrained(tmp_path)
    for each in (scheduler, again):
        each.set_timesteps(7)
    assert again.timesteps.tolist() == scheduler.timesteps.tolist()
    torch.testing.assert_close(again.alphas_cumprod.double(), GAMMAS[1:], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("before", "after"),
    [(before, after) for before in SAMPLERS for after in FROM_DIFFUSERS if before != after],
)
def test_a_sampler_made_from_the_config_of_another_begins_at_the_last_timestep(before, after):
    other = type(build_scheduler(after, GAMMAS)).from_config(build_scheduler(before, GAMMAS).config)
    f = Recorder()
    x_d = torch.zeros(1, 3, 4, 4)
    sample(f, x_d, other, prediction="sample", num_steps=4, generators=generators(1))
    assert f.levels[0] == pytest.approx(GAMMAS[-1].item(), rel=1e-3)
    assert len(f.levels) == 4


@pytest.mark.parametrize("before", FROM_DIFFUSERS)
def test_langevin_can_be_made_from_the_config_of_another(before):
    other = LangevinScheduler.from_config(build_scheduler(before, GAMMAS).config)
    torch.testing.assert_close(other.gammas, GAMMAS, rtol=1e-9, atol=0)
    other.set_timesteps(4)
    assert other.timesteps.tolist() == [1999, 1499, 999, 499]


def test_langevin_speaks_the_dialect_of_diffusers():
    scheduler = build_scheduler("langevin", GAMMAS)
    assert len(scheduler) == 2000
    assert scheduler.timesteps[0] == 1999
    x = torch.randn(1, 3, 4, 4)
    assert scheduler.scale_model_input(x, 3) is x
    assert {"generator", "return_dict"} <= inspect.signature(scheduler.step).parameters.keys()
    last = scheduler.step(0 * x, 0, x)
    torch.testing.assert_close(last.prev_sample, scheduler.step(0 * x, 0, x, return_dict=False)[0])


# What is refused


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_number_of_generators_other_than_that_of_faces_is_refused(count):
    with pytest.raises(ValueError, match=f"2 faces need 2 generators, got {count}"):
        run("ddim", Recorder(), 4, torch.zeros(2, 3, 4, 4), generators=generators(count))


@pytest.mark.parametrize("strength", [0.0, -0.5, 1.01])
def test_a_strength_outside_0_and_1_is_refused(strength):
    with pytest.raises(ValueError, match="strength"):
        run("ddim", Recorder(), 4, start_from="degraded", strength=strength)


def test_a_part_of_the_chain_from_pure_noise_is_refused():
    with pytest.raises(ValueError, match="start_from='degraded'"):
        run("ddim", Recorder(), 4, start_from="noise", strength=0.5)


def test_a_scheduler_that_predicts_noise_is_refused():
    scheduler = DDIMScheduler(trained_betas=to_betas(GAMMAS).tolist(), prediction_type="epsilon")
    with pytest.raises(ValueError, match="prediction_type 'sample'"):
        sample(
            Recorder(),
            torch.zeros(1, 3, 4, 4),
            scheduler,
            prediction="epsilon",
            num_steps=4,
            generators=generators(1),
        )


@pytest.mark.parametrize(
    ("name", "num_steps"),
    [
        ("langevin", -1),
        ("langevin", 0),
        ("langevin", 21),
        ("ddim", -1),
        ("ddim", 0),
        ("ddim", 21),
        *((name, n) for name in ("dpmpp_2m", "unipc") for n in (-1, 0, 21)),
    ],
)
def test_a_number_of_steps_that_the_schedule_does_not_have_is_refused(name, num_steps):
    with pytest.raises(ValueError, match="step"):
        run(name, Recorder(), num_steps, gammas=linear(1e-4, 0.2, 20))


@pytest.mark.parametrize("eta", [-0.5, 3.0])
def test_an_eta_outside_0_and_1_is_refused(eta):
    with pytest.raises(ValueError, match="eta"):
        run("ddim", Recorder(), 4, eta=eta)


def test_langevin_refuses_to_be_built_without_levels_or_with_another_prediction():
    with pytest.raises(ValueError, match="trained_betas"):
        LangevinScheduler()
    with pytest.raises(ValueError, match="prediction_type"):
        LangevinScheduler(num_train_timesteps=1, trained_betas=[0.1], prediction_type="v_prediction")
    with pytest.raises(ValueError, match="num_train_timesteps is 2000, but trained_betas are 1"):
        LangevinScheduler(trained_betas=[0.1])
