import numpy as np
import pytest
import torch

from idm.io.ranges import chw_to_hwc, from_diffusion, from_uint8, hwc_to_chw, to_diffusion, to_uint8

LEVELS = np.arange(256, dtype=np.uint8)


def test_all_256_levels_survive_the_way_through_both_ranges() -> None:
    np.testing.assert_array_equal(to_uint8(from_uint8(LEVELS)), LEVELS)
    x01 = from_uint8(torch.from_numpy(LEVELS))
    assert x01.dtype == torch.float32
    np.testing.assert_array_equal(to_uint8(x01).numpy(), LEVELS)
    np.testing.assert_array_equal(to_uint8(from_diffusion(to_diffusion(x01))).numpy(), LEVELS)


def test_numpy_and_torch_agree_bit_for_bit() -> None:
    np.testing.assert_array_equal(from_uint8(LEVELS), from_uint8(torch.from_numpy(LEVELS)).numpy())
    x01 = np.random.default_rng(0).random((50, 50), np.float32)
    np.testing.assert_array_equal(to_uint8(x01), to_uint8(torch.from_numpy(x01)).numpy())


def test_the_ends_of_the_ranges_meet() -> None:
    x01 = torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(to_diffusion(x01), torch.tensor([-1.0, 0.0, 1.0]), rtol=0, atol=0)
    torch.testing.assert_close(from_diffusion(to_diffusion(x01)), x01, rtol=0, atol=0)
    assert from_diffusion(torch.tensor([-1.5, 1.5])).tolist() == [0, 1]
    assert from_diffusion(torch.tensor([torch.nan])).isnan().all()


def test_levels_are_rounded_to_the_nearest_and_ties_to_even() -> None:
    x = np.array([0.49, 0.51, 0.5, 1.5, 2.5, 254.5, 254.51]) / 255
    assert to_uint8(x).tolist() == [0, 1, 0, 2, 2, 254, 255]
    assert to_uint8(torch.from_numpy(x)).tolist() == [0, 1, 0, 2, 2, 254, 255]


def test_half_precision_is_rounded_from_its_own_value() -> None:
    for dtype in (torch.float16, torch.bfloat16):
        x01 = torch.linspace(0, 1, 1000).to(dtype)
        np.testing.assert_array_equal(to_uint8(x01).numpy(), to_uint8(x01.double()).numpy())
    x01 = np.linspace(0, 1, 1000).astype(np.float16)
    np.testing.assert_array_equal(to_uint8(x01), to_uint8(x01.astype(np.float64)))


@pytest.mark.parametrize("wrong", [-0.5, 1.5, 255.0, float("nan"), float("inf")])
def test_a_value_outside_0_to_1_is_an_error_not_a_clamp(wrong: float) -> None:
    x01 = np.array([0.5, wrong], np.float32)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        to_uint8(x01)
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        to_uint8(torch.from_numpy(x01))


def test_rounding_errors_at_the_ends_are_forgiven() -> None:
    assert to_uint8(np.array([-1e-6, 1 + 1e-6])).tolist() == [0, 255]


def test_pixels_keep_their_place_and_channel_between_hwc_and_chw() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    tensor = hwc_to_chw(image)
    assert tensor.shape == (4, 3, 5)
    assert all(tensor[c, y, x] == image[y, x, c] for y in range(3) for x in range(5) for c in range(4))
    back = chw_to_hwc(tensor)
    np.testing.assert_array_equal(back, image)
    assert back.flags.c_contiguous
    tensor.zero_()
    assert image.any(), "the tensor must not share the picture's memory"
