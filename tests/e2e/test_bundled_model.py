"""The bundled model: there, small, offline, and worth having."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from idm.degradation import GFPGAN, degradation_rng, degrade
from idm.evaluation.metrics import psnr
from idm.faces.template import ffhq_landmarks, umeyama
from idm.io.image_writer import write_image
from idm.io.images import read_image, resize_image
from idm.io.ranges import chw_to_hwc, from_uint8, hwc_to_chw, to_uint8
from idm.restorers.saved import BUNDLED, DEFAULT, find_model, load_idm

# scikit-image's astronaut (NASA, public domain): eyes, nose, mouth corners.
LANDMARKS = np.array([(203.63, 101.13), (247.50, 104.55), (223.26, 129.34), (200.92, 138.40), (245.63, 141.16)])


def astronaut(size: int) -> np.ndarray:
    from skimage.data import astronaut

    matrix = umeyama(LANDMARKS, ffhq_landmarks(size))
    return cv2.warpAffine(astronaut(), matrix, (size, size), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def test_it_is_what_is_used_when_nothing_is_named() -> None:
    assert find_model(None) == DEFAULT


def test_its_weights_stay_below_forty_mebibytes_and_have_a_card() -> None:
    for folder in BUNDLED.values():
        assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 40 * 2**20
        assert "hmdghoul/generated-faces" in (folder / "README.md").read_text()


@pytest.mark.parametrize(("name", "least"), [("idm-faces-128", 1.0), ("idm-faces-256", 0.5)])
def test_it_restores_a_face_it_never_saw_by_some_decibels(name: str, least: float) -> None:
    """At 128 px: the face has some 100 pixels in the photograph, and a larger original would be enlarged and soft."""
    model = load_idm(Path(name), torch.device("cpu"), torch.float32)
    hq = from_uint8(astronaut(128))
    lq = [degrade(hq, GFPGAN, degradation_rng(0, 0, index)) for index in range(8)]
    size = (model.image_size, model.image_size)
    given = torch.stack([hwc_to_chw(from_uint8(resize_image(to_uint8(image), size))) for image in lq])
    restored = [resize_image(chw_to_hwc(x), (128, 128)) for x in to_uint8(model.restore(given, list(range(8))))]
    gains = [psnr(from_uint8(x), hq) - psnr(y, hq) for x, y in zip(restored, lq, strict=True)]
    assert np.mean(gains) > least


def test_it_works_without_a_network_and_in_a_fresh_process(tmp_path: Path) -> None:
    write_image(tmp_path / "face.png", astronaut(200))
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "idm",
            "restore",
            "--aligned",
            str(tmp_path / "face.png"),
            "-o",
            str(tmp_path / "out"),
        ],
        capture_output=True,
        text=True,
        env=offline,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "out" / "face.png").rgb.shape == (256, 256, 3)
