"""What result files say of the machine and its software."""

from importlib.metadata import PackageNotFoundError, version

import pytest
import torch

from idm.io import machine


@pytest.mark.parametrize("package", ["idm-face-restoration", "torch", "numpy", "lpips", "pyiqa", "facexlib"])
def test_results_state_the_versions_of_what_computes_them(package: str) -> None:
    versions = machine.provenance()["versions"]
    assert isinstance(versions, dict)
    assert versions[package] == version(package)


def test_a_package_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_torch(package: str) -> str:
        if package != "torch":
            raise PackageNotFoundError(package)
        return "2"

    monkeypatch.setattr(machine, "version", only_torch)
    versions = machine.provenance()["versions"]
    assert isinstance(versions, dict)
    assert {**versions, "python": "3"} == {"python": "3", "torch": "2"}


def test_expanded_values_can_be_copied_to_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA copies into pinned memory with the same strides, which cannot hold values that share their memory."""

    def pin_memory(values: torch.Tensor) -> torch.Tensor:
        return torch.empty_strided(values.shape, values.stride()).copy_(values)

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", lambda values, device, non_blocking: values)
    copied = machine.on_device(torch.tensor(0.5).expand(3), torch.device("cuda"))
    assert copied.tolist() == [0.5, 0.5, 0.5]
