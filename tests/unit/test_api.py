"""Photographs from Python, with a restorer whose answer is known."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import idm
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks

PIXELS = np.random.default_rng(0).integers(40, 180, (48, 64, 3), dtype=np.uint8)
SETTINGS = idm.PhotoSettings(min_face=0.0, color_fix="none", change="full")


class Middle:
    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return [DetectedFace(np.array([4.0, 4, 28, 28]), ffhq_landmarks(32), 0.99)]


class Brightens:
    image_size = 32

    def restore(self, lq: torch.Tensor, seeds: object) -> torch.Tensor:
        return (lq + 0.2).clamp(max=1)


RESTORER = PhotoRestorer(Brightens(), Middle())


def test_a_file_a_pil_image_and_levels_give_the_same(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    given = (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(PIXELS), PIXELS)
    results = [idm.restore_photo(image, SETTINGS, restorer=RESTORER) for image in given]
    for done in results:
        np.testing.assert_array_equal(done.photo.pixels, results[0].photo.pixels)
        assert [face.state for face in done.faces] == ["restored"]
    assert results[0].photo.pixels[16, 16, 0] > PIXELS[16, 16, 0]
    np.testing.assert_array_equal(np.asarray(results[0].image), results[0].photo.pixels)


def test_a_pil_image_keeps_its_orientation_and_sixteen_bits_stay_deep() -> None:
    sideways = Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS)))
    exif = sideways.getexif()
    exif[0x0112] = 6
    assert idm.restore_photo(sideways, SETTINGS, restorer=RESTORER).photo.pixels.shape == PIXELS.shape
    deep = idm.restore_photo(PIXELS.astype(np.uint16) * 257, SETTINGS, restorer=RESTORER)
    assert deep.photo.pixels.dtype == np.uint16
    assert np.asarray(deep.image).dtype == np.uint8


def test_a_folder_is_restored_as_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png"):
        Image.fromarray(PIXELS).save(tmp_path / "in" / name)
    report = idm.restore_folder(tmp_path / "in", tmp_path / "out", SETTINGS, restorer=RESTORER)
    assert (report.states["restored"], report.failed) == (2, [])
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert status["settings"]["change"] == "full"
    again = idm.restore_folder(
        [str(tmp_path / "in")], str(tmp_path / "out"), SETTINGS, restorer=RESTORER, skip_existing=True
    )
    assert len(again.skipped) == 2


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import idm, sys; print([name for name in ('torch', 'cv2', 'PIL', 'numpy') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    with pytest.raises(AttributeError, match="no attribute 'restore'"):
        _ = idm.restore
    assert set(idm.__all__) <= {"__version__", *idm._WHERE}
