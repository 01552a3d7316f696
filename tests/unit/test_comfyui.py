"""The node for ComfyUI: what it says of itself, and what it gives."""

import numpy as np
import pytest
import torch

from idm.apps import comfyui
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.data.synthetic import synthetic_face
from idm.faces.detect import DetectedFace
from idm.io.photos import Photo

FACE = 64


class OneFace:
    def detect(self, pixels):
        marks = synthetic_face(0, 0, FACE).landmarks.astype(np.float64)
        return [DetectedFace(np.array([8.0, 8, 56, 60]), marks, 0.9)] if pixels.any() else []


class Paints:
    image_size = 16  # a face of 16 px is not judged

    def restore(self, lq, seeds):
        return torch.stack([torch.full((3, 16, 16), seed / 10) for seed in seeds])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The models that were asked for."""
    models: list[object] = []

    def load(model):
        models.append(model)
        return PhotoRestorer(Paints(), OneFace())

    monkeypatch.setattr(comfyui, "load_photo_restorer", load)
    return models


def arguments(**changes: object) -> dict[str, object]:
    """The defaults of a node's inputs, as ComfyUI passes them."""
    inputs = comfyui.RestoreFaces.INPUT_TYPES()
    chosen: dict[str, object] = {}
    for name, (kind, *options) in (inputs["required"] | inputs["optional"]).items():
        if kind != "IMAGE":
            chosen[name] = kind[0] if isinstance(kind, list) else options[0]["default"]
    return chosen | changes


def batch() -> torch.Tensor:
    faces = [synthetic_face(0, number, FACE).image for number in (0, 1)]
    return torch.from_numpy(np.stack([*faces, np.zeros_like(faces[0])]).astype(np.float32) / 255)


def test_its_inputs_are_the_settings_of_a_photograph_with_their_defaults() -> None:
    named = set(arguments()) - {"model"}
    assert named == {"seed", "change", "turn", "detail", "grain", "grayscale", "min_identity"}
    defaults = PhotoSettings()
    for name in named - {"min_identity"}:
        assert str(arguments()[name]) == str(getattr(defaults, name))
    required = comfyui.RestoreFaces.INPUT_TYPES()["required"]
    assert required["turn"] == (["auto", "0", "90", "180", "270"],)
    assert required["detail"] == (["auto", "keep", "clean", "replace"],)


def test_its_names_lead_to_what_it_does() -> None:
    assert comfyui.NODE_CLASS_MAPPINGS.keys() == comfyui.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in comfyui.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node(), node.FUNCTION))
        assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES)


def test_the_faces_of_each_picture_are_restored_and_nothing_else_changes(asked: list[object]) -> None:
    given = batch()
    restored, report = comfyui.RestoreFaces().restore(given, **arguments(seed=9, change="full"))
    assert restored.shape == given.shape
    assert restored.dtype == torch.float32
    changed = (restored - given).abs().amax(dim=-1) > 1e-4
    assert changed[:2].any(dim=(1, 2)).all()
    assert not changed[:, 0].any()  # the first row lies outside the faces
    assert not changed[2].any()  # it has no face
    assert [line.split(":")[0] for line in report.splitlines()] == ["picture 0, face 0", "picture 1, face 0"]
    assert asked == [None]
    other, _ = comfyui.RestoreFaces().restore(given, **arguments(seed=2, model="idm-faces-128"))
    assert not torch.equal(other, restored)
    assert asked == [None, "idm-faces-128"]


def test_settings_reach_the_restoration(asked: list[object]) -> None:
    with pytest.raises(ValueError, match="needs the identity network"):
        comfyui.RestoreFaces().restore(batch(), **arguments(min_identity=0.5))
    turned, report = comfyui.RestoreFaces().restore(batch(), **arguments(turn="180", seed=9))
    assert turned.shape == (3, FACE, FACE, 3)
    assert report.count("face 0") == 2


def test_every_input_becomes_the_setting_of_its_name(asked: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PhotoSettings] = []

    def restore_photo(pixels, settings, *, restorer):
        seen.append(settings)
        return restorer.restore(Photo(pixels), PhotoSettings())

    monkeypatch.setattr(comfyui, "restore_photo", restore_photo)
    changes = {"seed": 9, "change": "full", "detail": "keep", "grain": 0.75, "grayscale": "off", "min_identity": 0.5}
    comfyui.RestoreFaces().restore(batch()[:1], **arguments(turn="180", **changes))
    assert seen == [PhotoSettings(turn=180, **changes)]
