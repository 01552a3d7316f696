"""Photographs: what a photographer wants kept is kept. 8 or 16 bits, grey, transparency, profile, EXIF, XMP, dpi."""

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer
from PIL import ExifTags, Image, ImageOps, ImageSequence
from PIL.PngImagePlugin import PngInfo

from idm.io.images import MAX_PIXELS, image_error, open_image, write_whole

KEPT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_PAGED = ("TIFF", "GIF", "WEBP", "PNG", "AVIF", "HEIF")
_ORIENTATION = 0x0112
_SUBFILE = 254  # TIFF 6.0, section 8: bit 0 of NewSubfileType marks a smaller copy
_XMP = "XML:com.adobe.xmp"  # XMP specification, part 3, 1.1.5: the keyword of its iTXt chunk in PNG
# A TIFF file's directory describes its storage too; these of its tags describe the photograph.
_TIFF_TAGS = frozenset({270, 271, 272, _ORIENTATION, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853})
_GREY_TOLERANCE = 3 / 255  # what JPEG and scanners leave in pictures without colour (our choice)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph, upright.

    ``pixels`` are RGB levels, uint8 or uint16 as in the file; ``alpha`` (0 = clear) has their type. ``is_grey``
    says that the file has one channel of values, and so will have what is written: the three are then equal. Whether a
    colour file shows grey, :func:`looks_grey` says.
    ``icc_profile`` is the file's own and describes grey values if ``is_grey``. ``exif`` and ``xmp`` say upright.
    ``dpi`` is the resolution, horizontal and vertical, by which a scan has the size of what was scanned.
    """

    pixels: Integer[np.ndarray, "h w 3"]
    alpha: Integer[np.ndarray, "h w"] | None = None
    is_grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None


def looks_grey(pixels: Integer[np.ndarray, "h w 3"]) -> bool:
    """Whether 99 % of the pixels (of at most about a million, evenly spread) have no colour to speak of."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 2**20) ** 0.5))
    some = pixels[::step, ::step].astype(np.int32)
    chroma = (some.max(axis=2) - some.min(axis=2)) / np.iinfo(pixels.dtype).max
    return bool(np.quantile(chroma, 0.99) <= _GREY_TOLERANCE)


# --- reading ------------------------------------------------------------------------------------------


def read_photo(path: Path, max_pixels: int = MAX_PIXELS) -> Photo:
    """Read a photograph in its own depth; EXIF orientation is applied. CMYK and palettes become RGB.

    Sixteen bits are kept of grey and colour in PNG and TIFF; floating-point grey in [0, 1] becomes 16 bits.

    Raises:
        ImageError: as :func:`idm.io.images.read_image`, and for several pages or frames, or more than ``max_pixels``.
    """
    return open_image(path, lambda image, _: to_photo(image, path), max_pixels)


def to_photo(image: Image.Image, path: Path | None = None) -> Photo:
    """A photograph from a decoded PIL image: upright, with what PIL knows of it.

    Args:
        path: the file that the image was read from; deep colour, which PIL does not hold, is read from it again.

    Raises:
        ImageError: several pages or frames, or floating-point grey outside [0, 1].
    """
    name = str(path or "the image")
    _check_one_page(image, name)
    xmp = _upright_xmp(image)  # before exif_transpose takes the orientation out of it
    is_grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    if image.mode.startswith("I") or image.mode == "F":
        pixels, alpha = _upright(_deep_grey(image, name), image)
    elif path and (deep_is_grey := _deep_channels(path, image)) is not None:
        is_grey = deep_is_grey
        pixels, alpha = _upright(_deep_colour(path, image, name), image)
    else:
        pixels, alpha = _shallow(ImageOps.exif_transpose(image))
    return Photo(pixels, alpha, is_grey, _profile(image, is_grey), _upright_exif(image), xmp, _dpi(image))


