"""Laws that hold for every schedule, level, prediction and sampler."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from idm.diffusion.chain import SAMPLER_NAMES, Chain
from idm.diffusion.process import add_noise, target, to_eps, to_x_0
from idm.diffusion.samplers import sample
from idm.diffusion.schedule import (
    cosine,
    from_betas,
    linear,
    log_sigma,
    piecewise_uniform,
    start_and_log_uniform,
    to_betas,
    to_gamma,
    to_sigma,
)

PREDICTIONS = ("epsilon", "sample", "v")
SCHEDULES = {"linear": linear(), "cosine": cosine(), "log_sigma": log_sigma()}
SEEDS = st.integers(0, 2**31 - 1)


@st.composite
def any_schedule(draw):
    num_steps = draw(st.integers(1, 400))
    if draw(st.booleans()):
        beta_start = 10 ** draw(st.floats(-7, -1))
        return linear(beta_start, draw(st.floats(beta_start, 0.5)), num_steps)
    return cosine(num_steps, draw(st.floats(1e-4, 0.5)))


def images(seed: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x_0 and x_d in [-1, 1], and noise."""
    rng = torch.Generator().manual_seed(seed)
    x_0, x_d = (torch.rand(count, 3, 3, 3, generator=rng) * 2 - 1 for _ in range(2))
    return x_0, x_d, torch.randn(count, 3, 3, 3, generator=rng)


# Schedules


@given(any_schedule())
def test_gamma_falls_strictly_from_1_and_stays_above_0(gammas):
    assert gammas[0] == 1
    assert (gammas[1:] < gammas[:-1]).all()
    assert gammas[-1] > 0


@given(any_schedule())
def test_to_betas_inverts_from_betas(gammas):
    betas = to_betas(gammas)
    assert ((betas > 0) & (betas < 1)).all()
    torch.testing.assert_close(from_betas(betas), gammas, rtol=1e-12, atol=0)


@given(st.lists(st.floats(1e-7, 0.9), min_size=1, max_size=200))
def test_from_betas_inverts_to_betas(betas):
    betas = torch.tensor(betas, dtype=torch.float64)
    torch.testing.assert_close(to_betas(from_betas(betas)), betas, rtol=0, atol=4e-16)


def test_log_sigma_is_even_in_the_logarithm_of_sigma_below_its_start():
    sigma = to_sigma(log_sigma(0.05, 0.8, 90.0, num_steps=9))
    assert sigma[0] == 0
    assert sigma[-1].item() == pytest.approx(90)
    assert sigma[1].item() == pytest.approx(0.05)
    assert sigma[-2].item() == pytest.approx(0.8)
    steps = sigma[1:-1].log().diff()
    torch.testing.assert_close(steps, steps[:1].expand_as(steps), rtol=1e-9, atol=0)
    torch.testing.assert_close(to_gamma(sigma), log_sigma(0.05, 0.8, 90.0, num_steps=9))


@pytest.mark.parametrize("arguments", [(0.0, 1.0, 9.0, 8), (1.0, 0.5, 9.0, 8), (0.1, 10.0, 9.0, 8), (0.1, 1.0, 9.0, 2)])
def test_an_impossible_log_sigma_schedule_is_refused(arguments):
    with pytest.raises(ValueError, match="need"):
        log_sigma(*arguments)


# Training levels


def test_start_and_log_uniform_draws_its_share_at_the_start_and_the_rest_evenly_in_log_sigma():
    gammas = log_sigma(0.05, 0.8, 90.0, num_steps=9)
    u_start, u_within = torch.rand(2, 20000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gamma = start_and_log_uniform(gammas, 0.3, u_start, u_within)
    start = gamma == gammas[-1]
    assert start.double().mean().item() == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 20000) ** 0.5)
    logs = to_sigma(gamma[~start]).log().numpy()
    low, high = to_sigma(gammas[1]).log().item(), to_sigma(gammas[-2]).log().item()
    assert stats.kstest(logs, stats.uniform(low, high - low).cdf).pvalue > 1e-3


