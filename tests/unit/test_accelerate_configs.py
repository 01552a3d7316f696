"""Does accelerate read every launch file, and does each say what its name and its first line say?"""

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

from idm.models import layers

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs" / "accelerate").glob("*.yaml"))
SHAPES = {  # distributed type, machines, processes, on the CPU
    "cpu": ("NO", 1, 1, True),
    "cpu2": ("MULTI_GPU", 1, 2, True),
    "gpu1": ("NO", 1, 1, False),
    "gpu8": ("MULTI_GPU", 1, 8, False),
    "multinode_2x8": ("MULTI_GPU", 2, 16, False),
    "fsdp": ("FSDP", 1, 8, False),
}


def load(name: str) -> ClusterConfig:
    config = load_config_from_file(str(ROOT / "configs" / "accelerate" / f"{name}.yaml"))
    assert isinstance(config, ClusterConfig)
    return config


def test_every_launch_file_is_tested() -> None:
    assert {path.stem for path in FILES} == set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_launch_file_starts_the_processes_that_its_name_promises(name: str) -> None:
    config = load(name)
    shape = (config.distributed_type.value, config.num_machines, config.num_processes, config.use_cpu)
    assert shape == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_a_launch_file_leaves_the_precision_to_the_run(name: str) -> None:
    assert load(name).mixed_precision is None


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_line_1_is_a_command_that_names_files_which_exist(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    command = r"accelerate launch --config_file (\S+) .*(train_idm\.py) --config (\S+)"
    launch = re.fullmatch(rf"# {command}", first)
    assert launch, first
    assert ROOT / launch[1] == path
    assert all((ROOT / name).is_file() for name in launch.groups())


def test_two_processes_on_the_cpu_see_no_gpu() -> None:
    hidden = load("cpu2").gpu_ids
    assert hidden is not None
    assert set(hidden.split(",")) == {"-1"}


def test_machines_that_talk_to_each_other_need_an_address_and_a_port() -> None:
    config = load("multinode_2x8")
    assert config.main_process_ip
    assert config.main_process_port
    assert config.machine_rank == 0


def test_fsdp_is_version_2_and_wraps_layers_that_exist() -> None:
    settings = load("fsdp").fsdp_config
    assert settings is not None
    assert settings["fsdp_version"] == 2
    for name in settings["fsdp_transformer_layer_cls_to_wrap"].split(","):
        assert isinstance(getattr(layers, name), type)
