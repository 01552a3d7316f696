"""The critic of whole faces as the shipped configuration trains it: it must see what the generator does wrong."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch import Tensor, nn
from torch.nn import functional as F

from gan_baseline.adversary import FaceAdversary, positive
from gan_baseline.build import build_adversary
from gan_baseline.schema import GANConfig
from idm.config.load import load_config
from idm.data.synthetic import synthetic_face
from idm.io.ranges import from_uint8, to_diffusion

CONFIG = Path(__file__).parents[2] / "configs" / "gan_faces64.yaml"
SIZE, TRAINED_ON, HELD_OUT, NUM_STEPS, BATCH = 64, 240, 32, 240, 8


@pytest.fixture(scope="module")
def faces() -> tuple[Tensor, Tensor]:
    """Sharp faces, and the same as blurred as faces are that a generator restored by L1 alone."""
    images = [torch.from_numpy(synthetic_face(0, i, SIZE).image.copy()) for i in range(TRAINED_ON + HELD_OUT)]
    sharp = to_diffusion(from_uint8(torch.stack(images).permute(0, 3, 1, 2).contiguous()))
    return sharp, F.interpolate(F.avg_pool2d(sharp, 4), scale_factor=4, mode="bilinear")


@pytest.fixture
def adversary():
    """Build the critic of the configuration with changed settings; accelerate's global state is reset around the
    test."""

    def adversary(*overrides: str) -> FaceAdversary:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()
        torch.manual_seed(0)
        return build_adversary(load_config(CONFIG, GANConfig, overrides), Accelerator(cpu=True, mixed_precision="no"))

    yield adversary
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def train(adversary: FaceAdversary, sharp: Tensor, blurred: Tensor) -> Iterator[None]:
    """Train, and pause every 20 steps: a critic's losses move from step to step, and its best ones count."""
    rng = torch.Generator().manual_seed(1)
    for step in range(NUM_STEPS):
        chosen = torch.randint(TRAINED_ON, (BATCH,), generator=rng)
        with adversary.accelerator.accumulate(adversary.model):
            terms, _ = adversary.own_losses(step, sharp[chosen], blurred[chosen])
            adversary.accelerator.backward(torch.stack(list(terms.values())).sum())
            adversary.adam.step(adversary.accelerator, adversary.model, adversary.optimizer)
        if step % 20 == 19:
            yield


def separates(adversary: FaceAdversary, sharp: Tensor, blurred: Tensor) -> bool:
    with torch.no_grad():
        terms, _ = adversary.own_losses(0, sharp, blurred)
        of_sharp, of_blurred = adversary.model(sharp), adversary.model(blurred)
    ordered = (of_sharp > of_blurred.T).float().mean()  # of all pairs; chance is .5, and 1.386 for the loss
    return bool(ordered > 0.97 and terms["discriminator"] < 0.7)


def test_the_critic_of_the_64_px_configuration_soon_separates_sharp_faces_from_blurred_ones(adversary, faces):
    sharp, blurred = faces
    held_out, critic = (sharp[TRAINED_ON:], blurred[TRAINED_ON:]), adversary("losses.relativistic=false")
    assert any(separates(critic, *held_out) for _ in train(critic, sharp[:TRAINED_ON], blurred[:TRAINED_ON]))


def test_the_critic_stays_above_chance_while_a_generator_answers_it(adversary, faces):
    """The critic of the configuration at half the size, its generator a residual network of two convolutions."""
    critic, sharp, blurred = adversary("data.image_size=32"), *(F.avg_pool2d(images, 2) for images in faces)
    sharpen = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(16, 3, 3, padding=1))
    optimizer = torch.optim.Adam(sharpen.parameters(), 1e-3, (0.0, 0.99))
    rng = torch.Generator().manual_seed(1)
    found = []
    for step in range(80):
        chosen = torch.randint(len(sharp), (BATCH,), generator=rng)
        real, x_d = sharp[chosen], blurred[chosen]
        fake = x_d + sharpen(x_d)
        loss = F.l1_loss(fake, real) + 0.02 * critic.generator_loss(fake, real)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        terms, accuracies = critic.own_losses(step, real, fake.detach())
        critic.accelerator.backward(torch.stack(list(terms.values())).sum())
        critic.adam.step(critic.accelerator, critic.model, critic.optimizer)
        found.append(accuracies["pair_accuracy"])
    assert torch.stack(found[40:]).mean() > 0.8  # chance is .5
    with torch.no_grad():
        assert detail(blurred + sharpen(blurred)) > 1.2 * detail(blurred)


def detail(images: Tensor) -> float:
    """The mean square of what a blur removes."""
    return (images - F.avg_pool2d(images, 3, 1, 1)).square().mean().item()


def test_accuracy_is_the_share_of_logits_on_the_right_side():
    logits = torch.tensor([[2.0], [0.1], [-1.0], [3.0]])
    assert positive(logits).item() == 0.75
    assert positive(-logits).item() == 0.25
