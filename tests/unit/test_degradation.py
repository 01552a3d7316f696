"""Does each kernel, step and recipe do what it says? Answers are closed forms or measured statistics."""

from dataclasses import fields, replace
from functools import cache
from typing import get_args, get_type_hints

import jaxtyping
import numpy as np
import pytest

from idm.degradation import (
    GFPGAN,
    PRESETS,
    Degradation,
    PresetName,
    Recipe,
    apply_degradation,
    degradation_rng,
    degrade,
    draw_degradation,
    kernels,
    operations,
)
from idm.degradation.further_steps import AnyStep, MotionBlur, OneOf, RandomResize
from idm.degradation.steps import (
    Blur,
    ColourShift,
    Downscale,
    Frame,
    GaussianNoise,
    Grey,
    Jitter,
    Jpeg,
    Range,
    Resize,
)

DRAWS = 4_000


def drawn(blur=None, down=None, noise=None, jpeg=None, shift=None, grey=None, jitter=None) -> Degradation:
    """A draw from GFP-GAN's recipe with these strengths; a step without one is left out."""
    strengths = (blur, down, noise, jpeg, "bilinear", shift, grey, jitter)
    return Degradation(False, tuple(zip(GFPGAN.steps, strengths, strict=True)))


def flat(red: float, green: float, blue: float, size: int = 32) -> np.ndarray:
    return np.broadcast_to(np.float32([red, green, blue]), (size, size, 3)).copy()


@cache
def draws(recipe: Recipe) -> list[Degradation]:
    rng = degradation_rng(0, 0, 0)
    return [draw_degradation(recipe, rng) for _ in range(DRAWS)]


def assert_frequency(hits: int, probability: float) -> None:
    deviation = np.sqrt(DRAWS * probability * (1 - probability))
    assert abs(hits - DRAWS * probability) <= 4 * deviation


# Kernels


@pytest.mark.parametrize("rotation", [0.0, 0.4, np.pi / 2, -2.5])
def test_a_measured_covariance_equals_the_sigmas_and_the_rotation(rotation):
    kernel = kernels.gaussian_kernel(4.0, 1.5, rotation, radius=24).astype(np.float64)
    y, x = np.mgrid[-24:25, -24:25]
    turn = np.array([[np.cos(rotation), -np.sin(rotation)], [np.sin(rotation), np.cos(rotation)]])
    expected = turn @ np.diag([4.0**2, 1.5**2]) @ turn.T
    measured = [[(kernel * a * b).sum() for a in (x, y)] for b in (x, y)]
    np.testing.assert_allclose(measured, expected, rtol=1e-4, atol=1e-4)


def test_the_taps_have_the_variance_sigma_squared_and_sum_to_one():
    taps = kernels.gaussian_taps(2.5, radius=20).astype(np.float64)
    assert taps.sum() == pytest.approx(1, abs=1e-6)
    assert (taps * np.arange(-20, 21) ** 2).sum() == pytest.approx(2.5**2, rel=1e-5)


def test_the_square_of_the_taps_is_the_kernel_with_equal_sigmas():
    taps = kernels.gaussian_taps(7.0, radius=10)
    kernel = kernels.gaussian_kernel(7.0, 7.0, 1.0, radius=10)
    np.testing.assert_allclose(np.outer(taps, taps), kernel, rtol=1e-5)


@pytest.mark.parametrize("sigma", [0.0, 1e-9, 0.02])
def test_a_vanishing_sigma_gives_the_unit_impulse(sigma):
    np.testing.assert_array_equal(kernels.gaussian_taps(sigma, radius=2), [0, 0, 1, 0, 0])
    kernel = kernels.gaussian_kernel(sigma, sigma / 2, 0.3, radius=2)
    np.testing.assert_array_equal(kernel, np.outer([0, 0, 1, 0, 0], [0, 0, 1, 0, 0]))


@pytest.mark.parametrize(("sigma", "radius"), [(-1.0, 3), (1.0, -3)])
def test_a_negative_sigma_or_radius_is_refused(sigma, radius):
    with pytest.raises(ValueError, match="negative"):
        kernels.gaussian_taps(sigma, radius)
    with pytest.raises(ValueError, match="negative"):
        kernels.gaussian_kernel(1.0, sigma, 0.0, radius)


# Steps


