"""``idm export``, and ``--backend`` of the other commands."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idm.apps.cli import export as export_module
from idm.apps.cli import main as cli
from idm.apps.cli import model as model_module
from idm.data.synthetic import synthetic_face
from idm.io.images import read_image
from idm.restorers.load import Loaded

SIZE = 32

pytestmark = pytest.mark.skipif(
    any(find_spec(package) is None for package in ("onnx", "onnxscript", "onnxruntime")),
    reason="the packages of the extra onnxruntime are not installed",
)


@pytest.fixture
def face(tmp_path: Path) -> Path:
    Image.fromarray(synthetic_face(0, 0, SIZE).image).save(tmp_path / "face.png")
    return tmp_path / "face.png"


def in_process(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = cli.run(cli.build_parser().parse_args([str(a) for a in arguments]))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_export_writes_one_file_into_a_folder_and_reports_its_difference(model, tmp_path, capsys) -> None:
    import onnx

    code, out, err = in_process(capsys, "export", model, "-o", tmp_path / "new" / "folder")
    assert (code, err) == (0, "")
    (path,) = (tmp_path / "new" / "folder").iterdir()
    assert path.name == "denoiser.onnx"
    assert "opset 18, inputs x_d, x_t, gamma" in out
    loaded = onnx.load(path)
    onnx.checker.check_model(loaded, full_check=True)
    metadata = {entry.key: entry.value for entry in loaded.metadata_props}
    assert metadata["name"] == model.as_posix()
    assert (metadata["num_steps"], metadata["prediction"], len(metadata["weights_sha256"])) == ("2", "sample", 64)


def test_export_in_int8_reports_its_difference_and_is_for_onnx_files(model, tmp_path, capsys) -> None:
    code, out, err = in_process(capsys, "export", model, "--int8", "-o", tmp_path / "denoiser.onnx")
    assert (code, err) == (0, "")
    assert [path.name for path in tmp_path.iterdir()] == ["denoiser.onnx"]
    assert "differs from PyTorch by at most" in out
    code, _, err = in_process(capsys, "export", model, "--int8", "-o", tmp_path / "weights.pth")
    assert code == 1
    assert "--int8 is for ONNX files, not for .pth" in err


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_the_commands_give_the_same_faces_with_a_backend_and_report_to_nobody(model, face, tmp_path, capsys) -> None:
    home = tmp_path / "home"
    home.mkdir()
    common = ("restore", face, "--aligned", "--model", model, "--precision", "fp32", "-o")
    command = [sys.executable, "-m", "idm", *map(str, (*common, tmp_path / "openvino", "--backend", "openvino"))]
    environment = {**os.environ, "HOME": str(home), "MPLCONFIGDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert not (home / "intel").exists()  # where openvino's telemetry keeps the number it gives a user
    assert in_process(capsys, *common, tmp_path / "torch")[0] == 0
    found, wanted = (read_image(tmp_path / name / "face.png").rgb.astype(int) for name in ("openvino", "torch"))
    assert np.abs(found - wanted).max() <= 1


def test_evaluate_records_the_backend_of_the_model(model, tmp_path, capsys) -> None:
    arguments = ("evaluate", "--model", model, "--num-images", 2, "--backend", "onnxruntime", "-o", tmp_path)
    assert in_process(capsys, *arguments)[0] == 0
    metadata = json.loads((tmp_path / "metrics.json").read_text())["model"]
    assert (metadata["backend"], metadata["precision"]) == ("onnxruntime", "float32")  # whatever the machine prefers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--backend", "onnxruntime", "--precision", "bf16"], "onnxruntime computes in fp32 only"),
        (["--backend", "openvino", "--device", "cuda"], "--backend openvino computes on the CPU, not on --device cuda"),
    ],
)
def test_a_backend_that_cannot_is_refused_with_one_line(arguments, message, model, face, tmp_path, capsys) -> None:
    code, _, err = in_process(capsys, "restore", face, "--model", model, *arguments, "-o", tmp_path / "out")
    assert code == 1
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


class Another:
    """A restorer that is no IDM."""

    image_size = SIZE

    def restore(self, lq, seeds):
        return lq


def test_other_restorers_have_no_backend_and_are_not_exported(face, tmp_path, capsys, monkeypatch) -> None:
    for module in (model_module, export_module):
        monkeypatch.setattr(module, "load_restorer", lambda *_: Loaded(Another(), {"name": "another"}))
    out = tmp_path / "out"
    code, _, err = in_process(capsys, "restore", face, "--model", "it", "--backend", "openvino", "-o", out)
    assert code == 1
    assert "it: runs with torch only; --backend openvino is for IDM" in err
    code, _, err = in_process(capsys, "export", "it", "-o", out)
    assert code == 1
    assert "it: this kind of model cannot be exported" in err
    monkeypatch.setattr(Another, "graph", lambda _: pytest.fail("in float32"), raising=False)
    code, _, err = in_process(capsys, "export", "it", "--int8", "-o", out)
    assert code == 1
    assert "it: cannot be exported in int8; --int8 is for IDM" in err
    assert not out.exists()
