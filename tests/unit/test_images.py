import errno
import io
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from idm.io import images
from idm.io.find import find_images
from idm.io.grid import image_grid
from idm.io.image_writer import write_image
from idm.io.images import ImageError, decode_image, read_image, resize_image

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (5, 7), dtype=np.uint8)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def grey_as_rgb(grey: np.ndarray) -> np.ndarray:
    return np.stack([grey] * 3, axis=-1)


# --- finding


def make_files(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_images_of_a_folder_come_in_natural_order_without_hidden_and_other_files(tmp_path: Path) -> None:
    shuffled = ["b10.PNG", "b9.jpg", "a/c.webp", ".hidden.png", ".git/x.png", "notes.txt", "A2.tif", "b9.bmp"]
    make_files(tmp_path, shuffled)
    (tmp_path / "folder.png").mkdir()
    names = [str(path.relative_to(tmp_path)) for path in find_images([tmp_path])]
    assert names == ["a/c.webp", "A2.tif", "b9.bmp", "b9.jpg", "b10.PNG"]


def test_what_cannot_be_read_in_a_folder_is_an_error_and_not_left_out(tmp_path: Path) -> None:
    make_files(tmp_path, ["in/a.png", "elsewhere/b.png"])
    for name, target in (("gone.png", "nowhere"), ("linked", tmp_path / "elsewhere"), ("loop.png", "loop.png")):
        (tmp_path / "in" / name).symlink_to(target)
        with pytest.raises(ImageError, match=rf"in/{name}: is a link to"):
            find_images([tmp_path / "in"])
        (tmp_path / "in" / name).unlink()
    assert find_images([tmp_path / "in"]) == [tmp_path / "in" / "a.png"]


def test_a_named_file_is_taken_whatever_its_suffix_and_each_file_once(tmp_path: Path) -> None:
    make_files(tmp_path, ["photo", "a.png"])
    inputs = [tmp_path / "photo", tmp_path, tmp_path / "a.png", tmp_path / "photo"]
    assert find_images(inputs) == [tmp_path / "photo", tmp_path / "a.png"]


def test_a_missing_path_and_a_folder_without_images_are_errors(tmp_path: Path) -> None:
    make_files(tmp_path, ["notes.txt"])
    with pytest.raises(ImageError, match=r"^\S+nothing: no such file or folder; check"):
        find_images([tmp_path / "nothing"])
    with pytest.raises(ImageError, match=r"^\S+: no image in this folder \(\.png .*\); name another"):
        find_images([tmp_path])


# --- reading


@pytest.mark.parametrize(
    ("orientation", "stored"),
    [
        (1, COLOUR),
        (2, COLOUR[:, ::-1]),
        (3, COLOUR[::-1, ::-1]),
        (4, COLOUR[::-1]),
        (5, COLOUR.transpose(1, 0, 2)),
        (6, np.rot90(COLOUR)),
        (7, COLOUR.transpose(1, 0, 2)[::-1, ::-1]),
        (8, np.rot90(COLOUR, -1)),
    ],
)
def test_every_exif_orientation_is_turned_upright(orientation: int, stored: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(decode_image(data, "x").rgb, COLOUR)


def test_a_turned_picture_turns_its_alpha_and_deep_grey_too() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rgba = np.rot90(np.dstack([COLOUR, ALPHA])).copy()
    picture = decode_image(encode(Image.fromarray(rgba), exif=exif), "x")
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    deep = np.rot90(GREY.astype(np.uint16) * 257).copy()
    picture = decode_image(encode(Image.fromarray(deep), exif=exif), "x")
    np.testing.assert_array_equal(picture.rgb, grey_as_rgb(GREY))


def test_grey_becomes_rgb_and_grey_with_alpha_keeps_it() -> None:
    grey = decode_image(encode(Image.fromarray(GREY)), "x")
    np.testing.assert_array_equal(grey.rgb, grey_as_rgb(GREY))
    assert grey.alpha is None
    both = Image.merge("LA", (Image.fromarray(GREY), Image.fromarray(ALPHA)))
    picture = decode_image(encode(both), "x")
    np.testing.assert_array_equal(picture.rgb, grey_as_rgb(GREY))
    np.testing.assert_array_equal(picture.alpha, ALPHA)


def test_colours_under_clear_pixels_survive() -> None:
    rgba = np.dstack([COLOUR, np.zeros_like(ALPHA)])
    picture = decode_image(encode(Image.fromarray(rgba)), "x")
    np.testing.assert_array_equal(picture.rgb, COLOUR)
    assert picture.alpha is not None
    assert not picture.alpha.any()


@pytest.mark.parametrize(("transparency", "alpha"), [(1, [255, 0, 255]), (b"\xff\x80\x00", [255, 128, 0])])
def test_a_palette_is_looked_up_with_its_transparency(transparency: int | bytes, alpha: list[int]) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8))
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    opaque = decode_image(encode(palette), "x")
    np.testing.assert_array_equal(opaque.rgb[0], np.eye(3, dtype=np.uint8) * 255)
    assert opaque.alpha is None
    clear = decode_image(encode(palette, transparency=transparency), "x")
    np.testing.assert_array_equal(clear.rgb[0], np.eye(3, dtype=np.uint8) * 255)
    np.testing.assert_array_equal(clear.alpha, [alpha])


