"""What ``idm clean --data`` may name, and that mistakes are one line."""

from pathlib import Path

import pytest

from idm.apps.cli.clean import parse_source
from idm.apps.cli.main import main
from idm.config.load import ConfigError

TINY = Path(__file__).parents[1] / "e2e" / "tiny.yaml"


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("assets:val", {"name": "assets", "split": "val"}),
        ("assets", {"name": "assets", "split": "train"}),
        ("synthetic:7", {"name": "synthetic", "num_faces": 7}),
        ("my/faces", {"name": "folder", "path": Path("my/faces")}),
        (str(TINY), {"name": "synthetic", "num_faces": 20}),
        (
            "{name: huggingface, path: parquet, data_files: a.parquet, id_column: id}",
            {"name": "huggingface", "data_files": "a.parquet", "id_column": "id"},
        ),
    ],
)
def test_every_source_that_training_reads_can_be_named(text: str, fields: dict) -> None:
    source = parse_source(text)
    assert {name: getattr(source, name) for name in fields} == fields


@pytest.mark.parametrize("text", ["{name: assets, split: tset}", "{name: floder}", "assets:tests", "{: }"])
def test_a_source_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--data"):
        parse_source(text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gate.min_identiti=0.5"], "did you mean 'min_identity'"),
        (["sampler.name=ddim", "sampler.num_steps=5000"], "number of steps"),
        (["sampler={name: ddim, strength: 0.5}"], "start_from='degraded'"),
        (["--seed", "-1"], "--seed: must be 0 or above"),
        (["--num-images", "9"], "--num-images: 9 of the 8"),
        (["--model", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    output = tmp_path / "out"
    with pytest.raises(SystemExit) as ended:
        main(["clean", "--data", "synthetic:8", "-o", str(output), *arguments])
    assert ended.value.code == 1
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not output.exists()


def test_missing_weights_of_the_identity_network_are_a_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    with pytest.raises(SystemExit) as ended:
        main(["clean", "--data", "synthetic:8", "-o", str(tmp_path / "out")])
    assert ended.value.code == 1
    assert "mobilefacenet_casia.safetensors" in capsys.readouterr().err
