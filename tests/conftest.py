"""Shared by all tests: shapes and types in signatures become checks, and where the optional assets lie."""

import os
from pathlib import Path

import hypothesis
import pytest
from jaxtyping import install_import_hook

install_import_hook(["idm", "gan_baseline"], "beartype.beartype")  # before anything imports them

hypothesis.settings.register_profile("idm", deadline=None, report_multiple_bugs=False)
hypothesis.settings.load_profile("idm")


@pytest.fixture(scope="session")
def assets() -> Path:
    """Faces and weights that are not part of the repository: ``$IDM_ASSETS``, or ``../shared/assets``."""
    named = os.environ.get("IDM_ASSETS")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "assets"
    if not folder.is_dir():
        pytest.skip(f"the optional assets are not here: {folder} (set IDM_ASSETS)")
    return folder