def test_every_16_bit_grey_level_goes_to_the_nearest_8_bit_level() -> None:
    levels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    nearest = np.rint(levels / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        picture = decode_image(encode(Image.fromarray(levels), kind), "x")
        np.testing.assert_array_equal(picture.rgb, grey_as_rgb(nearest))
    header = b"P5 256 256 65535\n"  # PIL reads a deep PGM as 32-bit integers
    pgm = decode_image(header + levels.astype(">u2").tobytes(), "x")
    np.testing.assert_array_equal(pgm.rgb, grey_as_rgb(nearest))


def test_a_dark_16_bit_picture_is_not_taken_for_an_8_bit_one() -> None:
    levels = np.full((4, 4), 200, np.uint16)
    assert decode_image(encode(Image.fromarray(levels)), "x").rgb.max() == 1


def test_the_clear_level_of_16_bit_grey_becomes_alpha() -> None:
    levels = np.array([[0, 1000, 1001]], np.uint16)
    picture = decode_image(encode(Image.fromarray(levels), transparency=1000), "x")
    np.testing.assert_array_equal(picture.alpha, [[255, 0, 255]])


def test_integer_grey_outside_16_bits_and_float_grey_outside_0_to_1_are_errors() -> None:
    for values in ([[0, 65536]], [[-1, 5]]):
        with pytest.raises(ImageError, match=r"^x: has grey values .* outside 0..65535; convert"):
            decode_image(encode(Image.fromarray(np.array(values, np.int32)), "TIFF"), "x")
    good = np.array([[0, 0.5, 1]], np.float32)
    picture = decode_image(encode(Image.fromarray(good), "TIFF"), "x")
    np.testing.assert_array_equal(picture.rgb[0, :, 0], [0, 128, 255])
    for bad in (255.0, -0.1, np.nan):
        values = np.array([[0, bad]], np.float32)
        with pytest.raises(ImageError, match=r"^x: has floating-point values .*; rescale"):
            decode_image(encode(Image.fromarray(values), "TIFF"), "x")


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(GREY > 127)
    assert bits.mode == "1"
    picture = decode_image(encode(bits), "x")
    np.testing.assert_array_equal(picture.rgb, grey_as_rgb(np.where(GREY > 127, 255, 0).astype(np.uint8)))


def test_cmyk_jpegs_have_the_right_colours_and_lose_their_profile() -> None:
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    profile = SRGB[:16] + b"CMYK" + SRGB[20:]
    picture = decode_image(encode(red, "JPEG", quality=100, icc_profile=profile), "x")
    assert np.abs(picture.rgb.astype(int) - [255, 0, 0]).max() <= 3
    assert picture.icc_profile is None


def test_an_rgb_profile_is_kept_and_a_grey_one_is_not() -> None:
    assert decode_image(encode(Image.fromarray(COLOUR), icc_profile=SRGB), "x").icc_profile == SRGB
    grey_profile = SRGB[:16] + b"GRAY" + SRGB[20:]
    assert decode_image(encode(Image.fromarray(GREY), icc_profile=grey_profile), "x").icc_profile is None


@pytest.mark.parametrize("kind", ["MPO", "GIF", "PNG"])
def test_of_several_frames_the_first_is_read(kind: str) -> None:
    black, white = Image.new("RGB", (16, 16)), Image.new("RGB", (16, 16), "white")
    data = encode(black, kind, save_all=True, append_images=[white])
    np.testing.assert_array_equal(decode_image(data, "x").rgb, np.zeros((16, 16, 3)))


def test_a_unicode_path_with_spaces_reads(tmp_path: Path) -> None:
    path = tmp_path / "жена и дочь 家族.png"
    write_image(path, COLOUR)
    np.testing.assert_array_equal(read_image(path).rgb, COLOUR)


def png_claiming(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 2, 0, 0, 0])
    data = chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + data + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_decompression_bomb_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    for width in (15_000, 60_000):  # where PIL would warn, where PIL would refuse
        with pytest.raises(ImageError, match=r"^x: is too large \(.*limit is 200 megapixels\); shrink"):
            decode_image(png_claiming(width, 14_000), "x")
    monkeypatch.setattr(images, "MAX_PIXELS", 35)
    decode_image(encode(Image.fromarray(COLOUR)), "x")
    monkeypatch.setattr(images, "MAX_PIXELS", 34)
    with pytest.raises(ImageError, match="too large"):
        decode_image(encode(Image.fromarray(COLOUR)), "x")


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_pils_own_lower_bounds_do_not_stand_in_the_way() -> None:
    for width in (7_000, 14_000):  # 98 and 196 megapixels: PIL by itself warns of the one, refuses the other
        with pytest.raises(ImageError, match="is broken or cut short"):
            decode_image(png_claiming(width, 14_000), "x")


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
def test_a_bomb_warning_made_an_error_by_the_caller_reads_the_same() -> None:
    with pytest.raises(ImageError, match=r"^x: is too large"):
        decode_image(png_claiming(15_000, 14_000), "x")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty; copy"),
        (b"hello, I am a text file", r"is not an image of a known kind \(.*\); convert it to PNG"),
        (EPS, "is not an image of a known kind"),
        (encode(Image.fromarray(COLOUR))[:-30], "is broken or cut short"),
        (encode(Image.fromarray(np.tile(COLOUR, (20, 20, 1))), "JPEG")[:-300], "is broken or cut short"),
        (png_claiming(100, 100), "is broken or cut short"),
        (png_claiming(0, 100), "(is broken|has no pixels|is not an image)"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_clear_error(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=f"^{path}: {message}"):
        read_image(path)


def test_a_missing_file_a_folder_and_a_pipe_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=f"^{tmp_path}/no.png: no such file"):
        read_image(tmp_path / "no.png")
    with pytest.raises(ImageError, match=f"^{tmp_path}: is a folder"):
        read_image(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="is not a regular file"):
        read_image(tmp_path / "pipe")


