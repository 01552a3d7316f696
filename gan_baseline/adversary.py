"""Discriminators with their optimisers: the losses that they give the generator, and their own losses."""

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
from idm.training.updates import optimizer_step

Images = Float[Tensor, "b 3 s s"]
Boxes = dict[str, Box]
Terms = dict[str, Float[Tensor, ""]]

STYLE_WEIGHTS = (0.5, 1.0)  # weights of the component discriminators' two feature maps (GFPGAN, gfpgan_model.py)


@dataclass(frozen=True)
class Adam:
    """Settings of one network's optimiser.

    Attributes:
        learning_rate: the rate before the first milestone.
        betas: Adam's decay rates of the two moments.
        milestones: optimiser steps, each of which multiplies the learning rate by ``factor``.
        max_grad_norm: gradients with a larger norm are scaled down to it; None never scales them.
    """

    learning_rate: float
    betas: tuple[float, float]
    milestones: tuple[int, ...] = ()
    factor: float = 0.5
    max_grad_norm: float | None = None

    def optimizer(self, network: nn.Module, shares: Mapping[str, float] | None = None) -> torch.optim.Adam:
        """Return Adam for the trainable parameters of a network.

        Args:
            shares: c in w = c r by parameter name. Such a parameter is trained as if r were stored and the network
                computed with c r, that is, at c times the learning rate. A name that is missing has c = 1.
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
        """Return the learning rate of optimiser step ``step``, counted from 0."""
        return self.learning_rate * self.factor ** sum(milestone <= step for milestone in self.milestones)

    def schedule(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Set the learning rates of all parameter groups for optimiser step ``step``."""
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate_at(step) * group["share"]

    def step(
        self, accelerator: Accelerator, network: nn.Module, optimizer: AcceleratedOptimizer
    ) -> Float[Tensor, ""] | None:
        """See :func:`idm.training.updates.optimizer_step`."""
        return optimizer_step(accelerator, network, optimizer, self.max_grad_norm)


def positive(logits: Tensor) -> Float[Tensor, ""]:
    """The share of logits above 0."""
    return (logits > 0).float().mean()


def accuracies(of_real: Tensor, of_fake: Tensor, relativistic: bool) -> Terms:
    """The shares of logits on the right side; each is 1/2 at chance.

    ``pair_accuracy`` is the share of originals with a higher logit than the generated face. The other two are the
    shares of real and of generated faces on the right side of 0 or, if the loss is relativistic, of the mean of all
    logits.
    """
    middle = (of_real.mean() + of_fake.mean()) / 2 if relativistic else 0.0
    return {
        "real_accuracy": positive(of_real - middle),
        "fake_accuracy": positive(middle - of_fake),
        "pair_accuracy": positive(of_real - of_fake),
    }


class FaceAdversary:
    """The discriminator of whole faces, trained with the logistic loss and lazy R1.

    Args:
        gamma: weight of R1; 0 disables it.
        relativistic: compare each generated face with its original, in the losses of both players
            (:func:`idm.diffusion.adversarial.relativistic_logistic`).
        r1_every: steps between two penalties (StyleGAN2's lazy regularisation, arXiv 1912.04958, 3.1).
    """

    def __init__(
        self,
        discriminator: StyleGAN2Discriminator,
        accelerator: Accelerator,
        *,
        adam: Adam,
        gamma: float,
        r1_every: int,
        relativistic: bool = False,
    ) -> None:
        self.accelerator, self.adam, self.gamma, self.r1_every = accelerator, adam, gamma, r1_every
        self.relativistic = relativistic
        self.model, self.optimizer = accelerator.prepare(discriminator, adam.optimizer(discriminator))

    def generator_loss(self, fake: Images, real: Images) -> Float[Tensor, ""]:
        """Return the generator's logistic loss on its images in [-1, 1]; the discriminator gets no gradient.

        Args:
            real: the originals of ``fake``, of which only a relativistic loss makes use.
        """
        network = self.accelerator.unwrap_model(self.model)
        with frozen(network):
            if not self.relativistic:
                return adversarial.generator_logistic(network(fake))
            with torch.no_grad():
                of_real = network(real)
            return adversarial.relativistic_logistic(network(fake), of_real)

    def own_losses(self, step: int, real: Images, fake: Images) -> tuple[Terms, Terms]:
        """Return the discriminator's losses and its :func:`accuracies`.

        Args:
            step: optimiser step, counted from 0; it decides whether R1 is computed.
            real, fake: images in [-1, 1], without gradient.
        """
        of_real, of_fake = self.model(real), self.model(fake)
        if self.relativistic:
            terms = {"discriminator": adversarial.relativistic_logistic(of_real, of_fake)}
        else:
            terms = {"discriminator": adversarial.discriminator_logistic(of_real, of_fake)}
        if self.gamma:
            terms["r1"] = self._lazy_r1(real) if (step + 1) % self.r1_every == 0 else real.new_zeros(())
        return terms, accuracies(of_real, of_fake, self.relativistic)

    def _lazy_r1(self, real: Images) -> Float[Tensor, ""]:
        """gamma / 2 E |grad D|^2 in float32, multiplied by the steps that it stands for."""
        network = self.accelerator.unwrap_model(self.model)

        def in_float32(images: Images) -> Tensor:  # bypasses the instance's forward, which accelerate wraps in autocast
            return StyleGAN2Discriminator.forward(network, images)

        return self.r1_every * self.gamma / 2 * adversarial.r1(in_float32, real)


