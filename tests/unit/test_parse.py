"""``--data`` and ``--preset`` take all that the sections ``data.source`` and ``degradation`` take in YAML."""

import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from idm.apps.cli.faces import AS_PUBLISHED, Degraded, build_pairs, open_faces
from idm.apps.cli.main import build_parser
from idm.apps.cli.options.measure import MeasureOptions
from idm.apps.cli.options.shared import read
from idm.apps.cli.parse import parse_degradation, parse_source
from idm.config.assembly.adapt import DEGRADATION
from idm.config.assembly.data import build_recipe
from idm.config.load import ConfigError, load_config
from idm.config.schema import (
    AssetsConfig,
    DegradationConfig,
    FolderConfig,
    HuggingFaceConfig,
    IDMConfig,
    LQConfig,
    MeasuredSourceConfig,
    PairsConfig,
    Source,
    SourceConfig,
    SyntheticConfig,
)
from idm.data.sources import SyntheticFaces
from idm.degradation import PRESETS
from idm.io.errors import InvalidInput
from idm.io.image_writer import write_image

ROOT = Path(__file__).parents[2]
TINY = ROOT / "tests" / "e2e" / "tiny.yaml"
BASELINE = ROOT / "configs" / "gan_faces64.yaml"

SOURCES: tuple[type[Source], ...] = get_args(get_args(SourceConfig)[0])

CHANGES = {
    "preset": "mild",
    "clean_probability": "1.0",
    "skip_probability": "1.0",
    "bicubic_probability": "1.0",
    "half_size_probability": "1.0",
    "mixture": "{mild: 1.0}",
    "steps": "[{name: blur, sigma: [9, 9]}, {name: resize}]",
    "blur_sigma": "[90, 90]",
    "down": "[20, 20]",
    "noise_sigma": "[80, 80]",
    "jpeg_quality": "[1, 1]",
}
"""A change of every field of the degradation."""


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("assets:val", AssetsConfig(split="val")),
        ("assets", AssetsConfig()),
        ("synthetic", SyntheticConfig()),
        ("synthetic:7", SyntheticConfig(num_faces=7)),
        ("my/faces", FolderConfig(path=Path("my/faces"))),
        ("pairs:my/set", PairsConfig(path=Path("my/set"))),
        ("{name: pairs, path: my/set}", PairsConfig(path=Path("my/set"))),
        ("lq:my/faces", LQConfig(path=Path("my/faces"))),
        ("{name: lq, path: my/faces}", LQConfig(path=Path("my/faces"))),
        (str(TINY), SyntheticConfig(num_faces=20)),
        ("{name: huggingface, path: 1e4x, split: no}", HuggingFaceConfig(path="1e4x", split="no")),
    ],
)
def test_data_has_short_names(text: str, source: MeasuredSourceConfig) -> None:
    assert parse_source(text) == source


def test_a_command_reports_which_faces_synthetic_stands_for() -> None:
    own = SyntheticConfig(num_faces=64, seed=5)
    assert parse_source("synthetic", synthetic=own) == own
    assert parse_source("synthetic:3", synthetic=own) == SyntheticConfig(num_faces=3, seed=5)
    assert parse_source("{name: synthetic}", synthetic=own) == SyntheticConfig()


@pytest.mark.parametrize("name", ["pairs", "lq"])
def test_training_refuses_faces_that_are_degraded_already(name: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.source\.name: must be one of 'synthetic', "):
        load_config(TINY, IDMConfig, [f"data.source={{name: {name}, path: my/set}}"])


def changed(kind: type[Source]) -> dict[str, Any]:
    """Settings of a source as JSON says them, each another one than the default."""
    return {"name": kind.model_fields["name"].default} | {
        name: other_value(field) for name, field in kind.model_fields.items() if name != "name"
    }


def other_value(field: FieldInfo) -> Any:
    check = TypeAdapter(field.rebuild_annotation(), config=ConfigDict(strict=True))
    words = [word for word in get_args(field.annotation) if isinstance(word, str)]  # of a Literal
    for value in (*words, True, 7, 0.5, "other"):
        try:
            if check.validate_json(json.dumps(value)) != field.default:
                return value
        except ValidationError:
            pass
    raise AssertionError(f"no value for {field}")


@pytest.mark.parametrize("kind", SOURCES)
def test_every_field_of_every_source_can_be_given_as_in_yaml(kind: type[Source]) -> None:
    settings = changed(kind)
    text = yaml.safe_dump(settings, default_flow_style=True, width=1000).strip()
    source = load_config(TINY, IDMConfig, [f"data.source={text}", "data.val_source={name: synthetic}"]).data.source
    assert source.model_dump(mode="json") == settings
    assert parse_source(text) == parse_source(json.dumps(settings)) == source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: assets, split: tset}", "--data: data.source.split: Input should be 'train', 'val' or 'test'"),
        ("assets:tests", "--data: data.source.split: Input should be 'train', 'val' or 'test'"),
        ("{name: floder}", "--data: data.source.name: must be one of 'synthetic', "),
        ("{name: folder, pth: a}", "--data: data.source.pth: unknown key; did you mean 'path'?"),
        ("{path: a}", "--data: data.source.name: must be one of "),
        ("{name: folder", "--data: the value is not YAML"),
        ("synthetic:0", "--data: data.source.num_faces: Input should be greater than or equal to 1"),
        ("{name: huggingface, path: a, num_faces: 3}", "--data: data.source.num_faces: is needed with streaming"),
        ("nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_a_source_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_source(text)
    assert str(caught.value).startswith(message) or message in str(caught.value).splitlines()


def test_the_changes_here_are_of_all_fields_of_a_degradation() -> None:
    assert CHANGES.keys() == DegradationConfig.model_fields.keys()


@pytest.mark.parametrize("own", [AS_PUBLISHED, DEGRADATION], ids=["evaluate", "adapt"])
@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_a_degradation_can_be_given_as_in_yaml(field: str, own: DegradationConfig) -> None:
    given = parse_degradation(f"{{{field}: {CHANGES[field]}}}", own)
    section = json.dumps(own.model_dump(mode="json"))
    config = load_config(TINY, IDMConfig, [f"degradation={section}", f"degradation.{field}={CHANGES[field]}"])
    assert given == config.degradation
    assert {name for name in CHANGES if getattr(given, name) != getattr(own, name)} == {field}


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_the_published_recipe(preset: str) -> None:
    assert build_recipe(parse_degradation(preset, AS_PUBLISHED)) == PRESETS[preset]
    assert parse_degradation(preset, DEGRADATION) == DEGRADATION.model_copy(update={"preset": preset})


@pytest.mark.parametrize("path", [TINY, BASELINE, ROOT / "configs" / "faces128.yaml"], ids=lambda path: path.stem)
def test_the_sections_of_a_configuration_are_taken_as_they_are(path: Path) -> None:
    stated = yaml.safe_load(path.read_text())
    assert parse_source(str(path)).model_dump(exclude_unset=True, mode="json") == stated["data"]["source"]
    degradation = parse_degradation(str(path), DEGRADATION)
    assert degradation == DegradationConfig.model_validate_json(json.dumps(stated.get("degradation", {})))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rain", "--preset: degradation.preset: Input should be 'gfpgan', "),
        ("{presett: mild}", "--preset: degradation.presett: unknown key; did you mean 'preset'?"),
        ("{down: [3, 2]}", "--preset: degradation.down: Value error, the range [3.0, 2.0] ends before it begins"),
        ("{steps: [{name: blurr}]}", "--preset: degradation.steps.0.name: must be one of 'blur', "),
        ("{preset: mild", "--preset: the value is not YAML"),
        ("nowhere.yml", "nowhere.yml: cannot be read"),
    ],
)
def test_a_degradation_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_degradation(text, AS_PUBLISHED)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# The commands


