"""A recipe is a tuple of steps; a draw from it is one strength for each; applying a draw degrades an image.

`draw_degradation` turns a `Recipe` into one `Degradation` (plain numbers), `apply_degradation` carries that out;
`degrade` does both. `presets` holds the published recipes.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from idm.degradation import operations
from idm.degradation.further_steps import apply_steps
from idm.degradation.operations import RGB
from idm.degradation.steps import PROBABILITY, Frame, Resize, Step

_RNG_DOMAIN = 0x1D3DE6  # keeps these streams apart from any other use of the same seed


@dataclass(frozen=True)
class Recipe:
    """Steps in their order, and what may happen to them as a whole.

    Raises:
        ValueError: on construction, naming all probabilities outside [0, 1].
    """

    steps: tuple[Step[Any], ...]
    clean_probability: float = 0.0
    """Share of images that pass untouched; PFStorer (CVPR 2024) section 3.3 uses 0.03."""
    skip_probability: float = 0.0
    """Each step that adds damage is left out with this probability: the faults of real photographs often come singly,
    and a model that never saw noise without JPEG takes it for detail. Our own."""
    bicubic_probability: float = 0.0
    """Share of images that are brought back to size by bicubic interpolation, as other programs do. Our own."""
    half_size_probability: float = 0.0
    """Share of images that are degraded at half their size and then enlarged, as small faces in photographs are. Noise
    and JPEG blocks become twice as coarse, and the greatest factor of downscaling doubles. Our own."""

    def __post_init__(self) -> None:
        low, high = PROBABILITY
        names = ("clean_probability", "skip_probability", "bicubic_probability", "half_size_probability")
        if faults := [name for name in names if not low <= getattr(self, name) <= high]:
            values = "; ".join(f"{name} must lie within [0, 1], got {getattr(self, name)}" for name in faults)
            raise ValueError(f"impossible recipe: {values}")

    def change(self, kind: type[Step[Any]], **fields: Any) -> "Recipe":
        """This recipe with other values in its steps of one class.

        Raises:
            ValueError: it has no such step, or the values are impossible.
        """
        if not any(isinstance(step, kind) for step in self.steps):
            raise ValueError(f"the recipe has no step {kind.__name__}")
        return replace(
            self,
            steps=tuple(replace(s, **fields) if isinstance(s, kind) else s for s in self.steps),  # type: ignore[type-var]
        )


@dataclass(frozen=True)
class Degradation:
    """One draw from a recipe: all parameters of a degradation except the fields of noise.

    Attributes:
        clean: the image passes untouched.
        drawn: steps with their strengths, in the order of application; None for a step that is left out.
        half_size: the steps apply to the image at half its size.
    """

    clean: bool
    drawn: tuple[tuple[Step[Any], Any], ...]
    half_size: bool = False

    def strength(self, kind: type[Step[Any]]) -> Any:
        """Return the parameters drawn for the first step of a class; None if it is left out or absent."""
        return next((strength for step, strength in self.drawn if isinstance(step, kind)), None)


@dataclass(frozen=True)
class Mixture:
    """Recipes, each for a share of the images; the first one takes what the others leave.

    Raises:
        ValueError: the shares of the others exceed 1.
    """

    recipes: tuple[Recipe, ...]
    shares: tuple[float, ...]  # of all recipes but the first

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.recipes) - 1 or min(self.shares, default=0.0) < 0 or sum(self.shares) > 1:
            raise ValueError(f"the shares {self.shares} of {len(self.recipes) - 1} further recipes must add up to <= 1")

    def change(self, kind: type[Step[Any]], **fields: Any) -> "Mixture":
        """This mixture with other values in the steps of one class of all its recipes, see :meth:`Recipe.change`."""
        return replace(self, recipes=tuple(recipe.change(kind, **fields) for recipe in self.recipes))

    def choose(self, rng: np.random.Generator) -> Recipe:
        """One of the recipes, by a single uniform."""
        place = int(np.searchsorted(np.cumsum(self.shares), rng.random(), side="right"))
        return self.recipes[(place + 1) % len(self.recipes)]


def degrade(image: RGB, recipe: Recipe | Mixture, rng: np.random.Generator) -> RGB:
    """Degrade an RGB image in [0, 1]; the result lies on the 8-bit grid and has the same size.

    A draw of "clean" returns an exact copy. Raises TypeError unless `image` is a float32 array, ValueError unless its
    shape is `h w 3` and its range [0, 1].
    """
    if isinstance(recipe, Mixture):
        recipe = recipe.choose(rng)
    return apply_degradation(image, draw_degradation(recipe, rng), rng)


def draw_degradation(recipe: Recipe, rng: np.random.Generator) -> Degradation:
    """Draw every number of one degradation, each step's in turn; what a recipe alone adds comes after them."""
    clean = rng.random() < recipe.clean_probability
    drawn = [(step, step.draw(rng)) for step in recipe.steps]
    if recipe.skip_probability > 0:
        drawn = [
            (step, None if step.skippable and rng.random() < recipe.skip_probability else strength)
            for step, strength in drawn
        ]
    if recipe.bicubic_probability > 0 and rng.random() < recipe.bicubic_probability:
        drawn = [(step, "bicubic" if isinstance(step, Resize) else strength) for step, strength in drawn]
    half_size = recipe.half_size_probability > 0 and rng.random() < recipe.half_size_probability
    return Degradation(clean, tuple(drawn), half_size)


def apply_degradation(image: RGB, degradation: Degradation, rng: np.random.Generator) -> RGB:
    """Carry out one degradation; only the fields of noise, from `rng`, are left to chance. See `degrade`."""
    _require_image(image)
    if degradation.clean:
        return image.copy()
    if degradation.half_size:
        height, width, _ = image.shape
        small = operations.resize(image, max(1, height // 2), max(1, width // 2), "area")
        degraded = apply_degradation(small, replace(degradation, half_size=False), rng)
        return operations.quantise(operations.resize(degraded, height, width, "bicubic"))
    frame = Frame(*image.shape[:2])
    degraded = apply_steps(image, degradation.drawn, frame, rng)
    if degraded.shape != image.shape:  # the last step of a list in YAML need not be a resize
        degraded = operations.resize(degraded, frame.height, frame.width)
    return operations.quantise(degraded)


def _require_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.float32:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"an image must be a float32 array, got {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"an image must have shape (height, width, 3), got {image.shape}")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(f"an image must lie in [0, 1], got values from {low} to {high}")


def degradation_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of item `index` in pass `epoch` of a run with `seed`: a pure function of the three.

    Raises ValueError unless 0 <= seed < 2^64 and 0 <= epoch, index < 2^32 (beyond, streams could coincide).
    """
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**32 and 0 <= index < 2**32):
        raise ValueError(f"need 0 <= seed < 2^64 and 0 <= epoch, index < 2^32, got {seed}, {epoch}, {index}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_RNG_DOMAIN, epoch, index)))
