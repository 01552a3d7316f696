"""Whatever bytes come in: a Picture or an ImageError that names the file, and nothing is written."""

import io
import re
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from idm.io import images
from idm.io.find import find_images
from idm.io.image_writer import write_image
from idm.io.images import ImageError, Picture, decode_image, read_image
from idm.io.photos import Photo, read_photo


def encoded() -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    colour = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (12, 16), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112] = 6
    pictures = {
        "PNG": (colour.convert("RGBA"), {"exif": exif}),
        "PNG palette": (colour.quantize(8), {"transparency": 3}),
        "PNG 16": (deep, {}),
        "JPEG": (colour, {"exif": exif, "quality": 90}),
        "JPEG CMYK": (colour.convert("CMYK"), {"progressive": True}),
        "WEBP": (colour, {}),
        "TIFF": (colour, {"compression": "tiff_lzw"}),
        "TIFF F": (Image.fromarray(rng.random((4, 5), np.float32)), {}),
        "GIF": (colour, {}),
        "BMP": (colour, {}),
        "PPM": (colour, {}),
        "JPEG2000": (colour, {}),
        "AVIF": (colour, {}),
    }
    colour_16 = rng.integers(0, 65536, (12, 16, 4), dtype=np.uint16)
    files = {f"{kind} colour 16": cv2.imencode(f".{kind}", colour_16)[1].tobytes() for kind in ("png", "tif")}
    for name, (picture, options) in pictures.items():
        file = io.BytesIO()
        picture.save(file, name.split()[0], **options)
        files[name] = file.getvalue()
    return files


ENCODED = encoded()


def outcome_of(read: Callable[[], Picture | Photo]) -> Picture | Photo | str:
    """The picture or the error's message; any other exception is a failure."""
    try:
        return read()
    except ImageError as error:
        return str(error)


def check(data: bytes) -> None:
    # damaged headers can claim any size: the bound keeps this test small
    with (
        mock.patch.object(images, "MAX_PIXELS", 100_000),
        warnings.catch_warnings(),
        tempfile.TemporaryDirectory() as folder,
    ):
        warnings.simplefilter("ignore")
        path = Path(folder, "name.png")
        path.write_bytes(data)
        outcomes = [outcome_of(lambda: decode_image(data, "some/name.png")), outcome_of(lambda: read_photo(path))]
    for outcome in outcomes:
        if isinstance(outcome, Picture):
            assert min(outcome.rgb.shape) >= 1
        elif isinstance(outcome, Photo):
            assert min(outcome.pixels.shape) >= 1
        else:
            assert re.match(".*/name.png: .*; .", outcome, re.DOTALL)


def test_the_undamaged_files_all_decode() -> None:
    for name, data in ENCODED.items():
        assert decode_image(data, name).rgb.shape[2] == 3


@given(st.sampled_from(sorted(ENCODED)), st.floats(0, 1, exclude_max=True))
@settings(max_examples=300)
def test_a_truncated_file_is_a_picture_or_an_image_error(name: str, fraction: float) -> None:
    data = ENCODED[name]
    check(data[: int(fraction * len(data))])


@given(
    st.sampled_from(sorted(ENCODED)),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=12),
)
@settings(max_examples=400)
def test_a_damaged_file_is_a_picture_or_an_image_error(name: str, damage: list[tuple[float, int]]) -> None:
    data = bytearray(ENCODED[name])
    for fraction, value in damage:
        # squared: headers and directories, where damage bites, lie in front
        data[int(fraction**2 * len(data))] = value
    check(bytes(data))


@given(st.sampled_from([b"", *(data[:16] for data in ENCODED.values())]), st.binary(max_size=200))
@settings(max_examples=200)
def test_random_bytes_behind_any_signature_are_a_picture_or_an_image_error(start: bytes, rest: bytes) -> None:
    check(start + rest)


@given(st.sampled_from(sorted(ENCODED)), st.floats(0, 1))
@settings(max_examples=30)
def test_reading_a_broken_file_writes_nothing(name: str, fraction: float) -> None:
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "a.png")
        data = ENCODED[name][: int(fraction * len(ENCODED[name]))]
        path.write_bytes(data)
        outcome = outcome_of(lambda: read_image(path))
        assert isinstance(outcome, Picture) or outcome.startswith(f"{path}: ")
        assert [*Path(folder).iterdir()] == [path]
        assert path.read_bytes() == data


shapes = hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_any_picture_survives_a_lossless_file(data: st.DataObject) -> None:
    shape = data.draw(shapes)
    rgb = data.draw(hnp.arrays(np.uint8, (*shape, 3)))
    alpha = data.draw(st.none() | hnp.arrays(np.uint8, shape))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a" + data.draw(st.sampled_from([".png", ".tif"])))
        write_image(path, rgb, alpha)
        picture = read_image(path)
    np.testing.assert_array_equal(picture.rgb, rgb)
    np.testing.assert_array_equal(picture.alpha, alpha)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=8, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_a_folder_is_listed_in_one_order_however_it_was_filled(stems: list[str], random: object) -> None:
    listed = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            for stem in stems:
                Path(folder, f"p{stem}.png").touch()
            random.shuffle(stems)  # type: ignore[attr-defined]
            listed.append([path.name for path in find_images([Path(folder)])])
    assert listed[0] == listed[1]
    assert sorted(listed[0]) == sorted(f"p{stem}.png" for stem in stems)
