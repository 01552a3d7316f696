"""The average of the weights equals diffusers' EMAModel, and what is published brings it back."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from idm.training.ema import EMA

YES, NO = torch.tensor(True), torch.tensor(False)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def move(model: nn.Module, step: int) -> None:
    """Give a network other weights, as an optimiser would."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(step)))


def same(ours: list[Tensor], theirs: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_the_average_equals_that_of_diffusers(decay: float) -> None:
    model = network(0)
    ours, theirs = EMA(model.parameters(), decay), EMAModel(model.parameters(), decay=decay)
    for step in range(40):
        move(model, step)
        ours.update(model.parameters(), step, YES)
        theirs.step(model.parameters())
        assert ours.decay_at(step) == theirs.cur_decay_value
        torch.testing.assert_close(ours.shadow_params, theirs.shadow_params, rtol=1e-5, atol=1e-6)


def test_a_step_without_an_update_leaves_the_average() -> None:
    model = network(0)
    ema = EMA(model.parameters(), 0.9)
    before = [average.clone() for average in ema.shadow_params]
    move(model, 1)
    ema.update(model.parameters(), 5, NO)
    assert same(ema.shadow_params, before)
    ema.update(model.parameters(), 5, YES)
    assert not same(ema.shadow_params, before)


def test_the_average_of_the_first_step_is_the_weights() -> None:
    model = network(0)
    ema = EMA(model.parameters(), 0.999)
    move(model, 1)
    ema.update(model.parameters(), 0, YES)
    torch.testing.assert_close(ema.shadow_params, [p.detach() for p in model.parameters()])


def test_what_is_published_brings_the_average_back() -> None:
    model, published = network(0), network(1)
    ema = EMA(model.parameters(), 0.9)
    move(model, 1)
    ema.update(model.parameters(), 7, YES)
    ema.publish(published.parameters())
    assert same([p.detach() for p in published.parameters()], ema.shadow_params)
    other = EMA(network(2).parameters(), 0.9)
    other.restore(published.parameters())
    assert same(other.shadow_params, ema.shadow_params)
    assert not any(average.requires_grad for average in other.shadow_params)


def test_the_averages_are_copies() -> None:
    model = network(0)
    ema = EMA(model.parameters(), 0.9)
    before = [average.clone() for average in ema.shadow_params]
    move(model, 1)
    assert same(ema.shadow_params, before)
