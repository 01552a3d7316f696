"""Detection: bounded copies and their coordinates with a stub network; facexlib's own where its weights are."""

from pathlib import Path

import numpy as np
import pytest
import torch

from idm.apps.photo.preview import draw_faces
from idm.faces.detect import DetectedFace, choose_faces, shrink
from idm.faces.detector.load import load_detector
from idm.faces.detector.retinaface import RetinaFaceDetector
from idm.faces.template import ffhq_landmarks
from idm.io.images import read_image

# What facexlib finds in scikit-image's astronaut at full size.
ASTRONAUT = np.array([(203.63, 101.13), (247.50, 104.55), (223.26, 129.34), (200.92, 138.40), (245.63, 141.16)])


class Dots:
    """A network that finds the centre of gravity of white: its box is a point and so are its landmarks."""

    def detect_faces(self, image: np.ndarray, conf_threshold: float, nms_threshold: float) -> np.ndarray:
        self.seen = image
        light = image.sum(axis=2)
        y, x = np.indices(light.shape)
        point = np.array([(x * light).sum(), (y * light).sum()]) / light.sum()
        return np.array([[*point, *(point + 8), 0.9, *np.tile(point, 5)]], np.float32)


def face(size: float) -> DetectedFace:
    return DetectedFace(np.array([0.0, 0, size, size / 2]), ffhq_landmarks(64), 0.9)


