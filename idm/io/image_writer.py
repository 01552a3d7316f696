"""Writing of image files, atomically; ``photo_writer`` writes photographs with their metadata."""

import io
import os
import uuid
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from idm.io.images import WRITE_SUFFIXES, image_error


def write_image(
    path: Path,
    rgb: UInt8[np.ndarray, "h w 3"],
    alpha: UInt8[np.ndarray, "h w"] | None = None,
    icc_profile: bytes | None = None,
    quality: int = 95,
) -> None:
    """Write an image file atomically; the suffix (``WRITE_SUFFIXES``) names the format.

    PNG and TIFF are lossless. JPEG (colour not subsampled) and WebP use ``quality`` in 1..100. The file is
    written beside its target under a hidden name, flushed to the disk and then renamed.

    Raises:
        ImageError: unknown suffix, JPEG with alpha, bad quality, missing folder, full disk; ``path`` is as
            it was, and nothing is left behind.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITE_SUFFIXES:
        raise image_error(path, f"cannot write the suffix {suffix!r}", f"use one of {' '.join(WRITE_SUFFIXES)}")
    if suffix in (".jpg", ".jpeg") and alpha is not None:
        raise image_error(path, "JPEG cannot hold alpha", "use .png or drop alpha")
    if not 1 <= quality <= 100:
        raise image_error(path, f"quality {quality} is outside 1..100", "the usual value is 95")
    try:
        image = Image.fromarray(rgb)
        if alpha is not None:
            image.putalpha(Image.fromarray(alpha))
        data = _encode(image, suffix, icc_profile, quality)
    except (OSError, ValueError) as error:
        raise image_error(path, f"cannot be encoded ({error})", "use .png, or smaller dimensions") from error
    write_whole(path, data)


def _encode(image: Image.Image, suffix: str, icc_profile: bytes | None, quality: int) -> bytes:
    file = io.BytesIO()
    match suffix:
        case ".png":
            image.save(file, "PNG", icc_profile=icc_profile)
        case ".jpg" | ".jpeg":
            image.save(file, "JPEG", icc_profile=icc_profile, quality=quality, subsampling=0)
        case ".webp":  # exact: keep the colours under clear pixels
            image.save(file, "WEBP", icc_profile=icc_profile, quality=quality, exact=True)
        case _:
            image.save(file, "TIFF", icc_profile=icc_profile, compression="tiff_adobe_deflate")
    return file.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically.

    Raises:
        ImageError: missing folder, full disk; ``path`` is as it was, and nothing is left behind.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise image_error(path, f"cannot be written ({error.strerror})", "check the folder and disk") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