@pytest.mark.parametrize("radius", [1, 3, 20])
def test_white_stays_white_under_every_blur_and_never_exceeds_one(radius):
    white = flat(1.0, 1.0, 1.0, 64)
    for sigma in (0.3, 0.5, 1.0, 2.0, 3.3, 6.0, 10.0):
        for kernel in (
            kernels.gaussian_taps(sigma, radius),
            kernels.gaussian_kernel(sigma, sigma / 2, 0.5, radius),
        ):
            blurred = operations.blur(white, kernel)
            assert blurred.max() <= 1
            assert blurred.min() >= 1 - 1e-6


@pytest.mark.parametrize(("size", "factor", "expected"), [(100, 3.0, 33), (64, 0.5, 128), (512, 7.9, 64), (8, 30.0, 1)])
def test_downscaling_gives_the_whole_part_of_the_quotient_and_at_least_one_pixel(size, factor, expected):
    assert operations.downscale(flat(0.1, 0.2, 0.3, size), factor).shape == (expected, expected, 3)


def test_noise_has_the_stated_sigma_and_is_independent_between_channels():
    image = flat(0.5, 0.5, 0.5, 256)
    noise = (operations.add_gaussian_noise(image, 12.0, degradation_rng(0, 0, 0)) - image).reshape(-1, 3) * 255
    np.testing.assert_allclose(noise.std(axis=0), 12, rtol=0.01)
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.2)
    np.testing.assert_allclose(np.corrcoef(noise.T), np.eye(3), atol=0.02)


def test_jpeg_keeps_red_red_and_blue_blue():
    image = flat(0.9, 0.5, 0.1)
    np.testing.assert_allclose(operations.jpeg(image, 90), image, atol=3 / 255)


@pytest.mark.parametrize("quality", [0, 101, -5])
def test_a_jpeg_quality_outside_one_to_a_hundred_is_refused(quality):
    with pytest.raises(ValueError, match="quality"):
        operations.jpeg(flat(0.5, 0.5, 0.5), quality)


def test_a_colour_shift_is_in_grey_levels_and_in_the_order_red_green_blue():
    shifted = operations.shift_colour(flat(0.5, 0.5, 0.99), np.float32([20, -10, 20]))
    np.testing.assert_allclose(shifted, flat(0.5 + 20 / 255, 0.5 - 10 / 255, 1.0), atol=1e-6)


def test_grey_weighs_red_green_and_blue_as_luma():
    for colour, luma in (((1, 0, 0), 0.299), ((0, 1, 0), 0.587), ((0, 0, 1), 0.114)):
        np.testing.assert_allclose(operations.to_grey(flat(*map(float, colour))), luma, atol=1e-4)


def test_saturation_zero_is_grey_and_contrast_zero_is_flat_and_brightness_zero_is_black():
    image = np.concatenate([flat(0.9, 0.5, 0.1), flat(0.2, 0.3, 0.4)])
    assert np.ptp(operations.adjust_saturation(image, 0.0), axis=2).max() < 1e-6
    assert np.ptp(operations.adjust_contrast(image, 0.0)) == 0
    assert operations.adjust_brightness(image, 0.0).max() == 0


def test_a_third_of_the_colour_circle_turns_red_into_green():
    np.testing.assert_allclose(operations.adjust_hue(flat(0.8, 0.2, 0.2), 1 / 3), flat(0.2, 0.8, 0.2), atol=1e-5)


@pytest.mark.parametrize(
    "adjust", [operations.adjust_brightness, operations.adjust_contrast, operations.adjust_saturation]
)
def test_a_negative_factor_is_refused(adjust):
    with pytest.raises(ValueError, match="negative"):
        adjust(flat(0.5, 0.5, 0.5), -0.1)


def test_a_hue_beyond_half_the_circle_is_refused():
    with pytest.raises(ValueError, match="hue"):
        operations.adjust_hue(flat(0.5, 0.5, 0.5), 0.51)


# Recipes

TABLE = {  # blur sigma, down, noise, JPEG, grey; the published options files
    "gfpgan": ((0.1, 10), (0.8, 8), (0, 20), (60, 100), 0.01),
    "vqfr": ((0.1, 10), (0.8, 8), (0, 20), (60, 100), 0),
    "restoreformer_pp": ((0.1, 10), (0.8, 8), (0, 20), (60, 100), 0.008),
    "codeformer": ((0.1, 10), (1, 12), (0, 15), (60, 100), 0),
    "codeformer_stage2": ((1, 15), (4, 30), (0, 20), (30, 80), 0),
    "diffbir": ((0.1, 12), (1, 12), (0, 15), (30, 100), 0),
    "daefr": ((0.1, 15), (0.8, 30), (0, 20), (30, 100), 0),
    "difface": ((0.1, 15), (0.8, 32), (0, 20), (30, 100), 0.01),
}


