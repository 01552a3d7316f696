"""What a photographer wants kept is kept: depth, greys, transparency, profile, EXIF, and which way is up."""

import io
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.color
from PIL import ExifTags, Image, ImageCms, ImageOps, IptcImagePlugin, TiffImagePlugin

from idm.faces.colour import has_one_tint
from idm.io.images import ImageError
from idm.io.metadata import iptc_segment
from idm.io.photo_writer import write_photo
from idm.io.photos import Photo, looks_grey, read_photo

RNG = np.random.default_rng(0)
COLOUR8 = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
COLOUR16 = RNG.integers(0, 65536, (20, 30, 3), dtype=np.uint16)
ALPHA8, ALPHA16 = COLOUR8[..., 1].copy(), COLOUR16[..., 1].copy()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GREY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]  # as far as a header goes


def exif_of(orientation: int = 1) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    exif[ExifTags.Base.Make] = "a camera"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.ExifImageWidth] = 30
    details[ExifTags.Base.ExifImageHeight] = 20
    details[ExifTags.Base.DateTimeOriginal] = "1969:07:20 20:17:40"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] = "N"
    return exif


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


@pytest.mark.parametrize("profile", [None, SRGB], ids=["plain", "profile"])
@pytest.mark.parametrize("exif", [None, exif_of().tobytes()], ids=["", "exif"])
@pytest.mark.parametrize(
    "photo",
    [
        Photo(COLOUR8),
        Photo(COLOUR8, ALPHA8),
        Photo(grey(ALPHA8), is_grey=True),
        Photo(grey(ALPHA8), ALPHA8[::-1].copy(), is_grey=True),
        Photo(COLOUR16),
        Photo(COLOUR16, ALPHA16),
        Photo(grey(ALPHA16), is_grey=True),
        Photo(grey(ALPHA16), ALPHA16[::-1].copy(), is_grey=True),
    ],
    ids=["rgb", "rgba", "grey", "grey-alpha", "rgb16", "rgba16", "grey16", "grey-alpha16"],
)
def test_every_kind_of_photograph_survives_a_png(
    tmp_path: Path, photo: Photo, exif: bytes | None, profile: bytes | None
) -> None:
    if profile is not None and photo.is_grey:
        profile = GREY_PROFILE
    path = tmp_path / "a.png"
    write_photo(path, Photo(photo.pixels, photo.alpha, photo.is_grey, profile, exif))
    back = read_photo(path)
    assert back.pixels.dtype == photo.pixels.dtype
    np.testing.assert_array_equal(back.pixels, photo.pixels)
    np.testing.assert_array_equal(back.alpha, photo.alpha)
    assert (back.is_grey, back.icc_profile, back.exif) == (photo.is_grey, profile, exif)
    assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).dtype == photo.pixels.dtype  # others can read it too


