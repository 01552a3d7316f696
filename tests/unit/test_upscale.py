"""Enlarging whole pictures: nothing moves, tiles leave no trace, weights files are what they say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from idm.apps.photo.upscale import Bicubic, NetworkUpscaler, Upscaler, load_upscaler
from idm.faces.align import to_unit, warp


class Repeats:
    """An "upscaling network" that repeats each pixel four times each way; counts what it is shown."""

    scale = 4

    def __init__(self) -> None:
        self.largest = 0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        self.largest = max(self.largest, *image.shape[2:])
        return image.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)


def picture(dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:60, :75]
    unit = np.stack([np.sin(x / 7) * np.cos(y / 8), np.cos(x / 9), np.sin(y / 6)], axis=-1) * 0.4 + 0.5
    return np.rint(unit * np.iinfo(dtype).max).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("upscaler", [Bicubic(), NetworkUpscaler(Repeats(), tile=50, margin=4)])
@pytest.mark.parametrize("size", [(60, 75), (90, 113), (120, 150), (240, 300)])
def test_nothing_moves(upscaler: Upscaler, size: tuple[int, int], dtype: type) -> None:
    small = picture(dtype)
    large = upscaler.upscale(small, size)
    assert (large.shape[:2], large.dtype) == (size, small.dtype)
    factors = np.array([size[1] / 75, size[0] / 60])
    exact = warp(small, np.column_stack([np.diag(factors), 0.5 * factors - 0.5]), size, "bicubic")
    difference = (to_unit(large) - exact)[8:-8, 8:-8]
    assert np.abs(difference).max() < 0.07  # repeated pixels are steps: their edges, not their places, differ
    assert abs(difference.mean()) < 1e-3
    dy, dx = np.gradient(exact[..., 0])
    gradients = np.stack([dx[8:-8, 8:-8].ravel(), dy[8:-8, 8:-8].ravel()], axis=1)
    shift = np.linalg.lstsq(gradients, -difference[..., 0].ravel(), rcond=None)[0]
    assert np.abs(shift).max() < 0.05


def test_tiles_of_a_network_leave_no_trace() -> None:
    whole = NetworkUpscaler(Repeats(), tile=1000).upscale(picture(), (180, 225))
    network = Repeats()
    tiled = NetworkUpscaler(network, tile=37, margin=3).upscale(picture(), (180, 225))
    assert np.abs(whole.astype(int) - tiled).max() <= 1
    assert network.largest <= 37 / 3 + 2 * 3 + 2


def test_the_same_size_by_bicubic_is_a_copy() -> None:
    small = picture()
    copy = Bicubic().upscale(small, (60, 75))
    np.testing.assert_array_equal(copy, small)
    assert copy is not small


# --- weights files


@pytest.fixture
def compact(tmp_path: Path) -> Path:
    """SRVGGNetCompact whose last convolution is zero: it adds nothing to the repeated pixels, which is its base."""
    spandrel = pytest.importorskip("spandrel")
    from spandrel.architectures.Compact.__arch.SRVGG import SRVGGNetCompact

    assert spandrel
    network = SRVGGNetCompact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2, act_type="prelu")
    torch.nn.init.zeros_(network.body[-1].weight)
    torch.nn.init.zeros_(network.body[-1].bias)
    torch.save({"params_ema": network.state_dict()}, tmp_path / "zero.pth")
    return tmp_path / "zero.pth"


def test_a_network_that_spandrel_knows_is_loaded_and_run(compact: Path) -> None:
    upscaler = load_upscaler(compact)
    doubled = upscaler.upscale(picture(), (120, 150))
    np.testing.assert_array_equal(doubled, picture().repeat(2, axis=0).repeat(2, axis=1))


def test_a_model_that_is_not_an_upscaler_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("spandrel")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_upscaler(tmp_path / "nowhere.pth")
    for name, content in (("text.pth", b"no weights"), ("text.safetensors", b"no weights")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}: is not a plain weights file"):
            load_upscaler(tmp_path / name)
    torch.save({"layer.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: does not hold a network"):
        load_upscaler(tmp_path / "other.pth")
