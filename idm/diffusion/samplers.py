"""The intrinsic iteration at inference: the chain x_T -> ... -> x_0 that refines a face step by step.

One loop serves every sampler. f_theta's output is turned into an estimate of x_0 in float32, clipped to
[-1, 1], and handed to a diffusers scheduler, which always works with ``prediction_type="sample"``.
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Literal, assert_never

import torch
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from jaxtyping import Float
from torch import Tensor

from idm.diffusion.objective import DenoiserFunction
from idm.diffusion.process import Image, Prediction, add_noise, to_x_0
from idm.diffusion.schedule import to_betas
from idm.diffusion.schedulers import DDIMScheduler, LangevinScheduler

SamplerName = Literal["langevin", "ddim", "dpmpp_2m", "unipc"]
Start = Literal["noise", "degraded"]


def build_scheduler(name: SamplerName, gammas: Float[Tensor, " T1"]) -> SchedulerMixin:
    """A diffusers scheduler over our noise levels: trailing spacing, x_0 prediction, no clipping of its own."""
    common = {
        "num_train_timesteps": len(gammas) - 1,
        "trained_betas": to_betas(gammas).tolist(),
        "prediction_type": "sample",
    }
    match name:
        case "langevin":
            return LangevinScheduler(**common)
        case "ddim":
            return DDIMScheduler(**common, timestep_spacing="trailing", clip_sample=False)
        case "dpmpp_2m":
            return DPMSolverMultistepScheduler(**common, timestep_spacing="trailing", final_sigmas_type="zero")
        case "unipc":
            return UniPCMultistepScheduler(**common, timestep_spacing="trailing", final_sigmas_type="zero")
        case _:
            assert_never(name)


@torch.no_grad()
def sample(
    f: DenoiserFunction,
    x_d: Image,
    scheduler: SchedulerMixin,
    *,
    prediction: Prediction,
    num_steps: int,
    generators: Sequence[torch.Generator],
    start_from: Start = "noise",
    strength: float = 1.0,
    eta: float = 0.0,
    on_step: Callable[[int, int, Image], None] | None = None,
) -> Image:
    """Draw x_0 ~ p(x_0 | x_d), one image for each degraded face.

    Args:
        x_d: degraded faces in [-1, 1].
        scheduler: made by :func:`build_scheduler`, or any diffusers scheduler with ``alphas_cumprod``
            and ``prediction_type="sample"``.
        num_steps: evaluations of f_theta of the whole chain.
        generators: one for each face; a face's result depends on its own generator, not on its batch.
        start_from: "noise" starts from x_T ~ N(0, I). "degraded" noises x_d to the level at which the last
            ``strength`` of the chain begins and runs only that part: the lower, the closer to x_d.
        strength: share of the chain that is run, in (0, 1]; 1 with ``start_from="noise"``.
        eta: DDIM's share of fresh noise, in [0, 1]; other samplers have none.
        on_step: called with (step, num_steps, current x_0 estimate) after each step.

    Returns:
        Images in [-1, 1], float32.

    Raises:
        ValueError: for a number of generators, a strength or a prediction type that does not fit.
    """
    check_chain(scheduler, num_steps=num_steps, start_from=start_from, strength=strength, eta=eta)
    if len(generators) != len(x_d):
        raise ValueError(f"{len(x_d)} faces need {len(x_d)} generators, got {len(generators)}")
    scheduler.set_timesteps(num_steps)
    first = num_steps - steps_run(num_steps, strength)
    if hasattr(scheduler, "set_begin_index"):  # multistep solvers count their own steps
        scheduler.set_begin_index(first)
    # by rounding, diffusers' trailing spacing sometimes appends a timestep -1
    timesteps = [int(t) for t in scheduler.timesteps[first:num_steps]]
    levels = scheduler.alphas_cumprod.double()
    randomness = {"generator": list(generators), "eta": eta}
    accepted = inspect.signature(scheduler.step).parameters  # the deterministic solvers take neither
    extra = {name: value for name, value in randomness.items() if name in accepted}

    x_d = x_d.float()
    x = randn_tensor(x_d.shape, generator=list(generators), device=x_d.device, dtype=torch.float32)
    if start_from == "degraded":
        x = add_noise(x_d, x, levels[timesteps[0]].expand(len(x_d)))
    for i, t in enumerate(timesteps):
        gamma = levels[t].expand(len(x_d))
        x_0 = to_x_0(prediction, f(x_d=x_d, x_t=x, gamma=gamma), x, gamma).clamp(-1, 1)
        x = scheduler.step(x_0, t, x, return_dict=False, **extra)[0]
        if on_step is not None:
            on_step(i + 1, len(timesteps), x_0)
    return x_0  # every chain ends in its last estimate


def steps_run(num_steps: int, strength: float) -> int:
    """How many steps of a chain of ``num_steps`` are run: its last share ``strength``, at least one."""
    return max(1, round(strength * num_steps))


def chain_of(fidelity: float, num_steps: int) -> tuple[Start, float]:
    """The start and the strength of a chain that keeps this much of the degraded face: 0 is the whole chain from
    noise, more the last 1 - fidelity of it, at least one step, from the degraded face.

    Raises:
        ValueError: ``fidelity`` outside [0, 1].
    """
    if not 0 <= fidelity <= 1:
        raise ValueError(f"fidelity must lie in [0, 1], got {fidelity}")
    return ("degraded", max(1 - fidelity, 1 / num_steps)) if fidelity else ("noise", 1.0)


def check_chain(scheduler: SchedulerMixin, *, num_steps: int, start_from: Start, strength: float, eta: float) -> None:
    """Refuse, with a ValueError, a chain that :func:`sample` cannot run."""
    if scheduler.config.prediction_type != "sample":
        raise ValueError(f"the scheduler must have prediction_type 'sample', not {scheduler.config.prediction_type!r}")
    most = scheduler.config.num_train_timesteps
    if not 1 <= num_steps <= most:
        raise ValueError(f"the number of steps must lie in 1..{most}, got {num_steps}")
    if start_from not in ("noise", "degraded"):
        raise ValueError(f"start_from must be 'noise' or 'degraded', got {start_from!r}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie in (0, 1], got {strength}")
    if start_from == "noise" and strength != 1:
        raise ValueError("strength below 1 needs start_from='degraded': pure noise belongs to the whole chain only")
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
