"""Throw damaged image files at both readers. The oracle: what PIL opens is restored; all else is an ImageError that
names the file.

Each file is cut short, damaged anywhere, with a chunk of metadata spoilt, or random bytes behind a true beginning. A
bounded, seeded part runs in tests/unit/test_fuzz.py; `python tests/fuzz.py` runs all.
"""

import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
import fuzz_damage
import numpy as np
from fuzz_damage import UnexplainedError, count_outcomes
from PIL import Image

from idm.io import images
from idm.io.images import FORMATS, ImageError, decode_image
from idm.io.photos import read_photo

MAX_PIXELS = 1_000_000  # damaged headers can claim any size
METADATA = (b"eXIf", b"Exif", b"EXIF", b"iCCP", b"ICC_PROFILE", b"II*\0", b"MM\0*")
# Refused although PIL opens them, and why that is right: what the values mean is unknown, or the size is a bomb's.
EXPLAINED = (
    "is too large",
    "outside 0..65535",
    "outside 0..1",
    "outside [0, 1]",
    "has no pixels",
    "and a photograph has one",
)


def seeds(rng: np.random.Generator) -> list[bytes]:
    """Small files and some of the size of photographs, of each kind, with metadata where the kind has them."""
    return [*_files(rng, 12, 16), *_files(rng, 240, 320)]


def _files(rng: np.random.Generator, height: int, width: int) -> list[bytes]:
    smooth = cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (width, height))
    colour = Image.fromarray(smooth)
    deep = cv2.resize(rng.integers(0, 65536, (6, 8, 4), dtype=np.uint16), (width, height))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x0132] = 6, "a description", "2020:01:01 00:00:00"
    described = {"exif": exif, "icc_profile": bytes(16) + b"RGB " + rng.bytes(200)}
    kinds = {
        "PNG": (colour.convert("RGBA"), described),
        "JPEG": (colour, {**described, "quality": 90, "xmp": b"<x:xmpmeta/>"}),
        "WEBP": (colour, described),
        "TIFF": (colour, {"compression": "tiff_lzw", **described}),
        "GIF": (colour, {}),
        "BMP": (colour, {}),
        "PPM": (colour, {}),
        "JPEG2000": (colour, {}),
        "AVIF": (colour, {}),
    }
    files = [
        cv2.imencode(suffix, deep[..., :channels])[1].tobytes() for suffix in (".png", ".tif") for channels in (3, 4)
    ]
    for kind, (picture, options) in kinds.items():
        file = io.BytesIO()
        picture.save(file, kind, **options)
        files.append(file.getvalue())
    return files


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One in five is damaged in its metadata, if there are any, and the others anywhere."""
    marks = [mark for mark in METADATA if mark in data]
    if not marks or rng.random() > 0.2:
        return fuzz_damage.damaged(data, rng)
    broken = bytearray(data)
    start = data.index(marks[rng.integers(len(marks))])
    for place in start + rng.integers(0, 60, rng.integers(1, 8)):
        broken[min(place, len(data) - 1)] = rng.integers(256)
    return bytes(broken)


def pil_opens(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            return True
    except Exception:  # PIL's readers raise whatever their parsing runs into
        return False


def outcome(data: bytes, path: Path) -> str:
    """What became of a file, in a word.

    Raises:
        UnexplainedError: it should have been restored, or an error does not name it.
    """
    path.write_bytes(data)
    opens = pil_opens(data)
    dropped: tuple[str, ...] = ()
    for read in (lambda: decode_image(data, str(path)), lambda: read_photo(path)):
        try:
            dropped = getattr(read(), "dropped", ())
        except ImageError as error:
            if not str(error).startswith(f"{path}: "):
                raise UnexplainedError(f"does not name the file: {error}") from error
            if not opens:
                return "refused, as by PIL"
            if any(reason in str(error) for reason in EXPLAINED):
                return "refused: size or values make no sense"
            raise UnexplainedError(f"PIL opens what is refused: {error}") from error
    if not opens:
        return "restored, though PIL stops at its metadata"
    return "restored, metadata dropped and named" if dropped else "restored"


def _case(files: Sequence[bytes], path: Path, rng: np.random.Generator) -> str:
    return outcome(damaged(files[rng.integers(len(files))], rng), path)


def run(num_cases: int, seed: int) -> Counter[str]:
    """Counts by outcome; the first that is not explained is raised."""
    files = seeds(np.random.default_rng(seed))
    before, images.MAX_PIXELS = images.MAX_PIXELS, MAX_PIXELS
    pils, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, MAX_PIXELS
    try:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return count_outcomes(num_cases, seed, partial(_case, files, Path(folder, "a.png")))
    finally:
        images.MAX_PIXELS, Image.MAX_IMAGE_PIXELS = before, pils
