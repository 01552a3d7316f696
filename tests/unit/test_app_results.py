"""What a user of the page does with a result: judge each face, see that it is out of date, restore several at once."""

import json
import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

import gradio as gr
from gradio.context import LocalContext

from idm.apps.web.batch import BatchHandlers
from idm.apps.web.endpoints import Endpoints
from idm.apps.web.handlers import AS_GIVEN, NO_LIMIT, SETTINGS, Handlers
from idm.apps.web.restoration import MAX_VARIANTS, ResultStore
from idm.apps.web.session import PageService
from idm.apps.web.work import Work
from idm.data.synthetic import synthetic_face
from idm.faces.detect import DetectedFace
from idm.faces.mobilefacenet import MobileFaceNet
from idm.faces.recognition import IdentityNet

FACE = 64
DEFAULTS = {
    **{"restorer": "paints", "steps": 4, "fidelity": 0.0, "seed": 0, "upscale": 1, "samples": 1},
    **{"change": "auto", "turn": "auto", "detail": "auto", "grain": 0.25, "grayscale": "off", "color_fix": "wavelet"},
    **{"pick": "median", "min_identity": NO_LIMIT, "reference": None, "uncertainty": False},
}
ME = gr.Request(session_hash="me")
# Places of what restoring gives.
NAME, PHOTO, TABLE, PNG, SAME, MAP, STALE, FACES, BEFORE_AFTER, USED, VARIANTS, REDRAW = range(12)


class SideBySide:
    """Drawn faces side by side, and a small one in the last."""

    def detect(self, pixels):
        if pixels.max() == 0:
            return []
        marks = synthetic_face(0, 0, FACE).landmarks.astype(np.float64)
        lefts = range(0, pixels.shape[1] - FACE + 1, FACE)
        faces = [DetectedFace(np.array([x + 8.0, 8, x + 56, 60]), marks + np.array([x, 0]), 0.9) for x in lefts]
        return [*faces, DetectedFace(np.array([2.0, 2, 20, 20]), marks / 4, 0.7)]


class Paints:
    """What it gives depends on the face and the seed. A face of 16 px is not judged, which would refuse the noise."""

    image_size = 16

    def restore(self, lq, seeds):
        noise = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (lq + torch.stack(noise)) / 2


class Tags(HTMLParser):
    """The tags of a text with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.found if tag == name]


@pytest.fixture(autouse=True)
def in_an_event() -> Iterator[None]:
    """Components that handlers make are updates, as in gradio's events."""
    token = LocalContext.in_event_listener.set(True)
    yield
    LocalContext.in_event_listener.reset(token)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (tmp_path / "results").mkdir()
    return Work(PageService({"paints": Paints()}, SideBySide(), None, max_pixels=100_000), tmp_path / "results")


@pytest.fixture
def handlers(work: Work) -> Handlers:
    return Handlers(work, [], ResultStore(10**9))


def photo_at(path: Path, *numbers: int) -> Path:
    Image.fromarray(np.concatenate([synthetic_face(0, n, FACE).image for n in numbers], axis=1)).save(path)
    return path


def changes_of(update: Any) -> dict[str, Any]:
    """What a handler changes of a component."""
    return update._constructor_args[0]


def settings(**changes: object) -> list[Any]:
    return [{**DEFAULTS, **changes}[name] for name in SETTINGS]


def restored(handlers: Handlers, photo: Path, faces: list[int], **changes: object) -> tuple[Any, ...]:
    return handlers.restore(str(photo), faces, ME, gr.Progress(), *settings(**changes))


def pixels(updates: tuple[Any, ...]) -> np.ndarray:
    return np.asarray(Image.open(changes_of(updates[PNG])["value"]))


def pictures(text: str) -> list[str]:
    """The files of the pictures in a text, which all exist and have an alternative text."""
    images = Tags(text).named("img")
    paths = [str(image["src"]).removeprefix("gradio_api/file=") for image in images]
    assert images
    assert all(image["alt"] for image in images)
    assert all(Path(path).is_file() for path in paths)
    return paths


# --- variants of faces


