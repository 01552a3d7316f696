"""Photographs with all that a photographer keeps: 8 or 16 bits, grey, transparency, profile, metadata."""

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer
from PIL import Image, ImageCms, ImageSequence

from idm.io.images import (
    MAX_PIXELS,
    ImageError,
    ImageLimits,
    image_error,
    needed_bytes,
    open_image,
)
from idm.io.metadata import read_metadata, turned

_PAGED = ("TIFF", "GIF", "WEBP", "PNG", "AVIF", "HEIF")
_SUBFILE = 254  # TIFF 6.0, section 8: bit 0 of NewSubfileType marks a smaller copy
_GREY_TOLERANCE = 3 / 255  # what JPEG and scanners leave in pictures without colour (our choice)


@dataclass(frozen=True, eq=False)
class Photo:
    """A decoded photograph, upright.

    ``pixels`` are RGB levels, uint8 or uint16 as in the file; ``alpha`` (0 = clear) has their type. ``is_grey``
    says that the file has one channel of values, and so will have what is written: the three are then equal. Whether a
    colour file shows grey, :func:`looks_grey` says.
    ``icc_profile`` is the file's own and describes grey values if ``is_grey``. ``exif`` and ``xmp`` say upright.
    ``iptc`` holds the records of IPTC-IIM. ``dpi`` is the resolution, horizontal and vertical, by which a scan has the
    size of what was scanned. ``dropped`` names what of the file's metadata could not be read, and why.
    """

    pixels: Integer[np.ndarray, "h w 3"]
    alpha: Integer[np.ndarray, "h w"] | None = None
    is_grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    dropped: tuple[str, ...] = ()


def looks_grey(pixels: Integer[np.ndarray, "h w 3"]) -> bool:
    """Return whether 99 % of the pixels (of at most about a million, evenly spread) have no colour to speak of."""
    step = max(1, int((pixels.shape[0] * pixels.shape[1] / 2**20) ** 0.5))
    some = pixels[::step, ::step].astype(np.int32)
    chroma = (some.max(axis=2) - some.min(axis=2)) / np.iinfo(pixels.dtype).max
    return bool(np.quantile(chroma, 0.99) <= _GREY_TOLERANCE)


def read_photo(
    path: Path, max_pixels: int = MAX_PIXELS, max_bytes: int | None = None, scale: float | int = 1.0
) -> Photo:
    """Read a photograph in its own depth; EXIF orientation is applied. Palettes become RGB, and CMYK sRGB
    by its profile if it has one.

    Sixteen bits are kept of grey and colour in PNG and TIFF; floating-point grey in [0, 1] becomes 16 bits.

    Raises:
        ImageError: as :func:`idm.io.images.read_image`, for several pages or frames, for a picture of more than
            ``max_pixels``, or one that needs more than ``max_bytes`` of memory until it is written ``scale`` times as
            wide and high.
    """
    return open_image(path, lambda image, _: to_photo(image, path), ImageLimits(max_pixels, max_bytes, scale))


def bytes_for(path: Path, scale: float | int = 1.0) -> int:
    """Return :func:`idm.io.memory.photo_bytes` of a file; 0 for one that is refused before it is decoded."""
    try:
        return open_image(path, lambda image, _: needed_bytes(image, scale), ImageLimits(), is_decoded=False)
    except ImageError:  # reading it says what is wrong
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
    elif image.mode == "CMYK":
        pixels, alpha = np.array(_cmyk_to_rgb(image, lost)), None
    else:
        pixels, alpha = _shallow(image)
    metadata = read_metadata(image, is_grey)
    pixels, alpha = turned(pixels, metadata.orientation), None if alpha is None else turned(alpha, metadata.orientation)
    return Photo(
        pixels,
        alpha,
        is_grey,
        icc_profile=metadata.icc_profile,
        exif=metadata.exif,
        xmp=metadata.xmp,
        iptc=metadata.iptc,
        dpi=metadata.dpi,
        dropped=(*lost, *metadata.dropped),
    )


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


def _cmyk_to_rgb(image: Image.Image, lost: list[str]) -> Image.Image:
    """Convert by the profile to sRGB, or without one by arithmetic; ``lost`` gets a profile that is broken."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile[16:20] == b"CMYK":
        try:
            converted = ImageCms.profileToProfile(
                image,
                io.BytesIO(profile),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except (ImageCms.PyCMSError, OSError) as error:
            lost.append(f"the CMYK profile ({error})")
        else:
            assert converted is not None  # which profileToProfile returns for inPlace only
            return converted
    return image.convert("RGB")


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
