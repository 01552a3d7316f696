"""One photograph, with stub restorers whose answers are known: what is pasted, kept, refused, reported."""

import tracemalloc
from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import torch

from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.faces.align import apply_matrix, invert
from idm.faces.colour import keep_chroma, make_grey, match_colour
from idm.faces.detect import DetectedFace
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.paste import crop_weights
from idm.faces.recognition import IdentityNet
from idm.faces.template import ffhq_landmarks
from idm.io.photos import Photo
from idm.restorers.protocol import Restorer

SIZE = 32
RNG = np.random.default_rng(0)


def smooth(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width, 3), np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    low, high = blurred.min(), blurred.max()
    return np.rint((blurred - low) / (high - low) * 200 + 20).astype(np.uint8)


def face_at(x: float, y: float, side: float) -> DetectedFace:
    """A face whose aligned square has this centre and side."""
    scale = side / SIZE
    landmarks = (ffhq_landmarks(SIZE) - (SIZE / 2 - 0.5)) * scale + (x, y)
    return DetectedFace(np.array([x - side / 4, y - side / 4, x + side / 4, y + side / 4]), landmarks, 0.95)


class Found:
    """A detector that has been told."""

    def __init__(self, *faces: DetectedFace) -> None:
        self.faces = list(faces)

    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return self.faces


class Adds:
    """A restorer that adds a constant per channel, and ``noise`` of its seed."""

    image_size = SIZE

    def __init__(self, change: Sequence[float] = (0, 0, 0), noise: float = 0) -> None:
        self.change = torch.tensor(change)[:, None, None]
        self.noise = noise
        self.calls: list[list[int]] = []

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        self.calls.append(list(seeds))
        drawn = [torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (lq + self.change + self.noise * (torch.stack(drawn) - 0.5)).clamp(0, 1)


@pytest.fixture(scope="module")
def identity() -> IdentityNet:
    torch.manual_seed(0)
    return IdentityNet(MobileFaceNet().eval())


def as_is(**changes: object) -> PhotoSettings:
    """The plainest settings, so that the answer is known."""
    return PhotoSettings(**{"color_fix": "none", "detail": "replace", "min_face": 0.0, "change": "full", **changes})


def restore(
    restorer: Restorer, photo: Photo, settings: PhotoSettings, *faces: DetectedFace, net: IdentityNet | None = None
):
    return PhotoRestorer(restorer, Found(*faces), net).restore(photo, settings)


FACE = face_at(60, 50, 40)
PHOTO = Photo(smooth(100, 120))


# --- identity and exactness


@pytest.mark.parametrize("side", [20, 40, 90])
def test_an_unchanged_face_changes_nothing_where_its_own_detail_is_kept(side: float) -> None:
    settings = as_is(detail="keep", color_fix="wavelet")
    done = restore(Adds(), PHOTO, settings, face_at(60, 50, side))
    np.testing.assert_array_equal(done.photo.pixels, PHOTO.pixels)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 4.0])
def test_an_unchanged_face_stays_in_place_at_any_enlargement(scale: float) -> None:
    done = restore(Adds(), PHOTO, as_is(upscale=scale), FACE)
    size = (round(100 * scale), round(120 * scale))
    expected = cv2.resize(PHOTO.pixels, size[::-1], interpolation=cv2.INTER_CUBIC)
    assert done.photo.pixels.shape[:2] == size
    assert np.abs(done.photo.pixels.astype(int) - expected).max() <= 3  # half a pixel would show as about 10


def test_an_odd_enlargement_rounds_its_size_and_alpha_follows() -> None:
    photo = Photo(PHOTO.pixels, PHOTO.pixels[..., 0].copy())
    done = restore(Adds(), photo, as_is(upscale=1.333), FACE)
    assert done.photo.pixels.shape == (133, 160, 3)
    assert done.photo.alpha.shape == (133, 160)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_only_the_region_of_the_face_is_touched_and_there_the_change_is_what_was_asked(dtype: type) -> None:
    unit = np.iinfo(dtype).max // 255
    photo = Photo(PHOTO.pixels.astype(dtype) * unit)
    done = restore(Adds((0.1, 0, -0.05)), photo, as_is(detail="keep"), FACE)
    change = (done.photo.pixels.astype(int) - photo.pixels) / np.iinfo(dtype).max
    np.testing.assert_allclose(change[50, 60], (0.1, 0, -0.05), atol=0.003)
    far = np.ones((100, 120), bool)
    far[29:71, 39:81] = False
    assert (change[far] == 0).all()
    assert done.photo.pixels.dtype == dtype


