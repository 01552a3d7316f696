"""The laws that every step and every preset keeps, each tested once over a list of all of them."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from idm.degradation import PRESETS, Recipe, degradation_rng, degrade, kernels, operations
from idm.degradation.further_steps import AnyStep, MotionBlur, PoissonNoise, RandomResize, ShapedBlur, Sinc
from idm.degradation.steps import Blur, ColourShift, Downscale, GaussianNoise, Grey, Jitter, Jpeg, Resize

few = settings(max_examples=25)


@dataclass(frozen=True)
class Operation:
    """An operation as a function of image, strength and generator, with its neutral and its growing strengths."""

    apply: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
    neutral: float | None
    growing: tuple[float, ...]
    keeps_shape: bool = True


OPERATIONS = {
    "blur, isotropic": Operation(
        lambda image, s, rng: operations.blur(image, kernels.gaussian_taps(s, 8)), 0.0, (0.5, 1.0, 2.0, 4.0)
    ),
    "blur, anisotropic": Operation(
        lambda image, s, rng: operations.blur(image, kernels.gaussian_kernel(s, s / 2, 0.5, 8)),
        0.0,
        (0.5, 1.0, 2.0, 4.0),
    ),
    "downscale": Operation(
        lambda image, s, rng: operations.downscale(image, s), 1.0, (0.7, 1.4, 2.5, 5.0, 12.0), keeps_shape=False
    ),
    "down and up": Operation(
        lambda image, s, rng: operations.resize(operations.downscale(image, s), *image.shape[:2]),
        1.0,
        (2.0, 4.0, 8.0, 16.0),
    ),
    "noise": Operation(operations.add_gaussian_noise, 0.0, (2.0, 5.0, 10.0, 20.0)),
    "jpeg": Operation(lambda image, s, rng: operations.jpeg(image, int(s)), None, (95.0, 60.0, 30.0, 5.0)),
    "shift": Operation(
        lambda image, s, rng: operations.shift_colour(image, np.float32([s, -s, s])), 0.0, (2.0, 5.0, 10.0, 20.0)
    ),
    "grey": Operation(lambda image, s, rng: operations.to_grey(image), None, (1.0,)),
    "brightness, less": Operation(
        lambda image, s, rng: operations.adjust_brightness(image, s), 1.0, (0.9, 0.7, 0.5, 0.0)
    ),
    "brightness, more": Operation(lambda image, s, rng: operations.adjust_brightness(image, s), 1.0, (1.1, 1.3, 1.5)),
    "contrast, less": Operation(lambda image, s, rng: operations.adjust_contrast(image, s), 1.0, (0.9, 0.7, 0.5, 0.0)),
    "contrast, more": Operation(lambda image, s, rng: operations.adjust_contrast(image, s), 1.0, (1.1, 1.3, 1.5)),
    "saturation, less": Operation(
        lambda image, s, rng: operations.adjust_saturation(image, s), 1.0, (0.9, 0.7, 0.5, 0.0)
    ),
    "saturation, more": Operation(lambda image, s, rng: operations.adjust_saturation(image, s), 1.0, (1.1, 1.3, 1.5)),
    "hue": Operation(lambda image, s, rng: operations.adjust_hue(image, s), 0.0, (0.02, 0.05, 0.1, 0.3)),
    "hue, back": Operation(lambda image, s, rng: operations.adjust_hue(image, s), 0.0, (-0.02, -0.05, -0.1, -0.3)),
    "grey noise": Operation(
        lambda image, s, rng: operations.add_gaussian_noise(image, s, rng, True), 0.0, (2.0, 5.0, 20.0)
    ),
    "shot noise": Operation(operations.add_poisson_noise, 0.0, (0.2, 0.5, 1.0, 3.0)),
    "motion": Operation(
        lambda image, s, rng: operations.blur(image, kernels.motion_kernel(s, 0.5, 12)), 0.0, (2.0, 4.0, 8.0, 16.0)
    ),
    "ringing": Operation(
        lambda image, s, rng: operations.blur(image, kernels.sinc_kernel(3 - s, 10)), None, (0.2, 1.0, 1.8, 2.4)
    ),
    "plateau": Operation(
        lambda image, s, rng: operations.blur(image, kernels.plateau_kernel(s, s / 2, 0.5, 8, 1.5)),
        None,
        (0.5, 1.0, 2.0),
    ),
    "quantise": Operation(lambda image, s, rng: operations.quantise(image), None, (1.0,)),
}
NO_DEGRADATION = Recipe((Blur((0.0, 0.0)), Downscale((1.0, 1.0)), GaussianNoise((0.0, 0.0)), Resize()))


@st.composite
def images(draw: st.DrawFn) -> np.ndarray:
    """RGB images of 8 to 48 px a side: noise, two-valued noise (all corners of the cube), or one colour."""
    height, width = draw(st.integers(8, 48)), draw(st.integers(8, 48))
    image = np.random.default_rng(draw(st.integers(0, 2**32))).random((height, width, 3), dtype=np.float32)
    kind = draw(st.sampled_from(["noise", "corners", "flat"]))
    if kind == "corners":
        return np.rint(image)
    return image if kind == "noise" else np.broadcast_to(image[:1, :1], image.shape).copy()


def portrait(height: int = 96, width: int = 80) -> np.ndarray:
    """A smooth oval with two dark eyes on a striped ground, on the 8-bit grid: detail at several scales."""
    y, x = np.mgrid[0:height, 0:width] / [[[height]], [[width]]]
    face = ((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.4) ** 2 < 1
    eyes = ((np.abs(x - 0.5) - 0.12) / 0.05) ** 2 + ((y - 0.42) / 0.03) ** 2 < 1
    ground = np.stack([0.4 + 0.2 * np.sin(40 * x), 0.5 + 0.2 * np.cos(25 * y), 0.6 + 0.2 * np.sin(60 * y * x)], -1)
    skin = np.array([0.8, 0.6, 0.5]) - 0.2 * ((x - 0.4) ** 2 + (y - 0.4) ** 2)[..., None]
    image = np.where(face[..., None], skin, ground) * np.where(eyes & face, 0.2, 1.0)[..., None]
    return np.rint(image * 255).astype(np.float32) / 255


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * np.log10(max(np.mean((a.astype(np.float64) - b) ** 2), 1e-20))


def assert_is_an_image(result: np.ndarray) -> None:
    assert result.dtype == np.float32
    assert result.ndim == 3
    assert result.shape[2] == 3
    assert result.min() >= 0
    assert result.max() <= 1


@pytest.mark.parametrize("step", OPERATIONS.values(), ids=OPERATIONS)
@few
@given(image=images(), data=st.data())
def test_every_step_keeps_range_shape_and_type_and_leaves_its_input_alone(step, image, data):
    strength = data.draw(st.floats(min(step.growing), max(step.growing)))
    image.flags.writeable = False
    before = image.copy()
    result = step.apply(image, strength, degradation_rng(0, 0, 0))
    assert_is_an_image(result)
    assert result.shape == image.shape or not step.keeps_shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("step", OPERATIONS.values(), ids=OPERATIONS)
@few
@given(image=images())
def test_every_step_gives_the_same_image_for_the_same_generator_and_memory_layout(step, image):
    strength = step.growing[-1]
    flipped = image[:, ::-1]
    results = [step.apply(i, strength, degradation_rng(1, 2, 3)) for i in (flipped, flipped.copy())]
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("step", [s for s in OPERATIONS.values() if s.neutral is not None])
@few
@given(image=images())
def test_zero_strength_is_the_identity(step, image):
    np.testing.assert_allclose(step.apply(image, step.neutral, degradation_rng(0, 0, 0)), image, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, step in OPERATIONS.items() if step.keeps_shape])
def test_a_stronger_step_has_a_lower_psnr(name):
    image, step = portrait(), OPERATIONS[name]
    quality = [psnr(step.apply(image, s, degradation_rng(0, 0, 0)), image) for s in step.growing]
    assert all(better > worse for better, worse in pairwise(quality)), quality


@pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)
@few
@given(image=images(), index=st.integers(0, 2**32 - 1))
def test_every_preset_keeps_size_range_and_the_8_bit_grid_and_leaves_its_input_alone(recipe, image, index):
    image.flags.writeable = False
    before = image.copy()
    result = degrade(image, recipe, degradation_rng(0, 0, index))
    assert_is_an_image(result)
    assert result.shape == image.shape
    np.testing.assert_array_equal(result, np.rint(result * 255).astype(np.uint8) / np.float32(255))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("recipe", PRESETS.values(), ids=PRESETS)
@few
@given(index=st.integers(0, 2**32 - 1))
def test_every_preset_is_a_function_of_image_and_generator(recipe, index):
    image = portrait(40, 48)
    first, again = (degrade(image, recipe, degradation_rng(5, 0, index)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.any(first != degrade(image, recipe, degradation_rng(5, 1, index)))


@few
@given(image=images())
def test_a_recipe_of_zeros_changes_an_8_bit_image_not_at_all(image):
    image = operations.quantise(image)
    np.testing.assert_array_equal(degrade(image, NO_DEGRADATION, degradation_rng(0, 0, 0)), image)


# Every step with growing strengths; the laws below hold for all of them.
STEPS: dict[type, list] = {
    Blur: [Blur((s, s)) for s in (2.0, 5.0, 10.0, 15.0)],
    Downscale: [Downscale((s, s)) for s in (2.0, 4.0, 8.0, 16.0)],
    GaussianNoise: [GaussianNoise((s, s)) for s in (2.0, 5.0, 10.0, 20.0)],
    Jpeg: [Jpeg((s, s)) for s in (95.0, 60.0, 30.0, 10.0)],
    Resize: [Resize(factor=s) for s in (1.0, 2.0, 4.0, 8.0)],
    ColourShift: [ColourShift(0.0), ColourShift(1.0, 20.0), ColourShift(1.0, 60.0)],
    Grey: [Grey(0.0), Grey(1.0)],
    Jitter: [Jitter(0.0), Jitter(1.0)],
    MotionBlur: [MotionBlur(0.0), *(MotionBlur(1.0, (s, s)) for s in (16.0, 32.0, 64.0, 128.0))],
    ShapedBlur: [ShapedBlur("plateau", (s, s), (1.5, 1.5)) for s in (4.0, 8.0, 16.0, 32.0)],
    Sinc: [Sinc((s, s), (15, 15)) for s in (3.0, 2.0, 1.2, 0.6)],
    PoissonNoise: [PoissonNoise((s, s)) for s in (0.2, 0.5, 1.0, 3.0)],
    RandomResize: [RandomResize(0.0, 0.0, (0.5, 1.0)), RandomResize(0.0, 1.0, (0.5, 1.0))],
}


def test_every_step_is_under_the_laws():
    assert set(STEPS) == set(get_args(AnyStep))
    assert all(isinstance(step, kind) for kind, growing in STEPS.items() for step in growing)


@pytest.mark.parametrize("growing", STEPS.values(), ids=lambda growing: growing[0].name)
@few
@given(index=st.integers(0, 2**32 - 1))
def test_a_stronger_step_has_a_lower_psnr_in_a_recipe(growing, index):
    image = portrait()
    quality = [psnr(degrade(image, Recipe((step, Resize())), degradation_rng(0, 0, index)), image) for step in growing]
    assert all(better > worse for better, worse in pairwise(quality)), quality


@pytest.mark.parametrize("growing", STEPS.values(), ids=lambda growing: growing[0].name)
@few
@given(image=images(), index=st.integers(0, 2**32 - 1))
def test_every_step_gives_an_image_and_the_same_one_again(growing, image, index):
    image.flags.writeable = False
    before, recipe = image.copy(), Recipe((growing[-1],))
    first, again = (degrade(image, recipe, degradation_rng(0, 0, index)) for _ in range(2))
    assert_is_an_image(first)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("growing", STEPS.values(), ids=lambda growing: growing[0].name)
@few
@given(index=st.integers(0, 2**32 - 1))
def test_every_step_takes_the_same_count_of_random_numbers_whatever_its_settings(growing, index):
    states = []
    for step in growing:
        rng = degradation_rng(0, 0, index)
        step.draw(rng)
        states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)


def test_the_presets_are_ordered_from_mild_to_heavy():
    image = portrait()
    order = ("mild", "codeformer", "codeformer_stage2")
    means = [
        np.mean([psnr(degrade(image, PRESETS[name], degradation_rng(0, 0, i)), image) for i in range(40)])
        for name in order
    ]
    assert means[0] > means[1] + 3
    assert means[1] > means[2] + 3