PROBABILITIES = ("clean_probability", "skip_probability", "bicubic_probability", "half_size_probability")


@pytest.mark.parametrize("name", TABLE)
def test_a_preset_is_its_row_of_the_table(name):
    blur, down, noise, jpeg, resize, _, grey, _ = PRESETS[name].steps
    assert (blur.sigma, down.factor, noise.sigma, jpeg.quality, grey.probability) == TABLE[name]
    assert (blur.kernel_size, blur.isotropic_probability, resize.interpolation) == (41, 0.5, "bilinear")
    assert all(getattr(PRESETS[name], probability) == 0 for probability in PROBABILITIES)


def test_only_gfpgan_shifts_and_jitters_colours():
    colours = {
        name: [s.probability for s in PRESETS[name].steps if isinstance(s, ColourShift | Jitter)] for name in TABLE
    }
    assert colours.pop("gfpgan") == [0.3, 0.3]
    assert all(probabilities == [0, 0] for probabilities in colours.values())
    shift, jitter = GFPGAN.steps[5], GFPGAN.steps[7]
    assert (jitter.brightness, jitter.contrast) == ((0.5, 1.5), (0.5, 1.5))
    assert (jitter.saturation, jitter.hue, shift.shift) == ((0, 1.5), (-0.1, 0.1), 20)


def test_every_preset_of_the_package_is_listed_and_the_list_cannot_be_changed():
    assert set(PRESETS) == set(TABLE) | {"mild", "real_esrgan"} == set(get_args(PresetName))
    with pytest.raises(TypeError):
        PRESETS["mild"] = GFPGAN


@pytest.mark.parametrize(
    ("step", "field", "value"),
    [
        (Blur, "sigma", (5.0, 1.0)),
        (Blur, "sigma", (-1.0, 1.0)),
        (Blur, "kernel_size", 40),
        (Blur, "kernel_size", 1),
        (Blur, "isotropic_probability", 1.5),
        (Downscale, "factor", (0.0, 2.0)),
        (GaussianNoise, "sigma", (0.0, float("nan"))),
        (GaussianNoise, "sigma", (0.0, float("inf"))),
        (Jpeg, "quality", (0.0, 90.0)),
        (Jpeg, "quality", (60.0, 101.0)),
        (Resize, "factor", 0.5),
        (ColourShift, "shift", -1.0),
        (ColourShift, "probability", -0.1),
        (Grey, "probability", 2.0),
        (Jitter, "probability", float("nan")),
        (Jitter, "brightness", (-0.1, 1.0)),
        (Jitter, "contrast", (1.5, 0.5)),
        (Jitter, "saturation", (-1.0, 1.0)),
        (Jitter, "hue", (-0.6, 0.1)),
    ],
)
def test_an_impossible_field_is_refused_by_name(step, field, value):
    with pytest.raises(ValueError, match=f"impossible {step.__name__}: {field} must"):
        GFPGAN.change(step, **{field: value})


@pytest.mark.parametrize("name", PROBABILITIES)
def test_an_impossible_probability_of_a_recipe_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"{name} must lie"):
        replace(GFPGAN, **{name: 1.01})


def test_all_impossible_fields_of_a_step_are_named_at_once():
    with pytest.raises(ValueError, match=r"probability.*contrast.*hue"):
        Jitter(3.0, contrast=(2.0, 1.0), hue=(0.0, 0.7))


@pytest.mark.parametrize("step", get_args(AnyStep), ids=lambda step: step.__name__)
def test_every_number_of_a_step_has_limits_and_every_step_its_own_name(step):
    hints = get_type_hints(step)
    numbers = {f.name for f in fields(step) if hints[f.name] in (Range, float, int, float | None, tuple[int, int])}
    assert set(step.limits) == numbers
    names = [get_args(get_type_hints(other)["name"]) for other in get_args(AnyStep)]
    assert names.count(get_args(hints["name"])) == 1


def test_a_change_of_a_step_that_is_not_there_is_refused():
    assert PRESETS["mild"].change(Jpeg, quality=(5.0, 6.0)).steps[3] == Jpeg((5.0, 6.0))
    with pytest.raises(ValueError, match="no step MotionBlur"):
        GFPGAN.change(MotionBlur, length=(0.0, 1.0))


