"""The source's own sampler as a diffusers scheduler."""

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from idm.diffusion.process import Image, to_eps
from idm.diffusion.schedule import from_betas


# x_{t-1} = 1/sqrt(alpha_t) (x_t - (1 - alpha_t)/sqrt(1 - gamma_t) f_theta(x_t, x_d, gamma_t)) + sqrt(1 - alpha_t) eps_t
def langevin_step(x_t: Image, eps: Image, gamma: float, gamma_next: float, noise: Image | None) -> Image:
    """One reverse step from signal level ``gamma`` to ``gamma_next``, alpha = gamma / gamma_next.

    Document A's equation (SR3 eq. 11), with alpha taken between the two levels so that it serves any respaced
    chain. ``noise`` is None on the last step (SR3, algorithm 2).
    """
    alpha = gamma / gamma_next
    mean = (x_t - (1 - alpha) / (1 - gamma) ** 0.5 * eps) / alpha**0.5
    return mean if noise is None else mean + (1 - alpha) ** 0.5 * noise


class LangevinScheduler(SchedulerMixin, ConfigMixin):
    """Ancestral sampling with the forward variance 1 - alpha, trailing spacing; speaks diffusers' dialect.

    Args:
        num_train_timesteps: T; implied by ``trained_betas`` and kept for diffusers' sake.
        trained_betas: the T betas of the schedule.
        prediction_type: what ``step`` is given: "sample" or "epsilon".
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 2000,
        trained_betas: list[float] | None = None,
        prediction_type: str = "sample",
    ) -> None:
        if trained_betas is None:
            raise ValueError("LangevinScheduler needs trained_betas")
        if prediction_type not in ("sample", "epsilon"):
            raise ValueError(f"prediction_type must be 'sample' or 'epsilon', got {prediction_type!r}")
        self.gammas = from_betas(torch.tensor(trained_betas, dtype=torch.float64))
        self.alphas_cumprod = self.gammas[1:]
        self.set_timesteps(len(trained_betas))

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Trailing spacing: the last timestep T - 1 is always the first one taken."""
        num_train = len(self.alphas_cumprod)
        if not 1 <= num_inference_steps <= num_train:
            raise ValueError(f"num_inference_steps must lie in 1..{num_train}, got {num_inference_steps}")
        levels = torch.arange(num_inference_steps, 0, -1) * num_train / num_inference_steps
        self.timesteps = (levels.round().long() - 1).to(device)

    def scale_model_input(self, sample: Tensor, timestep: int | None = None) -> Tensor:
        return sample

    def step(
        self,
        model_output: Float[Tensor, "b c h w"],
        timestep: Tensor | int,
        sample: Float[Tensor, "b c h w"],
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        t = int(timestep)
        later = self.timesteps[self.timesteps < t]
        t_next = int(later[0]) if len(later) else -1
        gamma, gamma_next = float(self.gammas[t + 1]), float(self.gammas[t_next + 1])
        if self.config.prediction_type == "sample":
            levels = torch.full((len(sample),), gamma, dtype=torch.float64)
            model_output = to_eps(model_output, sample, levels)
        noise = None
        if t_next >= 0:
            noise = randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        x = langevin_step(sample, model_output, gamma, gamma_next, noise)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)

    def __len__(self) -> int:
        return len(self.alphas_cumprod)
