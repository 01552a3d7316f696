"""The logic behind the web page: what it gives, what it refuses, and that its users do not disturb each other."""

import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.settings import PhotoSettings
from idm.apps.web.request import RestoreRequest
from idm.apps.web.restoration import MAX_VARIANTS, Restoration, ResultStore, StoredResult
from idm.apps.web.session import PageService, faces_by_default, save_result
from idm.data.synthetic import synthetic_face
from idm.diffusion.chain import Chain
from idm.diffusion.schedule import linear
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.images import ImageError
from idm.io.photos import Photo, read_photo
from idm.models.unet import UNet
from idm.restorers.idm import IDM

SIZE, FACE = 32, 64  # of the model, and of each drawn face in a photograph
SIDE_BYTES = SIZE * SIZE * 3 * 4  # of a crop


class KnowsTheFaces:
    """Drawn faces stand side by side in the photographs here, so their places are known."""

    def __init__(self) -> None:
        self.at_work = 0
        self.most_at_work = 0

    def detect(self, pixels):
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        time.sleep(0.005)
        self.at_work -= 1
        marks = synthetic_face(0, 0, FACE).landmarks.astype(np.float64)
        lefts = range(0, pixels.shape[1] - FACE + 1, FACE)
        return [DetectedFace(np.array([x + 8.0, 8, x + 56, 60]), marks + np.array([x, 0]), 0.9) for x in lefts]


class Inverts:
    """A restorer without a chain."""

    image_size = SIZE

    def restore(self, lq, seeds):
        return 1 - lq


def photo_of(*numbers: int) -> Photo:
    return Photo(np.concatenate([synthetic_face(0, number, FACE).image for number in numbers], axis=1))


@pytest.fixture(scope="module")
def pipeline() -> IDM:
    torch.manual_seed(0)
    denoiser = UNet(
        image_size=SIZE, channels=(8, 16), num_blocks=(1, 1), attention_resolutions=(8,), head_dim=8, add_degraded=True
    )
    torch.nn.init.normal_(denoiser.conv_out.weight, std=0.05)
    return IDM(denoiser, linear(), chain=Chain("ddim", 2))


@pytest.fixture
def page_service(pipeline: IDM) -> PageService:
    return PageService({"idm": pipeline, "inverts": Inverts()}, KnowsTheFaces(), None, max_pixels=100_000)


def by_the_command(pipeline: IDM, photo: Photo, wanted: RestoreRequest) -> np.ndarray:
    """What ``idm restore`` does with these settings: they become the pipeline's own."""
    before = pipeline.chain
    pipeline.chain = wanted.chain
    done = PhotoRestorer(pipeline, KnowsTheFaces()).restore(photo, wanted.settings)
    pipeline.chain = before
    return done.photo.pixels


@pytest.mark.parametrize(
    "wanted",
    [
        RestoreRequest("idm", PhotoSettings(faces=(0,), seed=0, change="full"), Chain(num_steps=3)),
        RestoreRequest(
            "idm", PhotoSettings(faces=(0, 1), seed=7, change="full"), Chain(num_steps=4).changed(fidelity=0.5)
        ),
        RestoreRequest(
            "idm", PhotoSettings(faces=(1,), seed=2**32 - 1, change="full"), Chain(num_steps=2).changed(fidelity=1.0)
        ),
    ],
)
def test_the_page_restores_as_the_command_does_bit_for_bit(
    page_service: PageService, pipeline: IDM, wanted: RestoreRequest
) -> None:
    photo = photo_of(0, 1)
    done = page_service.restore(photo, wanted)
    assert np.array_equal(done.result.photo.pixels, by_the_command(pipeline, photo, wanted))
    assert not np.array_equal(done.result.photo.pixels, photo.pixels)
    assert [face.number for face in done.result.faces] == list(wanted.settings.faces)


def test_an_order_leaves_the_shared_pipeline_as_it_was(page_service: PageService, pipeline: IDM) -> None:
    before = pipeline.chain
    page_service.restore(
        photo_of(0), RestoreRequest("idm", PhotoSettings(faces=(0,)), Chain(num_steps=5).changed(fidelity=0.4))
    )
    assert pipeline.chain == before