def test_a_file_that_may_not_be_opened_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    write_image(tmp_path / "a.png", COLOUR)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"a\.png: cannot be read \(Permission denied\); check"):
        read_image(tmp_path / "a.png")


# --- writing


@pytest.mark.parametrize("suffix", [".png", ".tif", ".TIFF"])
@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_lossless_files_come_back_with_pixels_alpha_and_profile(
    tmp_path: Path, suffix: str, alpha: np.ndarray | None
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, COLOUR, alpha, SRGB)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.rgb, COLOUR)
    np.testing.assert_array_equal(picture.alpha, alpha)
    assert picture.icc_profile == SRGB


def test_lossy_files_are_close_and_better_with_more_quality(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    rgb = np.dstack(np.broadcast_arrays(ramp[:, None], ramp[None], ramp[::-1, None]))
    for name in ("a.jpg", "a.JPEG", "a.webp"):
        errors = []
        for quality in (20, 95):
            write_image(tmp_path / name, rgb, icc_profile=SRGB, quality=quality)
            picture = read_image(tmp_path / name)
            assert picture.icc_profile == SRGB
            errors.append(np.abs(picture.rgb.astype(int) - rgb).mean())
        assert errors[1] < 1.5 < errors[0], (name, errors)


def test_webp_keeps_alpha_exactly(tmp_path: Path) -> None:
    write_image(tmp_path / "a.webp", COLOUR, ALPHA)
    np.testing.assert_array_equal(read_image(tmp_path / "a.webp").alpha, ALPHA)


def test_impossible_requests_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"a\.exe: cannot write the suffix '.exe'; use one of .png"):
        write_image(tmp_path / "a.exe", COLOUR)
    with pytest.raises(ImageError, match=r"a\.jpg: JPEG cannot hold alpha; use .png or drop alpha"):
        write_image(tmp_path / "a.jpg", COLOUR, ALPHA)
    with pytest.raises(ImageError, match=r"a\.jpg: quality 0 is outside 1..100"):
        write_image(tmp_path / "a.jpg", COLOUR, quality=0)
    with pytest.raises(ImageError, match=r"a\.webp: cannot be encoded"):
        write_image(tmp_path / "a.webp", np.zeros((1, 20_000, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ImageError, match=r"a\.png: cannot be written \(No such file"):
        write_image(tmp_path / "nowhere" / "a.png", COLOUR)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a.png"
    write_image(path, COLOUR)
    before = path.read_bytes()
    monkeypatch.setattr(os, step, full)
    with pytest.raises(ImageError, match=r"a\.png: cannot be written \(No space left on device\)"):
        write_image(path, COLOUR[::-1].copy())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_image(tmp_path / "a.png", COLOUR)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, object]] = []
    replace = os.replace

    def spy_replace(source: Path, target: Path) -> None:
        calls.append(("replace", Path(source).parent))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", lambda fd: calls.append(("fsync", os.fstat(fd).st_size)))
    monkeypatch.setattr(os, "replace", spy_replace)
    path = tmp_path / "a.png"
    write_image(path, COLOUR)
    assert calls == [("fsync", path.stat().st_size), ("replace", tmp_path)]


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    write_image(tmp_path / "a.png", COLOUR)
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "other").stat().st_mode