def pairs_of(*arguments: str) -> Degraded:
    """The pairs of ``idm evaluate``."""
    parsed = build_parser().parse_args(["evaluate", "--data", "synthetic:3", "-o", "out", *arguments])
    return build_pairs(read(MeasureOptions, parsed), 32)


def degraded(*arguments: str) -> list[np.ndarray]:
    pairs = pairs_of(*arguments).pairs
    return [pairs[i].lq for i in range(len(pairs))]


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_a_degradation_reaches_the_evaluated_faces(field: str) -> None:
    before, after = degraded(), degraded("--preset", f"{{{field}: {CHANGES[field]}}}")
    assert any(not np.array_equal(one, other) for one, other in zip(before, after, strict=True))


def test_clean_faces_are_not_degraded() -> None:
    pairs = pairs_of("--preset", "clean").pairs
    assert all(np.array_equal(pairs[i].lq, pairs[i].hq) for i in range(len(pairs)))


def test_results_record_the_preset_as_given_and_its_settings() -> None:
    text = "{preset: mild, down: [2, 3]}"
    given = pairs_of("--preset", text)
    assert given.preset == text
    assert given.degradation == parse_degradation(text, AS_PUBLISHED).model_dump(mode="json")
    assert pairs_of().preset == "gfpgan"


def test_bicubic_enlargement_is_shown_where_a_step_enlarges() -> None:
    for text in ("difface", "{mixture: {difface: 0.5}}"):
        given = pairs_of("--preset", text)
        assert given.bicubic is not None
        assert any(not np.array_equal(given.bicubic[i].lq, given.pairs[i].lq) for i in range(3))
    assert pairs_of("--preset", "{steps: [{name: blur, sigma: [1, 2]}]}").bicubic is None


def test_bare_synthetic_faces_are_those_of_the_seed() -> None:
    for wanted, number in ((None, 64), (5, 5)):
        faces, expected = open_faces("synthetic", 16, wanted, 7), SyntheticFaces(number, 7, 16)
        assert len(faces) == number
        assert faces[number - 1].key == expected[number - 1].key
    assert [face.key for face in map(open_faces("synthetic:9", 16, 3, 7).__getitem__, range(3))] == [
        f"synthetic_7_00000{i}" for i in (0, 3, 6)
    ]


def test_faces_of_a_data_set_are_evaluated_and_those_of_a_stream_are_not(tmp_path: Path) -> None:
    import datasets

    files = [tmp_path / f"{i}.png" for i in range(3)]
    for i, file in enumerate(files):
        write_image(file, SyntheticFaces(3, 0, 32)[i].image)
    images = [{"bytes": file.read_bytes(), "path": None} for file in files]
    stored = datasets.Dataset.from_dict({"face": images, "id": ["a", "b", "c"]})
    stored.cast_column("face", datasets.Image()).to_parquet(tmp_path / "faces.parquet")
    section = f"name: huggingface, path: parquet, data_files: {tmp_path}/faces.parquet, image_column: face"
    faces = open_faces(f"{{{section}, id_column: id}}", 32, 2, 0)
    assert [faces[i].key for i in range(2)] == ["a", "b"]
    assert np.array_equal(faces[1].image, SyntheticFaces(3, 0, 32)[1].image)
    with pytest.raises(InvalidInput, match=r"--real: the faces of a stream cannot be read again"):
        open_faces(f"{{{section}, streaming: true, num_faces: 3}}", 32, None, 0, "--real")
