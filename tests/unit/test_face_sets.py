"""``idm data check``: counts, pairs and sizes of the field's test sets."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from idm.apps.cli import main as cli
from idm.evaluation import face_sets
from idm.evaluation.face_sets import FACE_SETS, check_face_set
from idm.io.image_writer import write_image


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sets of three images of 8 px."""
    for name in ("celeba-test", "lfw-test"):
        monkeypatch.setitem(face_sets.FACE_SETS, name, replace(FACE_SETS[name], num_images=3, size=8))


def fill(folder: Path, number: int, size: int = 8) -> None:
    folder.mkdir(parents=True)
    for i in range(number):
        write_image(folder / f"{i}.png", np.zeros((size, size, 3), np.uint8))


def check(name: str, folder: Path) -> int:
    return cli.run(cli.build_parser().parse_args(["data", "check", name, str(folder)]))


def test_whole_sets_pass(small, tmp_path: Path, capsys) -> None:
    fill(tmp_path / "lq", 3)
    fill(tmp_path / "hq", 3)
    fill(tmp_path / "lfw", 3)
    assert check("celeba-test", tmp_path) == 0
    assert check("lfw-test", tmp_path / "lfw") == 0
    out = capsys.readouterr().out
    assert "143.98" in out
    assert f"{tmp_path}: complete" in out


def test_every_fault_is_reported(small, tmp_path: Path, capsys) -> None:
    fill(tmp_path / "lq", 3)
    fill(tmp_path / "hq", 2)
    write_image(tmp_path / "hq" / "other.png", np.zeros((8, 9, 3), np.uint8))
    (tmp_path / "lq" / "1.png").write_bytes(b"cut short")
    assert check("celeba-test", tmp_path) == 1
    error = capsys.readouterr().err
    assert "other.png: is 9x8, not 8x8" in error
    assert "1.png" in error
    assert "2 is in one of lq and hq only" in error
    assert "other is in one of lq and hq only" in error
    fill(tmp_path / "lfw", 2)
    assert list(check_face_set("lfw-test", tmp_path / "lfw")) == [f"{tmp_path / 'lfw'}: holds 2 images, not 3"]
    assert next(check_face_set("celeba-test", tmp_path / "lfw")).endswith("lq: no such folder")


def test_an_unknown_set_is_one_line(tmp_path: Path, capsys) -> None:
    assert check("celeba", tmp_path) == 1
    assert capsys.readouterr().err.startswith("error: 'celeba' is not a known set; known: celeba-test, ")


def test_the_page_names_every_set_with_its_count() -> None:
    page = (Path(__file__).parents[2] / "docs" / "test_sets.md").read_text()
    for one in FACE_SETS.values():
        assert f"| `{one.name}` | {one.title} | {one.num_images:,} | {one.size} |" in page
        assert one.where in page