def _check_one_page(image: Image.Image, name: str) -> None:
    """Refuse animations and files of several pages: of them one alone would be restored. A TIFF's smaller copies of a
    page and the second picture in a phone's JPEG (depth, brightness) are no pages."""
    num_frames = getattr(image, "n_frames", 1)
    if image.format not in _PAGED or num_frames == 1:
        return
    if image.format == "TIFF":
        frames = ImageSequence.Iterator(image)
        num_frames = sum(not frame.tag_v2.get(_SUBFILE, 0) & 1 for frame in frames)  # type: ignore[attr-defined]
        image.seek(0)
    if num_frames > 1:
        what = "pages" if image.format == "TIFF" else "frames"
        raise image_error(name, f"has {num_frames} {what}, and a photograph has one", "save each as a file of its own")


def _shallow(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Eight bits, which PIL reads whatever the kind."""
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy()
    return np.array(image.convert("RGB")), None


def _deep_grey(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    most = 1 if image.mode == "F" else 65535
    if not (low >= 0 and high <= most):  # false for NaN too
        raise image_error(name, f"has grey values {low:g}..{high:g} outside 0..{most}", "convert it to 8 or 16 bits")
    levels = (np.rint(values * 65535.0) if image.mode == "F" else values).astype(np.uint16)
    alpha = None
    if "transparency" in image.info:
        alpha = np.where(values == image.info["transparency"], 0, 65535).astype(np.uint16)
    return np.repeat(levels[..., None], 3, axis=2), alpha


def _deep_channels(path: Path, image: Image.Image) -> bool | None:
    """For a file with 16 bits that PIL reads with 8: whether it is grey (with alpha). None for other files."""
    if image.format == "PNG":  # PNG 3rd edition, 11.2.1: depth and colour type in the header
        with path.open("rb") as file:
            depth, colour_type = file.read(26)[24:]
        return colour_type == 4 if depth == 16 else None
    if image.format == "TIFF" and 16 in image.tag_v2.get(258, ()):  # type: ignore[attr-defined]
        return image.mode == "LA"
    return None


def _deep_colour(path: Path, image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """By OpenCV, since PIL has no deep colour."""
    bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    wanted = {(image.height, image.width, 3), (image.height, image.width, 4)}
    if bgr is None or bgr.dtype != np.uint16 or bgr.shape not in wanted:
        raise image_error(name, "has 16 bits in a form that cannot be read", "convert it to a 16-bit PNG")
    return np.ascontiguousarray(bgr[..., 2::-1]), bgr[..., 3].copy() if bgr.shape[2] == 4 else None


def _upright(
    pixels_and_alpha: tuple[np.ndarray, np.ndarray | None], image: Image.Image
) -> tuple[np.ndarray, np.ndarray | None]:
    """As ImageOps.exif_transpose does for what PIL can hold."""
    pixels, alpha = pixels_and_alpha
    orientation = image.getexif().get(_ORIENTATION, 1)
    return _turned(pixels, orientation), None if alpha is None else _turned(alpha, orientation)


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Exif 3.0, 4.6.5.1.5."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _upright_exif(image: Image.Image) -> bytes | None:
    """The file's EXIF with an upright orientation and without the old picture's thumbnail."""
    exif = image.getexif()
    if image.format == "TIFF":
        for tag in set(exif) - _TIFF_TAGS:
            del exif[tag]
    if not exif:
        return None
    if _ORIENTATION in exif:
        exif[_ORIENTATION] = 1
    return exif.tobytes()


def _upright_xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp")
    if not isinstance(xmp, bytes) or not xmp:
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    """The file's resolution, if it is one that all formats can hold."""
    try:
        x, y = map(float, image.info.get("dpi", ()))
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return (x, y) if 1 < x < 65535 and 1 < y < 65535 else None


def _profile(image: Image.Image, is_grey: bool) -> bytes | None:
    # ICC.1:2022, 7.2.6: bytes 16..19 of the header are the colour space that the profile describes.
    profile = image.info.get("icc_profile")
    wanted = b"GRAY" if is_grey else b"RGB "
    return profile if isinstance(profile, bytes) and profile[16:20] == wanted else None


# --- writing ------------------------------------------------------------------------------------------


def write_photo(path: Path, photo: Photo, quality: int = 95) -> None:
    """Write a photograph whole or not at all as JPEG, PNG or WebP, with its profile, EXIF, XMP and
    resolution (which WebP holds in EXIF only).

    Raises:
        ImageError: a suffix not in ``KEPT_SUFFIXES``, 16 bits in JPEG or WebP, alpha in JPEG, missing folder,
            full disk.
    """
    suffix = path.suffix.lower()
    if suffix not in KEPT_SUFFIXES:
        raise image_error(path, f"cannot write the suffix {suffix!r}", f"use one of {' '.join(KEPT_SUFFIXES)}")
    if photo.pixels.dtype == np.uint16 and suffix != ".png":
        raise image_error(path, "only PNG holds 16 bits here", "use .png (--format png)")
    if photo.alpha is not None and suffix in (".jpg", ".jpeg"):
        raise image_error(path, "JPEG cannot hold alpha", "use .png (--format png)")
    exif = _sized_exif(photo)
    try:
        data = _encode_deep(photo, exif) if photo.pixels.dtype == np.uint16 else _encode(photo, exif, suffix, quality)
    except (OSError, ValueError) as error:
        raise image_error(path, f"cannot be encoded ({error})", "use .png, or smaller dimensions") from error
    write_whole(path, data)


def _encode(photo: Photo, exif: bytes, suffix: str, quality: int) -> bytes:
    image = Image.fromarray(photo.pixels)
    if photo.is_grey:
        image = Image.fromarray(np.ascontiguousarray(photo.pixels[..., 0]))
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    file = io.BytesIO()
    xmp = photo.xmp or b""
    kept = {"icc_profile": photo.icc_profile, "exif": exif}
    match suffix:
        case ".png":
            texts = PngInfo()
            if xmp:
                texts.add_itxt(_XMP, xmp)
            image.save(file, "PNG", **kept, pnginfo=texts, dpi=photo.dpi)
        case ".webp":  # exact: keep the colours under clear pixels
            image.save(file, "WEBP", **kept, xmp=xmp, quality=quality, exact=True)
        case _:
            image.save(file, "JPEG", **kept, xmp=xmp, dpi=photo.dpi or (0, 0), quality=quality, subsampling=0)
    return file.getvalue()


def _encode_deep(photo: Photo, exif: bytes) -> bytes:
    """A 16-bit PNG (3rd edition), which PIL cannot write in colour and OpenCV not with profile and grey alpha."""
    colours = [photo.pixels[..., 0]] if photo.is_grey else [photo.pixels[..., channel] for channel in range(3)]
    channels = colours if photo.alpha is None else [*colours, photo.alpha]
    colour_type = {1: 0, 3: 2, 2: 4, 4: 6}[len(channels)]  # 11.2.1
    height, width = photo.pixels.shape[:2]
    compressor, compressed = zlib.compressobj(level=3), []
    for top in range(0, height, 256):  # in parts, for the sake of memory
        levels = np.stack([channel[top : top + 256] for channel in channels], axis=-1).astype(">u2")
        rows = levels.reshape(len(levels), -1).view(np.uint8)
        step = 2 * len(channels)
        filtered = np.ones((len(rows), 1 + rows.shape[1]), np.uint8)  # 9.2: type 1, the difference to the left
        filtered[:, 1:] = rows
        filtered[:, 1 + step :] -= rows[:, :-step]
        compressed.append(compressor.compress(filtered.tobytes()))
    chunks = [_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))]
    if photo.icc_profile is not None:
        chunks.append(_chunk(b"iCCP", b"ICC\0\0" + zlib.compress(photo.icc_profile)))
    if photo.dpi is not None:
        per_metre = [round(dots / 0.0254) for dots in photo.dpi]
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if exif:
        chunks.append(_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    if photo.xmp is not None:
        chunks.append(_chunk(b"iTXt", _XMP.encode() + b"\0\0\0\0\0" + photo.xmp))
    image = b"".join([*compressed, compressor.flush()])
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, _chunk(b"IDAT", image), _chunk(b"IEND", b"")])


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _sized_exif(photo: Photo) -> bytes:
    """EXIF whose own record of the size, if it has one, is that of the pixels; empty if there is none."""
    if photo.exif is None:
        return b""
    exif = Image.Exif()
    exif.load(photo.exif)
    details = exif.get_ifd(ExifTags.IFD.Exif)
    height, width = photo.pixels.shape[:2]
    for tag, side in ((ExifTags.Base.ExifImageWidth, width), (ExifTags.Base.ExifImageHeight, height)):
        if tag in details:
            details[tag] = side
    return exif.tobytes()
