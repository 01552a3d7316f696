"""Do no harm: what needs no change stays as it is, what does is changed, and the report says which and why."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch

from idm.apps.photo.face import FaceHistory
from idm.apps.photo.harm import DETAIL_ERROR, MIN_ERROR, change_share, judge
from idm.apps.photo.photo_restorer import PhotoRestorer, RestoredPhoto
from idm.apps.photo.settings import PhotoSettings
from idm.data.synthetic import synthetic_face
from idm.faces.align import align_face
from idm.faces.colour import match_contrast
from idm.faces.detect import DetectedFace
from idm.faces.grain import without_grain
from idm.faces.paste import crop_weights
from idm.io.photos import Photo

SIZE = 128
RNG = np.random.default_rng(0)
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


def blurred(face: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(face, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


class Does:
    """A restorer that does one thing to each face, h w 3 in [0, 1]."""

    image_size = SIZE

    def __init__(self, what: Callable[[np.ndarray], np.ndarray]) -> None:
        self.what = what

    def restore(self, lq: torch.Tensor, seeds: object) -> torch.Tensor:
        faces = [self.what(face.permute(1, 2, 0).numpy()) for face in lq]
        return torch.from_numpy(np.stack(faces).astype(np.float32).clip(0, 1)).permute(0, 3, 1, 2)


def restore(what: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, **settings: object) -> RestoredPhoto:
    """Of a picture that is one synthetic face."""
    landmarks = synthetic_face(0, 0, len(pixels)).landmarks.astype(np.float64)
    box = np.concatenate([landmarks.min(axis=0) - 8, landmarks.max(axis=0) + 8])

    class Knows:
        def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
            return [DetectedFace(box, landmarks, 0.999)]

    return PhotoRestorer(Does(what), Knows()).restore(Photo(pixels), PhotoSettings(min_face=0.0, **settings))


def face(size: int) -> np.ndarray:
    return synthetic_face(0, 0, size).image


def test_a_face_that_needs_nothing_keeps_its_pixels_and_full_overrides() -> None:
    def redraw(crop: np.ndarray) -> np.ndarray:
        """Its fine detail, wrong by nearly as much as restorers make it."""
        return crop + np.float32(0.8 * DETAIL_ERROR) * (crop - blurred(crop, 1))

    done = restore(redraw, face(SIZE))
    np.testing.assert_array_equal(done.photo.pixels, face(SIZE))
    (report,) = done.faces
    assert (report.state, report.share) == ("kept", 0)
    assert report.note == "it needs hardly any change: the face stays as it was"
    (report,) = restore(redraw, face(SIZE), change="full").faces
    assert (report.state, report.share) == ("restored", 1)


@pytest.mark.parametrize("size", [60, 93])
def test_a_small_sharp_face_does_not_become_softer(size: int) -> None:
    done = restore(lambda crop: blurred(crop, 2.5), face(size))
    np.testing.assert_array_equal(done.photo.pixels, face(size))
    assert done.faces[0].state == "kept"
    assert any(reason in done.faces[0].note for reason in ("is softer", "is not better", "hardly any change"))


@pytest.mark.parametrize(("upscale", "state"), [(1.0, "kept"), (2.0, "restored")])
def test_a_small_face_is_judged_in_pixels_of_the_result(upscale: float, state: str) -> None:
    """Detail that only its enlarged crop can show does not count, unless the result shows it too."""

    def sharpen(crop: np.ndarray) -> np.ndarray:
        return crop + (crop - blurred(crop, 1))

    (report,) = restore(sharpen, face(SIZE // 2), upscale=upscale).faces
    assert report.state == state


def test_a_restoration_that_is_not_better_is_not_used() -> None:
    done = restore(
        lambda crop: np.clip(crop + 0.1 * np.sin(np.arange(SIZE) / 30)[:, None, None], 0, 1),
        face(SIZE),
        color_fix="none",
    )
    np.testing.assert_array_equal(done.photo.pixels, face(SIZE))
    assert "not better by its measures" in done.faces[0].note


def test_a_noisier_face_stays() -> None:
    noise = RNG.normal(0, 0.05, (SIZE, SIZE, 3)).astype(np.float32)
    assert "noisier" in restore(lambda crop: crop + noise, face(SIZE)).faces[0].note


@pytest.mark.parametrize("spoil", ["blur", "noise"])
def test_a_damaged_face_is_restored_nearly_in_full(spoil: str) -> None:
    clean = blurred(face(SIZE), 2)  # as soft as photographs are
    noise = RNG.normal(0, 12, clean.shape) if spoil == "noise" else 0
    damaged = np.clip((blurred(clean, 2) if spoil == "blur" else clean) + noise, 0, 255).astype(np.uint8)
    truth = restore(lambda crop: crop, clean)  # where the clean face lies in its crop
    assert truth.faces[0].state == "kept"
    crop, _ = align_face(clean, synthetic_face(0, 0, SIZE).landmarks.astype(np.float64), SIZE)
    done = restore(lambda _: crop, damaged, grain=0.0)
    assert done.faces[0].state == "restored"
    assert done.faces[0].share > 0.7
    middle = (slice(SIZE // 4, 3 * SIZE // 4),) * 2
    before = np.square(damaged[middle] - clean[middle].astype(float)).mean()
    after = np.square(done.photo.pixels[middle] - clean[middle].astype(float)).mean()
    assert after < 0.5 * before  # a crop that is turned and scaled loses some of the finest detail


def test_the_share_falls_as_the_change_nears_the_restorers_own_error() -> None:
    given = np.full((SIZE, SIZE, 3), 0.5, np.float32)
    shares = [change_share(given, given + np.float32(times * MIN_ERROR)) for times in (0, 1, 2, 10)]
    np.testing.assert_allclose(shares, [0, 0, 0.75, 0.99], atol=1e-3)
    assert judge(given, given).why == "it needs hardly any change"


def test_the_more_fine_detail_a_face_has_beyond_its_noise_the_less_of_a_change_it_gets() -> None:
    sharp = 0.15 + 0.7 * face(SIZE).astype(np.float32) / 255
    soft = blurred(sharp, 2)
    noisy = soft + np.random.default_rng(1).normal(0, 0.03, sharp.shape).astype(np.float32)
    change = np.float32(3 * MIN_ERROR)
    shares = [change_share(given, given + change) for given in (sharp, soft, noisy)]
    assert shares[0] < 0.1
    assert shares[1] > 0.8
    assert shares[2] > 0.6  # its noise is no detail


def test_noise_that_a_restorer_removes_speaks_for_its_change() -> None:
    clean = 0.2 + 0.6 * blurred(face(SIZE).astype(np.float32) / 255, 1)
    noise = RNG.normal(0, 0.03, clean.shape).astype(np.float32)
    removed = change_share(clean + noise, clean + np.float32(0.7) * noise)
    assert removed > change_share(clean + noise, clean + np.float32(1.3) * noise) + 0.2


def test_the_share_of_a_video_is_the_mean_so_far() -> None:
    past = FaceHistory()
    assert [past.add_share(share) for share in (1.0, 0.0, 0.5)] == [1.0, 0.5, 0.5]


# --- tones


def slope(restored: np.ndarray, given: np.ndarray) -> float:
    """Contrast of the restored face's middle tones, as a share of the given one's."""
    weights = crop_weights(len(given))
    a, b = (blurred(x @ LUMA, 2) - blurred(x @ LUMA, 5) for x in (restored, given))
    return float((weights * a * b).sum() / (weights * b * b).sum())


def test_middle_tones_keep_their_contrast() -> None:
    given = face(SIZE).astype(np.float32) / 255
    luma = given @ LUMA
    flat = given - 0.25 * (blurred(luma, 1) - blurred(luma, 5))[..., None]
    weights = crop_weights(SIZE)
    assert slope(flat, given) < 0.9
    assert slope(match_contrast(flat, given, weights), given) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(match_contrast(given, given, weights), given, atol=1e-6)


def test_neither_noise_nor_blur_of_the_given_face_changes_the_contrast_of_the_restored_one() -> None:
    clean = face(SIZE).astype(np.float32) / 255
    noisy = (clean + RNG.normal(0, 0.08, clean.shape)).astype(np.float32)
    for given in (noisy, blurred(clean, 3)):
        np.testing.assert_allclose(match_contrast(clean, given, crop_weights(SIZE)), clean, atol=0.01)


def test_a_tinted_scan_gains_no_speckle_of_colour() -> None:
    grey = face(SIZE).astype(np.float32) @ LUMA
    scan = np.stack([grey, 0.97 * grey, 0.9 * grey], axis=-1)
    scan = (scan + RNG.normal(0, 3, scan.shape)).clip(0, 255).astype(np.uint8)
    colours = RNG.normal(0, 0.05, (SIZE, SIZE, 3)).astype(np.float32)
    done = restore(lambda crop: crop + colours, scan, change="full")

    def chroma(pixels: np.ndarray) -> float:
        return float(np.quantile(np.ptp(pixels.astype(int), axis=2), 0.99))

    assert not np.array_equal(done.photo.pixels, scan)
    assert chroma(done.photo.pixels) <= chroma(scan) + 1
    assert chroma(restore(lambda crop: crop + colours, scan, change="full", grayscale="off").photo.pixels) > 20


# --- grain


def test_grain_goes_and_edges_stay() -> None:
    x = np.zeros((96, 96, 3), np.float32)
    x[:, 48:] = 0.5
    edge = x - blurred(x, 3)
    noise = RNG.normal(0, 0.02, x.shape).astype(np.float32)
    noise -= blurred(noise, 3)
    cleaned = without_grain(edge + noise, np.ones((96, 96), bool))
    flat, near = cleaned[:, 8:36], (slice(8, 88), slice(46, 50))
    assert flat.std() < 0.3 * noise[:, 8:36].std()
    np.testing.assert_allclose(cleaned[near].mean(axis=0), edge[near].mean(axis=0), rtol=0.1, atol=0.005)


def test_a_large_face_loses_its_grain_and_keeps_its_structure() -> None:
    clean = face(4 * SIZE)
    grainy = np.clip(clean + RNG.normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    errors = {}
    for detail in ("keep", "replace", "clean"):
        done = restore(lambda crop: crop, grainy, detail=detail, change="full").photo.pixels
        errors[detail] = float(np.abs(done[128:384, 128:384].astype(int) - clean[128:384, 128:384]).mean())
    assert errors["clean"] < 0.6 * errors["keep"]
    assert errors["clean"] < errors["replace"]


def grainy_photo() -> tuple[np.ndarray, np.ndarray]:
    """A face without noise, and the same with grain of 10/255."""
    clean = face(112)
    return clean, np.clip(clean + RNG.normal(0, 10, clean.shape), 0, 255).astype(np.uint8)


def gives(clean: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A restorer that knows the face without faults."""
    crop, _ = align_face(clean, synthetic_face(0, 0, len(clean)).landmarks.astype(np.float64), SIZE)
    return lambda given: crop


