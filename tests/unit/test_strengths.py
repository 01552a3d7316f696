"""The committed tables of the strengths experiment are those of its result files, and the README shows one of them."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from idm.data.sources import FolderFaces, Part
from idm.diffusion.chain import Chain
from idm.diffusion.schedule import log_sigma
from idm.restorers.saved import load_idm

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "strengths"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"strengths_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


table = load("table")


def test_the_table_is_up_to_date() -> None:
    assert (FOLDER / "table.md").read_text() == table.render(), "run: python experiments/strengths/table.py"


def test_the_readme_shows_the_bundled_models_table() -> None:
    shown = (ROOT / "README.md").read_text().partition("<!-- strengths -->\n")[2].partition("\n\n")[0]
    result = json.loads((FOLDER / "results" / "bundled_test.json").read_text())
    assert shown == table.strengths(result).strip()


def test_the_search_of_levels_changes_the_second_step_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(FOLDER))
    levels = load("levels")
    for name in ("chains", "run"):  # other experiments have modules of these names
        monkeypatch.delitem(sys.modules, name)
    gammas = log_sigma(0.02, 1.5, 100.0, 64).tolist()
    published = Chain(num_steps=4, spacing="levels", levels=(100.0, 1.0, 0.5, 0.1))
    even, *searched = levels.chains(published, gammas, [0.25, 0.03])
    assert even == Chain(num_steps=2)
    found = [levels.described(chain, gammas)["levels"] for chain in searched]
    assert found == [[100.0, 0.25], [100.0, 0.03]]
    assert levels.described(even, gammas)["levels"][0] == 100.0
    with pytest.raises(ValueError, match="must fall"):
        list(levels.chains(published, gammas, [200.0]))


@pytest.mark.skipif("IDM_ASSETS" not in os.environ, reason="needs the faces that IDM_ASSETS names")
def test_the_first_faces_of_the_bundled_model_measure_as_committed() -> None:
    result = json.loads((FOLDER / "results" / "bundled_test.json").read_text())
    folder = Path(os.environ["IDM_ASSETS"]) / "faces256" / "test"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    run = load("run")
    faces = Part(FolderFaces(folder, 256), range(6))
    restorer = load_idm(None, torch.device("cpu"), torch.float32)
    found = run.measure_strength(restorer, faces, run.STRENGTHS["gfpgan"], {row["file_name"]: row for row in rows})
    wanted = result["strengths"]["gfpgan"]["first"]
    tolerance = {"psnr": 0.2, "ssim": 0.01, "identity": 0.03}  # the committed run may have computed in bfloat16
    for key, scores in wanted.items():
        for name, allowed in tolerance.items():
            assert found["first"][key][name] == pytest.approx(scores[name], abs=allowed), (key, name)
