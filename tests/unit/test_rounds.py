"""The rounds: their order, when they stop, and what they are trained on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from idm.config.assembly import extrinsic as rounds_of
from idm.config.assembly.extrinsic import build_cleaning, build_pool, build_rounds, load_cleaner
from idm.config.load import ConfigError, load_config
from idm.config.schema import CleaningConfig, IDMConfig
from idm.data.cache import Cached
from idm.data.mixing import Pool
from idm.data.sources import Face, FolderFaces, Part, SyntheticFaces
from idm.extrinsic.rounds import Rounds, Stages
from idm.extrinsic.shards import CleanedFace, Entry, shard_path, write_shard
from idm.io.image_writer import write_image
from idm.io.images import ImageError

TINY = Path(__file__).parents[1] / "e2e" / "tiny.yaml"


def result(psnr: float) -> dict[str, Any]:
    return {"metrics": {"psnr": {"restored": {"mean": psnr}}, "ssim": {"restored": {"mean": 0.5}}}}


DRIFT = {"drift": {"share": 0.25, "identity": 0.98, "colour": [0.1, -0.2, 0.3]}}


def rounds(folder: Path, psnrs: list[float], max_loss: float = 0.1) -> tuple[Rounds, list[str]]:
    done: list[str] = []

    def train(number: int) -> dict[str, Any]:
        done.append(f"train {number}")
        return result(psnrs[number])

    def clean(number: int) -> dict[str, Any]:
        done.append(f"clean {number}")
        return DRIFT

    return Rounds(folder, len(psnrs) - 1, Stages(train, clean), max_loss), done


def test_rounds_train_and_clean_in_turn_and_report_every_drift(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, done = rounds(tmp_path, [20.0, 21.0, 20.95])
    made.fit()
    assert done == ["train 0", "clean 0", "train 1", "clean 1", "train 2"]
    table = json.loads((tmp_path / "rounds.json").read_text())
    assert table["stopped"] is None
    assert [row.get("cleaning") for row in table["rounds"]] == [DRIFT, DRIFT, None]
    made.report()
    printed = capsys.readouterr().out
    assert "25.0%" in printed
    assert "0.9800" in printed
    assert "+0.100 -0.200 +0.300" in printed


def test_a_round_that_validates_worse_stops_the_loop_and_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, done = rounds(tmp_path, [20.0, 19.89, 25.0])
    made.fit()
    assert done == ["train 0", "clean 0", "train 1"]
    assert "round 1 validates worse than round 0" in json.loads((tmp_path / "rounds.json").read_text())["stopped"]
    made.report()
    assert "the model of round_0 is the better one" in capsys.readouterr().out


def test_a_round_may_be_worse_by_the_tolerance(tmp_path: Path) -> None:
    made, done = rounds(tmp_path, [20.0, 19.91, 19.82])
    made.fit()
    assert done[-1] == "train 2"


# ----------------------------------------------------------------------------------- what a round sees


def config(folder: Path, *overrides: str) -> IDMConfig:
    return load_config(TINY, IDMConfig, [f"output_dir={folder}", "extrinsic.rounds=3", *overrides])


def write_cleaned(folder: Path, number: int, missing: int | None = None) -> None:
    """A finished job whose faces are those of seed ``10 + number``."""
    source = SyntheticFaces(16, 10 + number, 32)
    path = shard_path(folder / f"clean_{number}", 0, 1)
    path.parent.mkdir(parents=True)
    entries = [Entry(source[i].key, i, "", 1, True, "better") for i in range(16)]
    faces = [CleanedFace(source[i].image, None, entries[i]) for i in range(16) if i != missing]
    write_shard(path, faces, [], "png", source_sha256="")
    rows = [vars(e) if e.index != missing else {**vars(e), "seed": None} for e in entries]
    (folder / f"clean_{number}" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_pool_replaced_at_once_holds_only_the_cleaned_faces(tmp_path: Path) -> None:
    originals = SyntheticFaces(16, 0, 32)
    write_cleaned(tmp_path, 0)
    pool = build_pool(config(tmp_path), originals, 1)
    np.testing.assert_array_equal(pool[3].image, SyntheticFaces(16, 10, 32)[3].image)
    np.testing.assert_array_equal(pool[3].original, originals[3].image)


def test_what_is_degraded_can_be_the_cleaned_face_itself(tmp_path: Path) -> None:
    write_cleaned(tmp_path, 0)
    pool = build_pool(config(tmp_path, "extrinsic.condition_on=cleaned"), SyntheticFaces(16, 0, 32), 1)
    assert isinstance(pool, Cached)
    assert pool[3].original is None


def test_a_gradual_pool_degrades_the_originals_of_both_rounds(tmp_path: Path) -> None:
    originals = SyntheticFaces(16, 0, 32)
    write_cleaned(tmp_path, 0)
    write_cleaned(tmp_path, 1)
    pool = build_pool(config(tmp_path, "extrinsic.replacement.name=gradual"), originals, 2)
    assert isinstance(pool, Pool)
    for source in (pool.old, pool.new):
        np.testing.assert_array_equal(source[7].original, originals[7].image)


def test_a_gradual_pool_starts_with_the_pool_of_the_round_before(tmp_path: Path) -> None:
    originals = SyntheticFaces(16, 0, 32)
    write_cleaned(tmp_path, 0)
    write_cleaned(tmp_path, 1)
    settings = config(tmp_path, "extrinsic.replacement.name=gradual", "extrinsic.replacement.over=0.5")
    first, second = (build_pool(settings, originals, number) for number in (1, 2))
    assert isinstance(first, Pool)
    assert isinstance(second, Pool)
    last = settings.train.num_steps * settings.train.batch_size - 1
    for pool, seeds in ((first, (0, 10)), (second, (10, 11))):
        for position, seed in zip((0, last), seeds, strict=True):
            assert pool.at(position, 5).key == f"synthetic_{seed}_000005"
    assert second.share(settings.train.num_steps // 4) == pytest.approx(0.5)


def test_a_mixed_pool_keeps_originals_with_the_share_of_its_round(tmp_path: Path) -> None:
    originals = SyntheticFaces(16, 0, 32)
    for number in range(3):
        write_cleaned(tmp_path, number)
    settings = config(tmp_path, "extrinsic.replacement.name=mixed", "extrinsic.replacement.shares=[0.25, 0.75]")
    pools = [build_pool(settings, originals, number) for number in (1, 2, 3)]
    assert [pool.share(0) for pool in pools] == [0.25, 0.75, 0.75]
    assert {pools[2].at(p, 5).key for p in range(50)} == {"synthetic_0_000005", "synthetic_12_000005"}


def test_a_pool_pairs_faces_with_their_originals_where_one_could_not_be_read(tmp_path: Path) -> None:
    write_cleaned(tmp_path, 0, missing=4)
    settings = config(tmp_path, "extrinsic.replacement.name=mixed")
    pool = build_pool(settings, SyntheticFaces(16, 0, 32), 1)
    assert isinstance(pool, Pool)
    assert len(pool) == 15
    for index, number in ((3, 3), (4, 5), (14, 15)):
        assert {pool.at(p, index).key for p in range(40)} == {f"synthetic_{s}_{number:06d}" for s in (0, 10)}


def test_a_round_that_continues_has_the_weights_of_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Begun(Exception): ...

    def build_run(here: IDMConfig, make: Any, data: Any, **_: Any) -> None:
        raise Begun(make.keywords["initial"])

    monkeypatch.setattr(rounds_of, "build_run", build_run)
    monkeypatch.setattr(rounds_of, "build_pool", lambda *_: None)
    monkeypatch.setattr(rounds_of, "find_model", lambda path: path)
    monkeypatch.setattr(rounds_of, "read_denoiser_weights", lambda folder: (f"weights of {folder.parent.name}", ""))
    source = SyntheticFaces(5, 0, 16)
    for settings, number, expected in (
        (["extrinsic.init=previous"], 0, None),
        (["extrinsic.init=previous"], 3, "weights of round_2"),
        ([], 3, None),
    ):
        with pytest.raises(Begun) as begun:
            rounds_of._train(config(tmp_path, *settings), source, source, source, number)
        assert begun.value.args == (expected,)


def test_a_round_is_trained_until_its_last_step_has_validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Begun(Exception): ...

    def build_run(*_: Any, **__: Any) -> None:
        raise Begun

    monkeypatch.setattr(rounds_of, "build_run", build_run)
    settings, source = config(tmp_path), SyntheticFaces(5, 0, 32)
    result = tmp_path / "round_0" / "metrics.json"
    result.parent.mkdir()
    result.write_text('{"step": 6, "metrics": {"psnr": 1}}')
    with pytest.raises(Begun):
        rounds_of._train(settings, source, source, source, 0)
    result.write_text(f'{{"step": {settings.train.num_steps}, "metrics": {{"psnr": 1}}}}')
    assert rounds_of._train(settings, source, source, source, 0) == {"metrics": {"psnr": 1}}


class Spoilt(SyntheticFaces):
    """Five faces of which the third cannot be read; it remembers which were asked for."""

    def __init__(self) -> None:
        super().__init__(5, 0, 32)
        self.asked: list[int] = []

    def __getitem__(self, index: int) -> Face:
        self.asked.append(index)
        if index == 2:
            raise ImageError("face 2: is no picture")
        return super().__getitem__(index)


def test_faces_that_cannot_be_read_are_found_once_and_left_out_of_the_first_round(tmp_path: Path) -> None:
    source = Spoilt()
    for _ in range(2):
        readable = rounds_of._readable(source, tmp_path / "run")
        assert isinstance(readable, Part)
        assert list(readable.indices) == [0, 1, 3, 4]
    assert sorted(source.asked) == [0, 1, 2, 3, 4]
    assert json.loads((tmp_path / "run" / "unreadable.json").read_text()) == {"2": "face 2: is no picture"}
    whole = SyntheticFaces(5, 0, 32)
    assert rounds_of._readable(whole, tmp_path / "other") is whole


def test_missing_weights_of_the_gate_are_known_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    with pytest.raises(FileNotFoundError, match="mobilefacenet_casia"):
        build_rounds(config(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_another_file_in_an_old_ones_place_makes_a_folder_another_source(tmp_path: Path) -> None:
    faces, folder = SyntheticFaces(3, 0, 32), tmp_path / "in"
    folder.mkdir()
    for i in range(2):
        write_image(folder / f"{i}.png", faces[i].image)
    settings, model = CleaningConfig.model_validate({"gate": {"min_identity": None}}), load_cleaner(None)

    def described() -> dict[str, Any]:
        source = Cached(Part(FolderFaces(folder, 32), [0]))
        return build_cleaning(source, {}, model, tmp_path / "out", settings, 0).metadata["source"]

    before = described()
    assert described() == before
    write_image(folder / "1.png", faces[2].image)
    assert described() != before
    write_image(folder / "1.png", faces[1].image)
    assert described() == before
    (folder / "1.png").rename(folder / "2.png")
    assert described() != before


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["extrinsic.sampler={name: ddim, num_steps: 4, strength: 0.5}"], "extrinsic.sampler: strength"),
        (["extrinsic.sampler={name: ddim, num_steps: 5000}"], "extrinsic.sampler.num_steps"),
        (["extrinsic.gate.min_identiti=0.5"], "did you mean 'min_identity'"),
        (["denoiser.conditional=false"], "denoiser.add_degraded"),
        (["denoiser.conditional=false", "denoiser.inject_degraded=true"], "denoiser.inject_degraded"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(tmp_path, *overrides)