def test_others_agree_on_the_levels_of_a_deep_file(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", Photo(COLOUR16, ALPHA16))
    by_opencv = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(by_opencv, np.dstack([COLOUR16[..., ::-1], ALPHA16]))


def test_a_deep_tiff_is_read_in_full_and_keeps_no_tags_of_its_storage(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.tif"), COLOUR16[..., ::-1])
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, COLOUR16)
    exif = Image.Exif()
    exif.load(photo.exif or b"")
    assert not {256, 257, 258, 273, 277, 279} & set(exif)


def test_floating_point_grey_becomes_sixteen_bits(tmp_path: Path) -> None:
    values = np.array([[0, 0.5, 1]], np.float32)
    Image.fromarray(values).save(tmp_path / "a.tif")
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels[..., 0], [[0, 32768, 65535]])
    Image.fromarray(values * 2).save(tmp_path / "b.tif")
    with pytest.raises(ImageError, match="outside 0"):
        read_photo(tmp_path / "b.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_photographs_are_upright_and_their_orientation_tag_is_1(tmp_path: Path, orientation: int, deep: bool) -> None:
    path = tmp_path / "a.png"
    pixels = COLOUR8 if not deep else COLOUR8.astype(np.uint16) * 257
    write_photo(path, Photo(pixels, exif=exif_of(orientation).tobytes()))
    photo = read_photo(path)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(photo.pixels // (257 if deep else 1), expected)
    exif = Image.Exif()
    exif.load(photo.exif or b"")
    assert exif[ExifTags.Base.Orientation] == 1


def test_exif_keeps_camera_time_and_place_and_gets_the_new_size(tmp_path: Path) -> None:
    Image.fromarray(COLOUR8).save(tmp_path / "a.jpg", exif=exif_of(6), icc_profile=SRGB)
    photo = read_photo(tmp_path / "a.jpg")
    larger = np.repeat(np.repeat(photo.pixels, 2, axis=0), 2, axis=1)
    write_photo(tmp_path / "b.jpg", Photo(larger, icc_profile=photo.icc_profile, exif=photo.exif))
    with Image.open(tmp_path / "b.jpg") as image:
        exif = image.getexif()
        assert image.info["icc_profile"] == SRGB
        assert image.size == (40, 60)
    assert exif[ExifTags.Base.Make] == "a camera"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    assert details[ExifTags.Base.DateTimeOriginal] == "1969:07:20 20:17:40"
    assert (details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight]) == (40, 60)
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitudeRef] == "N"


XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/>'
    b"<tiff:Orientation>6</tiff:Orientation><dc:title>\xc3\x9crgro\xc3\x9fmutter</dc:title></x:xmpmeta>"
)


@pytest.mark.parametrize(
    ("name", "pixels", "holds_dpi"),
    [("a.jpg", COLOUR8, True), ("a.webp", COLOUR8, False), ("a.png", COLOUR8, True), ("b.png", COLOUR16, True)],
    ids=["jpeg", "webp", "png", "png16"],
)
def test_titles_and_the_size_on_paper_are_kept_where_others_find_them(
    tmp_path: Path, name: str, pixels: np.ndarray, holds_dpi: bool
) -> None:
    path = tmp_path / name
    write_photo(path, Photo(pixels, xmp=XMP, dpi=(300.0, 600.0)))
    with Image.open(path) as image:
        image.load()
        assert image.info["xmp"] == XMP
        assert not holds_dpi or image.info["dpi"] == pytest.approx((300, 600), abs=0.01)
    back = read_photo(path)
    assert back.xmp == XMP.replace(b"6", b"1")  # upright, as the pixels now are
    assert back.pixels.shape == (30, 20, 3)
    write_photo(path, back)
    again = read_photo(path)
    assert again.xmp == back.xmp
    assert again.pixels.shape == (30, 20, 3)
    assert again.dpi == back.dpi


def test_a_scan_as_tiff_keeps_both_too_and_a_resolution_that_is_none_is_dropped(tmp_path: Path) -> None:
    Image.fromarray(COLOUR8).save(tmp_path / "a.tif", dpi=(1200, 1200), tiffinfo={700: XMP})
    photo = read_photo(tmp_path / "a.tif")
    assert photo.dpi == (1200, 1200)
    assert photo.xmp is not None
    assert b"mutter</dc:title>" in photo.xmp
    assert b"6" not in photo.xmp  # PIL turns a TIFF upright and takes the orientation out of it
    for dpi in ((1, 1), (0, 0), (70000, 300)):
        Image.fromarray(COLOUR8).save(tmp_path / "b.png", dpi=dpi)
        assert read_photo(tmp_path / "b.png").dpi is None
    plain = read_photo(tmp_path / "b.png")
    for suffix in (".png", ".jpg"):
        write_photo(tmp_path / f"c{suffix}", plain)
        with Image.open(tmp_path / f"c{suffix}") as image:
            assert not {"xmp", "dpi"} & set(image.info)


