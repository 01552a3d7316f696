"""What the objective adds to the pixels' loss, with denoisers in closed form."""

import pytest
import torch

from idm.diffusion import objective
from idm.diffusion.chain import Chain
from idm.diffusion.objective import GPU_BATCH, own_estimates, padded, training_loss
from idm.diffusion.process import add_noise, target
from idm.diffusion.samplers import sample
from idm.diffusion.schedule import log_sigma

GAMMAS = log_sigma(num_steps=8)


def faces(count: int = 3) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x_0, x_d = (torch.rand(count, 3, 4, 4, generator=rng) * 2 - 1 for _ in range(2))
    return {"x_0": x_0, "x_d": x_d, "eps": torch.randn(count, 3, 4, 4, generator=rng)}


def half_of_x_d(*, x_d, x_t, gamma):
    return x_d / 2


def test_only_chosen_samples_are_replaced_by_the_estimate_at_the_start():
    given, seen = faces(), []

    def f(*, x_d, x_t, gamma):
        seen.append((x_t, gamma))
        return half_of_x_d(x_d=x_d, x_t=x_t, gamma=gamma)

    chosen = torch.tensor([False, True, False])
    noised = own_estimates(f, **given, gamma_start=GAMMAS[-1], chosen=chosen)
    torch.testing.assert_close(noised[1], given["x_d"][1] / 2)
    torch.testing.assert_close(noised[[0, 2]], given["x_0"][[0, 2]])
    (x_t, gamma) = seen[0]
    assert gamma.tolist() == [GAMMAS[-1].item()]
    torch.testing.assert_close(x_t, add_noise(given["x_0"][1:2], given["eps"][1:2], GAMMAS[-1:]))


def test_a_gpu_sees_few_sizes_of_batches():
    indices = torch.tensor([3, 5, 8])
    on_gpu = padded(indices, 64, torch.device("cuda"))
    assert on_gpu.tolist() == [3, 5, *[8] * (GPU_BATCH - 2)]
    assert torch.equal(padded(on_gpu, 64, torch.device("cuda")), on_gpu)
    assert padded(indices, 9, torch.device("cuda")).tolist() == [3, 5, *[8] * 7]
    assert padded(indices, 64, torch.device("cpu")) is indices


def test_padding_changes_neither_estimates_nor_gradients(monkeypatch):
    given, scale = faces(), torch.ones((), requires_grad=True)

    def estimates_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        noised = own_estimates(
            lambda *, x_d, x_t, gamma: scale * x_d / 2,
            **given,
            gamma_start=GAMMAS[-1],
            chosen=torch.tensor([False, True, True]),
            end_to_end=True,
        )
        return noised.detach(), torch.autograd.grad(noised.sum(), scale)[0]

    expected = estimates_and_gradient()
    monkeypatch.setattr(objective, "padded", lambda indices, size, device: padded(indices, 64, torch.device("cuda")))
    torch.testing.assert_close(estimates_and_gradient(), expected)


@pytest.mark.parametrize("end_to_end", [False, True])
def test_gradients_flow_through_estimates_only_end_to_end(end_to_end):
    """f = w x_d at the start and x_t below it: its loss depends on w through the estimate alone."""
    given, w = faces(), torch.tensor(0.3, requires_grad=True)
    every, gamma = torch.ones(3, dtype=torch.bool), GAMMAS[[2, 3, 4]]
    noised = own_estimates(
        lambda x_d, x_t, gamma: w * x_d, **given, gamma_start=GAMMAS[-1], chosen=every, end_to_end=end_to_end
    )
    assert noised.requires_grad == end_to_end
    if end_to_end:
        loss = training_loss(lambda x_d, x_t, gamma: x_t, **given, gamma=gamma, prediction="sample", p=2, noised=noised)
        loss.backward()
        signal, noise = gamma.sqrt()[:, None, None, None], (1 - gamma).sqrt()[:, None, None, None]
        residual = signal * w.detach() * given["x_d"] + noise * given["eps"] - given["x_0"]
        torch.testing.assert_close(w.grad, (2 * residual * signal * given["x_d"]).mean(), check_dtype=False)


def test_a_noised_estimate_is_what_ddim_hands_to_its_second_step():
    """With gamma_T -> 0 the start is the noise itself, so the x_t of training and that of sampling agree."""
    x_d = faces(1)["x_d"]
    seen = []

    def f(*, x_d, x_t, gamma):
        seen.append((x_t, gamma))
        return x_d / 2

    sample(f, x_d, GAMMAS, Chain("ddim", 2), prediction="sample", generators=[torch.Generator().manual_seed(7)])
    (x_T, _), (x_t, gamma) = seen
    torch.testing.assert_close(x_t, add_noise(x_d / 2, x_T, gamma), atol=2e-2, rtol=0)


def test_x_t_is_made_of_what_is_noised_and_the_target_stays_x_0():
    given, gamma = faces(), GAMMAS[[2, 3, 4]]
    other = torch.zeros_like(given["x_0"])
    seen = []

    def f(*, x_d, x_t, gamma):
        seen.append(x_t)
        return given["x_0"]

    loss = training_loss(f, **given, gamma=gamma, prediction="sample", p=1, noised=other)
    torch.testing.assert_close(seen[0], add_noise(other, given["eps"], gamma))
    assert loss.item() == 0


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v"])
def test_the_loss_of_the_estimate_sees_x_0_whatever_is_predicted(prediction):
    given, gamma, seen = faces(), GAMMAS[[2, 3, 4]], []
    wanted = target(prediction, given["x_0"], given["eps"], gamma)

    def estimate_loss(estimate):
        seen.append(estimate)
        return estimate.new_tensor(2.5)

    arguments = {"gamma": gamma, "prediction": prediction, "p": 1}
    loss = training_loss(lambda **_: wanted, **given, **arguments, estimate_loss=estimate_loss)
    torch.testing.assert_close(seen[0], given["x_0"], atol=1e-4, rtol=0)
    assert loss.item() == pytest.approx(2.5, abs=1e-5)
