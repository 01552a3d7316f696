"""Steps beyond GFP-GAN's: motion, and those of Real-ESRGAN (arXiv 2107.10833). `AnyStep` lists all steps.

To add a step, write its class here and add it to `AnyStep`; in YAML its field `name` selects it.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from idm.degradation import kernels, operations
from idm.degradation.operations import RGB, Interpolation, Resized
from idm.degradation.steps import (
    PROBABILITY,
    Blur,
    ColourShift,
    Downscale,
    Frame,
    GaussianNoise,
    Grey,
    Jitter,
    Jpeg,
    Limits,
    Range,
    Resize,
    Step,
    scaled_radius,
    uniform,
)


@dataclass(frozen=True)
class MotionBlur(Step[tuple[float, float]]):
    """Linear motion of the camera or the face. Our own."""

    limits: ClassVar[Limits] = {"probability": PROBABILITY, "length": (0.0, 512.0)}
    skippable = True

    probability: float
    """Share of images that are blurred."""
    length: Range = (0.0, 40.0)
    """Range of the length of the motion; pixels at 512."""
    name: Literal["motion_blur"] = "motion_blur"

    def draw(self, rng: np.random.Generator) -> tuple[float, float] | None:
        moved = rng.random() < self.probability
        length, rotation = uniform(self.length, rng), uniform((0.0, math.pi), rng)
        return (length, rotation) if moved else None

    def apply(self, image: RGB, strength: tuple[float, float], frame: Frame, rng: np.random.Generator) -> Resized:
        length, rotation = strength[0] * frame.scale, strength[1]
        return operations.blur(image, kernels.motion_kernel(length, rotation, math.ceil((length + 1) / 2)))


@dataclass(frozen=True)
class ShapedBlur(Step[tuple[float, float, float, float]]):
    """Blur by a generalised Gaussian or a plateau, whose shape has an exponent beta."""

    limits: ClassVar[Limits] = {
        "sigma": (0.0, 512.0),
        "beta": (0.1, 10.0),
        "isotropic_probability": PROBABILITY,
        "kernel_size": (3, 1025),
    }
    skippable = True

    shape: Literal["generalised", "plateau"]
    """exp(-(v' S^-1 v)^beta / 2), or 1 / (1 + (v' S^-1 v)^beta)."""
    sigma: Range
    """Range of both widths; pixels at 512."""
    beta: Range
    """Range of the exponent; drawn from (low, 1) and (1, high) equally often if it contains 1."""
    isotropic_probability: float = 0.5
    """Share of blurs with sigma_y = sigma_x."""
    kernel_size: int = 21
    """Side of the kernel; pixels at 512."""
    name: Literal["shaped_blur"] = "shaped_blur"

    def draw(self, rng: np.random.Generator) -> tuple[float, float, float, float]:
        isotropic = rng.random() < self.isotropic_probability
        sigma_x, sigma_y = uniform(self.sigma, rng), uniform(self.sigma, rng)
        rotation, (low, high) = uniform((-math.pi, math.pi), rng), self.beta
        pointed = rng.random() < 0.5
        low, high = ((low, 1.0) if pointed else (1.0, high)) if low <= 1 <= high else (low, high)
        return sigma_x, sigma_x if isotropic else sigma_y, rotation, uniform((low, high), rng)

    def apply(
        self, image: RGB, strength: tuple[float, float, float, float], frame: Frame, rng: np.random.Generator
    ) -> Resized:
        sigma_x, sigma_y, rotation, beta = strength
        kernel = kernels.plateau_kernel if self.shape == "plateau" else kernels.gaussian_kernel
        radius = scaled_radius(self.kernel_size, frame)
        return operations.blur(image, kernel(sigma_x * frame.scale, sigma_y * frame.scale, rotation, radius, beta))


@dataclass(frozen=True)
class Sinc(Step[tuple[float, int]]):
    """An ideal low-pass filter, which rings beside edges as strong sharpening and resampling do.

    Frequencies and sizes belong to the pixels of the image at hand and do not scale with the face.
    """

    limits: ClassVar[Limits] = {"cutoff": (0.01, math.pi), "kernel_size": (3, 101)}
    skippable = True

    cutoff: Range = (math.pi / 3, math.pi)
    """Range of the cutoff frequency, in radians per pixel."""
    kernel_size: tuple[int, int] = (7, 21)
    """Range of the kernel's side; odd sides are drawn."""
    name: Literal["sinc"] = "sinc"

    def draw(self, rng: np.random.Generator) -> tuple[float, int]:
        low, high = (side // 2 for side in self.kernel_size)
        return uniform(self.cutoff, rng), low + int((high - low + 1) * rng.random())

    def apply(self, image: RGB, strength: tuple[float, int], frame: Frame, rng: np.random.Generator) -> Resized:
        return operations.blur(image, kernels.sinc_kernel(*strength))


@dataclass(frozen=True)
class PoissonNoise(Step[float]):
    """Shot noise: stronger where the image is brighter."""

    limits: ClassVar[Limits] = {"scale": (0.0, 10.0)}
    skippable = True

    scale: Range
    """Range of the factor of the noise that 255 photons at white give."""
    grey: bool = False
    """The same noise in all channels."""
    name: Literal["poisson_noise"] = "poisson_noise"

    def draw(self, rng: np.random.Generator) -> float:
        return uniform(self.scale, rng)

    def apply(self, image: RGB, strength: float, frame: Frame, rng: np.random.Generator) -> Resized:
        return operations.add_poisson_noise(image, strength, rng, self.grey)


@dataclass(frozen=True)
class RandomResize(Step[tuple[float, Interpolation]]):
    """Enlarge, shrink or keep the image, with any of three interpolations."""

    limits: ClassVar[Limits] = {
        "up_probability": PROBABILITY,
        "down_probability": PROBABILITY,
        "factor": (0.05, 4.0),
        "base": (1.0, 64.0),
    }
    skippable = True

    up_probability: float
    """Share of images that are multiplied by a factor from 1 to the range's end."""
    down_probability: float
    """Share of images that are multiplied by a factor from the range's beginning to 1."""
    factor: Range
    """Range of the factor, around 1."""
    base: float | None = None
    """The factor is one of the clean image's size over `base`; of the image at hand if not given."""
    name: Literal["random_resize"] = "random_resize"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.up_probability + self.down_probability > 1 or not self.factor[0] <= 1 <= self.factor[1]:
            raise ValueError(
                f"impossible RandomResize: probabilities beyond 1, or a range that is not around 1: {self}"
            )

    def draw(self, rng: np.random.Generator) -> tuple[float, Interpolation]:
        kind, (low, high) = rng.random(), self.factor
        up, down = uniform((1.0, high), rng), uniform((low, 1.0), rng)
        modes: tuple[Interpolation, ...] = ("area", "bilinear", "bicubic")
        mode = modes[int(3 * rng.random())]
        if kind < self.up_probability:
            return up, mode
        return (down if kind < self.up_probability + self.down_probability else 1.0), mode

    def apply(
        self, image: RGB, strength: tuple[float, Interpolation], frame: Frame, rng: np.random.Generator
    ) -> Resized:
        factor, mode = strength
        full = image.shape[:2] if self.base is None else (frame.height / self.base, frame.width / self.base)
        height, width = (max(1, int(side * factor)) for side in full)
        return operations.resize(image, height, width, mode)


@dataclass(frozen=True)
class OneOf(Step[tuple[tuple[Step[Any], Any], ...]]):
    """One of several chains of steps, each with its share; what the shares leave of 1 gets none."""

    skippable = True

    chains: tuple[tuple[Step[Any], ...], ...]
    """The chains."""
    shares: tuple[float, ...]
    """Their shares of the images."""

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.chains) or min(self.shares) < 0 or sum(self.shares) > 1 + 1e-9:
            raise ValueError(f"impossible OneOf: {len(self.chains)} chains with the shares {self.shares}")

    def draw(self, rng: np.random.Generator) -> tuple[tuple[Step[Any], Any], ...] | None:
        place = int(np.searchsorted(np.cumsum(self.shares), rng.random(), side="right"))
        drawn = [tuple((step, step.draw(rng)) for step in chain) for chain in self.chains]  # all: see the module steps
        return drawn[place] if place < len(drawn) else None

    def apply(
        self, image: RGB, strength: tuple[tuple[Step[Any], Any], ...], frame: Frame, rng: np.random.Generator
    ) -> Resized:
        return apply_steps(image, strength, frame, rng)


def apply_steps(
    image: RGB, drawn: tuple[tuple[Step[Any], Any], ...], frame: Frame, rng: np.random.Generator
) -> Resized:
    """Carry out steps with the strengths drawn for them, in their order; a strength of None leaves its step out."""
    for step, strength in drawn:
        if strength is not None:
            image = step.apply(image, strength, frame, rng)
    return image


AnyStep = (
    Blur
    | Downscale
    | GaussianNoise
    | Jpeg
    | Resize
    | ColourShift
    | Grey
    | Jitter
    | MotionBlur
    | ShapedBlur
    | Sinc
    | PoissonNoise
    | RandomResize
)
