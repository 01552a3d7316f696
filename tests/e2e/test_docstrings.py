"""The examples in the docstrings of the public names, run as they stand."""

import doctest
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.data import astronaut

import idm

PUBLIC = [name for name in idm.__all__ if name != "__version__"]


@pytest.mark.filterwarnings("ignore:identities are not measured")
@pytest.mark.parametrize("name", PUBLIC)
def test_the_example_of_a_public_name_works(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photo = Image.fromarray(astronaut()).crop((120, 0, 340, 220))
    for path in ("photo.jpg", "photos/photo.jpg"):
        photo.save(path)
    names = {"idm": idm, "torch": torch, "Image": Image, "Path": Path}
    example = doctest.DocTestParser().get_doctest(getattr(idm, name).__doc__, names, name, None, 0)
    assert example.examples
    written: list[str] = []
    assert doctest.DocTestRunner().run(example, out=written.append).failed == 0, "".join(written)