def test_a_grey_jpeg_stays_one_and_a_cmyk_one_becomes_colour(tmp_path: Path) -> None:
    Image.fromarray(ALPHA8).save(tmp_path / "grey.jpg")
    photo = read_photo(tmp_path / "grey.jpg")
    assert photo.is_grey
    write_photo(tmp_path / "b.jpg", photo)
    assert Image.open(tmp_path / "b.jpg").mode == "L"
    Image.fromarray(COLOUR8).convert("CMYK").save(tmp_path / "cmyk.jpg", icc_profile=SRGB)
    photo = read_photo(tmp_path / "cmyk.jpg")
    assert not photo.is_grey
    assert photo.icc_profile == SRGB  # by its header for RGB; one for CMYK would be dropped


def cmyk_profile(lightness: int) -> bytes:
    """An ICC profile (ICC.1:2001-04, lut8Type) in which any full ink has this L*, of 255, and no colour."""
    corners = np.full((16, 3), (lightness, 128, 128), np.uint8)
    corners[0, 0] = 255  # no ink
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * value for value in (1, 0, 0, 0, 1, 0, 0, 0, 1)))
    table = b"mft1" + bytes([0, 0, 0, 0, 4, 3, 2, 0]) + identity + 4 * ramp + corners.tobytes() + 3 * ramp
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    header = struct.pack(">I4sI4s4s4s12s4s", 144 + len(table), b"", 0x02400000, b"prtr", b"CMYK", b"Lab ", b"", b"acsp")
    white = struct.pack(">3i", 63190, 65536, 54061)  # D50
    return (header.ljust(68, b"\0") + white).ljust(128, b"\0") + tags + table


def test_cmyk_becomes_srgb_by_its_profile(tmp_path: Path) -> None:
    inks = Image.new("CMYK", (32, 16))
    inks.paste((255, 0, 0, 0), (16, 0, 32, 16))
    inks.save(tmp_path / "a.tif", icc_profile=cmyk_profile(150))
    photo = read_photo(tmp_path / "a.tif")
    assert photo.icc_profile is None
    assert photo.dropped == ()
    lightness = np.array([[[100.0, 0, 0], [100 * 150 / 255, 0, 0]]])
    np.testing.assert_allclose(photo.pixels[8, [4, 28]] / 255, skimage.color.lab2rgb(lightness)[0], atol=0.01)
    inks.save(tmp_path / "b.tif", icc_profile=cmyk_profile(150)[:200])
    photo = read_photo(tmp_path / "b.tif")
    np.testing.assert_array_equal(photo.pixels[8, [4, 28]], [[255, 255, 255], [0, 255, 255]])
    assert "the CMYK profile" in photo.dropped[0]


IPTC = b"\x1c\x02\x50\x00\x0ca photograph"  # IPTC-IIM 4.2, dataset 2:80, by-line


def test_iptc_is_kept_in_jpeg_and_named_as_lost_elsewhere(tmp_path: Path) -> None:
    Image.fromarray(COLOUR8).save(tmp_path / "a.jpg", extra=iptc_segment(IPTC))
    photo = read_photo(tmp_path / "a.jpg")
    assert photo.iptc == IPTC
    assert write_photo(tmp_path / "b.jpg", photo) == []
    with Image.open(tmp_path / "b.jpg") as written:
        assert IptcImagePlugin.getiptcinfo(written) == {(2, 80): IPTC[5:]}
    assert write_photo(tmp_path / "b.png", photo) == ["iptc (only JPEG holds IPTC here)"]
    assert read_photo(tmp_path / "b.png").iptc is None
    long = replace(photo, iptc=bytes(65536))
    assert write_photo(tmp_path / "c.jpg", long) == ["iptc (IPTC data is too long)"]


def test_iptc_of_a_tiff_is_read(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33723] = IPTC
    tags.tagtype[33723] = 7
    Image.fromarray(COLOUR8).save(tmp_path / "a.tif", tiffinfo=tags)
    assert read_photo(tmp_path / "a.tif").iptc == IPTC