def test_enlarging_by_bicubic_changes_nothing_but_how_the_image_comes_back_to_size():
    face = np.random.default_rng(0).random((64, 64, 3)).astype(np.float32)

    def degraded(down, enlarge):
        recipe = GFPGAN.change(Downscale, factor=(down, down)).change(Resize, interpolation=enlarge)
        return degrade(face, recipe, degradation_rng(5, 0, 0))

    np.testing.assert_array_equal(degraded(1.0, "bicubic"), degraded(1.0, "bilinear"))  # nothing to enlarge
    assert not np.array_equal(degraded(4.0, "bicubic"), degraded(4.0, "bilinear"))


def test_a_recipe_that_does_not_end_at_full_size_is_brought_back_to_it():
    image = np.random.default_rng(0).random((20, 30, 3), dtype=np.float32)
    assert degrade(image, Recipe((Downscale((4.0, 4.0)),)), degradation_rng(0, 0, 0)).shape == image.shape


def test_real_esrgans_numbers_are_those_of_its_options_file():
    blur, resize, noise, jpeg, blur2, resize2, noise2, end, _ = PRESETS["real_esrgan"].steps
    for step, sigma, total in ((blur, (0.2, 3), 1.0), (blur2, (0.2, 1.5), 0.8)):
        kinds = [chain[0] for chain in step.chains]
        assert [kind.sigma for kind in kinds[1:]] == [sigma] * 6
        assert [kind.isotropic_probability for kind in kinds[1:]] == [1, 0, 1, 0, 1, 0]
        assert [kind.beta for kind in kinds[3:]] == [(0.5, 4)] * 2 + [(1, 2)] * 2
        assert step.shares[0] == pytest.approx(0.1 * total)
        np.testing.assert_allclose(np.array(step.shares[1:]) / 0.9 / total, [0.45, 0.25, 0.12, 0.03, 0.12, 0.03])
    for step, sigma, scale in ((noise, (1, 30), (0.05, 3)), (noise2, (1, 25), (0.05, 2.5))):
        kinds = [chain[0] for chain in step.chains]
        assert [getattr(kind, "sigma", None) or kind.scale for kind in kinds] == [sigma, sigma, scale, scale]
        assert [kind.grey for kind in kinds] == [False, True, False, True]
        assert step.shares == (0.3, 0.2, 0.3, 0.2)  # Gaussian or Poisson 0.5 each, of either 0.4 grey
    assert resize == RandomResize(0.2, 0.7, (0.15, 1.5))
    assert resize2 == RandomResize(0.3, 0.4, (0.3, 1.2), base=4.0)
    assert jpeg.quality == (30, 95)
    assert end.shares == (0.5, 0.5)
    back, ring, last_jpeg = end.chains[0]
    assert end.chains[1] == (last_jpeg, back, ring)
    assert (last_jpeg.quality, ring.shares) == ((30, 95), (0.8,))


# Draws


def colourful(probability: float = 0.5, isotropic: float = 0.5) -> Recipe:
    recipe = replace(GFPGAN, clean_probability=0.5).change(Blur, isotropic_probability=isotropic)
    for step in (ColourShift, Grey, Jitter):
        recipe = recipe.change(step, probability=probability)
    return recipe


def is_isotropic(degradation: Degradation) -> bool:
    sigma_x, sigma_y, _ = degradation.strength(Blur)
    return sigma_x == sigma_y


def test_probabilities_are_respected():
    drawn = draws(replace(GFPGAN, clean_probability=0.03))
    assert_frequency(sum(d.clean for d in drawn), 0.03)
    assert_frequency(sum(d.strength(Grey) is not None for d in drawn), 0.01)
    assert_frequency(sum(d.strength(ColourShift) is not None for d in drawn), 0.3)
    assert_frequency(sum(d.strength(Jitter) is not None for d in drawn), 0.3)
    assert_frequency(sum(is_isotropic(d) for d in drawn), 0.5)