# --- resizing and grids


def test_resizing_takes_height_before_width_and_keeps_a_constant() -> None:
    flat = np.full((8, 12, 3), 77, np.uint8)
    for size in ((3, 20), (8, 12), (1, 1), (31, 5)):
        np.testing.assert_array_equal(resize_image(flat, size), np.full((*size, 3), 77))
    with pytest.raises(ValueError, match="at least 1 x 1, got 0 x 4"):
        resize_image(flat, (0, 4))


def test_resizing_does_not_move_the_picture() -> None:
    # a ramp v(x) = 4x becomes v at the new pixel centres, x = (x' + 0.5) / s - 0.5
    ramp = np.broadcast_to(4 * np.arange(60, dtype=np.uint8)[None, :, None], (8, 60, 3)).copy()
    for width in (20, 30, 120, 180):
        resized = resize_image(ramp, (8, width))[4, :, 0].astype(float)
        expected = 4 * ((np.arange(width) + 0.5) * 60 / width - 0.5)
        inside = slice(width // 10, -width // 10)
        assert np.abs(resized - expected)[inside].max() <= 0.75, width


def test_shrinking_antialiases() -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_image(stripes, (16, 16))[:, 2:-2].astype(int)
    assert np.abs(small - 127.5).max() < 3


def test_a_grid_holds_the_pictures_untouched_below_their_labels() -> None:
    pictures = [[RNG.integers(0, 256, (96, 128, 3), dtype=np.uint8) for _ in range(3)] for _ in range(2)]
    grid = image_grid(pictures, ["degraded", "restored", "original"])
    height, width, _ = grid.shape
    left = [6 + column * 131 for column in range(3)]
    top = [height - 6 - 96 - 99, height - 6 - 96]
    assert width == left[-1] + 128 + 6
    rest = grid.copy()
    for y, row in zip(top, pictures, strict=True):
        for x, picture in zip(left, row, strict=True):
            np.testing.assert_array_equal(grid[y : y + 96, x : x + 128], picture)
            rest[y : y + 96, x : x + 128] = 255
    assert (rest[top[0] :] == 255).all()
    for x in left:
        band = rest[: top[0], x : x + 128].min(axis=(0, 2))
        assert band.min() < 100, "a label is missing"
        dark = np.flatnonzero(band < 200)
        assert abs(dark.mean() - 63.5) < 8, "a label is not centred"


def test_a_grid_of_ragged_rows_or_several_sizes_or_nothing_is_refused() -> None:
    small, large = np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"every row needs 2 pictures, got \[2, 1\]"):
        image_grid([[small, small], [small]], ["a", "b"])
    with pytest.raises(ValueError, match=r"one size, got \[\(4, 4\), \(5, 4\)\]"):
        image_grid([[small, large]], ["a", "b"])
    with pytest.raises(ValueError, match="at least one row"):
        image_grid([], ["a"])


def test_reading_images_needs_no_heavy_package() -> None:
    code = "import sys, idm.io.images; print(*sys.modules)"
    root = Path(__file__).parents[2]
    loaded = subprocess.check_output([sys.executable, "-c", code], cwd=root, text=True).split()
    assert not {"torch", "skimage", "cv2", "scipy", "lpips", "pyiqa"} & set(loaded)
