"""Each sampler on data whose best denoiser is known in closed form, and what `sample` promises."""

import inspect
import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from idm.diffusion.chain import SAMPLER_NAMES, SCHEDULERS, SPACINGS, Chain, sampler_of, signal_levels
from idm.diffusion.process import add_noise
from idm.diffusion.samplers import SAMPLERS as FUNCTIONS
from idm.diffusion.samplers import langevin_step, sample
from idm.diffusion.schedule import cosine, linear, to_sigma
from idm.diffusion.schedulers import LangevinScheduler, build_scheduler

SAMPLERS = SAMPLER_NAMES
STOCHASTIC = ("langevin",)  # without eta
DETERMINISTIC = tuple(name for name in SAMPLERS if name not in STOCHASTIC)
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
    call = {"prediction": "sample", "generators": generators(len(x_d)), "on_step": None}
    call |= {key: settings.pop(key) for key in tuple(settings) if key in call}
    return sample(f, x_d, gammas, Chain(name, num_steps, **settings), **call)


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

    eta = 1.0 if name == "ddim" else 0.0
    together = run(name, f, 6, x_d, eta=eta)
    for i in range(3):
        alone = run(name, f, 6, x_d[i : i + 1], generators=generators(3)[i : i + 1], eta=eta)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", DETERMINISTIC)
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
    for name in SAMPLERS:
        if name != "ddim":
            with pytest.raises(ValueError, match=f"eta is for the sampler ddim, not for {name}"):
                Chain(name, eta=1.0)


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


# The levels


def deviation(sigmas: list[float]) -> float:
    """Of what DDIM draws from N(0, .3^2): Euler's steps of the flow dx/dsigma = x sigma / (.3^2 + sigma^2)."""
    levels = [*sigmas, 0.0]
    result = math.sqrt(1 + sigmas[0] ** 2)
    for sigma, after in pairwise(levels):
        result *= 1 + (after - sigma) * sigma / (0.3**2 + sigma**2)
    return result


def linspace(start: float, end: float, n: int) -> list[float]:
    return torch.linspace(start, end, n, dtype=torch.float64).tolist()


SIGMA = to_sigma(GAMMAS)
HIGH, LOW = SIGMA[-1].item(), SIGMA[1].item()
FOUR = {  # sigmas of four steps
    "even": SIGMA[[2000, 1500, 1000, 500]].tolist(),
    "quadratic": SIGMA[[2000, 1125, 500, 125]].tolist(),
    "karras": [root**7 for root in linspace(HIGH ** (1 / 7), LOW ** (1 / 7), 4)],
    "log_snr": [math.exp(log) for log in linspace(math.log(HIGH), math.log(LOW), 4)],
    "levels": [100.0, 2.0, 0.5, 0.05],
}


def chain_of(spacing: str, num_steps: int = 4, **settings) -> Chain:
    return Chain(
        "ddim", num_steps, spacing=spacing, levels=tuple(FOUR["levels"]) if spacing == "levels" else (), **settings
    )


