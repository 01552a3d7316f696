"""Photographs: what a photographer wants kept is kept. 8 or 16 bits, grey, transparency, profile, EXIF, XMP, dpi."""

import io
import struct
import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer
from PIL import ExifTags, Image, ImageSequence
from PIL.PngImagePlugin import PngInfo

from idm.io.images import (
    FORMATS,
    MAX_PIXELS,
    ImageError,
    ImageLimits,
    image_error,
    needed_bytes,
    open_image,
    write_whole,
)
from idm.io.metadata import read_metadata, turned

KEPT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_PAGED = ("TIFF", "GIF", "WEBP", "PNG", "AVIF", "HEIF")
_SUBFILE = 254  # TIFF 6.0, section 8: bit 0 of NewSubfileType marks a smaller copy
_XMP = "XML:com.adobe.xmp"  # XMP specification, part 3, 1.1.5: the keyword of its iTXt chunk in PNG
_GREY_TOLERANCE = 3 / 255  # what JPEG and scanners leave in pictures without colour (our choice)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph, upright.

    ``pixels`` are RGB levels, uint8 or uint16 as in the file; ``alpha`` (0 = clear) has their type. ``is_grey``
    says that the file has one channel of values, and so will have what is written: the three are then equal. Whether a
    colour file shows grey, :func:`looks_grey` says.
    ``icc_profile`` is the file's own and describes grey values if ``is_grey``. ``exif`` and ``xmp`` say upright.
    ``dpi`` is the resolution, horizontal and vertical, by which a scan has the size of what was scanned.
    ``dropped`` names what of the file's metadata could not be read, and why.
    """

    pixels: Integer[np.ndarray, "h w 3"]
    alpha: Integer[np.ndarray, "h w"] | None = None
    is_grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    dropped: tuple[str, ...] = ()


def looks_grey(pixels: Integer[np.ndarray, "h w 3"]) -> bool:
    """Return whether 99 % of the pixels (of at most about a million, evenly spread) have no colour to speak of."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 2**20) ** 0.5))
    some = pixels[::step, ::step].astype(np.int32)
    chroma = (some.max(axis=2) - some.min(axis=2)) / np.iinfo(pixels.dtype).max
    return bool(np.quantile(chroma, 0.99) <= _GREY_TOLERANCE)


# --- reading ------------------------------------------------------------------------------------------


def read_photo(
    path: Path, max_pixels: int = MAX_PIXELS, max_bytes: int | None = None, scale: float | int = 1.0
) -> Photo:
    """Read a photograph in its own depth; EXIF orientation is applied. CMYK and palettes become RGB.

    Sixteen bits are kept of grey and colour in PNG and TIFF; floating-point grey in [0, 1] becomes 16 bits.

    Raises:
        ImageError: as :func:`idm.io.images.read_image`, for several pages or frames, for a picture of more than
            ``max_pixels``, or one that needs more than ``max_bytes`` of memory until it is written ``scale`` times as
            wide and high.
    """
    return open_image(path, lambda image, _: to_photo(image, path), ImageLimits(max_pixels, max_bytes, scale))