class ComponentAdversary:
    """The discriminators of eyes and mouth, which see crops at the boxes of :func:`idm.faces.components.known_boxes`.

    They share one optimiser, because Adam treats every weight separately.

    Args:
        adversarial, style: weights of the two losses of the generator; 0 disables a term.
        relativistic: compare each patch of a generated face with that of its original, see :class:`FaceAdversary`.
    """

    def __init__(
        self,
        discriminators: ComponentDiscriminators,
        accelerator: Accelerator,
        *,
        adam: Adam,
        adversarial: float,
        style: float,
        relativistic: bool = False,
    ) -> None:
        self.accelerator, self.adam, self.adversarial, self.style = accelerator, adam, adversarial, style
        self.relativistic = relativistic
        self.model, self.optimizer = accelerator.prepare(discriminators, adam.optimizer(discriminators))

    def generator_losses(self, fake: Images, real: Images, known: Known, boxes: Boxes) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted losses of the generator, summed over the components.

        Args:
            fake, real: images in [-1, 1].
            known: which faces have landmarks; the others count as zero.
            boxes: for each component, its box in every face.
        """
        network = self.accelerator.unwrap_model(self.model)
        fake_crops, real_crops = crop_components(fake, boxes), crop_components(real, boxes)
        terms = {}
        with frozen(network):
            fakes = network(fake_crops)
            if self.style or self.relativistic:
                with torch.no_grad():
                    reals = network(real_crops)
            if self.adversarial and self.relativistic:
                each = [adversarial.relativistic_logistic(fakes[name][0], reals[name][0], known) for name in fakes]
                terms["component_adversarial"] = self.adversarial * torch.stack(each).sum()
            elif self.adversarial:
                each = [adversarial.generator_logistic(logits, known) for logits, _ in fakes.values()]
                terms["component_adversarial"] = self.adversarial * torch.stack(each).sum()
            if self.style:
                each = [losses.style_l1(fakes[name][1], reals[name][1], STYLE_WEIGHTS, known) for name in fakes]
                terms["component_style"] = self.style * torch.stack(each).sum()
        return terms

    def own_losses(self, real: Images, fake: Images, known: Known, boxes: Boxes) -> tuple[Terms, Terms]:
        """Return the discriminators' loss and the means of their :func:`accuracies` over all patches of all faces.

        Args:
            real, fake: images in [-1, 1], without gradient.
            known, boxes: as for :meth:`generator_losses`.
        """
        reals, fakes = self.model(crop_components(real, boxes)), self.model(crop_components(fake, boxes))
        loss = adversarial.relativistic_logistic if self.relativistic else adversarial.discriminator_logistic
        each = [loss(reals[name][0], fakes[name][0], known) for name in reals]
        rates = [accuracies(reals[name][0], fakes[name][0], self.relativistic) for name in reals]
        means = {f"component_{name}": torch.stack([rate[name] for rate in rates]).mean() for name in rates[0]}
        return {"component_discriminator": torch.stack(each).sum()}, means
