"""Any restorer from its path, and the networks of others."""

from importlib.metadata import EntryPoint
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from idm.io.errors import InvalidInput
from idm.io.ranges import to_diffusion
from idm.restorers import load as load_module
from idm.restorers.load import Loaded, load_restorer
from idm.restorers.protocol import Restorer
from idm.restorers.saved import DEFAULT, ModelError, is_idm
from idm.restorers.third_party import SpandrelRestorer, ThirdPartyModelError, load_third_party

CPU = torch.device("cpu")


class Descriptor:
    """What spandrel gives, around a network that halves what it gets and adds noise."""

    def __init__(self, name: str) -> None:
        self.architecture = SimpleNamespace(id=name)
        self.ranges: list[tuple[float, float]] = []

    def to(self, device):
        return self

    def eval(self):
        return self

    def model(self, x):
        self.ranges.append((x.min().item(), x.max().item()))
        return (x / 2 + 0.01 * torch.randn_like(x), None)

    def __call__(self, x):
        return self.model(x)[0]


FACES = torch.linspace(0, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


@pytest.mark.parametrize("name", ["GFPGAN", "CodeFormer"])
def test_networks_that_compute_from_minus_one_to_one_are_given_that_range(name):
    descriptor = Descriptor(name)
    restored = SpandrelRestorer(descriptor, CPU).restore(FACES, [0, 1])
    assert descriptor.ranges[0][0] == pytest.approx(-1)
    assert descriptor.ranges[1][1] == pytest.approx(1)
    torch.testing.assert_close(to_diffusion(restored), to_diffusion(FACES) / 2, atol=0.1, rtol=0)


def test_other_networks_receive_inputs_in_0_and_1():
    descriptor = Descriptor("RestoreFormer")
    SpandrelRestorer(descriptor, CPU).restore(FACES, [0, 1])
    assert descriptor.ranges[0][0] == 0


def test_a_face_depends_on_its_seed_and_not_on_its_batch_and_the_global_generator_is_left_alone():
    restorer = SpandrelRestorer(Descriptor("GFPGAN"), CPU)
    assert isinstance(restorer, Restorer)
    before = torch.random.get_rng_state()
    both = restorer.restore(FACES, [3, 4])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(restorer.restore(FACES[1:], [4]), both[1:])
    assert not torch.equal(restorer.restore(FACES[1:], [5]), both[1:])


def test_a_file_that_is_not_a_weights_file_is_named(tmp_path):
    path = tmp_path / "broken.pth"
    path.write_bytes(b"\x80\x02oops")
    with pytest.raises(ThirdPartyModelError, match=r"broken\.pth: is not a plain weights file"):
        load_third_party(path, CPU)


def test_weights_of_an_unknown_network_are_refused_with_a_hint(tmp_path):
    path = tmp_path / "unknown.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(ThirdPartyModelError, match="does not hold a network that spandrel knows"):
        load_third_party(path, CPU)


@pytest.mark.parametrize(
    "content", [torch.tensor(1.0), {"params_ema": torch.tensor(1.0)}, {"weight": torch.tensor(1.0)}, {}, [1], None, "x"]
)
def test_a_file_of_something_else_than_named_weights_is_refused_in_one_line(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(ThirdPartyModelError, match=r"a\.pth: "):
        load_restorer(tmp_path / "a.pth", CPU, torch.float32)


@pytest.mark.parametrize("weight", [torch.zeros(2), torch.ones(2, dtype=torch.int8)])
def test_weights_without_a_number_but_zeros_and_integers_are_refused(tmp_path, monkeypatch, weight):
    import spandrel

    monkeypatch.setattr(spandrel.ModelLoader, "load_from_state_dict", lambda self, weights: Descriptor("GFPGAN"))
    save_file({"weight": weight}, tmp_path / "a.safetensors")
    with pytest.raises(ThirdPartyModelError, match=r"a\.safetensors: is damaged: its weights are all zero, or int"):
        load_third_party(tmp_path / "a.safetensors", CPU)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    path = tmp_path / "evil.pth"
    torch.save({"params_ema": Evil()}, path)
    with pytest.raises(ThirdPartyModelError, match=r"evil\.pth"):
        load_third_party(path, CPU)


# Any restorer from its path


@pytest.mark.parametrize("model", [None, "idm", "idm-faces-256"])
def test_without_a_path_it_is_the_bundled_model(model):
    loaded = load_restorer(model, CPU, torch.float32)
    assert loaded.metadata["name"] == "idm-faces-256"
    assert loaded.metadata["parameters"] == sum(p.numel() for p in loaded.restorer.denoiser.parameters())
    assert loaded.metadata["image_size"] == loaded.restorer.image_size == 256


def test_published_weights_are_found_by_their_name(tmp_path, monkeypatch):
    monkeypatch.setattr(load_module, "find_weights", lambda name: tmp_path / name)
    (tmp_path / "GFPGANv1.4.pth").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"GFPGANv1\.4\.pth"):  # it was opened
        load_restorer("gfpgan", CPU, torch.float32)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gfpgan").mkdir()
    with pytest.raises(ModelError, match="gfpgan: does not hold a model"):  # a folder of that name comes first
        load_restorer("gfpgan", CPU, torch.float32)


def test_an_idm_is_known_by_its_pipeline_and_a_run_by_its_checkpoints(tmp_path):
    assert is_idm(DEFAULT)
    assert not is_idm(tmp_path)
    run = tmp_path / "checkpoints" / "step_00000002" / "pipeline"
    run.mkdir(parents=True)
    assert not is_idm(tmp_path)
    (run / "model_index.json").write_text("{}")
    assert is_idm(tmp_path)


def test_another_package_opens_the_paths_of_its_own_kind(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    entry = EntryPoint("mine", f"{__name__}:open_mine", load_module.ENTRY_POINTS)
    monkeypatch.setattr(EntryPoint, "load", lambda self: open_mine)
    monkeypatch.setattr(load_module, "entry_points", lambda group: [entry] if group == load_module.ENTRY_POINTS else [])
    assert load_restorer(tmp_path / "mine", CPU, torch.float32) is MINE
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match="other: does not hold a model"):
        load_restorer(tmp_path / "other", CPU, torch.float32)


MINE = Loaded(SpandrelRestorer(Descriptor("mine"), CPU), {"name": "mine"})


def open_mine(path, device, dtype):
    return MINE if path.name == "mine" else None


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match="absent: no such file or folder"):
        load_restorer(tmp_path / "absent", CPU, torch.float32)
