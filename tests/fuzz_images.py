"""Throw damaged image files at both readers: each is a picture or an ImageError that names the file.

python tests/fuzz_images.py [CASES] [SEED]: CASES (default 10,000) files, each cut short, damaged, or random bytes
behind a true beginning. Prints what came of them and fails on the first other exception.
"""

import io
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from idm.io import images
from idm.io.images import ImageError, decode_image
from idm.io.photos import read_photo


def seeds(rng: np.random.Generator) -> list[bytes]:
    """One small file of each kind."""
    colour = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    deep = rng.integers(0, 65536, (12, 16, 4), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds = {
        "PNG": (colour.convert("RGBA"), {"exif": exif}),
        "JPEG": (colour, {"exif": exif, "quality": 90}),
        "WEBP": (colour, {"exif": exif}),
        "TIFF": (colour, {"compression": "tiff_lzw"}),
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
    match rng.integers(3):
        case 0:
            return data[: int(rng.random() * len(data))]
        case 1:
            broken = bytearray(data)
            for place in (rng.random(rng.integers(1, 12)) ** 2 * len(data)).astype(int):  # headers lie in front
                broken[place] = rng.integers(256)
            return bytes(broken)
        case _:
            return data[: rng.integers(0, 64)] + rng.bytes(rng.integers(0, 400))


def outcome(data: bytes, path: Path) -> str:
    """What both readers say, in a word each; any exception but ImageError leaves here."""
    path.write_bytes(data)
    said = []
    for read in (lambda: decode_image(data, str(path)), lambda: read_photo(path)):
        try:
            read()
            said.append("picture")
        except ImageError as error:
            said.append("error" if str(error).startswith(f"{path}: ") else f"nameless error: {error}")
    return " / ".join(said)


def main(num_cases: int = 10_000, seed: int = 0) -> None:
    images.MAX_PIXELS = 100_000  # damaged headers can claim any size
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    files = seeds(rng)
    counts: Counter[str] = Counter()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for case in range(num_cases):
            data = damaged(files[rng.integers(len(files))], rng)
            try:
                counts[outcome(data, Path(folder, "a.png"))] += 1
            except Exception:
                print(f"case {case} of seed {seed}: {data!r}", file=sys.stderr)
                raise
    assert not any("nameless" in what for what in counts), counts
    print(f"{num_cases} files in {time.monotonic() - start:.0f} s (buffer / file): {dict(counts)}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
