"""The protocol of a degradation step, and GFP-GAN's steps: limits, drawing and applying stand together.

A step is a frozen dataclass of plain numbers. `draw` turns its ranges into one strength (None leaves the step out),
`apply` carries a strength out. `draw` takes the same count of random numbers whatever the ranges and probabilities
are: a changed setting then moves no other step, and recipes can be compared draw by draw.

`further_steps` holds the steps of others and the list of all.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np

from idm.degradation import kernels, operations
from idm.degradation.operations import RGB, Interpolation, Resized

Range = tuple[float, float]
Limits = Mapping[str, Range]  # of the fields, by their names
Drawn = TypeVar("Drawn")

REFERENCE_SIZE = 512  # every published recipe for faces was written for this side length
PROBABILITY: Range = (0.0, 1.0)


@dataclass(frozen=True)
class Frame:
    """Height and width in pixels of the image before the first step."""

    height: int
    width: int

    @property
    def scale(self) -> float:
        """The shorter side over 512 px: what lengths are multiplied by."""
        return min(self.height, self.width) / REFERENCE_SIZE


class Step(ABC, Generic[Drawn]):
    """One step of a recipe.

    Ranges are drawn from uniformly. Lengths are pixels of a 512 px face and scale with the image: at 64 px a sigma of
    8 becomes 1. This is our own choice, for the sources know 512 px only: blur then removes the same detail of a face
    at every size. Factors, noise, JPEG quality and colour carry no length and stay as they are.

    Raises:
        ValueError: on construction, naming all fields outside `limits`.
    """

    limits: ClassVar[Limits] = {}
    skippable: ClassVar[bool] = False  # whether a recipe's `skip_probability` may leave it out
    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid", "strict": True, "allow_inf_nan": False}

    def __post_init__(self) -> None:
        faults = []
        for name, (low, high) in self.limits.items():
            value = getattr(self, name)
            if isinstance(value, tuple):
                if not (len(value) == 2 and low <= value[0] <= value[1] <= high):
                    faults.append(f"{name} must be an ordered pair within [{low:g}, {high:g}], got {value}")
            elif value is not None and not low <= value <= high:
                faults.append(f"{name} must lie within [{low:g}, {high:g}], got {value}")
        if faults:
            raise ValueError(f"impossible {type(self).__name__}: " + "; ".join(faults))

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> Drawn | None:
        """The strength of one application; None leaves the step out."""

    @abstractmethod
    def apply(self, image: RGB, strength: Drawn, frame: Frame, rng: np.random.Generator) -> Resized:
        """The image after the step; `rng` is for fields of noise only."""


def uniform(ends: Range, rng: np.random.Generator) -> float:
    """A number drawn uniformly from [low, high)."""
    low, high = ends
    return low + rng.random() * (high - low)


def scaled_radius(kernel_size: int, frame: Frame) -> int:
    """Return the radius of a kernel, scaled with the image: 41 px have radius 20 at 512 px, 3 at 64; at least 1."""
    return max(1, math.ceil(kernel_size // 2 * frame.scale))


# ---------------------------------------------------------------------------------------------- GFP-GAN's steps


@dataclass(frozen=True)
class Blur(Step[tuple[float, float, float]]):
    """Gaussian blur with the widths sigma_x and sigma_y, rotated."""

    limits: ClassVar[Limits] = {"sigma": (0.0, 512.0), "isotropic_probability": PROBABILITY, "kernel_size": (3, 1025)}
    skippable = True

    sigma: Range
    """Range of both widths; pixels at 512."""
    isotropic_probability: float = 0.5
    """Share of blurs with sigma_y = sigma_x."""
    kernel_size: int = 41
    """Side of the kernel; pixels at 512, odd. As in the sources 41 cuts wide Gaussians off, at +-20 pixels."""
    name: Literal["blur"] = "blur"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel_size % 2 == 0:
            raise ValueError(f"impossible Blur: kernel_size must be odd, got {self.kernel_size}")

    def draw(self, rng: np.random.Generator) -> tuple[float, float, float]:
        isotropic = rng.random() < self.isotropic_probability
        sigma_x, sigma_y = uniform(self.sigma, rng), uniform(self.sigma, rng)
        return sigma_x, sigma_x if isotropic else sigma_y, uniform((-math.pi, math.pi), rng)

    def apply(
        self, image: RGB, strength: tuple[float, float, float], frame: Frame, rng: np.random.Generator
    ) -> Resized:
        sigma_x, sigma_y, rotation = strength
        radius = scaled_radius(self.kernel_size, frame)
        if sigma_x == sigma_y:
            return operations.blur(image, kernels.gaussian_taps(sigma_x * frame.scale, radius))
        kernel = kernels.gaussian_kernel(sigma_x * frame.scale, sigma_y * frame.scale, rotation, radius)
        return operations.blur(image, kernel)


@dataclass(frozen=True)
class Downscale(Step[float]):
    """Downscaling by bilinear interpolation."""

    limits: ClassVar[Limits] = {"factor": (0.25, 512.0)}  # the cost grows with 1 / factor^2
    skippable = True

    factor: Range
    """Range of the factor; below 1 enlarges."""
    name: Literal["downscale"] = "downscale"

    def draw(self, rng: np.random.Generator) -> float:
        return uniform(self.factor, rng)

    def apply(self, image: RGB, strength: float, frame: Frame, rng: np.random.Generator) -> Resized:
        return operations.downscale(image, strength)


@dataclass(frozen=True)
class GaussianNoise(Step[float]):
    """Gaussian noise."""

    limits: ClassVar[Limits] = {"sigma": (0.0, 255.0)}
    skippable = True

    sigma: Range
    """Range of sigma, in units of 1/255."""
    grey: bool = False
    """The same noise in all channels."""
    name: Literal["gaussian_noise"] = "gaussian_noise"

    def draw(self, rng: np.random.Generator) -> float:
        return uniform(self.sigma, rng)

    def apply(self, image: RGB, strength: float, frame: Frame, rng: np.random.Generator) -> Resized:
        return operations.add_gaussian_noise(image, strength, rng, self.grey)


@dataclass(frozen=True)
class Jpeg(Step[int]):
    """JPEG compression."""

    limits: ClassVar[Limits] = {"quality": (1.0, 100.0)}
    skippable = True

    quality: Range
    """Range of libjpeg's quality; what is drawn is truncated to an integer."""
    name: Literal["jpeg"] = "jpeg"

    def draw(self, rng: np.random.Generator) -> int:
        return int(uniform(self.quality, rng))

    def apply(self, image: RGB, strength: int, frame: Frame, rng: np.random.Generator) -> Resized:
        return operations.jpeg(image, strength)


