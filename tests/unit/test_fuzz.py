"""A bounded, seeded part of the fuzzing in tests/fuzz_images.py: what PIL opens, we restore."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_images", Path(__file__).parents[1] / "fuzz_images.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_pil_opens_is_restored_and_all_else_is_refused_by_name(fuzz: ModuleType) -> None:
    counts = fuzz.run(600, seed=1)
    assert counts.total() == 600
    assert counts["restored"] >= 60
    assert counts["refused, as by PIL"] >= 60
    assert counts["restored, metadata dropped and named"] + counts["restored, though PIL stops at its metadata"] >= 1


def test_the_oracle_sees_a_reader_that_refuses_sound_pictures(
    fuzz: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise fuzz.ImageError(f"{path}: is broken")

    monkeypatch.setattr(fuzz, "read_photo", refuse)
    sound = fuzz.seeds(fuzz.np.random.default_rng(0))[4]
    with pytest.raises(fuzz.UnexplainedError, match="PIL opens what is refused"):
        fuzz.outcome(sound, tmp_path / "a.png")