def test_strengths_are_uniform_over_their_ranges():
    drawn = draws(replace(GFPGAN, clean_probability=0.03))  # moves no other draw
    jitters = [dict(d.strength(Jitter)) for d in drawn if d.strength(Jitter)]
    shifts = np.array([d.strength(ColourShift) for d in drawn if d.strength(ColourShift)])
    sigma_x, sigma_y, rotation = np.array([d.strength(Blur) for d in drawn]).T
    columns = [
        (sigma_x, 0.1, 10),
        (sigma_y, 0.1, 10),
        (rotation, -np.pi, np.pi),
        ([d.strength(Downscale) for d in drawn], 0.8, 8),
        ([d.strength(GaussianNoise) for d in drawn], 0, 20),
        ([d.strength(Jpeg) for d in drawn], 60, 99),  # truncated, as in the source: 100 has probability 0
        ([j["brightness"] for j in jitters], 0.5, 1.5),
        ([j["contrast"] for j in jitters], 0.5, 1.5),
        ([j["saturation"] for j in jitters], 0, 1.5),
        ([j["hue"] for j in jitters], -0.1, 0.1),
        *((shifts[:, channel], -20, 20) for channel in range(3)),
    ]
    for values, low, high in columns:
        assert low <= min(values) <= max(values) <= high
        np.testing.assert_allclose(
            np.quantile(values, [0, 0.25, 0.5, 0.75, 1]), np.linspace(low, high, 5), atol=0.05 * (high - low)
        )


def test_all_numbers_of_a_draw_are_independent():
    present = (ColourShift, Grey, Jitter)
    switches = [
        [d.clean, is_isotropic(d), *(d.strength(step) is not None for step in present)] for d in draws(colourful())
    ]
    strengths = [
        [*d.strength(Blur)[::2], *(d.strength(step) for step in (Downscale, GaussianNoise, Jpeg))]
        for d in draws(colourful())
    ]
    colours = [
        [*d.strength(Blur)[:2], *d.strength(ColourShift), *(strength for _, strength in sorted(d.strength(Jitter)))]
        for d in draws(colourful(1.0, isotropic=0.0))
    ]
    for table in (np.hstack([switches, strengths]), np.array(colours)):
        correlation = np.corrcoef(table.astype(np.float64).T)
        np.testing.assert_allclose(correlation, np.eye(len(correlation)), atol=0.07)


def test_all_orders_of_the_jitter_are_equally_likely():
    drawn = draws(GFPGAN.change(Jitter, probability=1.0))
    orders = [tuple(name for name, _ in d.strength(Jitter)) for d in drawn]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24
    for count in counts:
        assert_frequency(count, 1 / 24)


def test_a_changed_probability_moves_nothing_but_its_own_step():
    rng_a, rng_b = degradation_rng(3, 1, 4), degradation_rng(3, 1, 4)
    a, b = draw_degradation(GFPGAN, rng_a), draw_degradation(colourful(1.0), rng_b)
    for step in (Blur, Downscale, GaussianNoise, Jpeg, Resize):
        assert a.strength(step) == b.strength(step)
    assert rng_a.bit_generator.state == rng_b.bit_generator.state


# The pipeline


