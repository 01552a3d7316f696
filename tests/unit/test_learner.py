"""The intrinsic iteration against a training loop written out by hand."""

import copy
import math
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.utils._python_dispatch import TorchDispatchMode

from idm.data.pairs import Batch
from idm.diffusion.objective import training_loss
from idm.diffusion.schedule import linear, piecewise_uniform
from idm.models.lora import add_adapters, merged_weights
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.restorers.saved import load_idm
from idm.training.learner import IntrinsicIteration, NoiseLevels, Optimisation, by_noise_level, training_noise
from idm.training.log import Window
from idm.training.updates import all_finite

TINY = {
    "image_size": 16,
    "channels": (8, 16),
    "num_blocks": (1, 1),
    "attention_resolutions": (4,),
    "head_dim": 8,
    "add_degraded": True,
}
OPTIMISATION = Optimisation(
    num_steps=10,
    learning_rate=1e-2,
    warmup_steps=2,
    decay="cosine",
    betas=(0.9, 0.99),
    weight_decay=0.1,
    max_grad_norm=0.02,  # below the norms that occur, so that it acts
    ema_decay=0.15,  # is reached in the second step: (1 + 1) / (10 + 1) > 0.15
)
GAMMAS = linear(1e-4, 0.05, 100)


@pytest.fixture
def learner():
    """Make a learner over a fresh or a given denoiser; accelerate's global state is reset around the test."""

    def learner(
        accumulation: int = 1, denoiser: UNet | None = None, mixed_precision: str = "no", **change
    ) -> IntrinsicIteration:
        reset()
        settings = {
            "prediction": "sample",
            "p": 1,
            "min_snr_clamp": None,
            "optimisation": OPTIMISATION,
            "seed": 3,
        }
        return IntrinsicIteration(
            denoiser or fresh_denoiser(),
            Accelerator(cpu=True, mixed_precision=mixed_precision, gradient_accumulation_steps=accumulation),
            gammas=GAMMAS,
            make_pipeline=lambda published: IDM(published, GAMMAS),
            **{**settings, **change},
        )

    yield learner
    reset()


def reset() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def fresh_denoiser(**change) -> UNet:
    torch.manual_seed(0)
    return UNet(**{**TINY, **change})


def batches(size: int = 4, first: int = 0) -> Iterator[Batch]:
    """Random pictures; those at a position are always the same."""
    while True:
        positions = list(range(first, first + size))
        yield batch_of(positions)
        first += size


def batch_of(positions: list[int]) -> Batch:
    def picture(position: int) -> torch.Tensor:
        rng = torch.Generator().manual_seed(position)
        return torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=rng)

    hq, lq = torch.stack([picture(position) for position in positions], dim=1)
    return Batch(hq, lq, torch.full((len(positions), 5, 2), torch.nan), positions)


def weights(model: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_same(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 0.0) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance)


# What waits


