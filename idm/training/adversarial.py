"""An adversarial finish: a critic of patches pushes the estimate of x_0 from the mean of all faces to a likely one.

Hinge loss with spectral normalisation (Miyato et al., arXiv 1802.05957, eqs. 16 and 17), and DiffAugment before the
critic (Zhao et al., arXiv 2006.10738). ESRGAN (arXiv 1809.00219) and LPNSR finish a restorer trained on pixels and
features in the same way. Not part of IDM as published: our own choice.
"""

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn

from idm.models.critics import PatchCritic, diff_augment

Images = Float[Tensor, "b 3 s s"]


def hinge_critic(real: Tensor, fake: Tensor) -> Float[Tensor, ""]:
    """E max(0, 1 - D(x_0)) + E max(0, 1 + D(estimate))."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def hinge_generator(fake: Tensor) -> Float[Tensor, ""]:
    """-E D(estimate)."""
    return -fake.mean()


class Adversary:
    """A critic with its optimiser, trained beside a denoiser.

    Args:
        weight: of the denoiser's adversarial loss.
    """

    def __init__(self, critic: PatchCritic, *, weight: float, learning_rate: float) -> None:
        self.critic: nn.Module = critic
        self.optimizer = torch.optim.Adam(critic.parameters(), lr=learning_rate, betas=(0.0, 0.99), fused=True)
        self.weight = weight

    def prepare(self, accelerator: Accelerator) -> None:
        """Take part in a run: its device, precision, processes and checkpoints."""
        self.accelerator = accelerator
        self.critic, self.optimizer = accelerator.prepare(self.critic, self.optimizer)

    def generator_loss(self, estimate: Images, generator: torch.Generator) -> Float[Tensor, ""]:
        """The weighted loss of estimates of x_0 in [-1, 1]; the critic gets no gradient from it."""
        critic = self.accelerator.unwrap_model(self.critic).requires_grad_(False)
        try:
            return self.weight * hinge_generator(critic(diff_augment(estimate, generator)).float())
        finally:
            critic.requires_grad_(True)

    def train_step(self, real: Images, fake: Images, generator: torch.Generator) -> dict[str, Tensor]:
        """One step of the critic on x_0 and on detached estimates; gives scalars for the log."""
        with self.accelerator.autocast():
            real_logits, fake_logits = (
                self.critic(diff_augment(images, generator)).float() for images in (real, fake.detach())
            )
            loss = hinge_critic(real_logits, fake_logits)
        self.accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return {
            "critic_loss": loss.detach(),
            "critic_real_accuracy": (real_logits > 0).float().mean(),
            "critic_fake_accuracy": (fake_logits < 0).float().mean(),
        }
