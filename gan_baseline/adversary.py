"""A discriminator with its optimiser: its loss for the generator, and its own updates."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from jaxtyping import Float
from torch import Tensor, nn

from gan_baseline import losses
from idm.diffusion import adversarial
from idm.diffusion.adversarial import Known, frozen
from idm.faces.components import Box, ComponentDiscriminators, crop_components
from idm.models.critics import StyleGAN2Discriminator
from idm.training.updates import update

Images = Float[Tensor, "b 3 s s"]
Boxes = dict[str, Box]
Terms = dict[str, Float[Tensor, ""]]

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

    def optimizer(self, network: nn.Module, shares: Mapping[str, float] | None = None) -> torch.optim.Adam:
        """Adam for the trainable parameters of a network.

        Args:
            shares: by a parameter's name, c in w = c r: it is trained as if r was stored and c r computed with, that
                is at c times the rate. 1 for names that are not there.
        """
        groups: dict[float, list[nn.Parameter]] = defaultdict(list)
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                groups[(shares or {}).get(name, 1.0)].append(parameter)
        return torch.optim.Adam(
            [{"params": members, "share": c, "eps": 1e-8 / c} for c, members in groups.items()],
            lr=self.learning_rate,
            betas=self.betas,
            fused=True,
        )

    def learning_rate_at(self, step: int) -> float:
        """Of optimiser step ``step``, from 0."""
        return self.learning_rate * self.factor ** sum(milestone <= step for milestone in self.milestones)

    def schedule(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step) * group["share"]

    def step(
        self, accelerator: Accelerator, network: nn.Module, optimizer: AcceleratedOptimizer
    ) -> Float[Tensor, ""] | None:
        """See :func:`idm.training.updates.update`."""
        return update(accelerator, network, optimizer, self.max_grad_norm)


def positive(logits: Tensor) -> Float[Tensor, ""]:
    """The share of logits above 0."""
    return (logits > 0).float().mean()


class Adversary:
    """The discriminator of whole faces, logistic with lazy R1.

    Args:
        gamma: weight of R1; 0 leaves it out.
        r1_every: interval in steps between penalties (StyleGAN2's lazy regularisation, arXiv 1912.04958, 3.1).
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
        """The loss of the generator."""
        network = self.accelerator.unwrap_model(self.model)
        with frozen(network):
            return adversarial.generator_logistic(network(fake))

    def own_losses(self, step: int, real: Images, fake: Images) -> tuple[Terms, Terms]:
        """The loss of the discriminator and its accuracy; images carry no gradient."""
        of_real, of_fake = self.model(real), self.model(fake)
        terms = {"discriminator": adversarial.discriminator_logistic(of_real, of_fake)}
        if self.gamma:
            terms["r1"] = self._lazy_r1(real) if (step + 1) % self.r1_every == 0 else real.new_zeros(())
        return terms, {"real_accuracy": positive(of_real), "fake_accuracy": positive(-of_fake)}

    def _lazy_r1(self, real: Images) -> Float[Tensor, ""]:
        """gamma / 2 E |grad D|^2, counted for all the steps between, in float32."""
        network = self.accelerator.unwrap_model(self.model)

        def in_float32(images: Images) -> Tensor:  # past the instance's forward, which accelerate runs in autocast
            return StyleGAN2Discriminator.forward(network, images)

        return self.r1_every * self.gamma / 2 * adversarial.r1(in_float32, real)


class ComponentAdversary:
    """The discriminators of eyes and mouth, in boxes as of :func:`idm.faces.components.known_boxes`. One optimiser:
    Adam treats every weight by itself.

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

    def generator_losses(self, fake: Images, real: Images, known: Known, boxes: Boxes) -> dict[str, Float[Tensor, ""]]:
        """The weighted loss of the generator, summed over the components."""
        network = self.accelerator.unwrap_model(self.model)
        fake_crops, real_crops = crop_components(fake, boxes), crop_components(real, boxes)
        terms = {}
        with frozen(network):
            fakes = network(fake_crops)
            if self.adversarial:
                each = [adversarial.generator_logistic(logits, known) for logits, _ in fakes.values()]
                terms["component_adversarial"] = self.adversarial * torch.stack(each).sum()
            if self.style:
                with torch.no_grad():
                    reals = network(real_crops)
                each = [losses.style_l1(fakes[name][1], reals[name][1], STYLE_WEIGHTS, known) for name in fakes]
                terms["component_style"] = self.style * torch.stack(each).sum()
        return terms

    def own_losses(self, real: Images, fake: Images, known: Known, boxes: Boxes) -> tuple[Terms, Terms]:
        """The loss of the discriminators and their accuracy over all patches of all faces; images carry no gradient."""
        reals, fakes = self.model(crop_components(real, boxes)), self.model(crop_components(fake, boxes))
        each = [adversarial.discriminator_logistic(reals[name][0], fakes[name][0], known) for name in reals]
        accuracies = {
            "component_real_accuracy": torch.stack([positive(logits) for logits, _ in reals.values()]).mean(),
            "component_fake_accuracy": torch.stack([positive(-logits) for logits, _ in fakes.values()]).mean(),
        }
        return {"component_discriminator": torch.stack(each).sum()}, accuracies
