"""Collect pictures without faces: scenes, and objects on a transparent background.

``python experiments/detector/scenes.py FOLDER_OR_FILE ... -o SCENES`` saves all PNG, JPEG and WebP pictures in the
folders, and those in Qt resource files (``.rcc``), as PNG files of at most 1000 pixels. It leaves out pictures with
people, which are listed below by names and digests. Inspect the result: a face in a scene teaches the detector to
ignore faces.
"""

import argparse
import hashlib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

MIN_BYTES, MIN_SIDE, GREATEST_SIDE = 5000, 48, 1000

# In the packages that README.md names: file names with people, and digests of single pictures, found by eye.
PEOPLE = re.compile("paintings|details|world-music|page|astronaut|camera|lfw")
SEEN = """
04c82e21 11a4dfbb 23565256 2d416ff1 324a2832 333c201f 3758427d 3b643d0a 3da0eb19 40ed56db 43d2397f 473189c5
483b6f28 48bec1f0 49fa05da 4dfac185 4ee6ceff 4f1f33df 4fa4c599 534b5760 54e0ae9f 56b29763 5a4cd727 5ca5df19
633b66e8 665ca5af 6776500b 678ce6cd 6de6e8ae 6e7c7939 719a45f9 75268ee7 7b288a21 7d5cc439 86874d35 8bc97070
a0a35143 a1a62fc9 a1c312b3 a26661a7 ad932e8a b0b2d47d b34633ca b49af632 b51fe8bd b6571739 b6585b30 b7f606fa
b87757f4 b8b5f136 b9628c16 badaa061 bbd98760 bdd11e15 c17e2387 c246b1c6 c49d403f c8171374 c89c5c9d ca56da0d
ce00bfe9 d54d3f0f d8457dcc d8ad38f4 dbea803a dd5b364c df482109 e4442202 e562920c ec28962b f560ef83 fcb18f7d
fe0fed32
"""


def pictures(source: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the names and contents of possible pictures."""
    for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
        if path.suffix in (".png", ".jpg", ".jpeg", ".webp"):
            yield path.stem, path.read_bytes()
        elif path.suffix == ".rcc":
            yield from ((path.stem, part) for part in embedded(path.read_bytes()))


def embedded(content: bytes) -> Iterator[bytes]:
    """Yield the uncompressed pictures in a file, which are found by their first bytes."""
    for start in (match.start() for match in re.finditer(rb"RIFF....WEBP", content, re.DOTALL)):
        yield content[start : start + 8 + int.from_bytes(content[start + 4 : start + 8], "little")]
    for first, last in ((b"\x89PNG\r\n", b"IEND\xaeB`\x82"), (b"\xff\xd8\xff", b"\xff\xd9")):
        for match in re.finditer(re.escape(first), content):
            end = content.find(last, match.start() + MIN_BYTES)
            if end > 0:
                yield content[match.start() : end + len(last)]


def save(name: str, content: bytes, folder: Path) -> bool:
    """Write a picture as ``scene_*`` or, if it has transparent parts, as ``stamp_*``.

    Returns:
        Whether it was written: the content is a picture that is large enough and not listed as showing people.
    """
    if len(content) < MIN_BYTES or PEOPLE.search(name):
        return False
    try:
        picture = Image.open(io.BytesIO(content))
        picture.load()
    except (OSError, SyntaxError, ValueError):  # bytes that only looked like a picture
        return False
    if min(picture.size) < MIN_SIDE:
        return False
    rgba = picture.convert("RGBA")
    kind = "stamp" if rgba.getchannel("A").getextrema()[0] < 128 else "scene"
    picture = rgba if kind == "stamp" else picture.convert("RGB")
    picture.thumbnail((GREATEST_SIDE, GREATEST_SIDE), Image.Resampling.LANCZOS)
    digest = hashlib.md5(picture.tobytes()).hexdigest()[:8]
    if digest in SEEN:
        return False
    picture.save(folder / f"{kind}_{digest}.png")
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    found = sum(
        save(name, content, arguments.output) for source in arguments.sources for name, content in pictures(source)
    )
    print(f"{found} pictures -> {arguments.output}")


if __name__ == "__main__":
    main()