@pytest.mark.parametrize("spacing", SPACINGS)
def test_each_spacing_has_its_levels_in_closed_form(spacing):
    levels = signal_levels(chain_of(spacing), GAMMAS.tolist())
    found = to_sigma(torch.tensor(levels, dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor(FOUR[spacing], dtype=torch.float64), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("spacing", "num_steps", "wanted"),
    [
        ("even", 4, 0.089),
        ("even", 25, 0.251),
        ("quadratic", 4, 0.189),
        ("quadratic", 25, 0.277),
        ("karras", 4, 0.121),
        ("karras", 25, 0.259),
        ("log_snr", 4, 0.082),
        ("log_snr", 25, 0.265),
    ],
)
def test_the_deviation_that_ddim_gives_gaussian_data_is_that_of_its_levels(spacing, num_steps, wanted):
    chain = chain_of(spacing, num_steps)
    sigmas = to_sigma(torch.tensor(signal_levels(chain, GAMMAS.tolist()), dtype=torch.float64)).tolist()
    assert deviation(sigmas) == pytest.approx(wanted, abs=5e-4)

    def best(*, x_d, x_t, gamma):
        gamma = gamma.view(-1, 1, 1, 1)
        return (gamma.sqrt() * 0.3**2 / (gamma * 0.3**2 + 1 - gamma)).float() * x_t

    x_d = torch.zeros(4, 3, 32, 32)
    drawn = sample(best, x_d, GAMMAS, chain, prediction="sample", generators=generators(4))
    assert drawn.std().item() == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("schedule", [linear, cosine])
@pytest.mark.parametrize("spacing", [name for name in SPACINGS if name != "levels"])
def test_every_spacing_begins_at_the_start_and_rises_strictly_to_its_last_level(spacing, schedule):
    gammas = schedule()
    for num_steps in (1, 2, 7, 100):
        levels = signal_levels(chain_of(spacing, num_steps), gammas.tolist())
        assert len(levels) == num_steps
        assert levels == sorted(set(levels))
        assert levels[0] == pytest.approx(gammas[-1].item(), rel=1e-9)
        assert levels[-1] < 1


def test_a_part_of_a_chain_has_its_last_levels():
    whole = signal_levels(chain_of("levels"), GAMMAS.tolist())
    part = signal_levels(chain_of("levels", start_from="degraded", strength=0.5), GAMMAS.tolist())
    assert part == whole[2:]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"levels": (1.0,)}, "levels need spacing"),
        ({"spacing": "levels"}, "needs levels"),
        ({"spacing": "levels", "levels": (9.0, 1.0)}, "2 levels but 1 steps"),
        ({"spacing": "levels", "levels": (0.0,)}, "must be positive"),
        ({"spacing": "levels", "levels": (math.nan,)}, "must be positive"),
        ({"spacing": "levels", "num_steps": 2, "levels": (1.0, 1.0)}, "must fall"),
        ({"num_steps": 0}, "number of steps must be at least 1"),
        ({"eta": math.nan}, "eta must lie"),
        ({"strength": math.nan, "start_from": "degraded"}, "strength must lie"),
    ],
)
def test_an_impossible_chain_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Chain(**{"num_steps": 1, **settings})


UNKNOWN = """
from idm.diffusion.chain import Chain
for field in ("sampler", "start_from", "spacing"):
    try:
        Chain(**{field: "heun"})
    except ValueError as error:
        print(error)
"""


def test_an_unknown_name_is_refused():  # where the types of arguments are not checked
    printed = subprocess.run([sys.executable, "-c", UNKNOWN], check=True, capture_output=True, text=True).stdout
    assert printed.splitlines() == [
        f"sampler must be one of {', '.join(SAMPLERS)}, got 'heun'",
        "start_from must be one of noise, degraded, got 'heun'",
        "spacing must be one of even, quadratic, karras, log_snr, levels, got 'heun'",
    ]


def test_a_level_above_the_schedules_highest_is_refused():
    chain = Chain(num_steps=1, spacing="levels", levels=(200.0,))
    with pytest.raises(ValueError, match="level 200 is above the model's highest, 150"):
        signal_levels(chain, GAMMAS.tolist())


def test_every_sampler_has_a_function_and_a_class_to_be_saved_as():
    assert set(FUNCTIONS) == set(SCHEDULERS) == set(SAMPLERS)
    for name in SAMPLERS:
        assert sampler_of(type(build_scheduler(name, GAMMAS)).__name__) == name
    with pytest.raises(ValueError, match="no sampler is saved as EulerDiscreteScheduler"):
        sampler_of("EulerDiscreteScheduler")


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


@pytest.mark.parametrize("after", SAMPLERS)
@pytest.mark.parametrize("before", SAMPLERS)
def test_a_scheduler_made_from_the_config_of_another_has_the_same_timesteps(before, after):
    schedulers = build_scheduler(before, GAMMAS), build_scheduler(after, GAMMAS)
    other = type(schedulers[1]).from_config(schedulers[0].config)
    for scheduler in (other, schedulers[1]):
        scheduler.set_timesteps(4)
    assert other.timesteps.tolist() == schedulers[1].timesteps.tolist() == [1999, 1499, 999, 499]


@pytest.mark.parametrize("before", DETERMINISTIC)
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


@pytest.mark.parametrize("num_steps", [-1, 0, 21])
@pytest.mark.parametrize("name", SAMPLERS)
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
