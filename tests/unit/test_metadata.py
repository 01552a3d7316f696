"""Pixels before metadata: what decodes is restored, and what else cannot be kept is named."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idm.io.images import ImageError, read_image
from idm.io.photo_writer import write_photo
from idm.io.photos import Photo, read_photo

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(*chunks: bytes, last: bool = False) -> bytes:
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    data = file.getvalue()
    place = len(data) - 12 if last else 33  # before IEND, or after IHDR
    return data[:place] + b"".join(chunks) + data[place:]


def bomb(keyword: bytes) -> bytes:
    return keyword + b"\0\0" + zlib.compress(bytes(64 << 20), 9)


ODD = {
    "garbage eXIf": png_with(chunk(b"eXIf", b"\x07garbage" * 9)),
    "garbage eXIf at the end": png_with(chunk(b"eXIf", b"MM\0\x2a\xff\xff\xff\xff\xff"), last=True),
    "orientation of a wrong type": png_with(
        chunk(b"eXIf", b"MM\0\x2a\0\0\0\x08\0\1\x01\x12\0\2\0\0\0\2ab\0\0\0\0\0\0")
    ),
    "large zTXt": png_with(chunk(b"zTXt", bomb(b"a"))),
    "large iCCP": png_with(chunk(b"iCCP", bomb(b"a"))),
    "wrong checksum of a text": png_with(chunk(b"tEXt", b"a\0b")[:-1] + b"!"),
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_metadata_cost_no_pixels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(ODD[kind])
    photo = read_photo(path)
    np.testing.assert_array_equal(photo.pixels, PIXELS)
    np.testing.assert_array_equal(read_image(path).rgb, PIXELS)
    write_photo(tmp_path / "b.png", photo)
    np.testing.assert_array_equal(read_photo(tmp_path / "b.png").pixels, PIXELS)


@pytest.mark.parametrize("kind", ["large zTXt", "wrong checksum of a text"])
def test_what_was_dropped_on_reading_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.png").write_bytes(ODD[kind])
    (dropped,) = read_photo(tmp_path / "a.png").dropped
    assert dropped.startswith("everything but the pixels (")


def test_damaged_pixels_are_an_image_error_with_or_without_metadata(tmp_path: Path) -> None:
    data = bytearray(png_with(chunk(b"zTXt", bomb(b"a"))))
    place = data.index(b"IDAT") + 20
    data[place : place + 40] = bytes(40)
    (tmp_path / "a.png").write_bytes(bytes(data))
    with pytest.raises(ImageError, match=r"a\.png: is broken"):
        read_photo(tmp_path / "a.png")


def test_a_colour_profile_of_more_than_a_megabyte_is_kept(tmp_path: Path) -> None:
    profile = bytes(16) + b"RGB " + np.random.default_rng(0).bytes(1_500_000)
    write_photo(tmp_path / "a.png", Photo(PIXELS, icc_profile=profile))
    assert read_photo(tmp_path / "a.png").icc_profile == profile


def test_what_a_format_cannot_hold_is_left_out_and_named(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010E] = "x" * 70_000  # 64 kB are all that a JPEG segment holds
    xmp = b"<x:xmpmeta/>"
    photo = Photo(PIXELS, exif=exif.tobytes(), xmp=xmp)
    (left_out,) = write_photo(tmp_path / "a.jpg", photo)
    assert left_out.startswith("exif (")
    back = read_photo(tmp_path / "a.jpg")
    assert back.pixels.shape == PIXELS.shape
    assert back.xmp == xmp
    assert write_photo(tmp_path / "a.png", photo) == []
    assert write_photo(tmp_path / "b.png", Photo(PIXELS, exif=b"Exif\0\0garbage")) != []