def test_a_clear_grey_of_sixteen_bits_is_transparent(tmp_path: Path) -> None:
    values = np.array([[7, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png", transparency=7)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png").alpha, [[0, 65535]])


def test_webp_keeps_alpha_and_exif(tmp_path: Path) -> None:
    smooth = np.full((32, 32, 3), 120, np.uint8)
    write_photo(tmp_path / "a.webp", Photo(smooth, ALPHA8[:32, :32].repeat(2, 0)[:32, :32].repeat(2, 1)[:, :32],
                                           exif=exif_of().tobytes(), icc_profile=SRGB))  # fmt: skip
    back = read_photo(tmp_path / "a.webp")
    assert back.alpha is not None
    assert back.icc_profile == SRGB
    assert back.exif is not None


@pytest.mark.parametrize(
    ("name", "photo", "message"),
    [
        ("a.tif", Photo(COLOUR8), "cannot write the suffix"),
        ("a.jpg", Photo(COLOUR16), "only PNG holds 16 bits"),
        ("a.webp", Photo(COLOUR16), "only PNG holds 16 bits"),
        ("a.jpg", Photo(COLOUR8, ALPHA8), "JPEG cannot hold alpha"),
        ("nowhere/a.png", Photo(COLOUR8), "cannot be written"),
    ],
)
def test_what_cannot_be_written_is_an_error_and_leaves_nothing(
    tmp_path: Path, name: str, photo: Photo, message: str
) -> None:
    with pytest.raises(ImageError, match=message):
        write_photo(tmp_path / name, photo)
    assert list(tmp_path.iterdir()) == []


def test_a_deep_file_cut_short_is_an_image_error(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", Photo(COLOUR16))
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"b\.png: is broken or cut short"):
        read_photo(tmp_path / "b.png")


def test_a_paletted_or_one_bit_picture_becomes_eight_bits(tmp_path: Path) -> None:
    Image.fromarray(COLOUR8).quantize(8).save(tmp_path / "p.png")
    assert read_photo(tmp_path / "p.png").pixels.shape == (20, 30, 3)
    Image.fromarray(ALPHA8).convert("1").save(tmp_path / "1.png")
    photo = read_photo(tmp_path / "1.png")
    assert photo.is_grey
    assert set(np.unique(photo.pixels)) == {0, 255}


def test_the_chunks_of_a_deep_png_carry_right_checksums(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.png", Photo(COLOUR16, icc_profile=SRGB, exif=exif_of().tobytes()))
    file = io.BytesIO((tmp_path / "a.png").read_bytes()[8:])
    kinds = []
    while head := file.read(8):
        length, kind = struct.unpack(">I4s", head)
        assert zlib.crc32(kind + file.read(length)) == struct.unpack(">I", file.read(4))[0]
        kinds.append(kind)
    assert kinds == [b"IHDR", b"iCCP", b"eXIf", b"IDAT", b"IEND"]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_looks_grey_if_its_colours_are_a_scanners_noise(dtype: type) -> None:
    unit = np.iinfo(dtype).max // 255
    flat = grey(RNG.integers(10, 240, (80, 90), dtype=np.uint8)).astype(dtype) * unit
    noise = (RNG.integers(0, 3, flat.shape) * unit).astype(dtype)
    sepia = flat.copy()
    sepia[..., 2] = sepia[..., 2] // 2
    assert looks_grey(flat)
    assert looks_grey(flat + noise)
    assert not looks_grey(sepia)


def toned(luma: np.ndarray, how: str) -> np.ndarray:
    """A print in [0, 1] as a scanner gives it: toned or yellowed, with speckle, saved as JPEG."""
    strips = {
        "grey": [luma, luma, luma],
        "yellowed": [luma, 0.985 * luma, 0.96 * luma],
        "sepia": [luma**0.8, 0.93 * luma, 0.78 * luma**1.2],
        "blueprint": [0.05 + 0.85 * luma, 0.05 + 0.9 * luma, 0.1 + 0.9 * luma],
        "unevenly yellowed": [luma, 0.92 * luma, luma * np.linspace(0.75, 0.85, luma.shape[1])],
    }[how]
    speckle = np.random.default_rng(0).normal(0, 4, (*luma.shape, 3))
    levels = (np.stack(strips, axis=-1) * 255 + speckle).clip(0, 255).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", levels, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize("how", ["grey", "yellowed", "sepia", "blueprint", "unevenly yellowed"])
def test_a_scan_of_a_grey_print_has_one_tint(how: str) -> None:
    from skimage.data import astronaut

    scan = toned(astronaut()[:300, 100:400, 1] / 255, how)
    assert has_one_tint(scan)
    assert has_one_tint(scan.astype(np.uint16) * 257)
    assert looks_grey(scan) == (how == "grey")


def test_a_picture_with_colours_of_its_own_has_no_tint_however_dull_or_monochrome_it_is() -> None:
    from skimage.data import astronaut, chelsea, coffee, rocket

    for picture in (astronaut(), chelsea(), coffee(), rocket()):
        assert not has_one_tint(picture)
    grey = astronaut().mean(axis=2, keepdims=True)
    assert not has_one_tint((grey + 0.5 * (astronaut() - grey)).astype(np.uint8))
    assert has_one_tint(np.zeros((1, 5, 3), np.uint8))


@pytest.mark.parametrize(
    ("name", "what"), [("a.tif", "3 pages"), ("a.gif", "3 frames"), ("a.webp", "3 frames"), ("a.png", "3 frames")]
)
def test_several_pages_and_animations_are_refused_with_their_number(tmp_path: Path, name: str, what: str) -> None:
    frames = [Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match=f"{name}: has {what}, and a photograph has one; save each"):
        read_photo(tmp_path / name)


def test_a_smaller_copy_in_a_tiff_and_a_phones_second_picture_are_not_pages(tmp_path: Path) -> None:
    page, copy = (Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)) for side in (40, 10))
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    page.save(tmp_path / "a.tif", save_all=True, append_images=[copy])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2
    np.testing.assert_array_equal(read_photo(tmp_path / "a.tif").pixels, np.asarray(page))
    page.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[copy])
    assert read_photo(tmp_path / "a.jpg").pixels.shape == (40, 40, 3)