def bytes_for(path: Path, scale: float | int = 1.0) -> int:
    """Return :func:`idm.io.memory.photo_bytes` of a file; 0 for one that is not a picture, which is never decoded."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return needed_bytes(image, scale)
    except Exception:  # reading it says what is wrong
        return 0


def to_photo(image: Image.Image, path: Path | None = None) -> Photo:
    """A photograph from a decoded PIL image: upright, with what PIL knows of it.

    Args:
        path: the file that the image was read from; deep colour, which PIL does not hold, is read from it again.

    Raises:
        ImageError: several pages or frames, or floating-point grey outside [0, 1].
    """
    name = str(path or "the image")
    lost = _check_one_page(image, name)
    is_grey = image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")
    if image.mode.startswith("I") or image.mode == "F":
        pixels, alpha = _deep_grey(image, name)
    elif path and (deep_is_grey := _deep_channels(path, image)) is not None:
        is_grey = deep_is_grey
        deep = _deep_colour(path, image)
        pixels, alpha = _shallow(image) if deep is None else deep
        lost += ["8 of 16 bits"] if deep is None else []
    else:
        pixels, alpha = _shallow(image)
    metadata = read_metadata(image, is_grey)
    pixels, alpha = turned(pixels, metadata.orientation), None if alpha is None else turned(alpha, metadata.orientation)
    kept = (metadata.icc_profile, metadata.exif, metadata.xmp, metadata.dpi, (*lost, *metadata.dropped))
    return Photo(pixels, alpha, is_grey, *kept)


def _check_one_page(image: Image.Image, name: str) -> list[str]:
    """Refuse animations and files of several pages: of them one alone would be restored. A TIFF's smaller copies of a
    page and the second picture in a phone's JPEG (depth, brightness) are no pages.

    Returns:
        What is lost: further pages that cannot be read.
    """
    if image.format not in _PAGED:
        return []
    num_frames, lost = _num_pages(image) if image.format == "TIFF" else (getattr(image, "n_frames", 1), [])
    if num_frames > 1:
        what = "pages" if image.format == "TIFF" else "frames"
        raise image_error(name, f"has {num_frames} {what}, and a photograph has one", "save each as a file of its own")
    return lost


def _num_pages(image: Image.Image) -> tuple[int, list[str]]:
    """The pages of a TIFF that can be read, and what is lost of the others."""
    number, lost = 0, []
    try:
        for frame in ImageSequence.Iterator(image):
            number += not frame.tag_v2.get(_SUBFILE, 0) & 1  # type: ignore[attr-defined]
    except Exception as error:  # on broken data PIL's readers raise whatever their parsing runs into
        lost = [f"a further page ({error})"]
    image.seek(0)
    return number, lost


def _shallow(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """Eight bits, which PIL reads whatever the kind."""
    if image.has_transparency_data:
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy()
    return np.array(image if image.mode == "RGB" else image.convert("RGB")), None


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
    """Return whether a file with 16 bits that PIL reads with 8 is grey (with alpha); None for other files."""
    if image.format == "PNG":  # PNG 3rd edition, 11.2.1: depth and colour type in the header
        with path.open("rb") as file:
            depth, colour_type = file.read(26)[24:]
        return colour_type == 4 if depth == 16 else None
    depths = image.tag_v2.get(258) if image.format == "TIFF" else None  # type: ignore[attr-defined]
    if isinstance(depths, tuple) and 16 in depths:
        return image.mode == "LA"
    return None


def _deep_colour(path: Path, image: Image.Image) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Read by OpenCV, since PIL has no deep colour; None for the rare forms that it cannot read."""
    try:
        bgr = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    wanted = {(image.height, image.width, 3), (image.height, image.width, 4)}
    if bgr is None or bgr.dtype != np.uint16 or bgr.shape not in wanted:
        return None
    return np.ascontiguousarray(bgr[..., 2::-1]), bgr[..., 3].copy() if bgr.shape[2] == 4 else None


# --- writing ------------------------------------------------------------------------------------------


# What to leave out, the least first, where a format cannot hold all.
_LEAVING_OUT: tuple[tuple[str, ...], ...] = (
    *((), ("exif",), ("xmp",), ("icc_profile",)),
    *(("exif", "xmp"), ("exif", "icc_profile"), ("exif", "xmp", "icc_profile")),
)


def write_photo(path: Path, photo: Photo, quality: int = 95) -> list[str]:
    """Write a photograph whole or not at all as JPEG, PNG or WebP, with its profile, EXIF, XMP and
    resolution (which WebP holds in EXIF only).

    Returns:
        What of these the format cannot hold, such as EXIF of more than 64 kB in JPEG; it is left out.

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
    reason = ""
    for left_out in _LEAVING_OUT:
        if any(getattr(photo, name) is None for name in left_out):
            continue
        try:
            data = _encoded(_without(photo, left_out), suffix, quality)
        except ImageError:
            raise
        except Exception as error:  # PIL's writers raise whatever the metadata run them into
            reason = reason or str(error) or type(error).__name__
        else:
            write_whole(path, data)
            return [f"{name} ({reason})" for name in left_out]
    raise image_error(path, f"cannot be encoded ({reason})", "use .png, or smaller dimensions")


def _without(photo: Photo, names: tuple[str, ...]) -> Photo:
    return replace(
        photo,
        exif=None if "exif" in names else photo.exif,
        xmp=None if "xmp" in names else photo.xmp,
        icc_profile=None if "icc_profile" in names else photo.icc_profile,
    )


def _encoded(photo: Photo, suffix: str, quality: int) -> bytes:
    exif = _sized_exif(photo)
    return _encode_deep(photo, exif) if photo.pixels.dtype == np.uint16 else _encode(photo, exif, suffix, quality)


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