def smooth_skin(clean: np.ndarray) -> np.ndarray:
    luma = clean.astype(np.float32) @ LUMA
    steep = np.hypot(*np.gradient(blurred(luma, 2)))
    return (steep < 1) & (crop_weights(len(clean)) == 1)


@pytest.mark.parametrize(("grain", "least", "most"), [(0.0, 0, 0.2), (0.5, 0.35, 0.55), (1.0, 0.75, 1.05)])
def test_smooth_skin_has_the_wanted_share_of_the_surroundings_grain(grain: float, least: float, most: float) -> None:
    clean, given = grainy_photo()
    done = restore(gives(clean), given, grain=grain, change="full", color_fix="none").photo.pixels
    skin = smooth_skin(clean)
    ratio = (done[skin] - clean[skin].astype(float)).std() / (given[skin] - clean[skin].astype(float)).std()
    assert least <= ratio <= most
    again = restore(gives(clean), given, grain=grain, change="full", color_fix="none").photo.pixels
    np.testing.assert_array_equal(done, again)


def test_edges_that_a_restorer_redraws_stay_sharp_in_a_grainy_photograph() -> None:
    clean = face(SIZE)
    given = np.clip(blurred(clean.astype(np.float32), 2) + RNG.normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    done, bare = (
        restore(gives(clean), given, grain=grain, change="full", color_fix="none").photo.pixels.astype(int)
        for grain in (1.0, 0.0)
    )
    luma = clean.astype(np.float32) @ LUMA
    steep = np.hypot(*np.gradient(luma))
    edges = (steep > np.quantile(steep, 0.97)) & (crop_weights(SIZE) == 1)
    assert np.abs(done - bare)[edges].mean() < 0.35 * np.abs(given - bare)[edges].mean()


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_a_photograph_without_grain_gets_none(quality: int) -> None:
    _, code = cv2.imencode(".jpg", blurred(face(SIZE), 1.5), [cv2.IMWRITE_JPEG_QUALITY, quality])
    given, clean = cv2.imdecode(code, cv2.IMREAD_COLOR), face(SIZE)
    done, bare = (restore(gives(clean), given, grain=grain, change="full").photo.pixels for grain in (1.0, 0.0))
    assert not np.array_equal(done, given)
    np.testing.assert_array_equal(done, bare)


@pytest.mark.parametrize(("size", "upscale"), [(64, 1.0), (128, 2.0), (512, 1.0)])
def test_grain_is_kept_in_faces_of_any_size(size: int, upscale: float) -> None:
    clean = face(size)
    given = np.clip(clean + RNG.normal(0, 10, clean.shape), 0, 255).astype(np.uint8)
    done, bare = (
        restore(gives(clean), given, grain=grain, change="full", upscale=upscale).photo.pixels for grain in (1.0, 0.0)
    )
    middle = (slice(size // 4, size // 2),) * 2
    enlarged = cv2.resize(given, done.shape[:2])
    kept, removed = (picture[middle].astype(int) - bare[middle] for picture in (done, enlarged))
    assert kept.std() > 0.5 * removed.std()
    for detail in ("clean", "replace"):
        one, other = (
            restore(lambda crop: blurred(crop, 2), given, grain=grain, change="full", detail=detail).photo.pixels
            for grain in (1.0, 0.0)
        )
        np.testing.assert_array_equal(one, other)
