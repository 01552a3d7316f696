"""The metadata of a picture's file, read leniently: parts that cannot be understood are dropped and named."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image

ORIENTATION = 0x0112
# A TIFF file's directory describes its storage too; these of its tags describe the photograph.
_TIFF_TAGS = frozenset({270, 271, 272, ORIENTATION, 282, 283, 296, 305, 306, 315, 33432, 34665, 34853})
_IPTC, _TIFF_IPTC = 0x0404, 33723

T = TypeVar("T")


@dataclass
class Metadata:
    """``orientation`` is that of the stored pixels, 1..8; ``exif`` and ``xmp`` say upright. ``dropped`` names what the
    file has and nobody can read."""

    orientation: int = 1
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    icc_profile: bytes | None = None
    dpi: tuple[float, float] | None = None
    dropped: list[str] = field(default_factory=list)


def read_metadata(image: Image.Image, is_grey: bool) -> Metadata:
    """The metadata of a decoded image, upright; never raises: what cannot be read is listed in ``dropped``.

    Args:
        is_grey: the pixels are grey, so that only a grey colour profile describes them.
    """
    found = Metadata(xmp=_upright_xmp(image), icc_profile=_profile(image, is_grey), dpi=_dpi(image))
    found.orientation = orientation_of(image, found.dropped)
    found.iptc = _lenient(lambda: _iptc(image), None, "IPTC", found.dropped)
    found.exif = _lenient(lambda: _upright_exif(image), None, "EXIF", found.dropped)
    if image.info.get(STRIPPED):
        found.dropped.append(f"everything but the pixels ({image.info[STRIPPED]})")
    return found


def orientation_of(image: Image.Image, dropped: list[str] | None = None) -> int:
    """The EXIF orientation in 1..8; 1 where there is none that makes sense.

    Args:
        dropped: gets an entry if it cannot be read.
    """
    value = _lenient(lambda: image.getexif().get(ORIENTATION, 1), 1, "EXIF orientation", dropped)
    return value if value in range(1, 9) else 1


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """Upright pixels (Exif 3.0, 4.6.5.1.5), contiguous."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def _lenient(read: Callable[[], T], otherwise: T, what: str, dropped: list[str] | None) -> T:
    try:
        return read()
    except Exception as error:  # on broken metadata PIL's readers raise whatever their parsing runs into
        if dropped is not None:
            dropped.append(f"{what} ({error or type(error).__name__})")
        return otherwise


def _upright_exif(image: Image.Image) -> bytes | None:
    """The file's EXIF with an upright orientation and without the old picture's thumbnail."""
    exif = image.getexif()
    if image.format == "TIFF":
        for tag in set(exif) - _TIFF_TAGS:
            del exif[tag]
    if not exif:
        return None
    if ORIENTATION in exif:
        exif[ORIENTATION] = 1
    return exif.tobytes()


def _upright_xmp(image: Image.Image) -> bytes | None:
    xmp = image.info.get("xmp")
    if not isinstance(xmp, bytes) or not xmp:
        return None
    return re.sub(rb"(tiff:Orientation(?:=[\"']|>))[2-8]", rb"\g<1>1", xmp)


def _iptc(image: Image.Image) -> bytes | None:
    """The records of IPTC-IIM: in JPEG a resource of Photoshop's, in TIFF a tag."""
    resources = image.info.get("photoshop", {})
    found = image.tag_v2.get(_TIFF_IPTC) if image.format == "TIFF" else resources.get(_IPTC)  # type: ignore[attr-defined]
    return found if isinstance(found, bytes) and found else None


def iptc_segment(iptc: bytes) -> bytes:
    """The APP13 segment of a JPEG file that holds these records of IPTC-IIM.

    Raises:
        ValueError: they are longer than a segment.
    """
    # Adobe Photoshop File Formats Specification, "Image Resource Blocks"
    resource = b"8BIM" + struct.pack(">HHI", _IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    content = b"Photoshop 3.0\0" + resource
    if len(content) > 0xFFFF - 2:
        raise ValueError("IPTC data is too long")
    return b"\xff\xed" + struct.pack(">H", 2 + len(content)) + content


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


# --- files whose metadata stop PIL ---------------------------------------------------------------------

STRIPPED = "idm_stripped"
"""In an image's ``info``: why its file was read without metadata."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")


def without_metadata(data: bytes) -> bytes | None:
    """The same pixels in a file with nothing else; None where that is not known to be possible."""
    if data.startswith(_PNG):
        return _bare_png(data)
    return _bare_jpeg(data) if data.startswith(b"\xff\xd8") else None


def _bare_png(data: bytes) -> bytes:
    """PNG 3rd edition, 5.3: chunks of length, type, data and CRC."""
    kept, place = [_PNG], len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        end = place + 12 + length
        if kind in _PNG_KEPT:
            kept.append(data[place:end])
        place = end
    return b"".join(kept)


def _bare_jpeg(data: bytes) -> bytes:
    """ITU-T T.81, B.1.1.4: segments of marker and length, up to the scan. JFIF and Adobe's colours stay."""
    kept, place = [data[:2]], 2
    while place + 4 <= len(data) and data[place] == 0xFF and data[place + 1] != 0xDA:
        marker, (length,) = data[place + 1], struct.unpack(">H", data[place + 2 : place + 4])
        end = place + 2 + length
        if (marker not in range(0xE1, 0xF0) and marker != 0xFE) or marker == 0xEE:
            kept.append(data[place:end])
        place = end
    return b"".join([*kept, data[place:]])
