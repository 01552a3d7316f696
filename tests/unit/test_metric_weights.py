"""Where metrics take their weights from, and what they say where these are missing. Weights are of our own making."""

import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from idm.apps.cli import main as cli
from idm.apps.cli import weights as command
from idm.data.synthetic import synthetic_face
from idm.evaluation.inception import INCEPTION_WEIGHTS, Inception, load_inception
from idm.evaluation.metric import PairMetric
from idm.evaluation.metrics import METRICS, MissingPackage, build_metric, build_metrics
from idm.evaluation.perceptual import (
    CLIP_WEIGHTS,
    DISTS_WEIGHTS,
    MANIQA_WEIGHTS,
    MUSIQ_WEIGHTS,
    PROMPTS,
    TOPIQ_WEIGHTS,
    VGG16_WEIGHTS,
)
from idm.io.image_writer import write_image
from idm.io.known_weights import KNOWN
from idm.io.ranges import from_uint8
from idm.io.weights import WeightsError

NEEDED = [(name, file) for name, metric in METRICS.items() for file in metric.weights]
FACE = from_uint8(synthetic_face(0, 0, 64).image)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of weights, empty at first, where nothing can be downloaded."""
    monkeypatch.setenv("IDM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("would download"))
    folder = tmp_path / "home" / "weights"
    folder.mkdir(parents=True)
    return folder


# --- missing weights


@pytest.mark.parametrize(("name", "file"), NEEDED)
def test_a_missing_file_is_one_error_that_names_the_file_and_its_folder(name: str, file: str, home: Path) -> None:
    for other in METRICS[name].weights:
        if other != file:
            (home / other).touch()
    put = rf"Put it into {re.escape(str(home))}; nothing is downloaded"
    with pytest.raises(FileNotFoundError, match=rf"^{re.escape(file)}: .*/hub\).*{put}"):
        build_metric(name)
    elsewhere = home / "elsewhere"
    with pytest.raises(FileNotFoundError, match=rf"looked in {re.escape(str(elsewhere))}\)"):
        build_metric(name, elsewhere)


def test_every_weights_file_of_a_metric_can_be_fetched() -> None:
    assert {file for _, file in NEEDED} <= KNOWN.keys()


def test_a_metric_without_weights_or_size_is_a_gap_with_its_reason(home: Path) -> None:
    built = build_metrics(["psnr", "lpips", "niqe", "frechet"], size=128)
    assert set(built.each) == {"psnr"}
    assert built.together == {}
    assert built.missing == {
        "lpips": "its weights are missing; `idm weights fetch alexnet-owt-7be5be79.pth` gets them",
        "niqe": "needs faces of 192 px or more",
        "frechet": "its weights are missing; `idm weights fetch mobilefacenet_casia.safetensors` gets them",
    }
    with pytest.raises(FileNotFoundError, match=r"^alexnet-\S+: .*Put it into"):
        build_metrics(["lpips", "frechet"])
    with pytest.raises(ValueError, match="'mse' is unknown; known: psnr"):
        build_metrics(["psnr", "mse"])


def test_the_command_of_a_gap_names_all_files_that_are_missing_and_their_folder(home: Path) -> None:
    def reason(folder: Path | None = None) -> str:
        return build_metrics(["psnr", "dists"], weights_dir=folder).missing["dists"]

    assert f"`idm weights fetch {DISTS_WEIGHTS} {VGG16_WEIGHTS}`" in reason()
    (home / DISTS_WEIGHTS).touch()
    assert f"`idm weights fetch {VGG16_WEIGHTS}`" in reason()
    elsewhere = home / "else where"
    assert f"`idm weights fetch {DISTS_WEIGHTS} {VGG16_WEIGHTS} --weights-dir '{elsewhere}'`" in reason(elsewhere)


@pytest.mark.parametrize(
    ("name", "package"), [("lpips", "lpips"), ("niqe", "pyiqa"), ("dists", "pyiqa"), ("lmd", "facexlib")]
)
def test_a_metric_without_its_package_names_the_extra_that_installs_it(
    name: str, package: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    for module in [name for name in sys.modules if name.startswith(f"{package}.")]:
        monkeypatch.delitem(sys.modules, module)
    message = f"{name} needs the package {package}: pip install 'idm-face-restoration[metrics]'"
    with pytest.raises(MissingPackage, match=f"^{re.escape(message)}$"):
        build_metric(name)
    assert build_metrics(["psnr", name]).missing == {name: message}
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        build_metrics([name])


# --- weights that are present


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.weights and name != "niqe"])
@pytest.mark.parametrize("place", ["home/weights", "hub/checkpoints", "hub/pyiqa", "elsewhere"])
def test_the_weights_that_are_found_are_those_that_are_read(name: str, place: str, home: Path) -> None:
    folder = home.parents[1] / place
    folder.mkdir(parents=True, exist_ok=True)
    for file in METRICS[name].weights:
        (folder / file).write_bytes(b"not weights")
    with pytest.raises(ValueError, match=rf"^{re.escape(str(folder / METRICS[name].weights[0]))}: "):
        build_metric(name, folder if place == "elsewhere" else None)


def shell(module: nn.Module) -> nn.Module:
    """The weights of a module below the same names, in modules that do nothing."""
    hollow = nn.Module()
    for name, weight in module.named_parameters(recurse=False):
        hollow.register_parameter(name, weight)
    for name, value in module.named_buffers(recurse=False):
        hollow.register_buffer(name, value)
    for name, child in module.named_children():
        hollow.add_module(name, shell(child))
    return hollow


@pytest.fixture(scope="module")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP with a ResNet, with random weights, saved as OpenAI does, with TorchScript."""
    from pyiqa.archs.clip_model import CLIP

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("clip") / CLIP_WEIGHTS
    torch.jit.save(torch.jit.script(shell(CLIP(64, 224, (1, 1, 1, 1), 8, None, 77, 49408, 64, 1, 1))), path)
    return path