def test_a_face_is_rejected_used_again_and_drawn_again_by_itself(handlers: Handlers, tmp_path: Path) -> None:
    photo = photo_at(tmp_path / "a.png", 0, 1)
    given = np.asarray(Image.open(photo))
    first = restored(handlers, photo, [0, 1])
    name = first[NAME]
    assert changes_of(first[FACES])["choices"] == [("0: restored", 0), ("1: restored", 1)]
    assert not np.array_equal(pixels(first)[:, :FACE], given[:, :FACE])

    rejected = handlers.use(name, 1, AS_GIVEN)
    assert np.array_equal(pixels(rejected)[:, FACE:], given[:, FACE:])
    assert changes_of(rejected[FACES]) == {
        **changes_of(first[FACES]),
        "choices": [("0: restored", 0), ("1: kept", 1)],
        "value": 1,
    }
    assert "it was rejected: the face stays as it was" in changes_of(rejected[BEFORE_AFTER])["value"]
    assert changes_of(rejected[USED])["value"] == AS_GIVEN
    assert changes_of(first[STALE]) == {"visible": False}
    assert rejected[STALE] == gr.skip()  # a stale result stays stale

    again = handlers.redraw(name, 1, ME, gr.Progress())
    assert changes_of(again[USED])["value"] == 1
    seed = changes_of(again[USED])["choices"][-1][0].split()[1]
    expected = restored(handlers, photo, [0, 1], seed=int(seed))
    assert np.array_equal(pixels(again)[:, FACE:], pixels(expected)[:, FACE:])

    back = handlers.use(name, 1, 0)
    assert changes_of(back[USED])["value"] == 0
    assert len(changes_of(back[USED])["choices"]) == 3  # as given, and two variants


def test_a_rejected_face_leaves_the_others_as_they_were(handlers: Handlers, tmp_path: Path) -> None:
    first = restored(handlers, photo_at(tmp_path / "a.png", 0, 1), [0, 1])
    before = pixels(first)
    rejected = pixels(handlers.use(first[NAME], 1, AS_GIVEN))
    assert np.array_equal(rejected[:, :FACE], before[:, :FACE])
    assert not np.array_equal(rejected, before)


def test_every_picture_of_a_result_has_an_alternative_text_and_every_slider_a_name(
    handlers: Handlers, tmp_path: Path
) -> None:
    found = handlers.find(str(photo_at(tmp_path / "a.png", 0, 1)))
    assert "3 faces framed and numbered" in Tags(changes_of(found[1])["value"]).named("img")[0]["alt"]
    pictures(changes_of(found[1])["value"])
    updates = restored(handlers, tmp_path / "a.png", [0, 1])
    for place, number in ((PHOTO, 2), (BEFORE_AFTER, 2), (VARIANTS, 2)):
        assert len(pictures(changes_of(updates[place])["value"])) == number
    for place in (PHOTO, BEFORE_AFTER):
        [slider] = Tags(changes_of(updates[place])["value"]).named("input")
        assert slider["type"] == "range"
        assert slider["aria-label"]
    shown = Image.open(pictures(changes_of(updates[BEFORE_AFTER])["value"])[0])
    assert shown.size == (FACE, FACE)  # the square around a face of 52 px is as high as the photograph
    other = handlers.show_face(updates[NAME], 1)
    assert "Face 1, as given" in changes_of(other[0])["value"]
    assert changes_of(other[1])["value"] == 0


def test_a_replaced_result_leaves_no_files(handlers: Handlers, tmp_path: Path) -> None:
    first = restored(handlers, photo_at(tmp_path / "a.png", 0), [0])
    handlers.use(first[NAME], 0, AS_GIVEN)
    [folder] = handlers.work.results.iterdir()
    assert not Path(changes_of(first[PNG])["value"]).exists()
    assert folder == handlers.store.get(first[NAME]).folder


def test_a_face_has_a_limited_number_of_variants_and_the_button_shows_the_limit(
    handlers: Handlers, tmp_path: Path
) -> None:
    updates = restored(handlers, photo_at(tmp_path / "a.png", 0), [0])
    name = updates[NAME]
    for _ in range(MAX_VARIANTS - 1):
        assert changes_of(updates[REDRAW])["interactive"]
        updates = handlers.redraw(name, 0, ME, gr.Progress())
    assert not changes_of(updates[REDRAW])["interactive"]
    with pytest.raises(gr.Error, match="most that are kept"):
        handlers.redraw(name, 0, ME, gr.Progress())


def test_a_result_that_was_removed_is_an_error_on_the_page(handlers: Handlers) -> None:
    for ask in (
        lambda: handlers.use("guess", 0, AS_GIVEN),
        lambda: handlers.show_face("guess", 0),
        lambda: handlers.redraw("guess", 0, ME, gr.Progress()),
    ):
        with pytest.raises(gr.Error, match="was removed; restore the photograph again"):
            ask()


def test_every_face_that_was_left_alone_has_its_reason(handlers: Handlers, tmp_path: Path) -> None:
    photo = photo_at(tmp_path / "a.png", 0, 1)
    found = handlers.find(str(photo))
    labels = [label for label, _ in changes_of(found[2])["choices"]]
    assert labels == ["0: 52 px, score 0.90", "1: 52 px, score 0.90", "2: 18 px, score 0.70, smaller than 24 px"]
    assert changes_of(found[2])["value"] == [0, 1]
    table = changes_of(restored(handlers, photo, [0, 1])[TABLE])["value"]
    assert "left alone<small>a face of 18 px is smaller than 24 px</small>" in table


