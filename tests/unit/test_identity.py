import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from idm.data.sources import Face
from idm.evaluation.identity import nearest_others
from idm.evaluation.metric import FaceEmbeddings
from idm.faces.mobilefacenet import Bottleneck, MobileFaceNet
from idm.faces.recognition import (
    IDENTITY_LANDMARKS,
    IdentityNet,
    align_for_identity,
    cosine_similarity,
    load_identity,
)
from idm.faces.template import ffhq_landmarks, umeyama
from idm.io.images import read_image, resize_image
from idm.io.ranges import from_uint8
from idm.io.weights import find_weights

RNG = np.random.default_rng(0)
CROP = RNG.random((112, 96, 3), np.float32)


@pytest.fixture(scope="module")
def random_network() -> MobileFaceNet:
    """Random weights with the batch statistics of noise, so that what comes out depends on what goes in."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = MobileFaceNet()
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        network(torch.randn(16, 3, 112, 96))
    return network.eval().requires_grad_(False)


# --- template and alignment


def test_the_template_scales_about_the_corner_of_the_picture_not_about_a_pixel_centre() -> None:
    np.testing.assert_allclose(ffhq_landmarks(512)[0], (192.98138, 239.94708), rtol=0, atol=1e-12)
    half = ffhq_landmarks(256)
    np.testing.assert_allclose(half[2], (128.067080, 156.759675), rtol=0, atol=1e-6)
    np.testing.assert_allclose((half + 0.5) * 2, ffhq_landmarks(512) + 0.5)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        ffhq_landmarks(0)


def test_landmarks_on_one_point_or_not_finite_are_refused() -> None:
    for bad in (np.ones((5, 2)), np.full((5, 2), np.nan)):
        for pair in ((bad, IDENTITY_LANDMARKS), (IDENTITY_LANDMARKS, bad)):
            with pytest.raises(ValueError, match="landmarks"):
                umeyama(*pair)


def test_a_face_that_is_aligned_already_is_not_touched() -> None:
    np.testing.assert_allclose(align_for_identity(CROP, IDENTITY_LANDMARKS), CROP, rtol=0, atol=1e-4)


def test_a_shifted_face_is_cut_out_exactly() -> None:
    image = RNG.random((150, 140, 3), np.float32)
    crop = align_for_identity(image, IDENTITY_LANDMARKS + np.array([13, 21]))
    np.testing.assert_allclose(crop, image[21:133, 13:109], rtol=0, atol=1e-4)


def test_a_face_lying_on_its_side_is_turned_upright() -> None:
    # counterclockwise a quarter: the pixel (x, y) goes to (y, 95 - x)
    image = np.ascontiguousarray(np.rot90(CROP))
    x, y = IDENTITY_LANDMARKS.T
    crop = align_for_identity(image, np.stack([y, 95 - x], axis=1))
    np.testing.assert_allclose(crop, CROP, rtol=0, atol=1e-4)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_larger_face_is_averaged_down_to_pixel_means_without_a_shift(factor: int) -> None:
    noise = RNG.random((112 * factor, 96 * factor, 3), np.float32)
    landmarks = (IDENTITY_LANDMARKS + 0.5) * factor - 0.5
    means = noise.reshape(112, factor, 96, factor, 3).mean(axis=(1, 3))
    np.testing.assert_allclose(align_for_identity(noise, landmarks), means, rtol=0, atol=1e-3)


def test_beyond_the_picture_its_edge_continues() -> None:
    image = np.full((40, 40, 3), 0.25, np.float32)
    crop = align_for_identity(image, IDENTITY_LANDMARKS - 30)
    np.testing.assert_allclose(crop, 0.25, rtol=0, atol=1e-6)


# --- the network


def test_the_parameters_are_those_of_the_published_network(random_network: MobileFaceNet) -> None:
    state = random_network.state_dict()
    assert len(state) == 333
    assert sum(p.numel() for p in random_network.parameters()) == 999_552  # "0.99 million" in the paper
    assert state["linear7.conv.weight"].shape == (512, 1, 7, 6)
    assert state["linear1.conv.weight"].shape == (128, 512, 1, 1)
    assert state["blocks.5.conv.3.weight"].shape == (256, 1, 3, 3)
    assert "linear7.prelu.weight" not in state
    strides = [block.conv[3].stride[0] for block in random_network.blocks]
    assert [i for i, stride in enumerate(strides) if stride == 2] == [0, 5, 12]
    assert [i for i, block in enumerate(random_network.blocks) if not block.residual] == [0, 5, 12]


def test_a_bottleneck_adds_its_input_where_the_shape_stays() -> None:
    x = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    for num_out, stride, expected in ((8, 1, x), (8, 2, torch.zeros(2, 8, 3, 3)), (4, 1, torch.zeros(2, 4, 6, 6))):
        block = Bottleneck(8, num_out, stride, expansion=2)
        torch.nn.init.zeros_(block.conv[7].weight)
        torch.testing.assert_close(block(x), expected, rtol=0, atol=0)


def test_embeddings_are_unit_vectors_and_a_mirrored_face_swaps_their_halves(
    random_network: MobileFaceNet,
) -> None:
    net = IdentityNet(random_network)
    mirrored = np.ascontiguousarray(CROP[:, ::-1])
    # align both as they are: the template is not quite symmetric
    embedded = net.embed([CROP, mirrored], [IDENTITY_LANDMARKS] * 2)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-6)
    first, second = embedded[0, :128], embedded[0, 128:]
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_allclose(embedded[1], np.concatenate([second, first]), rtol=0, atol=1e-4)


def test_the_network_sees_rgb_levels_minus_127_5_over_128(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Spy(MobileFaceNet):
        def forward(self, faces: torch.Tensor) -> torch.Tensor:
            seen.append(faces.clone())
            return super().forward(faces)

    IdentityNet(Spy().eval()).embed([CROP], [IDENTITY_LANDMARKS])
    expected = (CROP.transpose(2, 0, 1).astype(np.float64) * 255 - 127.5) / 128
    np.testing.assert_allclose(seen[0][0].numpy(), expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(seen[0][1].numpy(), expected[..., ::-1], rtol=0, atol=1e-3)


def test_embeddings_do_not_depend_on_the_batch(random_network: MobileFaceNet) -> None:
    faces = [RNG.random((112 + i, 96 + i, 3), np.float32) for i in range(5)]
    landmarks = np.stack([IDENTITY_LANDMARKS + i for i in range(5)])
    together = IdentityNet(random_network).embed(faces, landmarks)
    in_pairs = IdentityNet(random_network, batch_size=2).embed(faces, landmarks)
    np.testing.assert_allclose(in_pairs, together, rtol=0, atol=1e-5)
    assert IdentityNet(random_network).embed([], []).shape == (0, 256)
    with pytest.raises(ValueError, match="got 5 images but landmarks of 4 faces"):
        IdentityNet(random_network).embed(faces, landmarks[:4])


def test_cosine_is_the_angle_of_rows() -> None:
    a = np.array([[1.0, 0], [1, 0], [2, 0], [3, 4]])
    b = np.array([[5.0, 0], [0, 1], [-3, 0], [4, 3]])
    np.testing.assert_allclose(cosine_similarity(a, b), [1, 0, -1, 0.96])
    with pytest.raises(ValueError, match="other than zero"):
        cosine_similarity(np.zeros((1, 2)), np.ones((1, 2)))


def test_the_stranger_of_a_face_is_the_most_similar_other_one() -> None:
    angles = np.array([0.0, 1.0, 0.1, 1.05])
    faces = [Face(np.full((2, 2, 3), 100 * angle, np.uint8), None, "") for angle in angles]

    class Network:
        def embed(self, images: list[np.ndarray], landmarks: object) -> np.ndarray:
            angles = np.array([image.mean() * 2.55 for image in images])
            return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    embeddings = FaceEmbeddings(Network())
    assert nearest_others(faces, embeddings) == [2, 3, 0, 1]
    with pytest.raises(ValueError, match="at least two faces"):
        nearest_others(faces[:1], embeddings)


# --- weights


def test_weights_are_looked_up_in_the_argument_then_home_then_assets_then_torchs_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(folder: str) -> Path:
        path = tmp_path / folder / "net.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        return path

    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("IDM_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    for folder in ("hub/checkpoints", "hub/pyiqa", "hub/clip", "assets/weights/facexlib", "assets/weights/pyiqa"):
        path = place(folder)
        assert find_weights("net.bin") == path, folder
        if folder != "assets/weights/pyiqa":
            path.unlink()
    in_home = place("home/weights/pyiqa")
    assert find_weights("net.bin") == in_home
    in_home = place("home/weights")
    assert find_weights("net.bin") == in_home
    explicit = place("explicit")
    assert find_weights("net.bin", explicit) == explicit
    assert find_weights("net.bin", explicit.parent) == explicit
    with pytest.raises(FileNotFoundError, match=r"^net\.bin: .*looked in \S+/nowhere\)"):
        find_weights("net.bin", tmp_path / "nowhere")  # an explicit place is never passed over


def test_the_home_of_weights_is_the_users_cache_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("IDM_HOME", raising=False)
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"Put it into {tmp_path}/.cache/idm/weights; nothing"):
        find_weights("net.bin")


def test_a_missing_identity_network_names_its_terms(tmp_path: Path) -> None:
    terms = r"^mobilefacenet_casia\.safetensors: .*CASIA-WebFace.*research use only"
    with pytest.raises(FileNotFoundError, match=rf"{terms}.*Put it into {re.escape(str(tmp_path))};"):
        load_identity(tmp_path)


def test_loading_gives_the_saved_network_frozen(tmp_path: Path, random_network: MobileFaceNet) -> None:
    from safetensors.torch import save_file

    save_file(random_network.state_dict(), tmp_path / "mobilefacenet_casia.safetensors")
    loaded = load_identity(tmp_path)
    assert not loaded.network.training
    assert not any(parameter.requires_grad for parameter in loaded.network.parameters())
    expected = IdentityNet(random_network).embed([CROP], [IDENTITY_LANDMARKS])
    np.testing.assert_allclose(loaded.embed([CROP], [IDENTITY_LANDMARKS]), expected, rtol=0, atol=1e-5)


def test_embeddings_in_bfloat16_are_nearly_those_in_float32(tmp_path: Path, random_network: MobileFaceNet) -> None:
    from safetensors.torch import save_file

    save_file(random_network.state_dict(), tmp_path / "mobilefacenet_casia.safetensors")
    faces = [RNG.random((112, 96, 3), np.float32) for _ in range(4)]
    wide, narrow = (
        load_identity(tmp_path, mirrored=False, dtype=dtype).embed(faces, [IDENTITY_LANDMARKS] * 4)
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert narrow.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(narrow, axis=1), 1, atol=1e-6)
    assert cosine_similarity(wide, narrow).min() > 0.99


def test_a_broken_or_foreign_weights_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "mobilefacenet_casia.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ValueError, match=f"^{path}: does not hold the weights of MobileFaceNet"):
        load_identity(path)
    save_file({"conv1.conv.weight": torch.zeros(64, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of MobileFaceNet"):
        load_identity(path)


# --- the published weights, where they are


@pytest.fixture(scope="module")
def faces(assets: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Forty portraits of different people and their landmarks."""
    folder = assets / "faces256" / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["source"] == "portrait"][:40]
    images = [read_image(folder / row["file_name"]).rgb for row in rows]
    return images, np.array([row["landmarks"] for row in rows])