def test_faces_over_the_border_and_tiny_ones_are_restored() -> None:
    faces = face_at(2, 3, 50), face_at(119, 99, 30), face_at(60, 50, 4)
    done = restore(Adds((0.2, 0.2, 0.2)), PHOTO, as_is(), *faces)
    assert [face.state for face in done.faces] == ["restored"] * 3
    change = done.photo.pixels.astype(int) - PHOTO.pixels
    assert change[3, 2, 0] > 30
    assert change[98, 118, 0] > 30
    assert change[50, 60, 0] > 30


def test_faces_and_samples_share_batches_and_seeds_count_up() -> None:
    restorer = Adds()
    faces = [face_at(20 + 20 * i, 50, 20) for i in range(5)]
    restore(restorer, PHOTO, as_is(batch_size=4, seed=7, samples=2, pick="median"), *faces)
    assert restorer.calls == [[7, 8, 7, 8], [7, 8, 7, 8], [7, 8]]


def test_the_result_does_not_depend_on_the_batch_size() -> None:
    faces = [face_at(20 + 20 * i, 50, 30) for i in range(5)]
    results = [restore(Adds(noise=0.3), PHOTO, as_is(batch_size=b), *faces).photo.pixels for b in (1, 8)]
    np.testing.assert_array_equal(*results)


def test_another_seed_gives_another_face() -> None:
    a, b, c = (restore(Adds(noise=0.3), PHOTO, as_is(seed=seed), FACE).photo.pixels for seed in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)


# --- choosing


def test_a_photograph_without_faces_is_enlarged_all_the_same() -> None:
    done = restore(Adds(), PHOTO, as_is(upscale=2.0))
    assert (done.faces, done.num_found) == ([], 0)
    assert done.photo.pixels.shape == (200, 240, 3)


def test_small_faces_and_those_not_named_are_left_alone() -> None:
    faces = face_at(30, 50, 40), face_at(90, 50, 30)
    done = restore(Adds((0.3, 0.3, 0.3)), PHOTO, as_is(min_face=18.0), *faces)
    assert ([face.number for face in done.faces], done.num_found) == ([0], 2)
    done = restore(Adds((0.3, 0.3, 0.3)), PHOTO, as_is(faces=(1,)), *faces)
    assert [face.number for face in done.faces] == [1]
    assert done.photo.pixels[50, 30, 0] == PHOTO.pixels[50, 30, 0]
    assert done.photo.pixels[50, 90, 0] > PHOTO.pixels[50, 90, 0]


# --- trust


def test_the_guard_keeps_a_face_that_became_someone_else_and_reports_it(identity: IdentityNet) -> None:
    stranger = Adds(noise=2)
    (free,) = restore(stranger, PHOTO, as_is(), FACE, net=identity).faces
    assert free.state == "restored"
    assert free.identity is not None
    guarded = as_is(min_identity=free.identity + 0.01)
    done = restore(stranger, PHOTO, guarded, FACE, net=identity)
    (kept,) = done.faces
    assert kept.state == "kept"
    assert "below" in kept.note
    assert kept.identity == free.identity
    np.testing.assert_array_equal(done.photo.pixels, PHOTO.pixels)
    (passed,) = restore(stranger, PHOTO, as_is(min_identity=free.identity - 0.01), FACE, net=identity).faces
    assert passed.state == "restored"


def test_an_unchanged_face_has_identity_one(identity: IdentityNet) -> None:
    (face,) = restore(Adds(), PHOTO, as_is(), FACE, net=identity).faces
    assert face.identity == pytest.approx(1, abs=1e-4)


def test_without_the_network_identities_are_unknown_and_what_needs_them_is_refused() -> None:
    (face,) = restore(Adds(), PHOTO, as_is(), FACE).faces
    assert face.identity is None
    for settings in (as_is(min_identity=0.2), as_is(samples=2)):
        with pytest.raises(ValueError, match="needs the identity network"):
            restore(Adds(), PHOTO, settings, FACE)


class Given:
    """A restorer with an answer for each seed: the face plus a constant."""

    image_size = SIZE

    def __init__(self, *changes: float) -> None:
        self.changes = changes

    def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
        return torch.stack([(x + self.changes[seed]).clamp(0, 1) for x, seed in zip(lq, seeds, strict=True)])


def test_of_several_samples_the_median_is_each_pixels_own() -> None:
    settings = as_is(detail="keep", samples=3, pick="median")
    done = restore(Given(0.3, 0.04, -0.2), PHOTO, settings, FACE)
    change = (done.photo.pixels.astype(int) - PHOTO.pixels) / 255
    assert change[50, 60] == pytest.approx(0.04, abs=0.003)