def test_many_users_at_once_get_what_each_would_get_alone(page_service: PageService) -> None:
    jobs = [
        (
            photo_of(*range(1 + n % 3)),
            RestoreRequest(
                "idm",
                PhotoSettings(faces=(n % (1 + n % 3),), seed=n),
                Chain(num_steps=1 + n % 4).changed(fidelity=0.1 * n),
            ),
        )
        for n in range(4)
    ]
    alone = [page_service.restore(photo, wanted).result.photo.pixels for photo, wanted in jobs]
    with ThreadPoolExecutor(4) as users:
        together = list(users.map(lambda job: page_service.restore(*job).result.photo.pixels, jobs))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


def test_the_detector_works_for_one_user_at_a_time() -> None:
    detector = KnowsTheFaces()
    page_service = PageService({"inverts": Inverts()}, detector, None, max_pixels=100_000)
    with ThreadPoolExecutor(8) as users:
        list(users.map(page_service.find, [photo_of(0)] * 8))
    assert detector.most_at_work == 1


def test_a_restorer_works_for_one_user_at_a_time() -> None:
    """A pipeline's scheduler counts its steps: two chains through it at once would disturb each other."""
    at_work: list[int] = []
    most_at_work = 0

    class Busy(Inverts):
        def restore(self, lq, seeds):
            nonlocal most_at_work
            at_work.append(1)
            most_at_work = max(most_at_work, len(at_work))
            time.sleep(0.05)
            at_work.pop()
            return lq

    page_service = PageService({"busy": Busy()}, KnowsTheFaces(), None, max_pixels=100_000)
    with ThreadPoolExecutor(4) as users:
        list(
            users.map(
                lambda n: page_service.restore(photo_of(n), RestoreRequest("busy", PhotoSettings(faces=(0,)))), range(4)
            )
        )
    assert most_at_work == 1


def test_looking_for_faces_does_not_wait_for_somebody_elses_restoration(pipeline: IDM) -> None:
    started, found = threading.Event(), threading.Event()

    class Slow(Inverts):
        def restore(self, lq, seeds):
            started.set()
            assert found.wait(10), "the other user's search waited"
            return lq

    page_service = PageService({"slow": Slow()}, KnowsTheFaces(), None, max_pixels=100_000)
    with ThreadPoolExecutor(1) as user:
        restoring = user.submit(page_service.restore, photo_of(0), RestoreRequest("slow", PhotoSettings(faces=(0,))))
        assert started.wait(10)
        assert len(page_service.find(photo_of(0, 1))) == 2
        found.set()
        restoring.result(10)


