"""The settings of a chain x_T -> ... -> x_0: its sampler, its levels, and its start. Does not import torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal, assert_never, get_args

SamplerName = Literal["langevin", "ddim", "dpmpp_2m", "unipc"]
Start = Literal["noise", "degraded"]
Spacing = Literal["even", "quadratic", "karras", "log_snr", "levels"]

SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)
SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
KARRAS_RHO = 7.0

# As which class of which library a sampler is saved, so that diffusers can load it, and with which settings.
SCHEDULERS: dict[SamplerName, tuple[str, str, dict[str, Any]]] = {
    "langevin": ("idm.diffusion.schedulers", "LangevinScheduler", {"clip_sample": False}),
    "ddim": ("idm.diffusion.schedulers", "DDIMScheduler", {"clip_sample": False}),
    "dpmpp_2m": ("diffusers", "DPMSolverMultistepScheduler", {"final_sigmas_type": "zero"}),
    "unipc": ("diffusers", "UniPCMultistepScheduler", {"final_sigmas_type": "zero"}),
}


def scheduler_settings(sampler: SamplerName, betas: Sequence[float]) -> dict[str, Any]:
    """The settings of the diffusers scheduler that stands for a sampler over these betas in a saved model."""
    common = {"num_train_timesteps": len(betas), "trained_betas": list(betas), "prediction_type": "sample"}
    return {**common, "timestep_spacing": "trailing", **SCHEDULERS[sampler][2]}


def sampler_of(scheduler: str) -> SamplerName:
    """The sampler that is saved as a class of this name.

    Raises:
        ValueError: none is.
    """
    for sampler, (_, name, _) in SCHEDULERS.items():
        if name == scheduler:
            return sampler
    raise ValueError(f"no sampler is saved as {scheduler}; there are {', '.join(s[1] for s in SCHEDULERS.values())}")


@dataclass(frozen=True)
class Chain:
    """Settings of the sampling chain, checked on construction, and by :func:`signal_levels` against a schedule.

    Args:
        sampler: a function of :mod:`idm.diffusion.samplers`.
        num_steps: evaluations of f_theta of the whole chain, at least 1.
        start_from: "noise" starts from x_T ~ N(0, I). "degraded" noises x_d to the level at which the last
            ``strength`` of the chain begins and runs only that part: the lower, the closer to x_d.
        strength: share of the chain that is run, in (0, 1]; 1 with ``start_from="noise"``.
        eta: DDIM's share of fresh noise, in [0, 1]; 0 for the other samplers.
        spacing: how the levels are placed between the schedule's start and its end, see :func:`signal_levels`;
            "levels" takes those of ``levels``.
        levels: noise levels sigma = sqrt((1 - gamma) / gamma), falling, one for each step.

    Raises:
        ValueError: an unknown name, a number out of its range, or settings that contradict each other.

    Example:
        >>> idm.Chain(num_steps=4).changed(sampler="unipc").num_steps
        4
    """

    sampler: SamplerName = "ddim"
    num_steps: int = 10
    start_from: Start = "noise"
    strength: float = 1.0
    eta: float = 0.0
    spacing: Spacing = "even"
    levels: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, known in (("sampler", SAMPLER_NAMES), ("start_from", get_args(Start)), ("spacing", SPACINGS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.num_steps < 1:
            raise ValueError(f"the number of steps must be at least 1, got {self.num_steps}")
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must lie in (0, 1], got {self.strength}")
        if self.start_from == "noise" and self.strength != 1:
            raise ValueError("strength below 1 needs start_from='degraded': pure noise belongs to the whole chain only")
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta}")
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta is for the sampler ddim, not for {self.sampler}")
        self._check_levels()

    def _check_levels(self) -> None:
        if (self.spacing == "levels") != bool(self.levels):
            raise ValueError("spacing='levels' needs levels, and levels need spacing='levels'")
        if self.levels and len(self.levels) != self.num_steps:
            raise ValueError(
                f"the chain has {len(self.levels)} levels but {self.num_steps} steps; "
                "give one level per step, or choose another spacing"
            )
        if not all(0 < sigma < math.inf for sigma in self.levels):
            raise ValueError(f"levels must be positive, got {list(self.levels)}")
        if not all(after < before for before, after in pairwise(self.levels)):
            raise ValueError(f"levels must fall, got {list(self.levels)}")

    @property
    def steps_run(self) -> int:
        """The number of steps that are run: the last share ``strength`` of the chain, at least one."""
        return max(1, round(self.strength * self.num_steps))

    @property
    def fidelity(self) -> float:
        """How much of the degraded face is kept, as in :meth:`changed`: 0 for a chain from noise."""
        return 0.0 if self.start_from == "noise" else round(1 - self.strength, 4)

    def changed(self, fidelity: float | None = None, **changes: Any) -> "Chain":
        """The chain with changed settings; None keeps a setting.

        Args:
            fidelity: instead of ``start_from`` and ``strength``: how much of the degraded face is kept. 0 runs the
                whole chain from noise; larger values run its last 1 - fidelity from the degraded face, at least one
                step.
            changes: fields of the chain. A new sampler resets eta, and a new spacing resets the levels.

        Raises:
            ValueError: as the chain itself, or ``fidelity`` together with settings that it sets.
        """
        changes = {name: value for name, value in changes.items() if value is not None}
        if fidelity is not None:
            if not 0 <= fidelity <= 1:
                raise ValueError(f"fidelity must lie in [0, 1], got {fidelity}")
            if {"start_from", "strength"} & changes.keys():
                raise ValueError("fidelity sets start_from and strength; give it or them")
            least = 1 / max(1, changes.get("num_steps", self.num_steps))
            changes["start_from"] = "degraded" if fidelity else "noise"
            changes["strength"] = max(1 - fidelity, least) if fidelity else 1.0
        if changes.get("sampler", self.sampler) != self.sampler:
            changes.setdefault("eta", 0.0)
        if changes.get("spacing", self.spacing) != self.spacing:
            changes.setdefault("levels", ())
        return replace(self, **changes)


def signal_levels(chain: Chain, gammas: Sequence[float]) -> list[float]:
    """The levels gamma at which f_theta is evaluated in the steps that are run, rising strictly.

    With T timesteps, n steps, step i = 0, ..., n - 1 and sigma from sigma_T down to sigma_1 of the schedule:

    - even: timesteps T (n - i) / n, rounded (diffusers' trailing spacing);
    - quadratic: timesteps T ((n - i) / n)^2 (DDIM, arXiv 2010.02502, appendix D.2), gamma interpolated linearly;
    - karras: sigma^(1/7) is spaced evenly (Karras et al., arXiv 2206.00364, eq. 5);
    - log_snr: ln sigma, hence the log-SNR, is spaced evenly;
    - levels: the chain's own, up to the schedule's highest level.

    Args:
        gammas: the schedule, T + 1 numbers that fall from 1, see :mod:`idm.diffusion.schedule`.

    Raises:
        ValueError: more steps than timesteps, or a level above the schedule's highest.
    """
    num_train, n = len(gammas) - 1, chain.num_steps
    if n > num_train:
        raise ValueError(f"the number of steps must lie in 1..{num_train}, got {n}")
    high, low = _sigma(gammas[-1]), _sigma(gammas[1])
    match chain.spacing:
        case "even":
            levels = [gammas[round((n - i) * num_train / n)] for i in range(n)]
        case "quadratic":
            levels = [_interpolate(gammas, num_train * ((n - i) / n) ** 2) for i in range(n)]
        case "karras":
            roots = _linspace(high ** (1 / KARRAS_RHO), low ** (1 / KARRAS_RHO), n)
            levels = [_gamma(root**KARRAS_RHO) for root in roots]
        case "log_snr":
            levels = [_gamma(math.exp(log)) for log in _linspace(math.log(high), math.log(low), n)]
        case "levels":
            if chain.levels[0] > high * (1 + 1e-6):
                raise ValueError(f"the level {chain.levels[0]:g} is above the model's highest, {high:g}")
            levels = [_gamma(sigma) for sigma in chain.levels]
        case _:
            assert_never(chain.spacing)
    return levels[n - chain.steps_run :]


def _sigma(gamma: float) -> float:
    return math.sqrt((1 - gamma) / gamma)


def _gamma(sigma: float) -> float:
    return 1 / (1 + sigma**2)


def _linspace(start: float, end: float, n: int) -> list[float]:
    return [start + (end - start) * i / max(1, n - 1) for i in range(n)]


def _interpolate(gammas: Sequence[float], t: float) -> float:
    """gamma at a fractional timestep."""
    before = min(int(t), len(gammas) - 2)
    return gammas[before] + (t - before) * (gammas[before + 1] - gammas[before])