# --- settings


def test_a_result_is_marked_stale_exactly_while_the_settings_are_not_those_it_was_made_with(
    handlers: Handlers, tmp_path: Path
) -> None:
    name = restored(handlers, photo_at(tmp_path / "a.png", 0, 1), [1, 0])[NAME]

    def is_stale(faces: list[int], **changes: object) -> bool:
        return changes_of(handlers.mark_stale(name, faces, *settings(**changes)))["visible"]

    assert not is_stale([0, 1])
    changes = {
        **{"steps": 3, "fidelity": 0.5, "seed": 1, "upscale": 2, "samples": 2, "change": "full"},
        **{"turn": 90, "detail": "keep", "grain": 0.75, "grayscale": "keep", "color_fix": "mean"},
        **{"pick": "identity", "min_identity": 0.5, "reference": ["b.png"], "uncertainty": True},
    }
    assert {key: is_stale([0, 1], **{key: value}) for key, value in changes.items()} == dict.fromkeys(changes, True)
    assert is_stale([0])
    assert is_stale([])
    assert is_stale([0, 1], seed=None)  # impossible
    assert not changes_of(handlers.mark_stale("", [0, 1], *settings(seed=1)))["visible"]  # there is no result


def test_every_setting_of_the_page_reaches_the_restoration(handlers: Handlers, tmp_path: Path) -> None:
    wanted = {
        **{"steps": 3, "fidelity": 0.25, "seed": 5, "upscale": 2, "samples": 2},
        **{"change": "full", "turn": 0, "detail": "clean", "grain": 0.75, "grayscale": "keep", "color_fix": "none"},
        **{"pick": "median", "uncertainty": True},
    }
    name = restored(handlers, photo_at(tmp_path / "a.png", 0), [0], **wanted)[NAME]
    named = handlers.store.get(name).restoration.request.named()
    assert {key: named[key] for key in wanted} == wanted
    for needy in ({"min_identity": 0.5}, {"reference": [str(tmp_path / "a.png")]}, {"pick": "identity", "samples": 2}):
        with pytest.raises(gr.Error, match="needs the identity network"):
            restored(handlers, tmp_path / "a.png", [0], **needy)
    with pytest.raises(gr.Error, match="at least 2 samples"):
        restored(handlers, tmp_path / "a.png", [0], uncertainty=True)