@given(any_schedule(), st.lists(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2), min_size=1, max_size=20))
def test_a_training_level_stays_between_its_neighbours(gammas, uniforms):
    u_step, u_within = torch.tensor(uniforms, dtype=torch.float64).T
    drawn = piecewise_uniform(gammas, u_step, u_within)
    t = (u_step * (len(gammas) - 1)).long() + 1
    assert (drawn <= gammas[t - 1]).all()
    assert (drawn >= gammas[t]).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_training_levels_are_uniform_over_the_steps_and_within_each(schedule):
    gammas = SCHEDULES[schedule]
    rng = torch.Generator().manual_seed(0)
    u = torch.rand(2, 50_000, generator=rng, dtype=torch.float64)
    drawn = piecewise_uniform(gammas, *u)
    t = torch.searchsorted(-gammas, -drawn, right=True)  # gamma_{t-1} >= drawn > gamma_t
    share = (gammas[t - 1] - drawn) / (gammas[t - 1] - gammas[t])
    assert stats.kstest(share, "uniform").pvalue > 1e-3
    assert stats.kstest((t - 1 + share) / (len(gammas) - 1), "uniform").pvalue > 1e-3
    assert len(t.unique()) == len(gammas) - 1  # each sample draws its own step, and every step is drawn


# Readings of f_theta's output


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=10)
@given(seed=SEEDS)
def test_every_prediction_inverts_add_noise_at_every_level(schedule, prediction, seed):
    gamma = SCHEDULES[schedule][1:]
    x_0, _, eps = images(seed, len(gamma))
    x_t = add_noise(x_0, eps, gamma)
    restored = to_x_0(prediction, target(prediction, x_0, eps, gamma), x_t, gamma)
    rounding = 2e-6 / gamma.sqrt() if prediction == "epsilon" else torch.full_like(gamma, 2e-6)
    assert ((restored - x_0).abs().amax(dim=(1, 2, 3)) <= rounding).all()


@pytest.mark.parametrize("schedule", SCHEDULES)
@settings(max_examples=10)
@given(seed=SEEDS)
def test_to_eps_inverts_add_noise_at_every_level(schedule, seed):
    gamma = SCHEDULES[schedule][1:]
    x_0, _, eps = images(seed, len(gamma))
    restored = to_eps(x_0, add_noise(x_0, eps, gamma), gamma)
    assert ((restored - eps).abs().amax(dim=(1, 2, 3)) <= 2e-6 / (1 - gamma).sqrt()).all()


@given(seed=SEEDS, gamma=st.floats(1e-4, 1 - 1e-4))
def test_noise_keeps_the_variance_of_unit_data(seed, gamma):
    rng = torch.Generator().manual_seed(seed)
    x_0, eps = torch.randn(2, 1, 3, 64, 64, generator=rng)
    x_t = add_noise(x_0, eps, torch.tensor([gamma], dtype=torch.float64))
    assert x_t.var().item() == pytest.approx(1, abs=6 * (2 / x_t.numel()) ** 0.5)


# Samplers

CHAINS = st.one_of(
    st.just(("noise", 1.0)), st.tuples(st.just("degraded"), st.floats(0.01, 1)), st.just(("degraded", 1.0))
)
SAMPLERS = SAMPLER_NAMES


class Perfect:
    """A denoiser that knows x_0, and notes how far each x_t is from what its level says of it."""

    def __init__(self, prediction: str, x_0: torch.Tensor) -> None:
        self.prediction, self.x_0 = prediction, x_0
        self.eps, self.levels, self.off_level = None, [], 0.0

    def __call__(self, *, x_d, x_t, gamma):
        eps = to_eps(self.x_0, x_t, gamma)
        self.eps = eps if self.eps is None else self.eps
        self.levels.append(gamma[0].item())
        off = (x_t - add_noise(self.x_0, self.eps, gamma)).abs().max().item()
        self.off_level = max(self.off_level, off)
        return target(self.prediction, self.x_0, eps, gamma)


