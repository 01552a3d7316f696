"""Peak memory: what a picture or video needs is known from its header, refused beyond the limit, and not exceeded."""

import io
import os
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import peaks
import pytest
from PIL import Image, PngImagePlugin

from idm.io import memory
from idm.io.images import ImageError, needed_bytes, read_image
from idm.io.memory import Budget, default_budget, photo_bytes
from idm.io.photo_writer import write_photo
from idm.io.photos import Photo, bytes_for, read_photo

TESTS = Path(__file__).parents[1]
SIDE = 3000


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bare_png(width: int, height: int, depth: int = 8) -> bytes:
    """A header that claims a size, with almost nothing behind it."""
    header = struct.pack(">IIBBBBB", width, height, depth, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0")) + _chunk(b"IEND", b"")


READ_AND_WRITE = """
import sys
from pathlib import Path
from idm.io.machine import keep_freed_memory
from idm.io.photo_writer import write_photo
from idm.io.photos import Photo, read_photo
from peaks import peak_of

def work():
    photo = read_photo(path)
    write_photo(path, Photo(photo.pixels.copy()))  # what was read, and what becomes of it

path = Path(sys.argv[1])
keep_freed_memory()  # as the commands do
print(peak_of(work))
"""


@pytest.mark.skipif(not peaks.MEASURABLE, reason="peaks are read from /proc")
@pytest.mark.parametrize(("suffix", "dtype"), [(".png", np.uint8), (".jpg", np.uint8), (".png", np.uint16)])
def test_reading_and_writing_a_photograph_stays_within_the_estimated_memory(
    tmp_path: Path, suffix: str, dtype: type
) -> None:
    path = tmp_path / f"a{suffix}"
    ramp = np.arange(SIDE * SIDE * 3, dtype=np.uint32).reshape(SIDE, SIDE, 3)
    write_photo(path, Photo((ramp % np.iinfo(dtype).max).astype(dtype)))
    with Image.open(path) as image:
        estimate = needed_bytes(image)
    # in a process of its own: other tests leave gaps in this one's memory
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    command = [sys.executable, "-c", READ_AND_WRITE, str(path)]
    peak = int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert estimate / 4 < peak < estimate, f"{peak / SIDE**2:.1f} bytes per pixel, {estimate / SIDE**2:.1f} estimated"


def test_a_picture_beyond_the_limit_is_refused_before_it_is_decoded(tmp_path: Path, peak_of) -> None:
    (tmp_path / "huge.png").write_bytes(bare_png(14_000, 14_000))

    def work() -> None:
        for read in (read_photo, read_image):
            with pytest.raises(ImageError, match=r"huge\.png: .*need about 3\.9 GB of memory.*--max-memory"):
                read(tmp_path / "huge.png", max_bytes=10**9)

    assert peak_of(work) < 30e6


def test_depth_and_enlargement_count() -> None:
    def needed(data: bytes, scale: float = 1) -> int:
        with Image.open(io.BytesIO(data)) as image:
            return needed_bytes(image, scale)

    plain = needed(bare_png(100, 100))
    assert needed(bare_png(100, 100, 16)) == 2 * plain
    assert needed(bare_png(100, 100), 4) > 10 * plain


def test_the_default_is_half_of_the_memory_at_most_4_gb(monkeypatch: pytest.MonkeyPatch) -> None:
    for usable, budget in ((2e9, 1e9), (64e9, 4e9)):
        monkeypatch.setattr(memory, "usable_memory", lambda usable=usable: int(usable))
        assert default_budget() == budget


def test_the_memory_of_a_picture_whose_metadata_stop_pil_is_known_too(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (100, 100)).save(file, "PNG")
    plain = file.getvalue()
    bomb = _chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK + 1)))
    for name, data in ("plain.png", plain), ("odd.png", plain[:33] + bomb + plain[33:]):
        (tmp_path / name).write_bytes(data)
        assert read_photo(tmp_path / name).pixels.shape == (100, 100, 3)
        assert bytes_for(tmp_path / name, 2) == photo_bytes(100 * 100, num_bytes=1, scale=2)
    (tmp_path / "text.png").write_text("no picture")
    assert bytes_for(tmp_path / "text.png") == bytes_for(tmp_path / "gone.png") == 0


def test_threads_share_a_budget_by_size_and_what_exceeds_it_goes_alone() -> None:
    budget, most, now, lock = Budget(10), 0, 0, threading.Lock()

    def work(size: int) -> None:
        nonlocal most, now
        with budget.hold(size):
            with lock:
                now += min(size, 10)
                most = max(most, now)
            threading.Event().wait(0.01)
            with lock:
                now -= min(size, 10)

    threads = [threading.Thread(target=work, args=[size]) for size in (4, 4, 4, 9, 25, 1, 6, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)
    assert 8 <= most <= 10