def test_of_several_samples_the_most_like_the_given_face_is_taken(identity: IdentityNet) -> None:
    class Once(Adds):
        def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
            wrong = super().restore(lq, seeds)
            same = torch.tensor([seed == 2 for seed in seeds])[:, None, None, None]
            return torch.where(same, lq, wrong)

    done = restore(Once(noise=2), PHOTO, as_is(detail="keep", samples=4), FACE, net=identity)
    np.testing.assert_array_equal(done.photo.pixels, PHOTO.pixels)
    assert done.faces[0].identity == pytest.approx(1, abs=1e-4)


def test_the_uncertainty_map_is_the_samples_deviation_where_the_face_is() -> None:
    settings = as_is(samples=2, pick="median", uncertainty=True, upscale=2.0)
    done = restore(Given(0.0, 0.1), PHOTO, settings, FACE)
    assert done.uncertainty is not None
    assert done.uncertainty.shape == (200, 240)
    assert done.uncertainty[100, 120] == pytest.approx(0.05 / 0.1 * 255, abs=2)
    assert done.uncertainty[5, 5] == 0
    assert restore(Given(0.0, 0.1), PHOTO, as_is(), FACE).uncertainty is None


# --- failures


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.5])
def test_a_face_that_did_not_become_a_picture_has_failed_and_the_others_have_not(value: float) -> None:
    class Breaks(Adds):
        def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
            restored = lq / 2 + 0.4
            restored[0, 1, 3, 4] = value
            return restored

    done = restore(Breaks(), PHOTO, as_is(), face_at(30, 50, 40), face_at(90, 50, 40))
    assert [face.state for face in done.faces] == ["failed", "restored"]
    assert "outside [0, 1]" in done.faces[0].note
    assert (done.photo.pixels[50, 30] == PHOTO.pixels[50, 30]).all()
    assert (done.photo.pixels[50, 90] != PHOTO.pixels[50, 90]).any()


def test_landmarks_that_no_face_has_fail_their_face_only() -> None:
    flat = DetectedFace(np.array([0.0, 0, 50, 50]), np.full((5, 2), 25.0), 0.9)
    done = restore(Adds(), PHOTO, as_is(faces=(0, 1)), flat, FACE)
    assert [face.state for face in done.faces] == ["failed", "restored"]
    assert "cannot be aligned" in done.faces[0].note


def test_an_error_of_the_restorer_is_not_hidden() -> None:
    class Full(Adds):
        def restore(self, lq: torch.Tensor, seeds: Sequence[int]) -> torch.Tensor:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        restore(Full(), PHOTO, as_is(), FACE)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("upscale", 0.5),
        ("upscale", 17.0),
        ("samples", 0),
        ("batch_size", 0),
        ("min_identity", 1.5),
        ("uncertainty", True),
    ],
)
def test_settings_that_cannot_work_are_refused(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"must|cosine|needs"):
        PhotoSettings(**{setting: value})


@pytest.mark.parametrize(("setting", "value"), [("change", 0.5), ("turn", 45), ("faces", "most"), ("detail", "none")])
def test_values_that_no_setting_has_are_refused(setting: str, value: object) -> None:
    """Without the type checks of the tests, which would refuse them first."""
    settings = PhotoSettings()
    object.__setattr__(settings, setting, value)
    with pytest.raises(ValueError, match=f"{setting} must be .*{value}"):
        settings.__post_init__()


# --- size


def test_a_face_larger_than_the_restorer_keeps_its_detail_and_is_reported() -> None:
    fine = Photo(RNG.integers(0, 256, (100, 120, 3), dtype=np.uint8))
    large = face_at(60, 50, 96)
    soft = restore(Adds(), fine, as_is(), large)
    kept = restore(Adds(), fine, as_is(detail="auto"), large)
    assert "96 px was restored at 32 px: it has become soft" in soft.faces[0].note
    assert "its finer detail is the photograph's" in kept.faces[0].note
    np.testing.assert_array_equal(kept.photo.pixels, fine.pixels)
    assert soft.photo.pixels[40:60, 50:70].std() < 0.7 * fine.pixels[40:60, 50:70].std()
    small = restore(Adds(), fine, as_is(detail="auto"), face_at(60, 50, 30))
    assert small.faces[0].note == ""
    assert small.faces[0].side == pytest.approx(30, abs=0.1)


def test_large_photographs_need_memory_for_a_few_copies_only() -> None:
    photo = Photo(np.full((2000, 3000, 3), 100, np.uint8))
    faces = face_at(1500, 1000, 1800), face_at(300, 300, 100)
    tracemalloc.start()
    restore(Adds((0.1, 0, 0)), photo, as_is(), *faces)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the result is one copy; a whole picture in floats would be four, and its points eight more
    assert peak < photo.pixels.nbytes + 100e6