def test_the_steps_come_in_the_order_of_gfpgan(monkeypatch):
    names = ("blur", "downscale", "add_gaussian_noise", "jpeg", "resize", "shift_colour", "to_grey")
    names += ("adjust_hue", "adjust_brightness", "quantise")
    calls: list[str] = []
    depth = 0

    def record(name):
        step = getattr(operations, name)

        def recorded(*arguments):
            nonlocal depth
            if depth == 0:  # not the steps that a step is made of
                calls.append(name)
            depth += 1
            result = step(*arguments)
            depth -= 1
            return result

        return recorded

    for name in names:
        monkeypatch.setattr(operations, name, record(name))
    jitter = (("hue", 0.1), ("brightness", 1.1))
    everything = drawn((1.0, 1.0, 0.0), 2.0, 1.0, 70, (1.0, 2.0, 3.0), True, jitter)
    apply_degradation(flat(0.2, 0.4, 0.6), everything, degradation_rng(0, 0, 0))
    assert calls == list(names)


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_the_width_of_the_blur_is_the_same_part_of_the_image_at_every_size(size):
    edge = np.zeros((size, size, 3), np.float32)
    edge[:, size // 2 :] = 1
    blurred = apply_degradation(edge, drawn((8.0, 8.0, 0.0)), degradation_rng(0, 0, 0))
    spread = np.diff(blurred[size // 2, :, 0].astype(np.float64))  # the kernel, summed over its columns
    x = np.arange(len(spread))
    centre = (spread * x).sum()
    width = np.sqrt((spread * (x - centre) ** 2).sum())
    assert width / size == pytest.approx(8 / 512, rel=0.05)


@pytest.mark.parametrize(("shape", "kernel"), [((512, 512), 41), ((64, 64), 7), ((8, 8), 3), ((512, 64), 7)])
def test_the_kernel_scales_with_the_shorter_side(shape, kernel, monkeypatch):
    sizes = []
    step = operations.blur
    monkeypatch.setattr(operations, "blur", lambda image, taps: (sizes.append(taps.shape), step(image, taps))[1])
    image = np.zeros((*shape, 3), np.float32)
    apply_degradation(image, drawn((3.0, 3.0, 0.0)), degradation_rng(0, 0, 0))
    apply_degradation(image, drawn((3.0, 2.0, 0.0)), degradation_rng(0, 0, 0))
    assert sizes == [(kernel,), (kernel, kernel)]


def test_the_long_axis_of_the_blur_follows_the_rotation():
    point = np.zeros((65, 65, 3), np.float32)
    point[31:34, 31:34] = 1
    blurred = apply_degradation(point, drawn((30.0, 4.0, 0.0)), degradation_rng(0, 0, 0))[..., 0]
    upright = apply_degradation(point, drawn((30.0, 4.0, np.pi / 2)), degradation_rng(0, 0, 0))[..., 0]
    assert np.count_nonzero(blurred.sum(axis=0)) > np.count_nonzero(blurred.sum(axis=1))
    np.testing.assert_allclose(upright, blurred.T, atol=1 / 255)


def test_going_down_and_up_does_not_move_the_image():
    y, x = np.mgrid[0:64, 0:64]
    blob = np.exp(-((x - 31.5) ** 2 + (y - 31.5) ** 2) / 200)
    image = np.repeat(blob[..., None], 3, axis=2).astype(np.float32)
    small = apply_degradation(image, drawn(down=4.0), degradation_rng(0, 0, 0))[..., 0]
    assert (small * x).sum() / small.sum() == pytest.approx(31.5, abs=0.02)
    assert (small * y).sum() / small.sum() == pytest.approx(31.5, abs=0.02)


def test_noise_is_added_at_the_low_resolution_and_so_comes_back_in_blotches():
    image = flat(0.5, 0.5, 0.5, 128)
    noisy = apply_degradation(image, drawn(noise=15.0, down=8.0), degradation_rng(0, 0, 0))
    step = np.abs(np.diff(noisy, axis=1)).mean()
    assert step < 0.3 * noisy.std()  # white noise has a mean step of 1.13 standard deviations


def test_a_clean_draw_passes_untouched_as_a_copy():
    image = np.random.default_rng(0).random((16, 16, 3), dtype=np.float32)  # not on the 8-bit grid
    clean = degrade(image, replace(GFPGAN, clean_probability=1.0), degradation_rng(0, 0, 0))
    np.testing.assert_array_equal(clean, image)
    assert not np.shares_memory(clean, image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.float64), "must be a float32 array, got float64"),
        (np.zeros((8, 8, 3), np.uint8), "must be a float32 array, got uint8"),
        ([[0.0]], "must be a float32 array, got list"),
        (np.zeros((3, 8, 8), np.float32), r"shape \(height, width, 3\), got \(3, 8, 8\)"),
        (np.zeros((8, 8), np.float32), r"shape \(height, width, 3\), got \(8, 8\)"),
        (np.zeros((8, 8, 4), np.float32), r"shape \(height, width, 3\), got \(8, 8, 4\)"),
        (np.zeros((0, 8, 3), np.float32), r"shape \(height, width, 3\), got \(0, 8, 3\)"),
        (np.full((8, 8, 3), -1, np.float32), r"must lie in \[0, 1\], got values from -1"),
        (np.full((8, 8, 3), 255, np.float32), r"must lie in \[0, 1\], got values from 255"),
        (np.full((8, 8, 3), np.nan, np.float32), r"must lie in \[0, 1\], got values from nan"),
    ],
)
def test_what_is_not_a_float32_rgb_image_in_range_is_refused(image, message, monkeypatch):
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # our own errors, which a user sees
    with pytest.raises((TypeError, ValueError), match=message):
        degrade(image, GFPGAN, degradation_rng(0, 0, 0))


# Randomness


def test_the_generator_is_a_pure_function_of_seed_epoch_and_index():
    states = [
        degradation_rng(seed, epoch, index).random()
        for seed in (0, 1, 2**40)
        for epoch in (0, 1, 5)
        for index in (0, 1, 5, 2**31)
    ]
    assert len(set(states)) == len(states)
    assert degradation_rng(1, 2, 3).random() == degradation_rng(1, 2, 3).random()