def test_the_command_of_a_gap_closes_it(home: Path, clip_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(name: str, known: object, folder: Path, on_bytes: object) -> Path:
        return Path(shutil.copy(clip_file, folder / name))

    monkeypatch.setattr(command, "fetch", fetch)
    gap = build_metrics(["psnr", "clipiqa"]).missing["clipiqa"]
    _, *words = shlex.split(gap.split("`")[1])
    assert cli.run(cli.build_parser().parse_args([*words, "--yes"])) == 0
    built = build_metrics(["psnr", "clipiqa"])
    assert built.missing == {}
    assert 0 < built.each["clipiqa"](FACE, FACE) < 1


def test_clip_iqa_plus_scores_by_the_prompts_of_its_file(home: Path, clip_file: Path) -> None:
    def build(prompts: torch.Tensor) -> PairMetric:
        torch.save(prompts, home / PROMPTS)
        return build_metric("clipiqa+")

    shutil.copy(clip_file, home)
    before = torch.get_rng_state()
    prompts = torch.randn(2, 16, 64, generator=torch.manual_seed(1))
    torch.set_rng_state(before)
    first, again, other = (build(given)(FACE, FACE) for given in (prompts, prompts, -prompts))
    assert 0 < first < 1
    assert first == again != other
    assert torch.equal(torch.get_rng_state(), before), "building a metric must not move the global generator"
    with pytest.raises(WeightsError, match=rf"{re.escape(PROMPTS)}: does not hold .* \(2x16x32 instead of 2x16x64\)"):
        build(prompts[..., :32].clone())


def test_weights_of_another_clip_model_are_refused(home: Path) -> None:
    torch.save({"a": torch.zeros(1)}, home / CLIP_WEIGHTS)
    with pytest.raises(WeightsError, match=r"RN50\.pt: does not hold the weights of CLIP"):
        build_metric("clipiqa")


def test_dists_is_refused_without_its_own_weights_or_with_another_trunk(home: Path) -> None:
    from torchvision.models import vgg

    features = vgg.make_layers(vgg.cfgs["D"])
    trunk = {f"features.{name}": weight for name, weight in features.state_dict().items()}
    own = {name: torch.rand(1, 1475, 1, 1) for name in ("alpha", "beta")}
    for lacking, theirs, given in (
        (DISTS_WEIGHTS, trunk, own | {"alpha": own["alpha"][:, :9].clone()}),
        (DISTS_WEIGHTS, trunk, {"beta": own["beta"]}),
        (VGG16_WEIGHTS, {"features.0.weight": trunk["features.0.weight"]}, own),
    ):
        torch.save(theirs, home / VGG16_WEIGHTS)
        torch.save(given, home / DISTS_WEIGHTS)
        with pytest.raises(WeightsError, match=rf"{re.escape(lacking)}: does not hold the weights of this"):
            build_metric("dists")


@pytest.fixture
def little_pyiqa(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """pyiqa's metrics are one number, and timm's networks nothing. Gives the metrics that are built."""
    import pyiqa
    import timm

    built: list[nn.Module] = []

    def create_metric(name: str, device: str, *, pretrained: bool, **options: object) -> Callable[..., torch.Tensor]:
        assert not pretrained
        if name == "maniqa":
            timm.create_model("vit_base_patch8_224", pretrained=True)
        if name == "topiq_nr-face":
            assert not options["backbone_pretrain"]
            assert "gfiqa" not in str(options["model_name"])
        net = nn.Linear(1, 1)
        built.append(net)

        def score(image: torch.Tensor) -> torch.Tensor:
            assert image.shape == (1, 3, 64, 64)
            return net.bias.detach()

        score.net, score.metric_mode = net, "NR"  # type: ignore[attr-defined]
        return score

    def create_model(name: str, pretrained: bool = False) -> SimpleNamespace:
        assert not pretrained, "would be downloaded"
        return SimpleNamespace()

    monkeypatch.setattr(pyiqa, "create_metric", create_metric)
    monkeypatch.setattr(timm, "create_model", create_model)
    return built


@pytest.mark.parametrize(
    ("name", "file", "entry"),
    [("musiq", MUSIQ_WEIGHTS, None), ("maniqa", MANIQA_WEIGHTS, None), ("topiq_nr-face", TOPIQ_WEIGHTS, "params")],
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_pyiqas_networks_are_filled_from_one_file(
    name: str, file: str, entry: str | None, prefix: str, home: Path, little_pyiqa: list[nn.Module]
) -> None:
    weights = {f"{prefix}weight": torch.ones(1, 1), f"{prefix}bias": torch.tensor([2.5])}
    torch.save({entry: weights} if entry else weights, home / file)
    assert build_metric(name)(FACE, FACE) == 2.5
    assert torch.equal(little_pyiqa[0].weight, torch.ones(1, 1))
    torch.save({"weight": torch.ones(1, 1)}, home / file)
    with pytest.raises(WeightsError, match=rf"{re.escape(file)}: does not hold the weights of this Linear"):
        build_metric(name)


def test_inception_features_are_those_of_clean_fid(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights, in a file from before BatchNorm counted its batches."""
    from pyiqa.archs import inception
    from pyiqa.archs.fid_arch import get_folder_features

    torch.manual_seed(0)

    def save(network: nn.Module, url: str) -> None:
        weights = {name: value for name, value in network.state_dict().items() if not name.endswith("tracked")}
        torch.save(weights, home / INCEPTION_WEIGHTS)

    monkeypatch.setattr(inception, "load_pretrained_network", save)
    network = inception.InceptionV3(output_blocks=[inception.InceptionV3.BLOCK_INDEX_BY_DIM[2048]]).eval()
    image = synthetic_face(0, 0, 128).image
    (home / "images").mkdir()
    write_image(home / "images" / "a.png", image)
    wanted = get_folder_features(home / "images", network, num_workers=0, device=torch.device("cpu"), verbose=False)
    before = torch.get_rng_state()
    loaded = load_inception()
    assert torch.equal(torch.get_rng_state(), before), "building a metric must not move the global generator"
    np.testing.assert_allclose(Inception(network)(image), wanted[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(loaded(image), Inception(network)(image))
