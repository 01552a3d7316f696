"""GFP-GAN's degradation, in its order, with the ranges of nine recipes.

A `Recipe` holds ranges and probabilities, `draw_degradation` turns it into one `Degradation` (plain numbers)
and `apply_degradation` carries that out; `degrade` does both. Source of the order: GFPGAN,
gfpgan/data/ffhq_degradation_dataset.py (`__getitem__`), with BasicSR's basicsr/data/degradations.py.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Literal, assert_never

import numpy as np
from jaxtyping import Float32

from idm.degradation import kernels, steps
from idm.degradation.steps import RGB

Range = tuple[float, float]
Adjustment = Literal["brightness", "contrast", "saturation", "hue"]

REFERENCE_SIZE = 512  # every published recipe was written for faces of this side length
_RNG_DOMAIN = 0x1D3DE6  # keeps these streams apart from any other use of the same seed
_ADJUSTMENTS: tuple[Adjustment, ...] = ("brightness", "contrast", "saturation", "hue")
_RANGE_LIMITS: Mapping[str, Range] = {
    "blur_sigma": (0.0, 512.0),
    "down": (0.25, 512.0),  # the cost grows with 1 / down^2
    "noise_sigma": (0.0, 255.0),
    "jpeg_quality": (1.0, 100.0),
    "brightness": (0.0, 100.0),
    "contrast": (0.0, 100.0),
    "saturation": (0.0, 100.0),
    "hue": (-0.5, 0.5),
}
_NUMBER_LIMITS: Mapping[str, Range] = {
    "isotropic_probability": (0.0, 1.0),
    "kernel_size": (3.0, 1025.0),
    "colour_shift_probability": (0.0, 1.0),
    "colour_shift": (0.0, 255.0),
    "grey_probability": (0.0, 1.0),
    "jitter_probability": (0.0, 1.0),
    "clean_probability": (0.0, 1.0),
    "skip_probability": (0.0, 1.0),
    "bicubic_probability": (0.0, 1.0),
}


@dataclass(frozen=True)
class Recipe:
    """Ranges, drawn from uniformly, and probabilities. Raises ValueError naming all impossible fields.

    Lengths (`blur_sigma`, `kernel_size`) are pixels of a 512 px face and scale with the image: at 64 px a
    sigma of 8 becomes 1, and 41 taps become 7. This is our own choice, for the sources know 512 px only: blur
    then removes the same detail of a face at every size. `down`, noise, JPEG quality and colour carry no
    length and stay as they are; so do JPEG's blocks of 8 px.
    """

    blur_sigma: Range  # pixels at 512
    down: Range  # factor; below 1 enlarges
    noise_sigma: Range  # 1/255
    jpeg_quality: Range | None  # libjpeg's; truncated to an integer; None leaves JPEG out
    isotropic_probability: float = 0.5
    kernel_size: int = 41  # pixels at 512, odd; as in the sources it cuts wide Gaussians off, at +-20 pixels
    colour_shift_probability: float = 0.0
    colour_shift: float = 20.0  # the largest shift of a channel, 1/255
    grey_probability: float = 0.0
    jitter_probability: float = 0.0
    brightness: Range = (0.5, 1.5)
    contrast: Range = (0.5, 1.5)
    saturation: Range = (0.0, 1.5)
    hue: Range = (-0.1, 0.1)  # turns of the colour circle
    clean_probability: float = 0.0  # the image passes untouched; PFStorer (CVPR 2024) section 3.3 uses 0.03
    enlarge: steps.Interpolation = "bilinear"  # how the small image is brought back to size; every source: bilinear
    # Blur, downscaling, noise and JPEG are left out, each with this probability: the faults of real photographs
    # often come singly, and a model that never saw noise without JPEG takes it for detail. Our own.
    skip_probability: float = 0.0
    # Brought back to size by bicubic instead of `enlarge`, as other programs do. Our own.
    bicubic_probability: float = 0.0

    def __post_init__(self) -> None:
        values = asdict(self)
        faults = [
            f"{name} must be an ordered pair within [{low:g}, {high:g}], got {values[name]}"
            for name, (low, high) in _RANGE_LIMITS.items()
            if not (name == "jpeg_quality" and values[name] is None) and not _ordered(values[name], low, high)
        ]
        faults += [
            f"{name} must lie within [{low:g}, {high:g}], got {values[name]}"
            for name, (low, high) in _NUMBER_LIMITS.items()
            if not low <= values[name] <= high
        ]
        if self.kernel_size % 2 == 0:
            faults.append(f"kernel_size must be odd, got {self.kernel_size}")
        if faults:
            raise ValueError("impossible recipe: " + "; ".join(faults))


def _ordered(value: object, low: float, high: float) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and low <= value[0] <= value[1] <= high


# One preset per recipe in use; a field left out has the default above. Colour terms are those of the source's
# options file: only GFP-GAN's has shift and jitter. RestoreFormer++ and DifFace turn the *target* grey too
# (`gt_gray`): that is the caller's to do, from `Degradation.grey`.

# options/train_gfpgan_v1.yml
GFPGAN = Recipe(
    blur_sigma=(0.1, 10.0),
    down=(0.8, 8.0),
    noise_sigma=(0.0, 20.0),
    jpeg_quality=(60.0, 100.0),
    colour_shift_probability=0.3,
    grey_probability=0.01,
    jitter_probability=0.3,
)
# options/train/VQFR/train_vqfr_v1_B16_200K.yml
VQFR = Recipe(blur_sigma=(0.1, 10.0), down=(0.8, 8.0), noise_sigma=(0.0, 20.0), jpeg_quality=(60.0, 100.0))
# configs/RestoreFormerPlusPlus.yaml. Left out: haze (p .008), a patch degraded unlike the rest ("uneven",
# p .1), kernels of 39 as well as 41 px, and its geometric shift (p .2), which moves the target too.
RESTOREFORMER_PP = Recipe(
    blur_sigma=(0.1, 10.0),
    down=(0.8, 8.0),
    noise_sigma=(0.0, 20.0),
    jpeg_quality=(60.0, 100.0),
    grey_probability=0.008,
)
# options/CodeFormer_stage3.yml
CODEFORMER = Recipe(blur_sigma=(0.1, 10.0), down=(1.0, 12.0), noise_sigma=(0.0, 15.0), jpeg_quality=(60.0, 100.0))
# options/CodeFormer_stage2.yml
CODEFORMER_STAGE2 = Recipe(blur_sigma=(1.0, 15.0), down=(4.0, 30.0), noise_sigma=(0.0, 20.0), jpeg_quality=(30.0, 80.0))
# DiffBIR v2, configs/train/train_stage1.yaml
DIFFBIR = Recipe(blur_sigma=(0.1, 12.0), down=(1.0, 12.0), noise_sigma=(0.0, 15.0), jpeg_quality=(30.0, 100.0))
# configs/DAEFR.yaml; left out: kernels of 39 as well as 41 px
DAEFR = Recipe(blur_sigma=(0.1, 15.0), down=(0.8, 30.0), noise_sigma=(0.0, 20.0), jpeg_quality=(30.0, 100.0))
# DifFace, configs/training/swinir_ffhq512.yaml; PMRF's "difface" degradation
DIFFACE = Recipe(
    blur_sigma=(0.1, 15.0),
    down=(0.8, 32.0),
    noise_sigma=(0.0, 20.0),
    jpeg_quality=(30.0, 100.0),
    grey_probability=0.01,
)
# Our own choice: what is wrong with the poorer photographs of FFHQ itself (soft focus, sensor noise, JPEG).
MILD = Recipe(blur_sigma=(0.1, 3.0), down=(1.0, 2.0), noise_sigma=(0.0, 8.0), jpeg_quality=(60.0, 95.0))

PRESETS: Mapping[str, Recipe] = MappingProxyType(
    {
        "gfpgan": GFPGAN,
        "vqfr": VQFR,
        "restoreformer_pp": RESTOREFORMER_PP,
        "codeformer": CODEFORMER,
        "codeformer_stage2": CODEFORMER_STAGE2,
        "diffbir": DIFFBIR,
        "daefr": DAEFR,
        "difface": DIFFACE,
        "mild": MILD,
    }
)


@dataclass(frozen=True)
class Degradation:
    """One draw from a recipe, in the recipe's units. All that happens to an image but the field of noise."""

    clean: bool
    sigma_x: float
    sigma_y: float  # equal to sigma_x where isotropic
    rotation: float  # radians
    kernel_size: int
    down: float
    noise_sigma: float
    jpeg_quality: int | None
    colour_shift: tuple[float, float, float] | None  # R, G, B
    grey: bool
    jitter: tuple[tuple[Adjustment, float], ...]  # in order of application; empty for none
    enlarge: steps.Interpolation = "bilinear"


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

    def choose(self, rng: np.random.Generator) -> Recipe:
        """One of the recipes, by a single uniform."""
        place = int(np.searchsorted(np.cumsum(self.shares), rng.random(), side="right"))
        return self.recipes[(place + 1) % len(self.recipes)]


