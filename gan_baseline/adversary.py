"""A discriminator with its optimiser: what the generator hears from it, and how it learns."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from jaxtyping import Float
from torch import Tensor, nn

from gan_baseline import losses
from gan_baseline.components import ComponentDiscriminators, component_boxes, crop_components, known_landmarks
from gan_baseline.discriminators import StyleGAN2Discriminator
from idm.training.updates import update

Images = Float[Tensor, "b 3 s s"]

SLOW = 0.01  # of the network from z to w (StyleGAN, arXiv 1812.04948, appendix C)
STYLE_WEIGHTS = (0.5, 1.0)  # of the component discriminators' two feature maps (GFPGAN, gfpgan_model.py)


@dataclass(frozen=True)
class Adam:
    """Settings of one network's optimiser; the learning rate is multiplied by ``factor`` from each milestone on, and
    gradients of a norm above ``max_grad_norm`` are scaled down to it."""

    learning_rate: float
    betas: tuple[float, float]
    milestones: tuple[int, ...] = ()
    factor: float = 0.5
    max_grad_norm: float | None = None

    def optimizer(self, network: nn.Module, slow: Iterable[nn.Parameter] = ()) -> torch.optim.Adam:
        """Adam for what is trained of a network; the ``slow`` parameters learn at ``SLOW`` times the rate."""
        slowed = list(slow)
        known = {id(parameter) for parameter in slowed}
        rest = [p for p in network.parameters() if p.requires_grad and id(p) not in known]
        groups = [{"params": rest, "share": 1.0}, {"params": slowed, "share": SLOW}]
        return torch.optim.Adam(groups if slowed else rest, lr=self.learning_rate, betas=self.betas, fused=True)

    def learning_rate_at(self, step: int) -> float:
        """Of optimiser step ``step``, from 0."""
        return self.learning_rate * self.factor ** sum(milestone <= step for milestone in self.milestones)

    def schedule(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step) * group.get("share", 1.0)

    def step(
        self, accelerator: Accelerator, network: nn.Module, optimizer: AcceleratedOptimizer
    ) -> Float[Tensor, ""] | None:
        """See :func:`idm.training.updates.update`."""
        return update(accelerator, network, optimizer, self.max_grad_norm)


@contextmanager
def frozen(network: nn.Module) -> Iterator[None]:
    """Within, gradients flow through the network and none to it."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


class Adversary:
    """The discriminator of whole faces, logistic with lazy R1.

    Args:
        gamma: weight of R1; 0 leaves it out.
        r1_every: steps from one penalty to the next (StyleGAN2's lazy regularisation, arXiv 1912.04958, 3.1).
    """

    def __init__(
        self,
        discriminator: StyleGAN2Discriminator,
        accelerator: Accelerator,
        *,
        adam: Adam,
        gamma: float,
        r1_every: int,
    ) -> None:
        self.accelerator, self.adam, self.gamma, self.r1_every = accelerator, adam, gamma, r1_every
        self.model, self.optimizer = accelerator.prepare(discriminator, adam.optimizer(discriminator))

    def generator_loss(self, fake: Images) -> Float[Tensor, ""]:
        """What the generator should lower."""
        network = self.accelerator.unwrap_model(self.model)
        with frozen(network):
            return losses.generator_logistic(network(fake))

    def own_losses(self, step: int, real: Images, fake: Images) -> dict[str, Float[Tensor, ""]]:
        """What the discriminator should lower; images carry no gradient."""
        terms = {"discriminator": losses.discriminator_logistic(self.model(real), self.model(fake))}
        if self.gamma:
            terms["r1"] = self._lazy_r1(real) if (step + 1) % self.r1_every == 0 else real.new_zeros(())
        return terms

    def _lazy_r1(self, real: Images) -> Float[Tensor, ""]:
        """gamma / 2 E |grad D|^2, counted for all the steps between, in float32."""
        network = self.accelerator.unwrap_model(self.model)

        def in_float32(images: Images) -> Tensor:  # past the instance's forward, which accelerate runs in autocast
            return StyleGAN2Discriminator.forward(network, images)

        return self.r1_every * self.gamma / 2 * losses.r1(in_float32, real)


class ComponentAdversary:
    """The discriminators of eyes and mouth. One optimiser: Adam treats every weight by itself.

    Args:
        adversarial, style: weights of the two losses; 0 leaves the term out.
    """

    def __init__(
        self,
        discriminators: ComponentDiscriminators,
        accelerator: Accelerator,
        *,
        adam: Adam,
        adversarial: float,
        style: float,
    ) -> None:
        self.accelerator, self.adam, self.adversarial, self.style = accelerator, adam, adversarial, style
        self.model, self.optimizer = accelerator.prepare(discriminators, adam.optimizer(discriminators))

    def generator_losses(
        self, fake: Images, real: Images, landmarks: Float[Tensor, "b 5 2"]
    ) -> dict[str, Float[Tensor, ""]]:
        """What the generator should lower, weighed, summed over the components."""
        network = self.accelerator.unwrap_model(self.model)
        known, fake_crops, real_crops = self._crops(fake, real, landmarks)
        terms = {}
        with frozen(network):
            fakes = network(fake_crops)
            if self.adversarial:
                each = [losses.generator_logistic(logits, known) for logits, _ in fakes.values()]
                terms["component_adversarial"] = self.adversarial * torch.stack(each).sum()
            if self.style:
                with torch.no_grad():
                    reals = network(real_crops)
                each = [losses.style_l1(fakes[name][1], reals[name][1], STYLE_WEIGHTS, known) for name in fakes]
                terms["component_style"] = self.style * torch.stack(each).sum()
        return terms

    def own_losses(self, real: Images, fake: Images, landmarks: Float[Tensor, "b 5 2"]) -> dict[str, Float[Tensor, ""]]:
        """What the discriminators should lower; images carry no gradient."""
        known, fake_crops, real_crops = self._crops(fake, real, landmarks)
        reals, fakes = self.model(real_crops), self.model(fake_crops)
        each = [losses.discriminator_logistic(reals[name][0], fakes[name][0], known) for name in reals]
        return {"component_discriminator": torch.stack(each).sum()}

    def _crops(
        self, fake: Images, real: Images, landmarks: Float[Tensor, "b 5 2"]
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor], Mapping[str, Tensor]]:
        known, landmarks = known_landmarks(landmarks, fake.shape[-1])
        boxes = component_boxes(landmarks, fake.shape[-1])
        return known, crop_components(fake, boxes), crop_components(real, boxes)