def test_the_published_network_separates_people_and_tolerates_mild_blur(
    assets: Path, faces: tuple[list[np.ndarray], np.ndarray]
) -> None:
    images, landmarks = faces
    net = load_identity(assets / "weights")
    embedded = net.embed([from_uint8(image) for image in images], landmarks)
    strangers = (embedded @ embedded.T)[np.triu_indices(len(images), 1)]
    assert abs(strangers.mean() - 0.04) < 0.04
    assert abs(strangers.std() - 0.12) < 0.03
    measured = {2: (0.996, 0.003), 4: (0.947, 0.02), 8: (0.652, 0.05), 16: (0.114, 0.06)}
    for factor, (expected, tolerance) in measured.items():
        side = 256 // factor
        shrunk = [resize_image(resize_image(image, (side, side)), (256, 256)) for image in images]
        similar = cosine_similarity(embedded, net.embed([from_uint8(image) for image in shrunk], landmarks))
        assert similar.mean() == pytest.approx(expected, abs=tolerance), factor


def test_the_template_stands_in_for_unknown_landmarks(assets: Path, faces: tuple[list[np.ndarray], np.ndarray]) -> None:
    images, landmarks = faces
    net = load_identity(assets / "weights")
    known = net.embed([from_uint8(image) for image in images], landmarks)
    unknown = net.embed([from_uint8(image) for image in images], [ffhq_landmarks(256)] * len(images))
    assert cosine_similarity(known, unknown).mean() > 0.98
