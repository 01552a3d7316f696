"""A small model for commands, and the browser of the tests that look at pages."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model for faces of 32 px with random weights."""
    import torch  # not before the hook of tests/conftest.py

    from idm.diffusion.chain import Chain
    from idm.diffusion.schedule import linear
    from idm.models.unet import UNet
    from idm.restorers.idm import IDM
    from idm.restorers.saved import save_idm

    torch.manual_seed(0)
    denoiser = UNet(
        image_size=32, channels=(8, 16), num_blocks=(1, 1), attention_resolutions=(8,), head_dim=8, add_degraded=True
    )
    torch.nn.init.normal_(denoiser.conv_out.weight, std=0.02)
    folder = tmp_path_factory.mktemp("model")
    save_idm(IDM(denoiser, linear(), chain=Chain("ddim", 2)), folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip(f"the browser test needs one of {', '.join(BROWSERS)}")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found[0], args=list(QUIET))
        yield browser
        browser.close()
