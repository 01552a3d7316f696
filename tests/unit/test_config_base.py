"""``base``: a configuration file that says only what it changes in another."""

from pathlib import Path

import pytest
import yaml

from idm.config import schema
from idm.config.load import ConfigError, dump_config, load_config

FIRST = """
output_dir: runs/first
data: {source: {name: folder, path: faces}, image_size: 32}
degradation: {mixture: {mild: 0.25}}
denoiser: {channels: [8, 16, 24], num_blocks: [1, 1, 1], head_dim: 8}
sampler: {name: ddim, num_steps: 4, eta: 0.5}
train: {num_steps: 10, batch_size: 4}
"""


@pytest.fixture
def write(tmp_path):
    """Write files by their names; gives the path of the last."""

    def write(**files: str) -> Path:
        for name, text in files.items():
            path = tmp_path / f"{name}.yaml"
            path.write_text(text)
        return path

    return write


def load(path: Path, *overrides: str) -> schema.IDMConfig:
    return load_config(path, schema.IDMConfig, overrides)


def fault(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return str(caught.value).replace(f"{path.parent}/", "")


def test_mappings_are_merged_and_other_values_replaced(write):
    second = "base: first.yaml\ntrain: {num_steps: 20}\ndegradation: {mixture: {vqfr: 0.5}}\n"
    path = write(first=FIRST, second=second + "denoiser: {channels: [8, 16], num_blocks: [1, 1]}\n")
    changes = ["train.num_steps=20", "degradation.mixture={mild: 0.25, vqfr: 0.5}"]
    changes += ["denoiser.channels=[8, 16]", "denoiser.num_blocks=[1, 1]"]
    assert load(path) == load(write(first=FIRST), *changes)


def test_null_replaces_a_section_of_the_base(write):
    first = FIRST.replace("image_size: 32", "image_size: 32, val_source: {name: folder, path: val}")
    assert load(write(first=first)).data.val_source is not None
    path = write(first=first, second="base: first.yaml\ndata: {val_source: null}\n")
    assert load(path) == load(write(first=FIRST))


def test_bases_form_a_chain_in_which_the_later_file_decides(write):
    second = "base: first.yaml\nseed: 1\ntrain: {num_steps: 20, batch_size: 8}\n"
    path = write(first=FIRST, second=second, third="base: second.yaml\ntrain: {num_steps: 30}\n")
    assert load(path) == load(write(first=FIRST), "seed=1", "train.num_steps=30", "train.batch_size=8")


def test_overrides_come_after_the_bases(write):
    path = write(first=FIRST, second="base: first.yaml\ntrain: {num_steps: 20}\n")
    assert load(path, "train.num_steps=30").train.num_steps == 30


def test_another_choice_drops_the_fields_of_the_one_in_the_base(write):
    path = write(first=FIRST, second="base: first.yaml\nsampler: {name: unipc}\ndata: {source: {name: synthetic}}\n")
    assert load(path).sampler == schema.ChainConfig(name="unipc")
    assert load(path).data.source == schema.SyntheticConfig()
    path = write(first=FIRST, second="base: first.yaml\nsampler: {name: ddim, num_steps: 2}\n")
    assert load(path).sampler == schema.ChainConfig(name="ddim", num_steps=2, eta=0.5)


def test_a_base_is_relative_to_the_file_that_names_it(write, tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    write(first=FIRST)
    path = write(**{"deep/second": "base: ../first.yaml\nseed: 1\n"})
    monkeypatch.chdir(tmp_path / "deep")
    assert load(Path("second.yaml")) == load(path) == load(tmp_path / "first.yaml", "seed=1")


def test_the_saved_configuration_is_the_merged_one(write, tmp_path):
    config = load(write(first=FIRST, second="base: first.yaml\nseed: 1\n"))
    (tmp_path / "saved.yaml").write_text(dump_config(config))
    (tmp_path / "first.yaml").unlink()
    assert "base" not in yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert load(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "base: absent.yaml\n"}, "a.yaml: base: absent.yaml: cannot be read (No such file or directory)"),
        ({"b": "base: absent.yaml\n", "a": "base: b.yaml\n"}, "a.yaml: base: b.yaml: base: absent.yaml: cannot be "),
        ({"a": "base: a.yaml\n"}, "a.yaml: base: a.yaml: is a cycle"),
        ({"b": "base: a.yaml\n", "a": "base: b.yaml\n"}, "a.yaml: base: b.yaml: base: a.yaml: is a cycle"),
        ({"b": "- 1\n", "a": "base: b.yaml\n"}, "a.yaml: base: b.yaml: must hold sections"),
        ({"b": "data: [\n", "a": "base: b.yaml\n"}, "a.yaml: base: b.yaml: is not YAML: "),
        ({"a": "base: [b.yaml]\n"}, "a.yaml: base: must be the path of a YAML file, got ['b.yaml']"),
        ({"a": "base:\n"}, "a.yaml: base: must be the path of a YAML file, got None"),
        ({"b": FIRST, "a": "base: b.yaml\ntrain: {num_step: 3}\n"}, "a.yaml: train.num_step: unknown key; did you"),
    ],
)
def test_a_faulty_base_is_refused_with_the_files_that_lead_to_it(write, files, message):
    assert fault(write(**files)).startswith(message)


def test_a_base_cannot_be_set_by_an_override(write):
    with pytest.raises(ConfigError, match="base: unknown key"):
        load(write(first=FIRST), "base=first.yaml")
