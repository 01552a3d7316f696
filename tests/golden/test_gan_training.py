"""Did numbers move without our wish? The first losses of a tiny training of GFP-GAN.

To print them anew after a change that is meant to move them: `python tests/golden/test_gan_training.py`.
"""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from torch.nn import functional as F

from gan_baseline.adversary import Adam, ComponentAdversary, FaceAdversary
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.learner import AdversarialIteration, Weights
from idm.data.pairs import Batch
from idm.faces.components import ComponentDiscriminators
from idm.faces.template import ffhq_landmarks
from idm.models.critics import StyleGAN2Discriminator

SIZE = 64
LOSSES = {
    "loss": [5.72794, 5.88106, 9.11688, 5.85525],
    "l1": [0.10196, 0.09280, 0.07902, 0.08656],
    "pyramid": [1.71820, 1.67182, 1.60021, 0.00000],
    "adversarial": [0.01391, 0.04462, 0.02476, 0.11726],
    "component_adversarial": [2.17902, 2.88559, 4.59274, 4.23496],
    "component_style": [1.71485, 1.18622, 2.82016, 1.41648],
    "discriminator": [3.02036, 1.95981, 2.77438, 1.24563],
    "r1": [0.00000, 0.07312, 0.00000, 0.03455],
    "component_discriminator": [4.16550, 3.71111, 3.59253, 3.23900],
}

ACCURACIES = {f"{part}{kind}_accuracy" for part in ("", "component_") for kind in ("real", "fake", "pair")}
"""Of few faces: jumpy."""


def from_a_formula(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that do not depend on how a layer draws its own; biases and the like stay as they are."""
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            if parameter.ndim > 1:
                k = torch.arange(parameter.numel(), dtype=torch.float64)
                scattered = torch.frac(torch.sin(12.9898 * k + number) * 43758.5453)  # in (-1, 1), as if at random
                parameter.copy_((parameter.std() * 3**0.5 * scattered).view_as(parameter))
    return network


def batch(first: int) -> Batch:
    rng = torch.Generator().manual_seed(first)
    faces = F.interpolate(torch.rand(4, 6, 8, 8, generator=rng), SIZE, mode="bilinear")
    hq, lq = (faces * 255).to(torch.uint8).split(3, dim=1)
    landmarks = torch.from_numpy(ffhq_landmarks(SIZE)).float().expand(4, 5, 2).clone()
    return Batch(hq, lq, landmarks, list(range(first, first + 4)))


def first_losses() -> dict[str, list[float]]:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    torch.manual_seed(0)
    learner = AdversarialIteration(
        from_a_formula(GFPGAN(SIZE, num_style_feat=16, channel_multiplier=1, num_mlp=2, narrow=1 / 32)),
        accelerator,
        adversary=FaceAdversary(
            from_a_formula(StyleGAN2Discriminator(SIZE, 1, 1 / 64)),
            accelerator,
            adam=Adam(2e-3, (0.0, 0.99)),
            gamma=10.0,
            r1_every=2,
        ),
        components=ComponentAdversary(
            from_a_formula(ComponentDiscriminators()),
            accelerator,
            adam=Adam(2e-3, (0.9, 0.99)),
            adversarial=1.0,
            style=200.0,
        ),
        features=None,
        embedding=None,
        weights=Weights(
            l1=0.1,
            pyramid=1.0,
            pyramid_until=3,
            pyramid_after=1e-12,
            perceptual=0.0,
            style=0.0,
            adversarial=0.1,
            identity=0.0,
        ),
        adam=Adam(2e-4, (0.0, 0.99)),
        ema_decay=0.9,
        fix_decoder=False,
        seed=0,
    )
    rows = [learner.train_step(step, iter([batch(4 * step)])) for step in range(4)]
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    return {name: [row[name].item() for row in rows] for name in rows[0]}


def test_the_first_losses_of_a_training_are_those_of_before():
    losses = first_losses()
    assert losses.keys() - ACCURACIES == LOSSES.keys()
    for name, values in LOSSES.items():
        assert losses[name] == pytest.approx(values, rel=2e-3, abs=1e-5), name


if __name__ == "__main__":
    for name, values in first_losses().items():
        print(f'    "{name}": [{", ".join(f"{value:.5f}" for value in values)}],')