@dataclass(frozen=True)
class Resize(Step[Interpolation]):
    """Resize to the size of the clean image, or to a part of it."""

    limits: ClassVar[Limits] = {"factor": (1.0, 512.0)}

    interpolation: Interpolation = "bilinear"
    """Every published recipe for faces: bilinear."""
    factor: float = 1.0
    """The clean image's size over the new one."""
    name: Literal["resize"] = "resize"

    def draw(self, rng: np.random.Generator) -> Interpolation:
        return self.interpolation

    def apply(self, image: RGB, strength: Interpolation, frame: Frame, rng: np.random.Generator) -> Resized:
        height, width = (max(1, int(side // self.factor)) for side in (frame.height, frame.width))
        return operations.resize(image, height, width, strength)


@dataclass(frozen=True)
class ColourShift(Step[tuple[float, float, float]]):
    """One constant added to each channel."""

    limits: ClassVar[Limits] = {"probability": PROBABILITY, "shift": (0.0, 255.0)}

    probability: float
    """Share of images that are shifted."""
    shift: float = 20.0
    """The largest shift of a channel, in units of 1/255."""
    name: Literal["colour_shift"] = "colour_shift"

    def draw(self, rng: np.random.Generator) -> tuple[float, float, float] | None:
        shifted, ends = rng.random() < self.probability, (-self.shift, self.shift)
        red, green, blue = uniform(ends, rng), uniform(ends, rng), uniform(ends, rng)
        return (red, green, blue) if shifted else None

    def apply(
        self, image: RGB, strength: tuple[float, float, float], frame: Frame, rng: np.random.Generator
    ) -> Resized:
        return operations.shift_colour(image, np.array(strength, dtype=np.float32))


@dataclass(frozen=True)
class Grey(Step[Literal[True]]):
    """Grey in place of colour."""

    limits: ClassVar[Limits] = {"probability": PROBABILITY}

    probability: float
    """Share of images that become grey."""
    name: Literal["grey"] = "grey"

    def draw(self, rng: np.random.Generator) -> Literal[True] | None:
        return True if rng.random() < self.probability else None

    def apply(self, image: RGB, strength: Literal[True], frame: Frame, rng: np.random.Generator) -> Resized:
        return operations.to_grey(image)


Adjustment = Literal["brightness", "contrast", "saturation", "hue"]


@dataclass(frozen=True)
class Jitter(Step[tuple[tuple[Adjustment, float], ...]]):
    """Brightness, contrast, saturation and hue, adjusted in a random order."""

    limits: ClassVar[Limits] = {
        "probability": PROBABILITY,
        "brightness": (0.0, 100.0),
        "contrast": (0.0, 100.0),
        "saturation": (0.0, 100.0),
        "hue": (-0.5, 0.5),
    }

    probability: float
    """Share of images that are adjusted."""
    brightness: Range = (0.5, 1.5)
    """Range of the factor."""
    contrast: Range = (0.5, 1.5)
    """Range of the factor."""
    saturation: Range = (0.0, 1.5)
    """Range of the factor."""
    hue: Range = (-0.1, 0.1)
    """Range in turns of the colour circle."""
    name: Literal["jitter"] = "jitter"

    def draw(self, rng: np.random.Generator) -> tuple[tuple[Adjustment, float], ...] | None:
        jittered = rng.random() < self.probability
        adjustments: tuple[tuple[Adjustment, float], ...] = (
            ("brightness", uniform(self.brightness, rng)),
            ("contrast", uniform(self.contrast, rng)),
            ("saturation", uniform(self.saturation, rng)),
            ("hue", uniform(self.hue, rng)),
        )
        order = np.argsort(rng.random(4))
        return tuple(adjustments[i] for i in order) if jittered else None

    def apply(
        self, image: RGB, strength: tuple[tuple[Adjustment, float], ...], frame: Frame, rng: np.random.Generator
    ) -> Resized:
        adjust = {
            "brightness": operations.adjust_brightness,
            "contrast": operations.adjust_contrast,
            "saturation": operations.adjust_saturation,
            "hue": operations.adjust_hue,
        }
        for name, amount in strength:
            image = adjust[name](image, amount)
        return image
