"""Did numbers move without our wish? The first losses of a tiny training, and what a small denoiser puts out.

To print both anew after a change that is meant to move them: `python tests/golden/test_training.py`.
"""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from idm.data.pairs import Batch
from idm.diffusion.schedule import cosine, linear
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.training.learner import IntrinsicIteration, Optimisation

LOSSES = {
    "sample": [0.68025, 0.68988, 0.67021, 0.66083, 0.65986],
    "epsilon": [0.94807, 1.03490, 0.99235, 0.96911, 1.02686],
    "v": [0.23361, 0.09734, 0.32360, 0.28474, 0.26491],
}
OUTPUT = (-0.00485, 0.10702, -0.08115, 0.10271)


def denoiser(add_degraded: bool) -> UNet:
    """Weights from a formula, so that they do not depend on how a layer draws its own."""
    network = UNet(
        image_size=16,
        channels=(8, 16),
        num_blocks=(1, 1),
        attention_resolutions=(8, 4),
        head_dim=8,
        inject_degraded=True,
        add_degraded=add_degraded,
    )
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            waves = torch.sin(torch.arange(parameter.numel(), dtype=torch.float64) * 1.7 + number)
            parameter.copy_((0.15 * waves).view_as(parameter))
    return network


def batch(first: int) -> Batch:
    rng = torch.Generator().manual_seed(first)
    hq, lq = torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8, generator=rng)
    return Batch(hq, lq, torch.full((4, 5, 2), torch.nan), list(range(first, first + 4)))


def first_losses(prediction: str) -> list[float]:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    gammas = cosine(100) if prediction == "v" else linear()
    learner = IntrinsicIteration(
        denoiser(add_degraded=prediction == "sample"),
        Accelerator(cpu=True, mixed_precision="no"),
        gammas=gammas,
        prediction=prediction,
        p=2 if prediction == "epsilon" else 1,
        min_snr_clamp=5.0 if prediction == "v" else None,
        optimisation=Optimisation(
            num_steps=5,
            learning_rate=5e-3,
            warmup_steps=2,
            decay="cosine",
            betas=(0.9, 0.99),
            weight_decay=0.01,
            max_grad_norm=1.0,
            ema_decay=0.9,
        ),
        seed=0,
        make_pipeline=lambda published: IDM(published, gammas),
    )
    batches = (batch(4 * number) for number in range(5))
    losses = [learner.train_step(step, batches)["loss"].item() for step in range(5)]
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return losses


@torch.no_grad()
def output_summary() -> tuple[float, ...]:
    """Mean, standard deviation, one pixel, and the mean step between neighbours."""
    x_d, x_t = torch.sin(torch.arange(2 * 2 * 3 * 16 * 16) * 0.37).view(2, 2, 3, 16, 16)
    output = denoiser(add_degraded=False)(x_d=x_d, x_t=x_t, gamma=torch.tensor([0.2, 0.9]))
    steps = (output[..., 1:] - output[..., :-1]).abs().mean()
    return output.mean().item(), output.std().item(), output[1, 2, 7, 9].item(), steps.item()


@pytest.mark.parametrize("prediction", LOSSES)
def test_the_first_losses_of_a_training_are_those_of_before(prediction):
    assert first_losses(prediction) == pytest.approx(LOSSES[prediction], abs=1e-4)


def test_the_output_of_a_small_denoiser_is_that_of_before():
    assert output_summary() == pytest.approx(OUTPUT, abs=1e-4)


if __name__ == "__main__":
    for prediction in LOSSES:
        print(f'    "{prediction}": [{", ".join(f"{loss:.5f}" for loss in first_losses(prediction))}],')
    print(f"OUTPUT = ({', '.join(f'{value:.5f}' for value in output_summary())})")
