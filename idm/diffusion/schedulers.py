"""Samplers as diffusers schedulers: a saved model names its sampler by them, and tests compare our samplers with them.

Only :class:`~idm.restorers.pipeline.IDMPipeline` needs them; :mod:`idm.diffusion.samplers` does the sampling.
"""

from importlib import import_module

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_ddim import DDIMScheduler as DiffusersDDIMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin, SchedulerOutput
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float, Int
from torch import Tensor

from idm.diffusion.chain import SCHEDULERS, SamplerName, scheduler_settings
from idm.diffusion.process import to_eps
from idm.diffusion.samplers import langevin_step
from idm.diffusion.schedule import from_betas, to_betas


def build_scheduler(name: SamplerName, gammas: Float[Tensor, " T1"]) -> SchedulerMixin:
    """A sampler over our noise levels as a diffusers scheduler: trailing spacing, x_0 prediction, no clipping."""
    library, class_name, _ = SCHEDULERS[name]
    return getattr(import_module(library), class_name)(**scheduler_settings(name, to_betas(gammas).tolist()))


def trailing_timesteps(num_train: int, num_steps: int) -> Int[Tensor, " n"]:
    """``num_steps`` even steps that begin with the noisiest timestep, ``num_train - 1``."""
    if not 1 <= num_steps <= num_train:
        raise ValueError(f"the number of steps must lie in 1..{num_train}, got {num_steps}")
    levels = torch.arange(num_steps, 0, -1, dtype=torch.float64) * num_train / num_steps
    return levels.round().long() - 1


def next_timestep(timesteps: Int[Tensor, " n"], t: int) -> int:
    """The timestep after ``t``; -1, which stands for gamma_0 = 1, after the last."""
    later = timesteps[timesteps < t]
    return int(later[0]) if len(later) else -1


class DDIMScheduler(DiffusersDDIMScheduler):
    """diffusers' DDIM, but each step goes to the next of its own timesteps.

    The base class goes to t - T // num_steps. Unless num_steps divides T, this level differs from the one that f_theta
    is given next, and the last step leaves noise in the result.
    """

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        self.num_inference_steps = num_inference_steps
        self.timesteps = trailing_timesteps(self.config.num_train_timesteps, num_inference_steps).to(device)

    # x_{t-1} = sqrt(gamma_{t-1}) x_0 + sqrt(1 - gamma_{t-1} - sigma_t^2) eps + sigma_t z   (arXiv 2010.02502, eq. 12)
    def step(
        self,
        model_output: Float[Tensor, "b c h w"],
        timestep: Tensor | int,
        sample: Float[Tensor, "b c h w"],
        eta: float = 0.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        if self.config.prediction_type != "sample":
            raise ValueError("this DDIMScheduler is given x_0: set prediction_type='sample'")
        t = int(timestep)
        t_next = next_timestep(self.timesteps, t)
        levels = self.alphas_cumprod.double()
        gamma, gamma_next = levels[t], levels[t_next] if t_next >= 0 else levels.new_ones(())
        sigma = float(eta * ((1 - gamma_next) / (1 - gamma) * (1 - gamma / gamma_next)).sqrt())  # eq. 16
        eps = to_eps(model_output, sample, gamma.expand(len(sample)))
        x = float(gamma_next) ** 0.5 * model_output + max(0.0, 1 - float(gamma_next) - sigma**2) ** 0.5 * eps
        if sigma > 0:
            x = x + sigma * randn_tensor(sample.shape, generator=generator, device=sample.device, dtype=sample.dtype)
        return SchedulerOutput(prev_sample=x) if return_dict else (x,)


class LangevinScheduler(SchedulerMixin, ConfigMixin):
    """Ancestral sampling with the forward variance 1 - alpha, trailing spacing; has the interface of diffusers'
    schedulers.

    Args:
        num_train_timesteps: T, the number of ``trained_betas``; diffusers writes both.
        trained_betas: the T betas of the schedule.
        prediction_type: the kind of ``step``'s input: "sample" or "epsilon".
        timestep_spacing, clip_sample: fixed; stored for other schedulers that are made ``from_config``.
    """

    order = 1
    init_noise_sigma = 1.0

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 2000,
        trained_betas: list[float] | None = None,
        prediction_type: str = "sample",
        timestep_spacing: str = "trailing",
        clip_sample: bool = False,
    ) -> None:
        if trained_betas is None:
            raise ValueError("LangevinScheduler needs trained_betas")
        if num_train_timesteps != len(trained_betas):
            raise ValueError(
                f"num_train_timesteps is {num_train_timesteps}, but trained_betas are {len(trained_betas)}"
            )
        if prediction_type not in ("sample", "epsilon"):
            raise ValueError(f"prediction_type must be 'sample' or 'epsilon', got {prediction_type!r}")
        if timestep_spacing != "trailing" or clip_sample:
            raise ValueError("LangevinScheduler has trailing spacing and does not clip")
        self.gammas = from_betas(torch.tensor(trained_betas, dtype=torch.float64))
        self.alphas_cumprod = self.gammas[1:]
        self.set_timesteps(len(trained_betas))

    def set_timesteps(self, num_inference_steps: int, device: str | torch.device | None = None) -> None:
        """Choose the timesteps of a chain, from T - 1 downwards; they are spaced evenly."""
        self.timesteps = trailing_timesteps(len(self.alphas_cumprod), num_inference_steps).to(device)

    def scale_model_input(self, sample: Tensor, timestep: int | None = None) -> Tensor:
        """Return x_t as it is: the network takes it unscaled."""
        return sample

    def step(
        self,
        model_output: Float[Tensor, "b c h w"],
        timestep: Tensor | int,
        sample: Float[Tensor, "b c h w"],
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> SchedulerOutput | tuple[Tensor]:
        """One step of the chain, from ``timestep`` to the next one that :meth:`set_timesteps` chose.

        Args:
            model_output: the network's estimate, of x_0 or of eps as ``prediction_type`` says.
            sample: x_t.
            generator: draws the noise, of which the last step has none.

        Returns:
            x at the next timestep, as ``prev_sample``, or alone in a tuple without ``return_dict``.
        """
        t = int(timestep)
        t_next = next_timestep(self.timesteps, t)
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
