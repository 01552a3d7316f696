"""SSIM as a loss, against scikit-image's."""

import pytest
import torch
from skimage.metrics import structural_similarity

from idm.diffusion.ssim import LUMA, ssim


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 24, 31, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1


def test_equals_scikit_image_on_luma(images: torch.Tensor) -> None:
    x, y = images[:2], (images[:2] + 0.3 * images[2:]).clamp(-1, 1)
    weights = torch.tensor(LUMA, dtype=torch.float64)[:, None, None]
    for found, *pair in zip(ssim(x, y), (weights * x).sum(dim=1), (weights * y).sum(dim=1), strict=True):
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 2}
        assert found == pytest.approx(structural_similarity(*(plane.numpy() for plane in pair), **settings), abs=1e-9)


def test_is_one_for_equal_images_and_can_be_differentiated(images: torch.Tensor) -> None:
    x, y = images[:1].requires_grad_(True), images[1:2]
    assert ssim(x, x).item() == pytest.approx(1)
    assert torch.autograd.gradcheck(
        lambda x: ssim(x, y[..., :12, :12]), [x[..., :12, :12].detach().requires_grad_(True)]
    )
