"""Reference photographs: whom the result must look like is the album's person, not the degraded face."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from idm.apps.cli import main as cli
from idm.apps.photo.files import restore_photos
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.reference import read_reference
from idm.apps.photo.settings import PhotoSettings
from idm.data.synthetic import synthetic_face
from idm.diffusion.schedule import linear
from idm.faces.detect import DetectedFace
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image
from idm.io.images import ImageError
from idm.io.photos import Photo
from idm.io.ranges import from_uint8, hwc_to_chw
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.restorers.saved import save_idm

SIZE = 64
PLAIN = {"color_fix": "none", "detail": "replace", "min_face": 0.0, "change": "full"}


class WholePicture:
    """A detector of one aligned face that fills the picture, or of as many as the picture's first pixel says."""

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        height = len(pixels)
        box = np.array([0.0, 0.0, height - 1.0, height - 1.0])
        return [DetectedFace(box, ffhq_landmarks(height), 0.99)] * {7: 0, 8: 2}.get(int(pixels[0, 0, 0]), 1)


class Becomes:
    """A restorer with a face for each seed."""

    image_size = SIZE

    def __init__(self, *faces: np.ndarray) -> None:
        self.faces = [hwc_to_chw(from_uint8(face)) for face in faces]

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return torch.stack([self.faces[seed] for seed in seeds])


def person(index: int, size: int = SIZE) -> np.ndarray:
    face = synthetic_face(0, index, size).image.copy()
    face[0, 0] = 100
    return face


def album(folder: Path, *people: np.ndarray) -> Path:
    folder.mkdir()
    for number, picture in enumerate(people):
        write_image(folder / f"{number}.png", picture)
    return folder


@pytest.fixture(scope="module")
def net() -> IdentityNet:
    torch.manual_seed(0)
    return IdentityNet(MobileFaceNet().eval())


def parts(restorer: Becomes, net: IdentityNet | None) -> PhotoRestorer:
    return PhotoRestorer(restorer, WholePicture(), net)


def test_the_pick_among_samples_and_the_guard_follow_the_reference(net, tmp_path) -> None:
    given, other = person(1), person(2)
    both = parts(Becomes(given, other), net)
    folder = album(tmp_path / "album", person(2, 96), person(2, 128))

    (alone,) = both.restore(Photo(given), PhotoSettings(samples=2, **PLAIN)).faces
    assert alone.identity == pytest.approx(1, abs=1e-3)
    assert alone.reference is None

    settings = PhotoSettings(samples=2, reference=str(folder), **PLAIN)
    done = both.restore(Photo(given), settings)
    (face,) = done.faces
    assert face.reference is not None
    assert face.identity is not None
    assert face.reference > 0.9 > face.identity
    middle = slice(20, 44)
    assert np.abs(done.photo.pixels[middle, middle].astype(int) - other[middle, middle]).mean() < 8

    guarded = PhotoSettings(reference=str(folder), min_identity=0.9, **PLAIN)
    (refused,) = parts(Becomes(given), net).restore(Photo(given), guarded).faces
    assert refused.state == "kept"
    assert "to the reference" in refused.note
    (passed,) = parts(Becomes(other), net).restore(Photo(given), guarded).faces
    assert passed.state == "restored"


def test_only_photographs_of_one_face_count_and_the_others_are_named(net, tmp_path) -> None:
    nobody, crowd = person(3), person(4)
    nobody[:: SIZE - 1, :: SIZE - 1], crowd[0, 0] = 7, 8  # all corners: faces are searched for in all turns
    folder = album(tmp_path / "album", person(2), nobody, crowd, person(5))
    (folder / "broken.png").write_bytes(b"no picture")
    reference = read_reference([folder], WholePicture(), net)
    assert reference.num_faces == 2
    assert {Path(path).name for path in reference.left_out} == {"1.png", "2.png", "broken.png"}
    assert np.linalg.norm(reference.embedding) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ImageError, match="no photograph here shows one person alone"):
        read_reference([album(tmp_path / "none", nobody)], WholePicture(), net)


def test_the_status_records_the_reference_of_the_identity(net, tmp_path) -> None:
    folder = album(tmp_path / "album", person(2))
    photo = album(tmp_path / "in", person(1))
    settings = PhotoSettings(reference=str(folder), **PLAIN)
    restore_photos(parts(Becomes(person(2)), net), [photo], tmp_path / "out", settings)
    status = json.loads((tmp_path / "out" / "status.json").read_text())
    assert status["settings"]["reference"] == str(folder)
    assert status["settings"]["reference_faces"]["num_faces"] == 1
    ((entry,),) = [[*status["files"].values()]]
    assert entry["faces"][0]["reference"] > 0.9

    write_image(folder / "more.png", person(5))  # another album is another job
    again = restore_photos(parts(Becomes(person(2)), net), [photo], tmp_path / "out", settings, skip_existing=True)
    assert len(again.written) == 1


def test_a_reference_without_the_identity_network_is_one_clear_error(tmp_path) -> None:
    settings = PhotoSettings(reference=str(tmp_path), **PLAIN)
    with pytest.raises(ValueError, match="needs the identity network"):
        parts(Becomes(person(1)), None).restore(Photo(person(1)), settings)


def test_the_command_without_weights_names_the_missing_file(assets, tmp_path, capsys) -> None:
    torch.manual_seed(0)
    denoiser = UNet(image_size=16, channels=(8,), num_blocks=(1,), attention_resolutions=(), head_dim=8)
    torch.nn.init.normal_(denoiser.conv_out.weight, std=0.02)
    save_idm(IDM(denoiser, linear()), tmp_path / "model")
    weights = tmp_path / "weights"
    (weights / "facexlib").mkdir(parents=True)
    name = "detection_mobilenet0.25_Final.pth"
    (weights / "facexlib" / name).symlink_to((assets / "weights" / "facexlib" / name).resolve())
    folder = album(tmp_path / "album", person(2))
    command = ["restore", folder, "-o", tmp_path / "out", "--model", tmp_path / "model", "--reference", folder]
    parsed = cli.build_parser().parse_args([*map(str, command), "--weights-dir", str(weights)])
    assert cli.run(parsed) == 1
    error = capsys.readouterr().err.strip()
    assert "mobilefacenet" in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "out").exists()