def run_perfect(
    name, schedule, prediction, num_steps, chain, seed, eta=0.0, spacing="even"
) -> tuple[torch.Tensor, Perfect]:
    """How far from x_0 a chain comes."""
    x_0, x_d, _ = images(seed)
    f = Perfect(prediction, x_0)
    drawn = sample(
        f,
        x_d,
        SCHEDULES[schedule],
        Chain(name, num_steps, *chain, eta=eta, spacing=spacing),
        prediction=prediction,
        generators=[torch.Generator().manual_seed(seed + i) for i in range(len(x_0))],
    )
    return drawn - x_0, f


def rounding_of(f: Perfect) -> float:
    """float32 keeps 1e-7 of x_t, which a step divides by the root of its signal."""
    return 1e-5 + 4e-6 / f.levels[-1] ** 0.5


@pytest.mark.parametrize("name", SAMPLERS)
@settings(max_examples=40)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    prediction=st.sampled_from(PREDICTIONS),
    num_steps=st.integers(1, 60),
    chain=CHAINS,
    seed=SEEDS,
    spacing=st.sampled_from(["even", "quadratic", "karras", "log_snr"]),
)
@example(schedule="cosine", prediction="sample", num_steps=7, chain=("degraded", 0.01), seed=0, spacing="even")
@example(schedule="linear", prediction="epsilon", num_steps=1, chain=("noise", 1.0), seed=0, spacing="even")
def test_a_perfect_denoiser_recovers_x_0_with_any_number_of_steps(
    name, schedule, prediction, num_steps, chain, seed, spacing
):
    error, f = run_perfect(name, schedule, prediction, num_steps, chain, seed, spacing=spacing)
    assert error.abs().max().item() <= rounding_of(f)


@settings(max_examples=25)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    num_steps=st.integers(1, 60),
    chain=CHAINS,
    seed=SEEDS,
    eta=st.floats(0, 1),
)
def test_a_perfect_denoiser_recovers_x_0_by_ddim_with_any_share_of_fresh_noise(schedule, num_steps, chain, seed, eta):
    error, f = run_perfect("ddim", schedule, "sample", num_steps, chain, seed, eta)
    assert error.abs().max().item() <= rounding_of(f)


@pytest.mark.parametrize("name", SAMPLERS[1:])
@settings(max_examples=25)
@given(schedule=st.sampled_from(sorted(SCHEDULES)), num_steps=st.integers(2, 60), chain=CHAINS, seed=SEEDS)
@example(schedule="cosine", num_steps=3, chain=("noise", 1.0), seed=0)
def test_a_denoiser_receives_the_noise_level_of_its_image(name, schedule, num_steps, chain, seed):
    _, f = run_perfect(name, schedule, "sample", num_steps, chain, seed)
    assert f.off_level < 2e-4


@pytest.mark.parametrize("name", ["langevin", "ddim"])
@settings(max_examples=25)
@given(
    schedule=st.sampled_from(sorted(SCHEDULES)),
    num_steps=st.sampled_from([2, 5, 10, 40]),
    eta=st.floats(0, 1),
    seed=SEEDS,
)
def test_the_noise_in_a_stochastic_chain_never_falls_below_its_level(name, schedule, num_steps, eta, seed):
    """The forward variance is the larger bound of the reverse process; DDIM keeps each level's own."""
    x_0 = torch.zeros(1, 3, 24, 24)
    deviations = []

    def f(*, x_d, x_t, gamma):
        deviations.append(to_eps(x_0, x_t, gamma).std().item())
        return x_0

    generators = [torch.Generator().manual_seed(seed)]
    chain = Chain(name, num_steps, eta=eta if name == "ddim" else 0.0)
    sample(f, x_0, SCHEDULES[schedule], chain, prediction="sample", generators=generators)
    assert min(deviations) > 0.9
    assert name == "langevin" or max(deviations) < 1.1


@settings(max_examples=25)
@given(seed=SEEDS, num_steps=st.integers(1, 12), strength=st.floats(0.01, 1))
def test_the_chain_runs_its_rounded_share_of_the_steps_and_at_least_one(seed, num_steps, strength):
    _, f = run_perfect("langevin", "linear", "sample", num_steps, ("degraded", strength), seed)
    assert len(f.levels) == max(1, round(strength * num_steps))