def test_the_streams_differ_from_a_plain_generator_with_the_same_seed():
    assert degradation_rng(7, 0, 0).random() != np.random.default_rng(7).random()
    assert degradation_rng(7, 0, 0).random() != np.random.default_rng((7, 0, 0)).random()


@pytest.mark.parametrize("triple", [(-1, 0, 0), (0, -1, 0), (0, 0, -1), (2**64, 0, 0), (0, 2**32, 0), (0, 0, 2**32)])
def test_a_number_out_of_range_gives_no_generator(triple):
    with pytest.raises(ValueError, match="need 0 <= seed"):
        degradation_rng(*triple)


def test_the_global_generator_is_neither_used_nor_moved():
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    image = flat(0.5, 0.5, 0.5)
    results = [degrade(image, GFPGAN, degradation_rng(1, 0, 0)) for _ in range(2)]
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    np.testing.assert_array_equal(*results)


SKIPPABLE = (Blur, Downscale, GaussianNoise, Jpeg)


def test_steps_are_left_out_with_their_probability_and_independently():
    drawn = draws(replace(GFPGAN, skip_probability=0.4))
    skipped = np.array([[d.strength(step) is None for step in SKIPPABLE] for d in drawn])
    for column in skipped.T:
        assert_frequency(sum(column), 0.4)
    assert_frequency(sum(skipped.all(axis=1)), 0.4**4)


def test_leaving_steps_out_changes_no_other_draw():
    for i in range(50):
        plain = draw_degradation(GFPGAN, degradation_rng(0, 0, i))
        sparse = draw_degradation(replace(GFPGAN, skip_probability=0.5), degradation_rng(0, 0, i))
        for step in SKIPPABLE:
            assert sparse.strength(step) in (None, plain.strength(step))
        for step in (Resize, ColourShift, Grey, Jitter):
            assert sparse.strength(step) == plain.strength(step)


def test_a_share_comes_back_to_size_by_bicubic_and_no_other_draw_changes():
    drawn = draws(replace(GFPGAN, bicubic_probability=0.3))
    assert_frequency(sum(d.strength(Resize) == "bicubic" for d in drawn), 0.3)


def test_a_share_is_degraded_at_half_its_size_and_no_other_draw_changes():
    recipe = replace(GFPGAN, half_size_probability=0.3)
    assert_frequency(sum(d.half_size for d in draws(recipe)), 0.3)
    for i in range(50):
        plain, some = (draw_degradation(each, degradation_rng(0, 0, i)) for each in (GFPGAN, recipe))
        assert replace(some, half_size=False) == plain


def test_at_half_the_size_lengths_stay_and_noise_is_twice_as_coarse():
    image = np.full((64, 64, 3), 0.5, np.float32)
    noise = Recipe((GaussianNoise((20.0, 20.0)), Resize()))
    fine = degrade(image, noise, degradation_rng(0, 0, 0))
    coarse = degrade(image, replace(noise, half_size_probability=1.0), degradation_rng(0, 0, 0))

    def correlation(noisy):
        return np.corrcoef(noisy[:, :-1].ravel(), noisy[:, 1:].ravel())[0, 1]

    assert abs(correlation(fine)) < 0.05
    assert correlation(coarse) > 0.6

    edge = np.zeros((64, 64, 3), np.float32)
    edge[:, 32:] = 1
    blur = Recipe((Blur((32.0, 32.0), isotropic_probability=1.0, kernel_size=201), Resize()))
    small = degrade(edge, replace(blur, half_size_probability=1.0), degradation_rng(0, 0, 0))
    np.testing.assert_allclose(small, degrade(edge, blur, degradation_rng(0, 0, 0)), atol=0.04)


# Further steps


def test_the_sinc_kernel_passes_below_its_cutoff_and_stops_above():
    response = np.abs(np.fft.fft2(kernels.sinc_kernel(np.pi / 2, 40).astype(np.float64)))
    assert response[0, 10] == pytest.approx(1, abs=0.1)  # 0.25 pi
    assert response[0, 35] == pytest.approx(0, abs=0.1)  # 0.86 pi
    with pytest.raises(ValueError, match="cutoff"):
        kernels.sinc_kernel(3.5, 3)


