"""Each mistake in ``idm clean`` is one line."""

from pathlib import Path

import pytest

from idm.apps.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["gate.min_identiti=0.5"], "did you mean 'min_identity'"),
        (["sampler.name=ddim", "sampler.num_steps=5000"], "number of steps"),
        (["sampler={name: ddim, strength: 0.5}"], "start_from='degraded'"),
        (["--seed", "-1"], "--seed: must be 0 or above"),
        (["--num-images", "9"], "--num-images: 9 faces are needed, and there are 8"),
        (["--model", "nowhere"], "nowhere"),
        (["--data", "{name: huggingface, path: x, streaming: true}"], "--data: data.source.num_faces: is needed with"),
        (["--data", "{name: floder}"], "--data: data.source.name: must be one of 'synthetic', 'folder', "),
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