def test_the_samples_of_a_face_give_a_map_of_where_they_differ(handlers: Handlers, tmp_path: Path) -> None:
    photo = photo_at(tmp_path / "a.png", 0, 1)
    assert changes_of(restored(handlers, photo, [0], samples=3)[MAP])["value"] == ""
    updates = restored(handlers, photo, [0], samples=3, uncertainty=True, change="full")
    [path] = pictures(changes_of(updates[MAP])["value"])
    white = np.asarray(Image.open(path))
    assert white[FACE // 2, FACE // 2] > 100
    assert not white[:, FACE + 8 :].any()


# --- reference photographs


@pytest.fixture
def with_identity(work: Work, handlers: Handlers) -> Handlers:
    torch.manual_seed(0)
    work.page_service.identity = IdentityNet(MobileFaceNet().eval())
    return handlers


def test_the_person_of_the_reference_photographs_is_compared_with_and_read_once(
    with_identity: Handlers, tmp_path: Path
) -> None:
    photo = photo_at(tmp_path / "a.png", 0)
    alone, crowd = photo_at(tmp_path / "alone.png", 1), photo_at(tmp_path / "crowd.png", 1, 2)
    wanted = {"reference": [str(alone), str(crowd)], "min_identity": 1.0}
    updates = restored(with_identity, photo, [0], **wanted)
    table = changes_of(updates[TABLE])["value"]
    assert "<small>reference " in table
    assert "identity to the reference" in table  # why the face stays
    assert "1 reference photograph was used; not used: crowd.png: 2 faces" in table
    assert ", to the reference " in changes_of(updates[USED])["choices"][1][0]
    alone.unlink()
    restored(with_identity, photo, [0], **wanted)

    with pytest.raises(gr.Error, match=r"crowd\.png: no photograph here shows one person alone") as refused:
        restored(with_identity, photo, [0], reference=[str(crowd)])
    assert str(tmp_path) not in str(refused.value) + table
    with pytest.raises(gr.Error, match="a list of 1 to 8 photographs"):
        restored(with_identity, photo, [0], reference=[str(crowd)] * 9)


def test_a_reference_photograph_beyond_the_limits_is_not_decoded(with_identity: Handlers, tmp_path: Path) -> None:
    Image.new("1", (400, 300)).save(tmp_path / "large.png")
    with pytest.raises(gr.Error, match=r"0\.1 megapixels"):
        restored(with_identity, photo_at(tmp_path / "a.png", 0), [0], reference=[str(tmp_path / "large.png")])


def test_the_interface_takes_uploads_alone_as_reference_photographs(tmp_path: Path, with_identity: Handlers) -> None:
    uploads = tmp_path / "cache"
    (uploads / "results").mkdir(parents=True)
    endpoints = Endpoints(replace(with_identity.work, results=uploads / "results"))
    photo, upload, secret = (photo_at(path / "a.png", 1) for path in (uploads, uploads / "results", tmp_path))

    def answer(reference: object) -> dict[str, Any]:
        settings = {"reference": reference, "samples": 2, "uncertainty": True}
        files, answer = endpoints.restore(str(photo), settings, ME, gr.Progress())
        assert [Path(file).name for file in files] == ["a_restored.png", "a_restored.uncertainty.png"]
        return answer

    one = answer([{"path": str(upload)}])
    assert one["faces"][0]["reference"] > 0.5
    assert one["reference_faces"]["num_faces"] == 1
    assert one["settings"]["reference"] == ["a.png"]
    assert str(tmp_path) not in json.dumps(one)
    for name in ([str(upload)], str(upload), {"path": str(secret)}, [{"path": str(secret)}], [{}], [None], 3):
        with pytest.raises(gr.Error, match="upload the photographs"):
            answer(name)
    with pytest.raises(gr.Error, match="upload the photographs"):
        answer([{"path": f"{uploads}/../a.png"}])


# --- several photographs


def test_several_photographs_come_back_in_a_zip_and_one_that_is_none_does_not_stop_the_others(
    work: Work, handlers: Handlers, tmp_path: Path
) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    photos = [photo_at(tmp_path / "one" / "a.png", 0), photo_at(tmp_path / "two" / "a.png", 1, 2)]
    Image.open(photos[0]).save(tmp_path / "c.jpg")
    (tmp_path / "notes.png").write_text("no picture")
    Image.new("RGB", (FACE, FACE)).save(tmp_path / "none.png")
    files = [*photos, tmp_path / "c.jpg", tmp_path / "notes.png", tmp_path / "none.png"]
    summary, download = BatchHandlers(work).restore([str(file) for file in files], ME, gr.Progress(), *settings(seed=3))
    with zipfile.ZipFile(changes_of(download)["value"]) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["a (2).png", "a.png", "c.jpg", "none.png", "status.json"]
        status = json.loads(archive.read("status.json"))
        with archive.open("a (2).png") as file:
            result = np.asarray(Image.open(file))
    assert np.array_equal(result, pixels(restored(handlers, photos[1], [0, 1], seed=3)))
    assert status["settings"]["seed"] == 3
    states = {name: entry["state"] for name, entry in status["files"].items()}
    assert states == {
        **{"a.png": "restored", "a (2).png": "restored", "c.jpg": "restored"},
        **{"notes.png": "failed", "none.png": "no face"},
    }
    assert "notes.png: is not an image of a known kind" in status["files"]["notes.png"]["error"]
    assert str(tmp_path) not in json.dumps(status)
    text = changes_of(summary)["value"]
    assert "2 of 3 restored<small>2: left alone, a face of 18 px is smaller than 24 px</small>" in text
    assert len(re.findall("<tr>", text)) == 1 + len(files)
    assert [path.name for path in Path(changes_of(download)["value"]).parent.iterdir()] == ["restored.zip"]


def test_a_cancelled_batch_stops_at_once_and_leaves_nothing(work: Work, tmp_path: Path) -> None:
    class CancelsItself(Paints):
        num_faces = 0

        def restore(self, lq, seeds):
            self.num_faces += len(lq)
            work.cancel(ME)
            return super().restore(lq, seeds)

    painter = work.page_service.restorers["paints"] = CancelsItself()
    files = [str(photo_at(tmp_path / f"{n}.png", n, n + 1)) for n in range(3)]
    with pytest.raises(gr.Error, match="cancelled"):
        BatchHandlers(work).restore(files, ME, gr.Progress(), *settings())
    assert painter.num_faces == 1
    assert list(work.results.iterdir()) == []


def test_a_message_has_all_its_characters(handlers: Handlers, tmp_path: Path) -> None:
    for file in (None, tmp_path / "a.png"):
        with pytest.raises(gr.Error, match=r"must lie in 0\.\.1, got 7" if file else "choose a photograph first"):
            handlers.restore(file and str(photo_at(file, 0)), [0], ME, gr.Progress(), *settings(fidelity=7))


def test_a_batch_of_nothing_is_refused(work: Work) -> None:
    with pytest.raises(gr.Error, match="choose photographs first"):
        BatchHandlers(work).restore(None, ME, gr.Progress(), *settings())
