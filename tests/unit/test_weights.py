"""What ``idm weights`` says of files that are there, missing, cut short, or others."""

import hashlib
from pathlib import Path

import pytest

from idm.apps.cli import main as cli
from idm.io.known_weights import KNOWN, WeightsFile
from idm.io.weights import flaw


def listing(capsys: pytest.CaptureFixture[str], folder: Path) -> tuple[int, dict[str, str]]:
    status = cli.run(cli.build_parser().parse_args(["weights", "--weights-dir", str(folder)]))
    _, *blocks = capsys.readouterr().out.strip().split("\n\n")
    return status, {block.partition(":")[0]: block for block in blocks}


def test_missing_files_are_listed_with_terms_and_source_and_nothing_is_fetched(tmp_path: Path, capsys) -> None:
    status, blocks = listing(capsys, tmp_path)
    assert status == 0
    assert blocks.keys() == KNOWN.keys()
    for name, known in KNOWN.items():
        assert f"{name}: missing" in blocks[name]
        assert known.url in blocks[name]
        assert known.licence in blocks[name]
        assert str(tmp_path) in blocks[name]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_another_makes_the_exit_status_one(tmp_path: Path, capsys) -> None:
    (tmp_path / "facexlib").mkdir()
    (tmp_path / "facexlib" / "detection_mobilenet0.25_Final.pth").write_bytes(b"cut short")
    (tmp_path / "RestoreFormer.pth").write_bytes(b"whatever it is")
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"not it")
    status, blocks = listing(capsys, tmp_path)
    assert status == 1
    assert "has 9 bytes, not 1789735" in blocks["detection_mobilenet0.25_Final.pth"]
    assert "its sha256 is not known" in blocks["RestoreFormer.pth"]
    assert "not 7be5be79" in blocks["alexnet-owt-7be5be79.pth"]


def test_a_checksum_may_be_known_by_its_first_digits(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    path.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    for sha256, size, is_it in ((digest, 7, True), (digest[:8], None, True), ("0" * 64, 7, False), (digest, 8, False)):
        assert (flaw(path, WeightsFile("a net", "none", "nowhere", sha256, size)) is None) == is_it


def test_the_files_of_the_assets_are_those_whose_checksums_we_state(assets: Path, capsys) -> None:
    status, blocks = listing(capsys, assets / "weights")
    assert status == 0
    for name in ("detection_mobilenet0.25_Final.pth", "mobilefacenet_casia.safetensors", "niqe_modelparameters.mat"):
        assert "its sha256 is right" in blocks[name]