@pytest.mark.parametrize(("height", "width"), [(64, 80), (640, 800), (333, 1000), (1000, 90)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_points_come_back_to_the_pixels_of_the_full_picture(height: int, width: int, dtype: type) -> None:
    y, x = np.indices((height, width))
    light = np.exp(-((x - 61.5) ** 2 + (y - 41.5) ** 2) / (2 * 6**2))  # as smooth as to survive shrinking
    picture = np.repeat((light * np.iinfo(dtype).max).astype(dtype)[..., None], 3, axis=2)
    network = Dots()
    (found,) = RetinaFaceDetector(network, max_side=250).detect(picture)
    np.testing.assert_allclose(found.landmarks, np.tile([61.5, 41.5], (5, 1)), atol=0.05)
    assert max(network.seen.shape) <= 250
    assert min(network.seen.shape[:2]) >= 64
    assert network.seen.max() <= 255


def test_channels_are_given_in_the_order_of_opencv() -> None:
    picture = np.zeros((70, 70, 3), np.uint8)
    picture[..., 0] = 200  # red
    network = Dots()
    RetinaFaceDetector(network).detect(picture)
    np.testing.assert_allclose(network.seen[0, 0], (0, 0, 200), atol=1e-3)


def test_a_small_picture_is_searched_as_it_is_and_a_thread_stays_a_picture() -> None:
    picture = np.zeros((30, 40, 3), np.uint8)
    assert shrink(picture, 40) is picture
    assert shrink(np.zeros((1, 9000, 3), np.uint8), 100).shape == (1, 100, 3)


def test_faces_are_chosen_by_size_or_by_number() -> None:
    faces = [face(90), face(50), face(10)]
    assert choose_faces(faces) == [0, 1, 2]
    assert choose_faces(faces, min_size=20.0) == [0, 1]
    assert choose_faces(faces, min_size=20.0, which="largest") == [0]
    assert choose_faces([face(9), face(30)], which="largest") == [1]
    assert choose_faces(faces, min_size=20.0, which=(2, 0, 2)) == [0, 2]  # who names a small one wants it
    assert choose_faces([], which="largest") == []
    with pytest.raises(ValueError, match=r"no face 3, 7; the faces found are 0\.\.2"):
        choose_faces(faces, which=(0, 7, 3))
    with pytest.raises(ValueError, match="the faces found are none"):
        choose_faces([], which=(0,))


def test_a_preview_draws_the_box_where_the_face_is() -> None:
    picture = np.zeros((400, 300, 3), np.uint16)
    found = DetectedFace(np.array([100.0, 150, 180, 260]), np.zeros((5, 2)), 0.987)
    drawn = draw_faces(picture, [found], [0])
    assert drawn.shape == picture.shape
    assert tuple(drawn[200, 100]) == tuple(drawn[260, 140]) == (0, 224, 0)
    assert tuple(drawn[200, 140]) == (0, 0, 0)
    assert tuple(draw_faces(picture, [found], [])[200, 100]) == (255, 128, 0)


@pytest.mark.parametrize("top", [0.0, 5.0, 150.0])
def test_the_number_of_a_previewed_face_is_within_the_picture(top: float) -> None:
    grey = np.full((400, 300, 3), 100, np.uint8)
    found = DetectedFace(np.array([100.0, top, 180, top + 110]), ffhq_landmarks(64), 0.9)
    drawn = draw_faces(grey, [found], [0])
    ys, xs = (drawn.max(axis=2) == 0).nonzero()  # the number's black ground
    assert len(ys) > 50
    assert np.ptp(ys) >= 10
    assert 95 <= xs.min() < xs.max() < 140
    assert abs(ys.mean() - top) < 20


# --- weights


def test_missing_weights_are_an_error_with_their_source(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"detection_Resnet50_Final\.pth.*https://github.com/xinntao/facexlib"):
        load_detector("retinaface_resnet50", tmp_path)


def test_a_broken_weights_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "detection_mobilenet0.25_Final.pth"
    path.write_bytes(b"no weights")
    with pytest.raises(ValueError, match=f"^{path}: does not hold the weights of retinaface"):
        load_detector(weights=tmp_path)
    torch.save({"module.body.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold the weights"):
        load_detector(weights=path)


@pytest.mark.parametrize(("option", "value"), [("max_side", 63), ("min_score", 0.0), ("min_score", 1.0)])
def test_settings_that_cannot_work_are_refused(option: str, value: float) -> None:
    with pytest.raises(ValueError, match="must"):
        load_detector(**{option: value})


def test_the_resnet_takes_weights_with_and_without_the_prefix_of_parallel_training(tmp_path: Path) -> None:
    from facexlib.detection.retinaface import RetinaFace

    torch.manual_seed(0)
    network = RetinaFace("resnet50", device=torch.device("cpu"))
    path = tmp_path / "detection_Resnet50_Final.pth"
    torch.save({f"module.{key}": value for key, value in network.state_dict().items()}, path)
    detector = load_detector("retinaface_resnet50", tmp_path)
    key = "ClassHead.0.conv1x1.weight"
    assert torch.equal(detector.network.state_dict()[key], network.state_dict()[key])
    assert not detector.network.training


# --- the published weights, where they are


@pytest.fixture(scope="module")
def detector(assets: Path) -> RetinaFaceDetector:
    return load_detector(weights=assets / "weights")


@pytest.mark.parametrize(("factor", "tolerance"), [(1, 0.02), (4, 1.0)])
def test_the_astronauts_landmarks_are_found_at_any_size(
    detector: RetinaFaceDetector, factor: int, tolerance: float
) -> None:
    from skimage.data import astronaut

    picture = astronaut().repeat(factor, axis=0).repeat(factor, axis=1)
    (found,) = RetinaFaceDetector(detector.network, max_side=512).detect(picture)
    expected = (ASTRONAUT + 0.5) * factor - 0.5
    np.testing.assert_allclose(found.landmarks, expected, atol=tolerance)
    assert found.score > 0.99


def test_the_faces_of_whole_photographs_are_found(assets: Path, detector: RetinaFaceDetector) -> None:
    expected = {"00.jpg": 2, "10045.png": 3, "Blake_Lively.jpg": 2}
    folder = assets / "wild" / "whole_imgs"
    assert {name: len(detector.detect(read_image(folder / name).rgb)) for name in expected} == expected


def test_no_face_is_found_in_noise_nor_in_pictures_of_any_odd_size(detector: RetinaFaceDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    for shape in ((300, 300), (1, 1), (7, 200), (3, 300)):
        assert detector.detect(noise[: shape[0], : shape[1]].copy()) == []
