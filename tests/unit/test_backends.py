"""The denoiser outside PyTorch: the ONNX file, ONNX Runtime, OpenVINO."""

import json
import sys
from contextlib import nullcontext
from importlib.util import find_spec

import pytest
import torch
from torch import nn

from idm.diffusion.chain import Chain, sampler_of
from idm.diffusion.samplers import sample
from idm.diffusion.schedule import from_betas, linear
from idm.models.unet import UNet
from idm.restorers import export
from idm.restorers.backends import ExportedDenoiser
from idm.restorers.export import ExportError, Graph, check_graph, export_onnx, load_onnxruntime, write_onnx
from idm.restorers.idm import IDM
from idm.restorers.saved import load_idm, save_idm

SIZE = 16
RUNS = [("onnxruntime", torch.float32, 2), ("openvino", torch.float32, 4), ("openvino", torch.bfloat16, 2)]


def make_denoiser(patch_size: int = 2, **settings) -> UNet:
    """Weights that were never trained, but moved off their start: the output depends on everything."""
    torch.manual_seed(0)
    denoiser = UNet(
        image_size=SIZE,
        patch_size=patch_size,
        channels=(8, 16),
        num_blocks=(1, 1),
        attention_resolutions=(4,),
        head_dim=8,
        **settings,
    )
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    return denoiser.eval()


def make_idm(denoiser: UNet) -> IDM:
    return IDM(denoiser, linear(), chain=Chain("ddim", 3))


def needs(*packages: str) -> None:
    for package in ("onnx", "onnxscript", *packages):
        if find_spec(package) is None:
            pytest.skip(f"{package} is not installed")


@pytest.fixture(scope="module", params=RUNS, ids=lambda run: f"{run[0]} {run[1]} patch {run[2]}")
def exported(request: pytest.FixtureRequest) -> tuple[ExportedDenoiser, UNet]:
    """A backend's denoiser, and PyTorch's that it was made of."""
    backend, dtype, patch_size = request.param
    needs(backend)
    denoiser = make_denoiser(patch_size)
    return ExportedDenoiser(denoiser, backend, dtype), denoiser


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("gamma", [1e-4, 0.5, 0.99999, 1 - 1e-7])
def test_every_backend_gives_what_the_denoiser_gives_at_all_levels(exported, batch_size, gamma) -> None:
    f, denoiser = exported
    rng = torch.Generator().manual_seed(batch_size)
    x_d, x_t = torch.randn(2, batch_size, 3, SIZE, SIZE, generator=rng)
    batch = {"x_d": x_d, "x_t": x_t, "gamma": torch.full((batch_size,), gamma, dtype=torch.float64)}
    with torch.no_grad():
        wanted = denoiser(**batch)
    tolerance = 1e-5 if f.dtype == torch.float32 else 0.02
    torch.testing.assert_close(f(**batch), wanted, rtol=0, atol=tolerance * wanted.abs().max().item())


def test_a_model_restores_the_same_faces_on_every_backend_and_saves_its_own_weights(exported, tmp_path) -> None:
    f, denoiser = exported
    idm = make_idm(denoiser)
    lq = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    wanted = idm.restore(lq, [0, 1, 2])
    idm.exported = f
    levels = 255 * (idm.restore(lq, [0, 1, 2]) - wanted).abs()
    assert levels.max() > 0  # it was another program
    if f.dtype == torch.float32:
        assert levels.max() < 0.01
    else:
        assert levels.mean() < 1
    save_idm(idm, tmp_path)
    assert torch.equal(load_idm(tmp_path, torch.device("cpu"), torch.float32).restore(lq, [0, 1, 2]), wanted)
    metadata = idm.metadata()
    assert (metadata["backend"], metadata["precision"]) == (f.backend, str(f.dtype).removeprefix("torch."))
    idm.use_backend("torch")
    assert torch.equal(idm.restore(lq, [0, 1, 2]), wanted)
    assert idm.metadata()["backend"] == "torch"


def test_faces_of_another_size_are_refused_by_a_graph_of_one_size(exported) -> None:
    f, denoiser = exported
    idm = make_idm(denoiser)
    idm.exported = f
    with pytest.raises(ValueError, match=f"{f.backend} runs faces of 16 x 16 px, got 16 x 24"):
        idm.sample(torch.rand(1, 3, SIZE, 24), [torch.Generator()])


def test_openvino_is_kept_from_reporting_to_its_makers(exported) -> None:
    if exported[0].backend == "openvino":
        assert sys.modules["openvino_telemetry"] is None
        assert not [name for name in sys.modules if name.startswith("openvino_telemetry.")]


# What is refused


def test_what_cannot_work_is_refused_at_once(monkeypatch) -> None:
    monkeypatch.setattr("idm.restorers.backends.write_onnx", lambda *_: pytest.fail("too late"))
    with pytest.raises(ExportError, match="onnxruntime computes in fp32 only"):
        ExportedDenoiser(make_denoiser(), "onnxruntime", torch.bfloat16)
    with pytest.raises(ExportError, match=r"float32 on the CPU, not torch\.bfloat16"):
        ExportedDenoiser(make_denoiser().type(torch.bfloat16), "openvino", torch.bfloat16)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(backend, monkeypatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda package: None if package in (backend, "onnx") else object())
    message = rf"onnx, {backend} not installed: pip install 'idm-face-restoration\[{backend}\]'"
    with pytest.raises(ExportError, match=message):
        make_idm(make_denoiser()).use_backend(backend)