def test_a_further_page_that_cannot_be_read_costs_nothing_and_is_reported(tmp_path: Path) -> None:
    page, second = (Image.fromarray(RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)) for _ in range(2))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    data = bytearray((tmp_path / "a.tif").read_bytes())
    width = data.rindex(bytes([0, 1]), 0, data.rindex(bytes([1, 1, 4, 0])))  # tags 256 and 257 of the second page
    data[width : width + 2] = b"\xff\xff"
    (tmp_path / "a.tif").write_bytes(data)
    photo = read_photo(tmp_path / "a.tif")
    np.testing.assert_array_equal(photo.pixels, np.asarray(page))
    assert photo.dropped == ("a further page (Missing dimensions)",)


def test_heic_is_read_with_its_extra_and_names_it_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "head.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    monkeypatch.setattr("idm.io.images._HAS_HEIF", False)
    with pytest.raises(ImageError, match=r"pillow-heif reads; install it: pip install 'idm-face-restoration\[heic\]'"):
        read_photo(tmp_path / "head.heic")
    monkeypatch.undo()
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.register_heif_opener()
    picture = cv2.GaussianBlur(RNG.integers(0, 256, (64, 96, 3), dtype=np.uint8), (0, 0), 8)
    Image.fromarray(picture).save(tmp_path / "a.heic", quality=95)
    assert np.abs(read_photo(tmp_path / "a.heic").pixels.astype(int) - picture).mean() < 5
