"""An adversarial finish: a critic of patches moves the estimate of x_0 from the mean of all possible faces to a likely
face.

ESRGAN (arXiv 1809.00219) and LPNSR finish a restorer trained on pixels and features in the same way. Not part of IDM as
published: our own choice.
"""

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from idm.diffusion.adversarial import diff_augment, frozen, hinge_critic, hinge_generator, r1
from idm.models.critics import PatchCritic
from idm.training.updates import optimizer_step

CRITIC_FILE = "model_1.safetensors"
"""The critic in a checkpoint: accelerate's name for the second network of a run."""

Images = Float[Tensor, "b 3 s s"]


class Adversary:
    """A critic with its optimiser, trained beside a denoiser.

    Args:
        weight: of the denoiser's adversarial loss.
        r1_gamma: of the gradient penalty gamma / 2 |grad D(x_0)|^2, where D is the mean of a face's logits.
        r1_every: interval in steps between penalties, each of which is weighted by the interval (StyleGAN2, section
            3.1).
        augment: let the critic see faces through DiffAugment.
        only_refinement: the denoiser's loss trains the convolutions behind the patches alone: what patches may change
            becomes dots along edges, one a patch.

    Attributes:
        skipped: 1 if the last update was skipped because a gradient was not finite; else 0.
    """

    def __init__(
        self,
        critic: PatchCritic,
        *,
        weight: float,
        learning_rate: float,
        r1_gamma: float = 1.0,
        r1_every: int = 8,
        augment: bool = False,
        only_refinement: bool = False,
    ) -> None:
        self.critic: nn.Module = critic
        self.stride = critic.stride
        self.learning_rate = learning_rate
        self.optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate, betas=(0.5, 0.99), fused=True)
        self.weight, self.r1_gamma, self.r1_every, self.augment = weight, r1_gamma, r1_every, augment
        self.only_refinement = only_refinement

    def prepare(self, accelerator: Accelerator) -> None:
        """Prepare critic and optimiser for a run: device, precision, processes and checkpoints."""
        self.accelerator = accelerator
        self.critic, self.optimizer = accelerator.prepare(self.critic, self.optimizer)
        self.skipped = torch.zeros((), device=accelerator.device)

    def generator_loss(self, estimate: Images, generator: torch.Generator) -> Float[Tensor, ""]:
        """The weighted loss of estimates of x_0 in [-1, 1]; the critic gets no gradient from it."""
        critic = self.accelerator.unwrap_model(self.critic)
        with frozen(critic):
            return self.weight * hinge_generator(critic(self._seen(estimate, generator)))

    def train_step(self, step: int, real: Images, fake: Images, generator: torch.Generator) -> dict[str, Tensor]:
        """Step number ``step`` of the critic on x_0 and on estimates of it, in [-1, 1]; both may be empty.

        An empty batch has zero loss and takes part in the step nevertheless, since other processes and micro-batches
        may have images.

        Returns:
            (sum, count) over the images, for the log.
        """
        if len(real):
            loss, values = self._loss(step, real, fake.detach(), generator)
        else:
            loss = self.critic(real).sum()
            values = dict.fromkeys(("critic_loss", "critic_real_accuracy", "critic_fake_accuracy"), loss.detach())
        for group in self.optimizer.param_groups:  # a checkpoint may hold another rate
            group["lr"] = self.learning_rate
        self.accelerator.backward(loss)
        norm = optimizer_step(self.accelerator, self.critic, self.optimizer, max_grad_norm=None)
        if norm is not None:
            self.skipped = (~torch.isfinite(norm)).float()
        count = torch.full_like(loss, len(real))
        return {name: torch.stack([mean * count, count]) for name, mean in values.items()}

    def _loss(
        self, step: int, real: Images, fake: Images, generator: torch.Generator
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss to minimise, and its values for the log."""
        logits_real, logits_fake = (self.critic(self._seen(images, generator)) for images in (real, fake))
        loss = hinge_critic(logits_real, logits_fake)
        values = {
            "critic_loss": loss.detach(),
            "critic_real_accuracy": (logits_real > 0).float().mean(),
            "critic_fake_accuracy": (logits_fake < 0).float().mean(),
        }
        return loss if step % self.r1_every else loss + self._penalty(real), values

    def _penalty(self, real: Images) -> Float[Tensor, ""]:
        """Lazy R1, in float32: second derivatives of bfloat16 are noise."""
        critic = self.accelerator.unwrap_model(self.critic)

        def in_float32(images: Images) -> Tensor:  # bypasses the instance's forward, which accelerate wraps in autocast
            return PatchCritic.forward(critic, images).mean(dim=(1, 2, 3))

        return self.r1_every * self.r1_gamma / 2 * r1(in_float32, real)

    def _seen(self, images: Images, generator: torch.Generator) -> Images:
        """The critic's input: the images rolled by less than its stride and, if asked, augmented.

        The gradient of a critic has the pattern of its strides. If these always begin in the same place, the denoiser
        learns the pattern: edges become dotted, one dot a patch.
        """
        rows, columns = torch.randint(self.stride, (2,), generator=generator).tolist()
        images = torch.roll(images, (rows, columns), dims=(2, 3))
        return diff_augment(images, generator) if self.augment else images