TINY = Graph("tiny", nn.Linear(2, 2), {"input": torch.tensor([[1.0, 2.0], [-3.0, 1.0]])})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda y: y * 1.001, "differs from PyTorch by"),
        (lambda y: y * torch.nan, "differs from PyTorch by nan"),
        (lambda y: y[:1], r"gives \(1, 2\), not \(2, 2\)"),
        (lambda y: y if len(y) < 3 else y.flip(0).roll(1, 0), "differs from PyTorch by"),
    ],
    ids=["a little off", "nan", "batch of one", "only the batch of three"],
)
def test_a_graph_that_computes_something_else_is_refused(fault, message) -> None:
    def run(inputs):
        return fault(TINY.network(torch.from_numpy(inputs["input"]))).detach().numpy()

    with pytest.raises(ExportError, match=message):
        check_graph(TINY, run, torch.float32)


@pytest.mark.parametrize(("factor", "refused"), [(1.1, False), (1.3, True)])
def test_int8_may_differ_by_a_fifth_of_the_largest_value(factor, refused) -> None:
    def run(inputs):
        return factor * TINY.network(torch.from_numpy(inputs["input"])).detach().numpy()

    with pytest.raises(ExportError, match="more than 2e-01") if refused else nullcontext():
        assert check_graph(TINY, run, torch.int8) == pytest.approx(factor - 1, abs=1e-3)


def test_int8_without_onnxruntime_is_refused_before_any_work(monkeypatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda package: None if package == "onnxruntime" else object())
    monkeypatch.setattr("idm.restorers.idm.sample", lambda *_, **__: pytest.fail("too late"))
    message = r"onnxruntime not installed: pip install 'idm-face-restoration\[onnxruntime\]'"
    with pytest.raises(ExportError, match=message):
        make_idm(make_denoiser()).int8_graph()


# The file


def test_a_file_that_fails_its_check_is_not_left_and_replaces_nothing(tmp_path, monkeypatch) -> None:
    needs("onnxruntime")
    path = tmp_path / "tiny.onnx"
    path.write_text("the old one")
    wrong = Graph("tiny", nn.Linear(2, 2), TINY.inputs)
    monkeypatch.setattr(export, "write_onnx", lambda graph, path: write_onnx(wrong, path))
    with pytest.raises(ExportError, match="differs from PyTorch"):
        export_onnx(TINY, path)
    assert [p.name for p in tmp_path.iterdir()] == ["tiny.onnx"]
    assert path.read_text() == "the old one"


def test_the_file_alone_is_enough_to_restore_a_face(tmp_path) -> None:
    needs("onnxruntime")
    import onnx

    idm, path = make_idm(make_denoiser(add_degraded=True)), tmp_path / "denoiser.onnx"
    assert export_onnx(idm.graph(), path) < 1e-5
    assert [p.name for p in tmp_path.iterdir()] == ["denoiser.onnx"]  # the weights are inside
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    gammas = from_betas(torch.tensor(json.loads(metadata["scheduler_config"])["trained_betas"], dtype=torch.float64))
    chain = json.loads(metadata["chain"])
    assert sampler_of(metadata["scheduler"]) == chain["sampler"]
    chain = Chain(**{**chain, "levels": tuple(chain["levels"])})
    run = load_onnxruntime(path)

    def f(**inputs):
        return torch.from_numpy(run({name: x.numpy() for name, x in inputs.items()}))

    lq = torch.rand(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    generators = [torch.Generator().manual_seed(seed) for seed in (4, 5, 6)]
    restored = sample(f, 2 * lq - 1, gammas, chain, prediction=metadata["prediction"], generators=generators)
    torch.testing.assert_close((restored + 1) / 2, idm.restore(lq, [4, 5, 6]), rtol=0, atol=1e-5)


def test_an_int8_file_is_smaller_nearly_the_same_and_keeps_the_ends_in_float32(tmp_path) -> None:
    needs("onnxruntime")
    import onnx

    torch.manual_seed(0)
    sizes = {"channels": (32, 64), "num_blocks": (1, 1), "attention_resolutions": (4,), "head_dim": 32}
    denoiser = UNet(image_size=SIZE, patch_size=2, add_degraded=True, refine_channels=8, refine_blocks=1, **sizes)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.03 * torch.randn(parameter.shape)
    idm, fp32, int8 = make_idm(denoiser), tmp_path / "fp32.onnx", tmp_path / "int8.onnx"
    export_onnx(idm.graph(), fp32)
    graph = idm.int8_graph()
    assert 1e-4 < export_onnx(graph, int8) < 0.1
    assert int8.stat().st_size < 0.6 * fp32.stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fp32.onnx", "int8.onnx"]

    gammas = {round(call["gamma"].item(), 6) for call in graph.calibration}
    assert len(gammas) == 3  # every level of the chain
    model = onnx.load(int8)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert (metadata["precision"], metadata["prediction"]) == ("int8", "sample")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    for name, parameter in denoiser.named_parameters():
        if parameter.ndim == 4:
            ends = name.startswith(("conv_in", "conv_out", "refine"))
            assert types.get(name) == (onnx.TensorProto.FLOAT if ends else None), name
    assert types["encoder.0.0.conv_in.weight_quantized"] == onnx.TensorProto.INT8
    nodes = model.graph.node
    dequantised = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    products = [dequantised.issuperset(node.input) for node in nodes if node.op_type == "MatMul"]
    assert sorted(products) == [False, False, True, True]  # of an attention: q k and the values; qkv and proj
