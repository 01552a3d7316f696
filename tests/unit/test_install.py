"""What pip installs with this package, by the requirements that the installed distributions state."""

import importlib.util
import sys
from pathlib import Path

import pytest

from idm.apps.cli.model import builtin_note

PATH = Path(__file__).parents[2] / "experiments" / "benchmarks" / "installed.py"


@pytest.fixture(scope="module")
def installed():
    spec = importlib.util.spec_from_file_location("installed", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_base_install_has_one_opencv_and_no_tools_of_metrics_and_tests(installed) -> None:
    base = set.union(*installed.closure(installed.PROJECT["dependencies"]))
    assert {"torch", "torchvision", "diffusers", "accelerate", "einops", "datasets", "opencv-python-headless"} <= base
    assert not base & {"opencv-python", "numba", "matplotlib", "pyiqa", "bitsandbytes", "pytest", "ruff", "gradio"}


def test_extras_bring_what_is_not_in_the_base_and_that_of_the_tests_brings_all_of_it(installed) -> None:
    def brought(extra: str) -> set[str]:
        return set.union(*installed.closure(installed.EXTRAS[extra]))

    assert {"lpips", "pyiqa", "facexlib"} <= brought("metrics")
    assert "facexlib" in brought("retinaface")
    everything = {"lpips", "pyiqa", "facexlib", "gradio", "av", "spandrel", "onnx", "onnxruntime", "openvino"}
    assert everything <= brought("all")
    assert brought("all") | brought("heic") | {"pytest", "mypy", "ruff"} <= brought("dev")


@pytest.mark.parametrize("there", [True, False])
def test_the_note_about_the_detector_names_the_commands_that_bring_the_other_one(
    there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not there:
        monkeypatch.setitem(sys.modules, "facexlib", None)  # as if it were not installed
    assert ("pip install 'idm-face-restoration[retinaface]'" in builtin_note()) is not there
    assert "`idm weights fetch`" in builtin_note()
