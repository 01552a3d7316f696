"""What the commands import: restoring needs torch, an image library and our own modules, and no more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from idm.io.image_writer import write_image

HEAVY = {
    "accelerate",
    "bitsandbytes",
    "datasets",
    "diffusers",
    "facexlib",
    "gradio",
    "huggingface_hub",
    "lpips",
    "matplotlib",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyiqa",
    "scipy",
    "skimage",
    "spandrel",
    "tensorboard",
    "torch._dynamo",
    "torchvision",
    "transformers",
}

COMMAND = """
import json, sys
from idm.apps.cli.main import main
try:
    main(sys.argv[2:])
except SystemExit as end:
    status = end.code
with open(sys.argv[1], "w") as file:
    json.dump({"status": status, "modules": sorted(sys.modules)}, file)
"""

COUNTED = """
import sys
from idm.restorers import saved
read, find = saved.read_denoiser_weights, saved.find_model
calls = []
saved.read_denoiser_weights = lambda folder: calls.append("weights") or read(folder)
saved.find_model = lambda path: calls.append("find") or find(path)
from idm.apps.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    print(calls)
"""


@pytest.fixture(scope="module")
def face(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("face") / "face.png"
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    write_image(path, np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], np.uint8(90)), axis=-1))
    return path


def imported(tmp_path: Path, *arguments: str) -> set[str]:
    """The modules that a command imported; it must have succeeded."""
    report = tmp_path / "report.json"
    subprocess.run([sys.executable, "-c", COMMAND, report, *arguments], check=True, capture_output=True)
    done = json.loads(report.read_text())
    assert not done["status"]
    return set(done["modules"])


@pytest.mark.parametrize("arguments", [["--help"], ["restore", "--help"], ["--version"]], ids=" ".join)
def test_help_imports_no_torch(tmp_path, arguments):
    assert not imported(tmp_path, *arguments) & (HEAVY | {"torch", "numpy", "PIL", "cv2"})


def test_restoring_an_aligned_face_imports_nothing_heavy(tmp_path, face):
    modules = imported(tmp_path, "restore", "--aligned", str(face), "-o", str(tmp_path / "out"))
    assert (tmp_path / "out" / "face.png").exists()
    assert "torch" in modules
    assert not modules & HEAVY


def test_reading_a_configuration_imports_no_torch():
    code = "import sys, idm.config.load; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "command", [["restore", "--aligned", "FACE"], ["clean", "--data", "synthetic:1", "gate=null"]], ids=lambda c: c[0]
)
def test_a_command_finds_the_model_once_and_reads_its_weights_once(tmp_path, face, command):
    arguments = [*(str(face) if word == "FACE" else word for word in command), "-o", str(tmp_path / "out")]
    printed = subprocess.run([sys.executable, "-c", COUNTED, *arguments], check=True, capture_output=True, text=True)
    assert printed.stdout.splitlines()[-1] == "['find', 'weights']"


AT_TORCH = """
import os, runpy, sys
class Importing:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            sys.exit(f"torch: {os.environ.get('GOMP_SPINCOUNT')}")
sys.meta_path.insert(0, Importing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(("environment", "spins"), [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, "None")])
@pytest.mark.parametrize("command", ["train_idm.py --config configs/quickstart.yaml", "idm/__main__.py app"])
def test_a_command_limits_spinning_before_it_imports_torch_unless_the_user_chose(command, environment, spins):
    others = {key: value for key, value in os.environ.items() if key not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", AT_TORCH, *command.split()],
        cwd=Path(__file__).parents[2],
        env=others | environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr.splitlines()[-1] == f"torch: {spins}"