@pytest.mark.parametrize(
    ("wanted", "steps"),
    [
        (
            RestoreRequest("idm", chain=Chain(num_steps=4).changed(fidelity=0.5)),
            2,
        ),  # one batch, the last half of the chain
        (
            RestoreRequest("idm", PhotoSettings(samples=4, pick="median"), Chain(num_steps=4)),
            8,
        ),  # 12 faces, batches of 8
        (RestoreRequest("inverts"), 3),  # a face each
    ],
)
def test_progress_counts_to_its_end_in_steps_of_one(
    page_service: PageService, wanted: RestoreRequest, steps: int
) -> None:
    reported: list[tuple[int, int]] = []
    page_service.restore(photo_of(0, 1, 2), wanted, lambda done, total: reported.append((done, total)))
    assert reported == [(n, steps) for n in range(1, steps + 1)]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"restorer": "nobody"}, "there is no restorer 'nobody'; there are idm, inverts"),
        ({"faces": ()}, "choose at least one face"),
        ({"faces": (3,)}, "there is no face 3"),
        ({"faces": "some"}, "faces: Input should be"),
        ({"fidelity": 1.5}, "fidelity must lie in"),
        ({"fidelity": float("nan")}, "fidelity must lie in"),
        ({"steps": 0}, "number of steps must lie in 1..4, got 0"),
        ({"steps": 5}, "number of steps must lie in 1..4, got 5"),
        ({"steps": 2.5}, "number of steps"),
        ({"steps": float("inf")}, "number of steps"),
        ({"upscale": 0.5}, "upscale must lie in"),
        ({"upscale": 6.0}, "would have 0 megapixels, more than the 0.1 allowed; enlarge less"),
        ({"samples": 0}, "samples"),
        ({"samples": 9}, "at most 8 samples"),
        ({"seed": None}, "seed: Input should be a valid integer"),
        ({"seed": 2**32}, "seed must lie in"),
        ({"change": "some"}, "change: Input should be 'auto' or 'full'"),
        ({"turn": 45}, "turn: Input should be"),
        ({"min_identity": 2}, "cosine in"),
        ({"min_identity": 0.5}, "needs the identity network"),
        ({"reference": "/etc"}, "reference is a list of 1 to 8 photographs"),
        ({"min_face": 8}, "there is no setting min_face; there are restorer, steps, fidelity, faces, seed"),
        ({"batch_size": 10**6}, "there is no setting batch_size"),
    ],
)
def test_an_impossible_order_is_refused_with_what_is_wrong(
    page_service: PageService, values: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        page_service.restore(photo_of(0), page_service.request({"restorer": "idm", **values}))


def test_a_request_has_the_settings_of_the_command_line_under_their_names(page_service: PageService) -> None:
    assert page_service.request({}) == RestoreRequest("idm", PhotoSettings(pick="median"), Chain(num_steps=2))
    wanted = page_service.request(
        {
            **{"restorer": "idm", "steps": 3, "fidelity": 0.5, "faces": [1, 0], "seed": 7, "upscale": 2, "samples": 2},
            **{"change": "full", "turn": 90, "detail": "clean", "grayscale": "keep", "min_identity": 0.25},
            **{"grain": 0.75},
        }
    )
    assert wanted == RestoreRequest(
        "idm",
        PhotoSettings(
            **{"faces": (1, 0), "seed": 7, "upscale": 2.0, "samples": 2, "pick": "median", "min_identity": 0.25},
            **{"change": "full", "turn": 90, "detail": "clean", "grayscale": "keep", "grain": 0.75},
        ),
        Chain(num_steps=3).changed(fidelity=0.5),
    )
    assert page_service.request(wanted.named()) == wanted
    assert page_service.request({**wanted.named(), "steps": 2}) != wanted


# --- variants of faces


def restoration_of(page_service: PageService, photo: Photo) -> Restoration:
    wanted = RestoreRequest("idm", PhotoSettings(faces=(0, 1), seed=5, change="full", grain=0.0), Chain(num_steps=2))
    return page_service.draw(photo, wanted)


def test_a_rejected_face_stays_as_it_was_and_the_other_one_does_not_change(page_service: PageService) -> None:
    photo = photo_of(0, 1)
    restoration = restoration_of(page_service, photo)
    done = page_service.compose(photo, restoration.use(0, None)).result
    assert np.array_equal(done.photo.pixels[:, :FACE], photo.pixels[:, :FACE])
    assert np.array_equal(
        done.photo.pixels,
        page_service.restore(
            photo, replace(restoration.request, settings=replace(restoration.request.settings, faces=(1,)))
        ).result.photo.pixels,
    )
    assert [(face.state, face.share, face.note) for face in done.faces] == [
        ("kept", 0.0, "it was rejected: the face stays as it was"),
        ("restored", 1.0, "a face of 64 px was restored at 32 px: its finer detail is the photograph's"),
    ]
    again = page_service.compose(photo, restoration.use(0, None).use(0, 0)).result
    assert np.array_equal(again.photo.pixels, page_service.compose(photo, restoration).result.photo.pixels)


def test_a_face_that_is_drawn_again_is_what_its_seed_gives_and_the_other_one_does_not_change(
    page_service: PageService,
) -> None:
    photo = photo_of(0, 1)
    restoration = page_service.redraw(photo, restoration_of(page_service, photo), 1, seed=99)
    pixels = page_service.compose(photo, restoration).result.photo.pixels

    def with_seed(seed: int) -> np.ndarray:
        wanted = replace(restoration.request, settings=replace(restoration.request.settings, seed=seed))
        return page_service.restore(photo, wanted).result.photo.pixels

    assert np.array_equal(pixels[:, :FACE], with_seed(5)[:, :FACE])
    assert np.array_equal(pixels[:, FACE:], with_seed(99)[:, FACE:])
    assert not np.array_equal(with_seed(5)[:, FACE:], with_seed(99)[:, FACE:])
    assert [variant.seed for variant in restoration.variants[1]] == [5, 99]


def test_a_restoration_refuses_what_is_not_there_and_more_variants_than_it_keeps(page_service: PageService) -> None:
    photo = photo_of(0, 1)
    restoration = restoration_of(page_service, photo)
    with pytest.raises(ValueError, match="there is no restored face 2"):
        restoration.use(2, None)
    with pytest.raises(ValueError, match="face 0 has no variant 1; it has 1"):
        restoration.use(0, 1)
    for seed in range(MAX_VARIANTS - 1):
        restoration = page_service.redraw(photo, restoration, 0, seed)
    with pytest.raises(ValueError, match="most that are kept"):
        page_service.redraw(photo, restoration, 0, 100)


def test_of_too_many_results_the_one_used_longest_ago_is_dropped(page_service: PageService, tmp_path: Path) -> None:
    photo = photo_of(0, 1)
    stored = StoredResult(restoration_of(page_service, photo), tmp_path / "a.png", tmp_path, ())
    assert (
        4 * SIDE_BYTES <= stored.restoration.num_bytes < 4.1 * SIDE_BYTES
    )  # of two faces the given and the restored crop
    store = ResultStore(2 * stored.restoration.num_bytes)
    first, second = store.put(stored), store.put(stored)
    assert store.get(first) is stored
    third = store.put(stored)
    assert store.get(first) is store.get(third)
    with pytest.raises(ValueError, match="was removed"):
        store.get(second)
    with pytest.raises(ValueError, match="was removed"):
        store.get("")


def bomb(path: Path, side: int) -> Path:
    """A PNG of a few kilobytes whose header, truthfully, promises side x side black pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    page_service: PageService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bomb(tmp_path / "bomb.png", 8000)
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("the bomb was decoded"))
    with pytest.raises(ImageError, match=r"bomb.png: is too large \(8000 x 8000 pixels, the limit is 0.1 megapixels\)"):
        page_service.read(path)


def test_a_missing_or_invalid_picture_is_reported(page_service: PageService, tmp_path: Path) -> None:
    text = tmp_path / "notes.jpg"
    text.write_text("not a picture")
    with pytest.raises(ImageError, match="is not an image of a known kind"):
        page_service.read(text)
    with pytest.raises(ImageError, match="was removed"):
        page_service.read(tmp_path / "swept.png")


def test_small_faces_are_not_chosen_by_default() -> None:
    marks = ffhq_landmarks(64)
    faces = [DetectedFace(np.array([0.0, 0, side, side]), marks, 0.9) for side in (80, 25, 20)]
    assert faces_by_default(faces) == [0, 1]


def test_before_and_after_have_one_size_and_nothing_else_changes(page_service: PageService) -> None:
    photo = photo_of(0, 1)
    done = page_service.restore(photo, RestoreRequest("inverts", PhotoSettings(faces=(1,), upscale=2.0)))
    assert done.before.shape == done.result.photo.pixels.shape == (2 * FACE, 4 * FACE, 3)
    assert np.array_equal(done.before[:, : 2 * FACE - 8], done.result.photo.pixels[:, : 2 * FACE - 8])


def test_the_png_is_lossless_and_the_photographs_own_kind_is_offered_too(
    page_service: PageService, tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    Image.fromarray(photo_of(0).pixels).save(tmp_path / "me.jpg", exif=exif)
    photo = read_photo(tmp_path / "me.jpg")
    done = page_service.restore(photo, RestoreRequest("inverts", PhotoSettings(faces=(0,))))
    files = save_result(done, tmp_path / "me.jpg", tmp_path)
    assert [file.name for file in files] == ["me_restored.png", "me_restored.jpg"]
    assert np.array_equal(np.asarray(Image.open(files[0])), done.result.photo.pixels)
    assert all(Image.open(file).getexif()[0x010F] == "a camera" for file in files)


@pytest.mark.parametrize(("name", "has_alpha"), [("a.png", False), ("a.tif", False), ("a.jpg", True)])
def test_only_png_is_offered_where_the_own_kind_is_png_or_cannot_hold_the_result(
    page_service: PageService, tmp_path: Path, name: str, has_alpha: bool
) -> None:
    photo = photo_of(0)
    alpha = np.full(photo.pixels.shape[:2], 200, np.uint8) if has_alpha else None
    done = page_service.restore(replace(photo, alpha=alpha), RestoreRequest("inverts", PhotoSettings(faces=(0,))))
    assert [file.name for file in save_result(done, Path(name), tmp_path)] == ["a_restored.png"]
