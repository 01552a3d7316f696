"""Photographs to JPEG, PNG and WebP files, with all that the format can hold."""

import io
import struct
import zlib
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from idm.io.image_writer import write_whole
from idm.io.images import ImageError, image_error
from idm.io.metadata import iptc_segment
from idm.io.photos import Photo

KEPT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

_XMP = "XML:com.adobe.xmp"  # XMP specification, part 3, 1.1.5: the keyword of its iTXt chunk in PNG
# What to leave out, the least first, where a format cannot hold all.
_OPTIONAL = ("iptc", "exif", "xmp", "icc_profile")
_LEAVING_OUT = tuple(names for number in range(len(_OPTIONAL) + 1) for names in combinations(_OPTIONAL, number))


def write_photo(path: Path, photo: Photo, quality: int = 95) -> list[str]:
    """Write a photograph whole or not at all as JPEG, PNG or WebP, with its profile, EXIF, XMP, IPTC (in JPEG only) and
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
    absent: dict[str, Any] = dict.fromkeys(names)
    return replace(photo, **absent)


def _encoded(photo: Photo, suffix: str, quality: int) -> bytes:
    if photo.iptc is not None and suffix not in (".jpg", ".jpeg"):
        raise ValueError("only JPEG holds IPTC here")
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
    kept: dict[str, Any] = {"icc_profile": photo.icc_profile, "exif": exif}
    match suffix:
        case ".png":
            texts = PngInfo()
            if xmp:
                texts.add_itxt(_XMP, xmp)
            image.save(file, "PNG", **kept, pnginfo=texts, dpi=photo.dpi)
        case ".webp":  # exact: keep the colours under clear pixels
            image.save(file, "WEBP", **kept, xmp=xmp, quality=quality, exact=True)
        case _:
            extra = b"" if photo.iptc is None else iptc_segment(photo.iptc)
            kept |= {"xmp": xmp, "extra": extra, "dpi": photo.dpi or (0, 0)}
            image.save(file, "JPEG", **kept, quality=quality, subsampling=0)
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