def degrade(image: RGB, recipe: Recipe | Mixture, rng: np.random.Generator) -> RGB:
    """Degrade an RGB image in [0, 1]; the result lies on the 8-bit grid and has the same size.

    The steps: blur, downscale, noise, JPEG, back to size, colour shift, grey, jitter, 8 bit. A non-square
    image scales blur by its shorter side; a draw of "clean" returns an exact copy. Raises TypeError unless
    `image` is a float32 array, ValueError unless its shape is `h w 3` and its range [0, 1].
    """
    if isinstance(recipe, Mixture):
        recipe = recipe.choose(rng)
    return apply_degradation(image, draw_degradation(recipe, rng), rng)


def draw_degradation(recipe: Recipe, rng: np.random.Generator) -> Degradation:
    """Draw every number of one degradation.

    Always takes the same 22 uniforms, in the order below, whether or not they are used (and 4 more after them
    where steps may be left out): so a changed range or probability moves nothing but its own step, and recipes can
    be compared draw by draw.
    """
    uniforms = rng.random(22).tolist()
    clean, isotropic, sigma_x, sigma_y, rotation, down, noise, quality = uniforms[:8]
    shifted, red, green, blue, grey, jittered = uniforms[8:14]
    factors, order = uniforms[14:18], uniforms[18:]

    skipped = (rng.random(4) < recipe.skip_probability).tolist() if recipe.skip_probability > 0 else [False] * 4
    no_blur, no_down, no_noise, no_jpeg = skipped
    bicubic = recipe.bicubic_probability > 0 and rng.random() < recipe.bicubic_probability

    sigma = _within(recipe.blur_sigma, sigma_x)
    other_sigma = sigma if isotropic < recipe.isotropic_probability else _within(recipe.blur_sigma, sigma_y)
    limit = recipe.colour_shift
    ranges = (recipe.brightness, recipe.contrast, recipe.saturation, recipe.hue)
    jitter = [(name, _within(ends, u)) for name, ends, u in zip(_ADJUSTMENTS, ranges, factors, strict=True)]
    return Degradation(
        clean=clean < recipe.clean_probability,
        sigma_x=0.0 if no_blur else sigma,
        sigma_y=0.0 if no_blur else other_sigma,
        rotation=_within((-math.pi, math.pi), rotation),
        kernel_size=recipe.kernel_size,
        down=1.0 if no_down else _within(recipe.down, down),
        noise_sigma=0.0 if no_noise else _within(recipe.noise_sigma, noise),
        jpeg_quality=None if recipe.jpeg_quality is None or no_jpeg else int(_within(recipe.jpeg_quality, quality)),
        colour_shift=(
            (_within((-limit, limit), red), _within((-limit, limit), green), _within((-limit, limit), blue))
            if shifted < recipe.colour_shift_probability
            else None
        ),
        grey=grey < recipe.grey_probability,
        jitter=tuple(jitter[i] for i in np.argsort(order)) if jittered < recipe.jitter_probability else (),
        enlarge="bicubic" if bicubic else recipe.enlarge,
    )