# --- colours


def test_a_grey_photograph_stays_grey_by_default() -> None:
    grey = np.repeat(smooth(100, 120)[..., :1], 3, axis=2)
    paints = Adds((0.2, 0, -0.2))
    file = Photo(grey, is_grey=True, icc_profile=b"a profile for grey")
    for how in ("auto", "keep"):
        done = restore(paints, file, as_is(grayscale=how), FACE).photo
        assert (np.ptp(done.pixels, axis=2) == 0).all()
        assert (done.is_grey, done.icc_profile) == (True, b"a profile for grey")
        assert not np.array_equal(done.pixels, grey)  # the lightness is restored
    done = restore(paints, file, as_is(grayscale="off"), FACE).photo
    assert np.ptp(done.pixels, axis=2).max() > 50
    assert (done.is_grey, done.icc_profile) == (False, None)
    colour_file = restore(paints, Photo(grey), as_is(), FACE).photo
    assert (np.ptp(colour_file.pixels, axis=2) == 0).all()
    assert not colour_file.is_grey


def test_sepia_keeps_its_tint_exactly_by_default_and_nearly_with_matched_colours() -> None:
    sepia = (smooth(100, 120)[..., :1] * np.array([1, 0.8, 0.6])).astype(np.uint8)
    change = (-0.1, 0.0, 0.15)  # towards neutral

    def tint(settings: PhotoSettings) -> np.ndarray:
        pixels = restore(Adds(change), Photo(sepia), settings, FACE).photo.pixels
        return pixels[45:55, 55:65].reshape(-1, 3).mean(axis=0) - sepia[45:55, 55:65].reshape(-1, 3).mean(axis=0)

    assert np.ptp(tint(as_is())) < 1
    assert np.ptp(tint(as_is(grayscale="keep"))) < 1
    assert np.abs(tint(as_is(color_fix="wavelet", grayscale="off"))).max() < 3
    assert np.abs(tint(as_is(color_fix="mean", grayscale="off"))).max() < 8  # the waves differ within the crop
    np.testing.assert_allclose(tint(as_is(grayscale="off")) / 255, change, atol=0.03)


@pytest.mark.parametrize("how", ["none", "mean", "wavelet"])
def test_colour_matching_leaves_an_unchanged_face_and_undoes_a_cast(how: str) -> None:
    given = RNG.uniform(0.3, 0.7, (SIZE, SIZE, 3)).astype(np.float32)
    weights = crop_weights(SIZE)
    np.testing.assert_allclose(match_colour(given, given, weights, how), given, atol=1e-6)
    cast = given + np.array([0.1, -0.2, 0.05], np.float32)
    expected = cast if how == "none" else given
    np.testing.assert_allclose(match_colour(cast, given, weights, how), expected, atol=1e-5)


def test_wavelet_takes_what_is_coarse_from_the_given_and_what_is_fine_from_the_restored() -> None:
    y = np.arange(64, dtype=np.float32)[:, None, None] * np.ones((1, 64, 3), np.float32)
    coarse, fine = 0.2 * np.sin(2 * np.pi * y / 64), 0.1 * np.sin(2 * np.pi * y / 4)
    given = (0.5 + coarse).astype(np.float32)
    fixed = match_colour((0.5 + fine).astype(np.float32), given, crop_weights(64), "wavelet")
    middle = slice(8, 56)
    np.testing.assert_allclose(fixed[middle], (0.5 + coarse + fine)[middle], atol=0.02)


def test_keeping_chroma_moves_lightness_alone() -> None:
    given, restored = RNG.uniform(0.3, 0.7, (2, SIZE, SIZE, 3)).astype(np.float32)
    kept = keep_chroma(restored, given)
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(kept @ luma, restored @ luma, atol=1e-5)
    np.testing.assert_allclose(kept[..., 0] - kept[..., 1], given[..., 0] - given[..., 1], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_levels_survive_becoming_grey(dtype: type) -> None:
    levels = np.arange(np.iinfo(dtype).max + 1, dtype=dtype).reshape(256, -1)
    picture = np.repeat(levels[..., None], 3, axis=2)
    make_grey(picture)
    np.testing.assert_array_equal(picture, levels[..., None].repeat(3, 2))


def test_the_helper_of_these_tests_returns_the_places_of_its_faces() -> None:
    from idm.faces.align import align_face

    _, to_crop = align_face(PHOTO.pixels, FACE.landmarks, SIZE)
    centre = apply_matrix(invert(to_crop), np.array([SIZE / 2 - 0.5] * 2))
    np.testing.assert_allclose(centre, (60, 50), atol=1e-6)