def test_the_sinc_kernel_is_that_of_scipys_bessel_function():
    special = pytest.importorskip("scipy.special")
    y, x = np.mgrid[-10:11, -10:11]
    r = np.where((x == 0) & (y == 0), 1e-9, np.hypot(x, y))
    expected = 2.0 * special.j1(2.0 * r) / (2 * np.pi * r)
    np.testing.assert_allclose(kernels.sinc_kernel(2.0, 10), expected / expected.sum(), atol=1e-7)


def test_a_sinc_rings_beside_an_edge_and_a_gaussian_does_not():
    edge = np.full((64, 64, 3), 0.3, np.float32)
    edge[:, 32:] = 0.7
    ringing = operations.blur(edge, kernels.sinc_kernel(1.5, 10))
    assert ringing.max() > 0.71
    assert operations.blur(edge, kernels.gaussian_taps(2.0, 10)).max() <= 0.7 + 1e-6


@pytest.mark.parametrize("rotation", [0.0, 0.7, np.pi / 2])
def test_motion_spreads_a_point_evenly_over_its_length(rotation):
    kernel = kernels.motion_kernel(12.0, rotation, 9).astype(np.float64)
    y, x = np.mgrid[-9:10, -9:10]
    along, across = np.cos(rotation) * x + np.sin(rotation) * y, np.cos(rotation) * y - np.sin(rotation) * x
    assert (kernel * along**2).sum() == pytest.approx(12**2 / 12, abs=0.8)
    assert (kernel * across**2).sum() < 0.3


def test_beta_one_is_the_gaussian_and_a_plateau_is_half_at_one_sigma():
    np.testing.assert_array_equal(
        kernels.gaussian_kernel(3.0, 2.0, 0.4, 9, 1.0), kernels.gaussian_kernel(3.0, 2.0, 0.4, 9)
    )
    plateau = kernels.plateau_kernel(4.0, 4.0, 0.0, 12, 1.7)
    assert plateau[12, 16] / plateau[12, 12] == pytest.approx(0.5)


def test_shot_noise_grows_with_the_square_root_of_the_light():
    for value in (0.1, 0.4, 0.8):
        noise = operations.add_poisson_noise(flat(value, value, value, 256), 0.5, degradation_rng(0, 0, 0)) - value
        assert noise.std() == pytest.approx(0.5 * np.sqrt(value / 255), rel=0.03)


@pytest.mark.parametrize("add", [operations.add_gaussian_noise, operations.add_poisson_noise])
def test_grey_noise_is_the_same_in_all_channels(add):
    image = flat(0.3, 0.5, 0.6)
    noise = add(image, 1.0, degradation_rng(0, 0, 0), True) - image
    assert noise.std() > 1e-3
    np.testing.assert_allclose(np.ptp(noise, axis=2), 0, atol=1e-6)


def test_a_random_resize_goes_up_and_down_with_its_shares_and_from_its_base():
    step = RandomResize(0.2, 0.7, (0.15, 1.5))
    rng = degradation_rng(0, 0, 0)
    factors = np.array([step.draw(rng)[0] for _ in range(DRAWS)])
    assert_frequency(int((factors > 1).sum()), 0.2)
    assert_frequency(int((factors < 1).sum()), 0.7)
    assert factors.min() >= 0.15
    assert factors.max() <= 1.5
    image, frame = flat(0.5, 0.5, 0.5, 40), Frame(80, 80)
    for base, size in ((None, 20), (4.0, 10)):
        assert replace(step, base=base).apply(image, (0.5, "area"), frame, rng).shape[:2] == (size, size)


def test_one_of_takes_each_chain_with_its_share_and_none_for_the_rest():
    step = OneOf(((Grey(1.0),), (Jpeg((50.0, 50.0)), Resize())), (0.2, 0.5))
    rng = degradation_rng(0, 0, 0)
    drawn = [step.draw(rng) for _ in range(DRAWS)]
    assert_frequency(sum(d is None for d in drawn), 0.3)
    assert_frequency(sum(d is not None and len(d) == 2 for d in drawn), 0.5)
    with pytest.raises(ValueError, match="OneOf"):
        OneOf(((Grey(1.0),),), (1.2,))


def test_with_every_step_left_out_a_face_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.float32) / 255
    recipe = replace(PRESETS["codeformer"], skip_probability=1.0)
    np.testing.assert_allclose(degrade(image, recipe, degradation_rng(0, 0, 0)), image, atol=1e-6)