def _within(ends: Range, uniform: float) -> float:
    low, high = ends
    return low + uniform * (high - low)


def apply_degradation(image: RGB, degradation: Degradation, rng: np.random.Generator) -> RGB:
    """Carry out one degradation; only the field of noise, from `rng`, is left to chance. See `degrade`."""
    _require_image(image)
    if degradation.clean:
        return image.copy()
    height, width, _ = image.shape
    lq = steps.blur(image, _blur_kernel(degradation, min(height, width) / REFERENCE_SIZE))
    lq = steps.downscale(lq, degradation.down)
    lq = steps.add_gaussian_noise(lq, degradation.noise_sigma, rng)
    if degradation.jpeg_quality is not None:
        lq = steps.jpeg(lq, degradation.jpeg_quality)
    lq = steps.resize(lq, height, width, degradation.enlarge)
    if degradation.colour_shift is not None:
        lq = steps.shift_colour(lq, np.array(degradation.colour_shift, dtype=np.float32))
    if degradation.grey:
        lq = steps.to_grey(lq)
    for name, strength in degradation.jitter:
        lq = _adjust(lq, name, strength)
    return steps.quantise(lq)


def _require_image(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray) or image.dtype != np.float32:
        kind = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"an image must be a float32 array, got {kind}")
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(f"an image must have shape (height, width, 3), got {image.shape}")
    low, high = image.min(), image.max()
    if not (low >= 0 and high <= 1):  # written so that NaN fails too
        raise ValueError(f"an image must lie in [0, 1], got values from {low} to {high}")


def _blur_kernel(degradation: Degradation, scale: float) -> Float32[np.ndarray, " k"] | Float32[np.ndarray, "k k"]:
    """The kernel at `scale` times the reference size: 41 px at 512 as in GFP-GAN, 7 px at 64, at least 3."""
    radius = max(1, math.ceil(degradation.kernel_size // 2 * scale))
    sigma_x, sigma_y = degradation.sigma_x * scale, degradation.sigma_y * scale
    if sigma_x == sigma_y:
        return kernels.gaussian_taps(sigma_x, radius)
    return kernels.gaussian_kernel(sigma_x, sigma_y, degradation.rotation, radius)


def _adjust(image: RGB, name: Adjustment, strength: float) -> RGB:
    match name:
        case "brightness":
            return steps.adjust_brightness(image, strength)
        case "contrast":
            return steps.adjust_contrast(image, strength)
        case "saturation":
            return steps.adjust_saturation(image, strength)
        case "hue":
            return steps.adjust_hue(image, strength)
        case _:
            assert_never(name)


def degradation_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator of item `index` in pass `epoch` of a run with `seed`: a pure function of the three.

    Raises ValueError unless 0 <= seed < 2^64 and 0 <= epoch, index < 2^32 (beyond, streams could coincide).
    """
    if not (0 <= seed < 2**64 and 0 <= epoch < 2**32 and 0 <= index < 2**32):
        raise ValueError(f"need 0 <= seed < 2^64 and 0 <= epoch, index < 2^32, got {seed}, {epoch}, {index}")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_RNG_DOMAIN, epoch, index)))
