"""Reading of image files as sRGB uint8 arrays; ``image_writer`` writes them, ``photos`` reads photographs.

PIL does the decoding. This module handles what PIL leaves to the caller: orientation, transparency, deep grey, colour
profiles, size limits, and one :class:`ImageError` for every fault of a file.
"""

import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, PngImagePlugin

from idm.io.errors import InvalidInput
from idm.io.memory import format_bytes, photo_bytes
from idm.io.metadata import STRIPPED, orientation_of, turned, without_metadata

MAX_PIXELS = 200_000_000
WRITE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
HEIF_SUFFIXES = (".heic", ".heif")  # read with the optional package pillow-heif
_HAS_HEIF = find_spec("pillow_heif") is not None
READ_SUFFIXES = (
    *(*WRITE_SUFFIXES, ".jfif", ".avif", ".bmp", ".gif", ".ppm", ".pgm", ".pbm", ".jp2", ".j2k"),
    *(HEIF_SUFFIXES if _HAS_HEIF else ()),
)

# A closed list: PIL also has readers that start other programs (EPS) or are barely kept up.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", *(("HEIF",) if _HAS_HEIF else ()))
_HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")  # ISO/IEC 23008-12, 10.2 and annex B

# PIL's own bound is a global of its own; left alone it warns from 89 and refuses from 179 megapixels.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS
PngImagePlugin.MAX_TEXT_CHUNK = 16 << 20  # so that colour profiles of more than 1 MB are read

T = TypeVar("T")


class ImageError(InvalidInput):
    """A picture cannot be found, read or written. The message is "<path>: <what is wrong>; <what to do>"."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image file, upright.

    ``rgb`` and ``alpha`` are uint8 in 0..255; ``alpha`` (0 = clear) is None for a file without transparency.
    ``icc_profile`` describes ``rgb``: it is None when the file holds none, or one for grey or CMYK values.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"] | None
    icc_profile: bytes | None


def image_error(name: object, problem: str, remedy: str) -> ImageError:
    """The one form of message."""
    return ImageError(f"{name}: {problem}; {remedy}")


# --- reading ------------------------------------------------------------------------------------------


def read_image(path: Path, max_bytes: int | None = None) -> Picture:
    """Read an image file of any size up to ``MAX_PIXELS`` as upright 8-bit RGB.

    EXIF orientation is applied; grey, palette, 1-bit and CMYK become RGB as PIL converts them; transparency in any form
    becomes ``alpha``. 16-bit grey (also in PIL's mode I) is divided by 257 and rounded, never clipped; floating-point
    grey must lie in [0, 1]. PIL itself cuts 16-bit *colour* to its upper 8 bits. If there are several frames, the first
    is read.

    Raises:
        ImageError: missing, a folder, empty, not an image, cut short, broken, or too large.
    """
    return open_image(path, _to_picture, ImageLimits(MAX_PIXELS, max_bytes))


@dataclass(frozen=True)
class ImageLimits:
    """Limits of a picture, checked against its header before anything is decoded.

    Args:
        max_bytes: memory for reading it and writing it ``scale`` times as wide and high.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int | None = None
    scale: float | int = 1.0

    def check(self, image: Image.Image, name: str) -> None:
        """Raises ImageError."""
        width, height = image.size
        if width * height > self.max_pixels:
            raise _too_large(name, f"{width} x {height} pixels", self.max_pixels)
        if min(width, height) < 1:
            raise image_error(name, f"has no pixels ({width} x {height})", "export the image again")
        needed = needed_bytes(image, self.scale)
        if self.max_bytes is not None and needed > self.max_bytes:
            need, limit = format_bytes(needed), format_bytes(self.max_bytes)
            problem = f"{width} x {height} pixels need about {need} of memory, not {limit}"
            raise image_error(name, problem, "shrink it first, or raise --max-memory")


def needed_bytes(image: Image.Image, scale: float | int = 1.0) -> int:
    """The bytes of memory that reading, restoring and writing a picture needs, from its header: nothing is decoded.

    Args:
        scale: enlargement per side of the restored picture.
    """
    is_deep = image.mode.startswith("I") or image.mode == "F" or (image.format == "TIFF" and _is_deep_tiff(image))
    if image.format == "PNG" and isinstance(image, ImageFile.ImageFile) and image.fp is not None:
        # PNG 3rd edition, 11.2.1: the depth in the header
        place = image.fp.tell()
        image.fp.seek(24)
        is_deep |= image.fp.read(1) == b"\x10"
        image.fp.seek(place)
    width, height = image.size
    return photo_bytes(width * height, num_bytes=1 + is_deep, kind=image.format, scale=scale)


def _is_deep_tiff(image: Image.Image) -> bool:
    depths = image.tag_v2.get(258, (8,))  # type: ignore[attr-defined]  # of a damaged file anything
    return not (isinstance(depths, tuple) and all(isinstance(depth, int) and depth <= 8 for depth in depths))


def open_image(
    path: Path, convert: Callable[[Image.Image, str], T], limits: ImageLimits, *, is_decoded: bool = True
) -> T:
    """``convert(image, name)`` of a file's decoded first frame, as stored: not upright yet. With ``is_decoded=False``
    ``convert`` gets the opened file, of which only the header was read.

    A file whose metadata stop PIL is read without them; ``image.info`` then says so under
    :data:`idm.io.metadata.STRIPPED`.

    Raises:
        ImageError: as :func:`read_image`; whatever else ``convert`` raises means that the file is broken.
    """
    if path.is_dir():
        raise image_error(path, "is a folder, not an image file", "name a file in it")
    if not path.exists():
        raise image_error(path, "no such file", "check the spelling")
    if not path.is_file():
        raise image_error(path, "is not a regular file", "name an image file")
    try:
        with path.open("rb") as file:
            return _decode(file, str(path), convert, limits, is_decoded)
    except OSError as error:
        raise image_error(path, f"cannot be read ({error.strerror})", "check its permissions and disk") from error


def decode_image(data: bytes, name: str) -> Picture:
    """:func:`read_image` for the bytes of an image file; ``name`` stands for the path in errors."""
    return _decode(io.BytesIO(data), name, _to_picture, ImageLimits(MAX_PIXELS))


def _decode(
    file: io.BufferedReader | io.BytesIO,
    name: str,
    convert: Callable[[Image.Image, str], T],
    limits: ImageLimits,
    is_decoded: bool = True,
) -> T:
    head = file.read(12)
    if not head:
        raise image_error(name, "the file is empty", "copy or download it again")
    try:
        return _decode_once(file, name, convert, limits, is_decoded)
    except _BrokenError as error:
        file.seek(0)
        bare = without_metadata(file.read())
        if bare is not None:
            with suppress(_BrokenError):
                return _decode_once(io.BytesIO(bare), name, convert, limits, is_decoded, stripped=error.reason)
        raise


class _BrokenError(ImageError):
    """PIL cannot read a file, or parts of it."""

    reason = ""


def _decode_once(
    file: io.BufferedReader | io.BytesIO,
    name: str,
    convert: Callable[[Image.Image, str], T],
    limits: ImageLimits,
    is_decoded: bool,
    stripped: str = "",
) -> T:
    file.seek(0)
    head = file.read(12)
    file.seek(0)
    if head[4:8] == b"ftyp" and head[8:] in _HEIF_BRANDS:
        _prepare_heif(name)
    try:
        with Image.open(file, formats=FORMATS) as image:
            limits.check(image, name)
            if is_decoded:
                image.load()
            image.info |= {STRIPPED: stripped}
            return convert(image, name)
    except ImageError:
        raise
    except Image.UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise _broken(name, f"is not an image of a known kind ({kinds})", "convert it to PNG", error) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error), limits.max_pixels) from error
    except Exception as error:  # on broken data PIL's readers raise whatever their parsing runs into
        reason = str(error) or type(error).__name__
        problem = f"is broken or cut short ({reason})"
        raise _broken(name, problem, "copy or download the file again", error) from error


