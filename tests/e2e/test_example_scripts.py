"""Every program in examples/, run in this process."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from idm.data.sources import SyntheticFaces

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples"
MODEL = ("--model", "idm-faces-128")


def program(name: str) -> Callable[[list[str]], None]:
    """The main function of an example."""
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_every_example_is_listed_and_tested() -> None:
    names = {path.stem for path in FOLDER.glob("*.py")}
    listed, tests = (FOLDER / "README.md").read_text(), Path(__file__).read_text()
    assert names
    assert [name for name in names if f"({name}.py)" not in listed or f'program("{name}")' not in tests] == []


def test_a_photograph_is_restored_from_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from skimage.data import astronaut

    photo, output = tmp_path / "astronaut.png", tmp_path / "restored.png"
    Image.fromarray(astronaut()).resize((256, 256)).save(photo)
    program("restore_from_python")([str(photo), "-o", str(output), *MODEL])
    assert "face 0" in capsys.readouterr().out
    before, after = np.array(Image.open(photo), np.int16), np.array(Image.open(output), np.int16)
    changed = (np.abs(after - before).max(axis=2) > 0).mean()
    assert 0.001 < changed < 0.5, "the face changes and what surrounds it does not"


def test_a_custom_degradation_is_restored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program("custom_degradation")(["-o", str(tmp_path / "faces.png"), *MODEL, "--num-images", "2"])
    assert capsys.readouterr().out.count("PSNR") == 2
    assert Image.open(tmp_path / "faces.png").width > 3 * 128


def test_a_new_sampler_restores_as_well_as_ddim(capsys: pytest.CaptureFixture[str]) -> None:
    program("new_sampler")([*MODEL, "--num-images", "2"])
    scores = [float(line.split()[2]) for line in capsys.readouterr().out.splitlines()]
    assert len(scores) == 2
    assert min(scores) > 15
    assert scores[1] == pytest.approx(scores[0], abs=1.5)


def test_a_folder_of_faces_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "faces").mkdir()
    faces = SyntheticFaces(12, 0, 32)
    for index in range(len(faces)):
        Image.fromarray(faces[index].image).save(tmp_path / "faces" / f"{index}.png")
    AcceleratorState._reset_state(reset_partial_state=True)  # of tests before this one in the same process
    tiny = ROOT / "tests" / "e2e" / "tiny.yaml"
    settings = ["train.num_steps=2", "validation.every=2", "train.accumulation=1"]
    program("train_on_a_folder")(
        [str(tmp_path / "faces"), "-o", str(tmp_path / "run"), "--config", str(tiny), *settings]
    )
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert Image.open(tmp_path / "run" / "example.png").size == (32, 32)