class Waits(TorchDispatchMode):
    """Collects the operations for whose result the processor waits on a GPU."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function.overloadpacket.__name__ in self.NAMES:
            self.seen.append(str(function))
        return function(*arguments, **(keywords or {}))


def test_no_step_waits_for_a_number(learner):
    ours, data = learner(accumulation=2, min_snr_clamp=5.0, prediction="v"), batches()
    window = Window(torch.device("cpu"))
    with Waits() as waits:
        for step in range(3):
            window.add(ours.train_step(step, data), ours.skipped)
        assert waits.seen == []
        ours.skipped.item()
    assert len(waits.seen) == 1


# Adapters


def adapted_denoiser() -> UNet:
    denoiser = fresh_denoiser(dropout=0.3)
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    add_adapters(denoiser, 2, 4.0, seed=1)
    return denoiser


def test_only_adapters_are_trained_and_the_published_model_has_them_merged(learner, tmp_path):
    base = merged_weights(adapted_denoiser())
    ours = learner(denoiser=adapted_denoiser())
    network, data = ours.model, batches()
    for step in range(3):
        ours.train_step(step, data)
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad == name.endswith((".down", ".up")), name
    ours.save(tmp_path)
    saved = load_idm(tmp_path / "pipeline", torch.device("cpu"), torch.float32)
    assert_same(list(saved.denoiser.parameters()), ours.ema.shadow_params)
    assert {name for name, _ in saved.denoiser.named_parameters()} == base.keys()
    merged = merged_weights(network)
    for name, weight in merged.items():
        if weight.ndim > 1:
            change = (weight - base[name]).flatten(1).double()
            assert 0 < torch.linalg.matrix_rank(change, rtol=1e-4) <= 2, name
        else:
            assert torch.equal(weight, base[name])
    plain = fresh_denoiser()
    plain.load_state_dict(merged)
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        ask = {"x_d": x, "x_t": x.flip(0), "gamma": torch.tensor([0.3, 0.9])}
        torch.testing.assert_close(network.eval()(**ask), plain.eval()(**ask))


def test_the_average_with_adapters_is_that_of_the_merged_weights(learner):
    ours, data = learner(denoiser=adapted_denoiser()), batches()
    expected = merged_weights(ours.model)
    for step in range(3):
        ours.train_step(step, data)
        decay = 0.0 if step == 0 else OPTIMISATION.ema_decay
        expected = {
            name: decay * expected[name] + (1 - decay) * new for name, new in merged_weights(ours.model).items()
        }
    names = [name for name, _ in fresh_denoiser().named_parameters()]
    assert_same(ours.ema.shadow_params, [expected[name] for name in names], 1e-6)


def test_adapters_are_saved_and_resumed_bit_for_bit(learner, tmp_path):
    whole, data = learner(denoiser=adapted_denoiser()), batches()
    for step in range(4):
        whole.train_step(step, data)
    half, data = learner(denoiser=adapted_denoiser()), batches()
    for step in range(2):
        half.train_step(step, data)
    half.save(tmp_path)
    again = learner(denoiser=adapted_denoiser())
    again.load(tmp_path)
    for step in range(2, 4):
        again.train_step(step, data)
    assert_same(weights(again.model), weights(whole.model))
    assert_same(again.ema.shadow_params, whole.ema.shadow_params)


# The learning rate


def test_the_learning_rate_warms_up_in_equal_steps():
    optimisation = replace(OPTIMISATION, learning_rate=0.8, warmup_steps=4)
    assert [optimisation.learning_rate_at(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])


@pytest.mark.parametrize("warmup", [0, 20])
def test_the_learning_rate_falls_in_half_a_cosine_to_zero(warmup):
    optimisation = replace(OPTIMISATION, learning_rate=0.8, warmup_steps=warmup, num_steps=100 + warmup)
    assert optimisation.learning_rate_at(warmup) == pytest.approx(0.8)
    assert optimisation.learning_rate_at(warmup + 50) == pytest.approx(0.4)
    quarter = 0.8 * (1 + math.cos(math.pi / 4)) / 2
    assert optimisation.learning_rate_at(warmup + 25) == pytest.approx(quarter)
    assert optimisation.learning_rate_at(warmup + 100) == pytest.approx(0)
    assert optimisation.learning_rate_at(warmup + 150) == pytest.approx(0)


def test_a_constant_learning_rate_stays_after_the_warm_up():
    optimisation = replace(OPTIMISATION, decay="constant", learning_rate=0.8, warmup_steps=2)
    rates = [optimisation.learning_rate_at(step) for step in (0, 1, 2, 9, 1000)]
    assert rates == pytest.approx([0.4, 0.8, 0.8, 0.8, 0.8])


def test_a_run_that_ends_within_the_warm_up_has_a_rate_in_every_step():
    optimisation = replace(OPTIMISATION, warmup_steps=10, num_steps=10)
    assert all(0 < optimisation.learning_rate_at(step) <= 1e-2 for step in range(11))


# The noise


def test_the_noise_of_a_sample_follows_from_seed_and_position_alone():
    like = torch.empty(4, 3, 8, 8)
    eps, u = training_noise(5, [10, 11, 12, 13], like)
    again, u_again = training_noise(5, [13, 10], like[:2])
    assert torch.equal(again, eps[[3, 0]])
    assert torch.equal(u_again, u[:, [3, 0]])


def test_the_noise_does_not_depend_on_what_was_drawn_before():
    like = torch.empty(1, 3, 8, 8)
    torch.manual_seed(1)
    first = training_noise(5, [10], like)
    torch.manual_seed(2)
    state = torch.get_rng_state()
    second = training_noise(5, [10], like)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(torch.get_rng_state(), state)


def test_other_seeds_and_positions_have_other_noise():
    like = torch.empty(1, 3, 8, 8)
    drawn = [training_noise(seed, [position], like) for seed, position in ((5, 10), (5, 11), (6, 10), (10, 5))]
    for i in range(4):
        for j in range(i):
            assert not torch.equal(drawn[i][0], drawn[j][0])
            assert not torch.equal(drawn[i][1], drawn[j][1])


def test_the_noise_is_standard_normal_and_the_levels_uniform():
    eps, u = training_noise(0, list(range(2000)), torch.empty(2000, 1, 8, 8))
    assert eps.mean().item() == pytest.approx(0, abs=4 / eps.numel() ** 0.5)
    assert eps.var().item() == pytest.approx(1, abs=4 * (2 / eps.numel()) ** 0.5)
    assert u.shape == (3, 2000)
    assert u.dtype == torch.float64
    assert ((u >= 0) & (u < 1)).all()
    assert u.mean(dim=1).tolist() == pytest.approx([0.5] * 3, abs=4 * (1 / 12 / 2000) ** 0.5)
    assert torch.corrcoef(u).triu(1).abs().max().item() < 4 / 2000**0.5


# The loss


def test_the_loss_is_that_of_the_objective_on_images_in_diffusions_range(learner):
    trained, batch = learner(prediction="sample", p=2, min_snr_clamp=5.0), batch_of([7, 8, 9])
    x_0, x_d = (images.float() / 127.5 - 1 for images in (batch.hq, batch.lq))
    eps, u = training_noise(3, [7, 8, 9], x_0)
    wanted = training_loss(
        trained.model,
        x_0=x_0,
        x_d=x_d,
        eps=eps,
        gamma=piecewise_uniform(GAMMAS, *u[:2]),
        prediction="sample",
        p=2,
        min_snr_clamp=5.0,
    )
    torch.testing.assert_close(trained.loss(batch), wanted)


def test_the_loss_of_a_batch_is_the_mean_of_its_samples(learner):
    trained = learner(denoiser=fresh_denoiser(dropout=0.0))
    alone = [trained.loss(batch_of([position])).item() for position in (4, 5, 6)]
    assert trained.loss(batch_of([4, 5, 6])).item() == pytest.approx(sum(alone) / 3, rel=1e-5)


def test_clean_weight_weighs_only_the_faces_that_are_not_degraded(learner):
    mixed, clean, noisy = batch_of([4, 5]), batch_of([4]), batch_of([5])
    mixed.lq[0] = mixed.hq[0]
    clean.lq[0] = clean.hq[0]
    trained = learner(denoiser=fresh_denoiser(dropout=0.0), clean_weight=3.0)
    equal = learner(denoiser=fresh_denoiser(dropout=0.0))
    of_clean, of_noisy = equal.loss(clean).item(), equal.loss(noisy).item()
    assert trained.loss(mixed).item() == pytest.approx((3 * of_clean + of_noisy) / 2, rel=1e-5)


def test_in_mixed_precision_the_network_computes_in_bfloat16_and_its_losses_in_float32(learner, monkeypatch):
    computed, judged = [], []
    denoiser = fresh_denoiser()
    first = next(module for module in denoiser.modules() if isinstance(module, torch.nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: computed.append(output.dtype))
    monkeypatch.setattr(
        "idm.training.learner.ssim",
        lambda a, b: judged.append((a @ b.mT).dtype) or (a - b).square().mean(dim=(1, 2, 3)),
    )
    everywhere = NoiseLevels(own_estimates=1.0)
    trained = learner(denoiser=denoiser, mixed_precision="bf16", noise_levels=everywhere, ssim_weight=1.0)
    loss = trained.loss(next(batches()))
    assert computed == [torch.bfloat16] * 2  # for the estimates that are noised, and for the loss
    assert judged == [torch.float32]
    assert loss.dtype == torch.float32


def test_dropout_too_follows_from_the_position(learner):
    denoiser = fresh_denoiser(dropout=0.5)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.1
    trained = learner(denoiser=denoiser)
    trained.model.train()
    first = trained.loss(batch_of([4, 5]))
    torch.rand(3)
    assert torch.equal(trained.loss(batch_of([4, 5])), first)


# The step


def by_hand(num_steps: int) -> tuple[list[float], list[torch.Tensor], list[torch.Tensor], list[float]]:
    """Losses, weights, averaged weights and gradient norms of a training that spells everything out."""
    model, o = fresh_denoiser(), OPTIMISATION
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=o.betas, weight_decay=o.weight_decay)
    average, losses, norms, source = weights(model), [], [], batches()
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = o.learning_rate_at(step)
        batch = next(source)
        x_0, x_d = (images.float() / 127.5 - 1 for images in (batch.hq, batch.lq))
        eps, (u_step, u_within, _) = training_noise(3, batch.positions, x_0)
        t = (u_step * 100).long() + 1
        gamma = GAMMAS[t - 1] * (1 - u_within) + GAMMAS[t] * u_within
        level = gamma.float().view(-1, 1, 1, 1)
        x_t = level.sqrt() * x_0 + (1 - level).sqrt() * eps
        loss = (model(x_d=x_d, x_t=x_t, gamma=gamma) - x_0).abs().mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().item()
        for parameter, gradient in zip(model.parameters(), gradients, strict=True):
            parameter.grad = gradient * min(1.0, o.max_grad_norm / norm)
        optimizer.step()
        decay = 0.0 if step == 0 else min(o.ema_decay, (1 + step) / (10 + step))
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights(model), strict=True)]
        losses.append(loss.item())
        norms.append(norm)
    return losses, weights(model), average, norms


def test_training_equals_a_loop_that_spells_everything_out(learner):
    trained, source = learner(), batches()
    values = [trained.train_step(step, source) for step in range(5)]
    losses, wanted, average, norms = by_hand(5)
    assert [value["loss"].item() for value in values] == pytest.approx(losses, rel=1e-4)
    assert [value["grad_norm"].item() for value in values] == pytest.approx(norms, rel=1e-3)
    assert_same(weights(trained.model), wanted, tolerance=2e-4)
    assert_same(list(trained.ema.shadow_params), average, tolerance=2e-4)
    assert max((a - w).abs().max().item() for a, w in zip(average, wanted, strict=True)) > 1e-3


def test_no_gradient_is_left_over_for_the_next_step(learner):
    trained = learner()
    trained.train_step(0, batches())
    assert all(parameter.grad is None for parameter in trained.model.parameters())


def test_two_micro_batches_make_the_same_step_as_one_batch(learner):
    whole = learner(accumulation=1)
    value = whole.train_step(0, batches(size=4))
    split = learner(accumulation=2)
    source = batches(size=2)
    split_value = split.train_step(0, source)
    assert next(source).positions == [4, 5]  # two were taken
    assert split_value["loss"].item() == pytest.approx(value["loss"].item(), rel=1e-5)
    assert split_value["grad_norm"].item() == pytest.approx(value["grad_norm"].item(), rel=1e-4)
    # Adam's first step is a sign, the optimiser's state is the gradient itself
    for a, b in zip(first_moments(whole), first_moments(split), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-7)


def first_moments(trained: IntrinsicIteration) -> list[torch.Tensor]:
    state = trained.optimizer.state_dict()["state"]
    return [state[index]["exp_avg"] for index in sorted(state)]


def test_training_lowers_the_loss(learner):
    trained = learner(optimisation=replace(OPTIMISATION, num_steps=40, max_grad_norm=1.0))
    source = iter([batch_of([0, 1, 2, 3])] * 40)
    losses = [trained.train_step(step, source)["loss"].item() for step in range(40)]
    assert losses[-1] < 0.8 * losses[0]


# What is published


def test_the_restorer_has_the_averaged_weights_and_leaves_the_trained_ones(learner, monkeypatch):
    monkeypatch.setattr("idm.training.learner.inference_dtype", lambda device: torch.float32)
    trained, source = learner(optimisation=replace(OPTIMISATION, ema_decay=0.9)), batches()
    for step in range(3):
        trained.train_step(step, source)
    before = weights(trained.model)
    published = weights(trained.restorer().denoiser)
    assert_same(published, list(trained.ema.shadow_params))
    assert max((p - w).abs().max().item() for p, w in zip(published, before, strict=True)) > 1e-4
    assert_same(weights(trained.model), before)


def test_publishing_in_bfloat16_does_not_round_what_is_saved(learner, monkeypatch, tmp_path):
    monkeypatch.setattr("idm.training.learner.inference_dtype", lambda device: torch.bfloat16)
    trained = learner()
    trained.train_step(0, batches())
    assert trained.restorer().denoiser.dtype == torch.bfloat16
    trained.save(tmp_path)
    saved = load_idm(tmp_path / "pipeline", torch.device("cpu"), torch.float32)
    assert_same(weights(saved.denoiser), list(trained.ema.shadow_params))


def test_four_steps_equal_two_steps_saving_loading_and_two_steps(learner, tmp_path):
    straight, source = learner(), batches()
    values = [straight.train_step(step, source)["loss"] for step in range(4)]
    final, average = weights(straight.model), copy.deepcopy(list(straight.ema.shadow_params))

    broken, source = learner(), batches()
    for step in range(2):
        broken.train_step(step, source)
    broken.save(tmp_path)

    resumed = learner(denoiser=UNet(**TINY))  # other initial weights
    resumed.load(tmp_path)
    source = batches(first=8)
    assert [resumed.train_step(step, source)["loss"] for step in (2, 3)] == values[2:]
    assert_same(weights(resumed.model), final)
    assert_same(list(resumed.ema.shadow_params), average)


# What is not finite


def test_a_gradient_that_is_not_finite_changes_nothing_and_the_next_step_is_taken(learner):
    trained, source = learner(), batches()
    trained.train_step(0, source)
    assert trained.skipped == 0
    optimizer = copy.deepcopy(trained.optimizer.state_dict()["state"])
    before, average = weights(trained.model), [shadow.clone() for shadow in trained.ema.shadow_params]
    spoilt = list(trained.model.parameters())[3]
    for value in (math.nan, math.inf):
        hook = spoilt.register_hook(lambda gradient, value=value: gradient * value)
        trained.train_step(1, source)
        hook.remove()
        assert trained.skipped == 1
        assert_same(weights(trained.model), before)
        assert_same(list(trained.ema.shadow_params), average)
        for index, state in trained.optimizer.state_dict()["state"].items():
            assert all(torch.equal(value, optimizer[index][name]) for name, value in state.items())
    trained.train_step(2, source)
    assert trained.skipped == 0
    assert all(torch.isfinite(weight).all() for weight in trained.tensors())
    assert any(not torch.equal(a, b) for a, b in zip(weights(trained.model), before, strict=True))


def test_weights_and_averages_that_are_not_finite_are_reported(learner):
    trained = learner()
    assert all_finite(trained.tensors())
    for tensor in (next(trained.model.parameters()), trained.ema.shadow_params[-1]):
        with torch.no_grad():
            held = tensor.view(-1)[0].clone()
            tensor.view(-1)[0] = math.inf
            assert not all_finite(trained.tensors())
            tensor.view(-1)[0] = held
    assert all_finite(trained.tensors())


# The loss by noise level


def test_the_loss_by_noise_level_is_a_sum_and_a_count_of_each_range():
    sigma = torch.tensor([0.05, 0.3, 0.4, 5.0], dtype=torch.float64)
    totals = by_noise_level(torch.tensor([1.0, 2.0, 4.0, 8.0]), 1 / (1 + sigma**2))
    assert {name: total.tolist() for name, total in totals.items()} == {
        "loss_sigma_0_0.1": [1, 1],
        "loss_sigma_0.1_0.5": [6, 2],
        "loss_sigma_0.5_2": [0, 0],
        "loss_sigma_2_inf": [8, 1],
    }


def test_the_losses_by_noise_level_make_up_the_loss(learner):
    values = learner(accumulation=2).train_step(0, batches(size=2))
    total = sum(value for name, value in values.items() if name.startswith("loss_sigma_"))
    assert total[1] == 4
    assert (total[0] / total[1]).item() == pytest.approx(values["loss"].item(), rel=1e-5)