def _broken(name: str, problem: str, remedy: str, error: Exception) -> _BrokenError:
    broken = _BrokenError(str(image_error(name, problem, remedy)))
    broken.reason = str(error) or type(error).__name__
    return broken


def _prepare_heif(name: str) -> None:
    if not _HAS_HEIF:
        remedy = "install it: pip install 'idm-face-restoration[heic]'"
        raise image_error(name, "is a HEIC picture, which the package pillow-heif reads", remedy)
    from pillow_heif import register_heif_opener

    register_heif_opener()


def _too_large(name: str, size: str, max_pixels: int) -> ImageError:
    limit = max_pixels / 1_000_000
    return image_error(name, f"is too large ({size}, the limit is {limit:g} megapixels)", "shrink it first")


def _to_picture(image: Image.Image, name: str) -> Picture:
    alpha: np.ndarray | None = None
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        grey = _grey_from_float(values, name) if image.mode == "F" else _grey_from_integers(values, name)
        rgb = np.stack([grey] * 3, axis=-1)
        if "transparency" in image.info:
            alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    elif image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        rgb, alpha = rgba[..., :3].copy(), rgba[..., 3].copy()
    else:
        rgb = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    orientation = orientation_of(image)
    upright = None if alpha is None else turned(alpha, orientation)
    return Picture(turned(rgb, orientation), upright, _rgb_profile(image.info.get("icc_profile")))


def _grey_from_integers(values: np.ndarray, name: str) -> np.ndarray:
    """0..65535 -> 0..255, to the nearest. The scale is never guessed from the values."""
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > 65535:
        raise image_error(name, f"has grey values {low}..{high} outside 0..65535", "convert it to 8 or 16 bits")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _grey_from_float(values: np.ndarray, name: str) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise image_error(name, f"has floating-point values {low:g}..{high:g} outside [0, 1]", "rescale them")
    return np.rint(values * 255).astype(np.uint8)


def _rgb_profile(profile: object) -> bytes | None:
    # ICC.1:2022, 7.2.6: bytes 16..19 of the header are the colour space that the profile describes.
    return profile if isinstance(profile, bytes) and profile[16:20] == b"RGB " else None


# --- resizing -----------------------------------------------------------------------------------------


def resize_image(rgb: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "h2 w2 3"]:
    """Resize to ``size = (height, width)`` with PIL's bicubic filter (a = -0.5).

    When shrinking, the filter is stretched by the factor, so that it antialiases; pixel centres are at
    half-integers, so that the picture does not move. The same size returns a copy.

    Raises:
        ValueError: a side of ``size`` is below 1.
    """
    height, width = size
    if height < 1 or width < 1:
        raise InvalidInput(f"size must be at least 1 x 1, got {height} x {width}")
    return np.array(Image.fromarray(rgb).resize((width, height), Image.Resampling.BICUBIC))
