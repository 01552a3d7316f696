"""The pipeline as its users meet it: files, kinds of images, seeds and sizes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler
from PIL import Image

from idm.diffusion.chain import SAMPLER_NAMES, Chain
from idm.diffusion.schedule import linear, to_betas
from idm.diffusion.schedulers import build_scheduler
from idm.models.unet import UNet
from idm.restorers.idm import IDM
from idm.restorers.pipeline import IDMPipeline
from idm.restorers.protocol import Restorer
from idm.restorers.saved import ModelError

SAMPLERS = SAMPLER_NAMES
GAMMAS = linear(num_steps=200, beta_end=0.1)


def make_pipeline(sampler: str = "langevin", image_size: int = 16, **settings) -> IDMPipeline:
    """Weights that were never trained, but moved off their start: the output depends on everything."""
    torch.manual_seed(0)
    denoiser = UNet(
        image_size=image_size,
        channels=(8, 16),
        num_blocks=(1, 1),
        attention_resolutions=(8, 4),
        head_dim=8,
        add_degraded=True,
    )
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=rng)
    settings = {"num_inference_steps": 3, **settings}
    pipeline = IDMPipeline(denoiser, build_scheduler(sampler, GAMMAS), **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def faces(count: int = 3, height: int = 16, width: int = 16) -> torch.Tensor:
    """Pictures of whole grey levels, so that every kind of image can hold them."""
    rng = torch.Generator().manual_seed(1)
    return torch.randint(40, 216, (count, 3, height, width), generator=rng).float() / 255


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def as_array(face: torch.Tensor) -> np.ndarray:
    return (face.permute(1, 2, 0) * 255).round().byte().numpy()


# Files

FRESH = """
import sys, torch
from idm.restorers.idm import IDM
from idm.restorers.pipeline import IDMPipeline
folder = sys.argv[1]
for sampler in sys.argv[2:]:
    pipeline = IDMPipeline.from_pretrained(f"{folder}/{sampler}")
    lq = torch.load(f"{folder}/lq.pt")
    torch.save(pipeline.restore(lq, [5, 6, 7]), f"{folder}/{sampler}.pt")
"""

LIGHT = """
import sys, torch
from pathlib import Path
from idm.restorers.saved import load_idm
folder = Path(sys.argv[1])
for sampler in sys.argv[2:]:
    model = load_idm(folder / sampler, torch.device("cpu"), torch.float32)
    torch.save(model.restore(torch.load(folder / "lq.pt"), [5, 6, 7]), folder / f"{sampler}.pt")
sys.exit("diffusers" in sys.modules)
"""


@pytest.mark.parametrize("code", [FRESH, LIGHT], ids=["as a pipeline", "as the commands do"])
def test_a_saved_pipeline_restores_the_same_in_a_fresh_process(code, tmp_path):
    lq, wanted = faces(), {}
    torch.save(lq, tmp_path / "lq.pt")
    for sampler in SAMPLERS:
        pipeline = make_pipeline(sampler, start_from="degraded", strength=0.7, num_inference_steps=4)
        pipeline.save_pretrained(tmp_path / sampler)
        wanted[sampler] = pipeline.restore(lq, [5, 6, 7])
    subprocess.run([sys.executable, "-c", code, tmp_path, *SAMPLERS], check=True, capture_output=True)
    for sampler in SAMPLERS:
        assert torch.equal(torch.load(tmp_path / f"{sampler}.pt"), wanted[sampler])


def test_a_saved_pipeline_keeps_its_settings(tmp_path):
    settings = {
        "prediction": "v",
        "num_inference_steps": 7,
        "start_from": "degraded",
        "strength": 0.25,
        "eta": 0.5,
        "spacing": "levels",
        "levels": (5.0, 3.0, 2.0, 1.0, 0.5, 0.1, 0.01),
    }
    make_pipeline("ddim", **settings).save_pretrained(tmp_path)
    again = IDMPipeline.from_pretrained(tmp_path)
    assert {key: again.config[key] for key in settings} == settings
    assert again.image_size == 16
    assert list(Path(tmp_path).rglob("*.safetensors"))
    assert not list(Path(tmp_path).rglob("*.bin"))


# Kinds of images


def test_every_kind_of_image_gives_the_same_face():
    pipeline, face = make_pipeline(), faces(1)[0]
    array = as_array(face)
    kinds = {
        "PIL": Image.fromarray(array),
        "bytes": array,
        "floats": array.astype(np.float32) / 255,
        "doubles": array / 255,
        "tensor": face,
        "batch": face[None],
        "batch of arrays": array[None],
        "list of PIL": [Image.fromarray(array)],
        "list of arrays": [array],
        "tuple of tensors": (face,),
    }
    results = {kind: pipeline(image, generator=generators(3), output_type="pt").images for kind, image in kinds.items()}
    for result in results.values():
        torch.testing.assert_close(result, results["tensor"], rtol=0, atol=1e-5)


def test_every_kind_of_output_is_the_same_face():
    pipeline, lq = make_pipeline(), faces(2)

    def run(kind: str):
        return pipeline(lq, generator=generators(3, 4), output_type=kind).images

    tensor, arrays, pictures = run("pt"), run("np"), run("pil")
    assert tensor.shape == (2, 3, 16, 16)
    assert len(arrays) == len(pictures) == 2
    for face, array, picture in zip(tensor, arrays, pictures, strict=True):
        assert np.array_equal(array, face.permute(1, 2, 0).numpy())
        assert picture.mode == "RGB"
        assert np.array_equal(np.asarray(picture), as_array(face))


def test_a_call_and_restore_agree():
    pipeline, lq = make_pipeline(), faces(2)
    called = pipeline(lq, generator=generators(3, 4), output_type="pt").images
    assert torch.equal(pipeline.restore(lq, [3, 4]), called)


def test_a_grey_or_transparent_picture_is_read_as_colour():
    pipeline = make_pipeline()
    grey = Image.fromarray(as_array(faces(1)[0])).convert("L")
    wanted = pipeline(grey.convert("RGB"), generator=generators(3), output_type="pt").images
    for picture in (grey, grey.convert("RGBA"), grey.convert("LA")):
        assert torch.equal(pipeline(picture, generator=generators(3), output_type="pt").images, wanted)


def test_the_result_lies_in_0_and_1():
    restored = make_pipeline().restore(torch.cat([torch.zeros(1, 3, 16, 16), torch.ones(1, 3, 16, 16)]), [0, 1])
    assert 0 <= restored.min() <= restored.max() <= 1


def test_it_is_a_restorer():
    assert isinstance(make_pipeline(), Restorer)
    assert isinstance(make_pipeline().idm, Restorer)


# Randomness


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_face_comes_out_the_same_whatever_else_is_in_its_batch(sampler):
    pipeline, lq = make_pipeline(sampler), faces(3)
    together = pipeline.restore(lq, [3, 4, 5])
    turned = pipeline.restore(lq.flip(0), [5, 4, 3]).flip(0)
    torch.testing.assert_close(turned, together, rtol=0, atol=1e-5)
    for i in range(3):
        alone = pipeline.restore(lq[i : i + 1], [3 + i])
        torch.testing.assert_close(alone, together[i : i + 1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_face_again(sampler):
    pipeline, lq = make_pipeline(sampler), faces(2)
    first = pipeline.restore(lq, [3, 4])
    pipeline.restore(lq, [8, 9])
    assert torch.equal(pipeline.restore(lq, [3, 4]), first)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_other_seeds_give_other_faces(sampler):
    pipeline, lq = make_pipeline(sampler), faces(1)
    first, second = (pipeline.restore(lq, [seed]) for seed in (3, 4))
    assert (first - second).abs().mean() > 1e-3
    same_face_twice = pipeline.restore(lq.repeat(2, 1, 1, 1), [3, 4])
    torch.testing.assert_close(same_face_twice, torch.cat([first, second]), rtol=0, atol=1e-5)


def test_one_generator_seeds_one_for_each_face():
    pipeline, lq = make_pipeline(), faces(3)
    together = pipeline(lq, generator=torch.Generator().manual_seed(3), output_type="pt").images
    first = pipeline(lq[:1], generator=torch.Generator().manual_seed(3), output_type="pt").images
    torch.testing.assert_close(first, together[:1], rtol=0, atol=1e-5)
    by_the_command = pipeline.restore(lq[:1], [3])
    torch.testing.assert_close(first, by_the_command, rtol=0, atol=0)
    generator = torch.Generator().manual_seed(3)
    draws = [pipeline(lq[:1], generator=generator, output_type="pt").images for _ in range(2)]
    assert (draws[0] - draws[1]).abs().mean() > 1e-3  # it moves on
    twice = pipeline(lq[:1].repeat(2, 1, 1, 1), generator=torch.Generator().manual_seed(3), output_type="pt").images
    assert (twice[0] - twice[1]).abs().mean() > 1e-3


def test_without_a_generator_every_call_is_another_draw_of_pytorchs_global_one():
    pipeline, lq = make_pipeline(), faces(1)
    torch.manual_seed(4)
    draws = [pipeline(lq, output_type="pt").images for _ in range(2)]
    after = torch.rand(3)
    assert (draws[0] - draws[1]).abs().mean() > 1e-3
    torch.manual_seed(4)
    again = [pipeline(lq, output_type="pt").images for _ in range(2)]
    assert torch.equal(again[0], draws[0])
    assert torch.equal(again[1], draws[1])
    assert torch.equal(torch.rand(3), after)


def test_the_global_generator_is_left_alone():
    pipeline, state = make_pipeline(), torch.get_rng_state()
    pipeline.restore(faces(2), [3, 4])
    assert torch.equal(torch.get_rng_state(), state)


# Sizes


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 16), (13, 22), (5, 9), (32, 20)])
def test_the_model_itself_gives_the_size_of_the_input_and_the_pipeline_takes_its_own_size_only(height, width):
    pipeline, lq = make_pipeline(), faces(2, height, width)
    assert pipeline.idm.sample(lq, generators(3, 4)).shape == (2, 3, height, width)
    if (height, width) == (16, 16):
        assert pipeline(as_array(lq[0]), output_type="pil").images[0].size == (width, height)
    else:
        with pytest.raises(ValueError, match=f"aligned faces of 16 x 16 px, got {height} x {width}: resize them"):
            pipeline(lq)


@pytest.mark.parametrize(
    "images",
    [
        [faces(1, 16, 16)[0], faces(1, 16, 20)[0]],
        [np.zeros((16, 16, 3), np.uint8), np.zeros((20, 16, 3), np.uint8)],
    ],
    ids=["tensors", "arrays"],
)
def test_faces_of_different_sizes_are_refused(images):
    with pytest.raises(ValueError, match="one size"):
        make_pipeline()(images)


def test_an_empty_list_is_refused():
    with pytest.raises(ValueError, match="no face to restore"):
        make_pipeline()([])


@pytest.mark.parametrize("shape", [(16, 16), (1, 16, 16), (16, 16, 3), (2, 4, 16, 16), (1, 1, 3, 16, 16)])
def test_a_tensor_that_is_not_a_colour_picture_is_refused(shape):
    with pytest.raises(ValueError, match="expected a 3 h w or b 3 h w tensor"):
        make_pipeline()(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 4), (16, 16, 1), (1, 16, 16, 4), (1, 1, 16, 16, 3)])
def test_an_array_that_is_not_a_colour_picture_is_refused(shape):
    with pytest.raises(ValueError, match="expected an h w 3 image"):
        make_pipeline()(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "image",
    [
        torch.full((1, 3, 16, 16), 128, dtype=torch.uint8),
        torch.full((3, 16, 16), 128, dtype=torch.uint8),
        np.full((16, 16, 3), 128, np.int64),
        np.full((16, 16, 3), 128.0, np.float32),
        torch.full((1, 3, 16, 16), torch.nan),
    ],
    ids=["byte batch", "byte tensor", "integers", "floats to 255", "nan"],
)
def test_values_outside_0_and_1_are_refused(image):
    pipeline = make_pipeline()
    with pytest.raises(ValueError, match="0, 1"):
        pipeline(image, output_type="pt")


# Settings


def test_the_settings_of_a_call_win_over_the_defaults():
    pipeline, lq = make_pipeline("ddim"), faces(1)

    def run(**settings) -> torch.Tensor:
        return pipeline(lq, generator=generators(3), output_type="pt", **settings).images

    default = run()
    assert torch.equal(run(num_inference_steps=3), default)
    assert torch.equal(run(chain=pipeline.chain), default)
    for settings in (
        {"num_inference_steps": 5},
        {"chain": pipeline.chain.changed(start_from="degraded")},
        {"chain": pipeline.chain.changed(start_from="degraded", strength=0.4)},
        {"chain": pipeline.chain.changed(eta=1.0)},
        {"chain": pipeline.chain.changed(sampler="langevin")},
    ):
        assert not torch.equal(run(**settings), default)


def test_a_call_may_set_eta_back_to_zero():
    pipeline, lq = make_pipeline("ddim", eta=1.0), faces(1)
    wanted = make_pipeline("ddim")(lq, generator=generators(3), output_type="pt").images
    assert torch.equal(
        pipeline(lq, generator=generators(3), output_type="pt", chain=pipeline.chain.changed(eta=0.0)).images, wanted
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"generator": generators(1)}, "2 faces need 2 generators, got 1"),
        ({"num_inference_steps": -1}, "number of steps"),
        ({"num_inference_steps": 201}, "number of steps"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline()(faces(2), **settings)


def test_no_steps_are_refused():
    with pytest.raises(ValueError, match="number of steps"):
        make_pipeline()(faces(1), num_inference_steps=0)


def test_the_wrong_number_of_seeds_is_refused():
    with pytest.raises(ValueError, match="2 faces need 2 generators, got 3"):
        make_pipeline().restore(faces(2), [1, 2, 3])


@pytest.mark.parametrize("after", SAMPLERS)
def test_the_sampler_can_be_exchanged(after):
    pipeline = make_pipeline("ddim")
    pipeline.scheduler = type(build_scheduler(after, GAMMAS)).from_config(pipeline.scheduler.config)
    wanted = make_pipeline(after).restore(faces(1), [3])
    torch.testing.assert_close(pipeline.restore(faces(1), [3]), wanted, rtol=0, atol=1e-5)


def test_a_scheduler_that_stands_for_no_sampler_is_refused():
    pipeline = make_pipeline("ddim")
    other = EulerDiscreteScheduler.from_config(pipeline.scheduler.config)
    with pytest.raises(ValueError, match="no sampler is saved as EulerDiscreteScheduler"):
        IDMPipeline(pipeline.denoiser, other)
    pipeline.scheduler = other
    with pytest.raises(ValueError, match="no sampler is saved as EulerDiscreteScheduler"):
        pipeline(faces(1))


def test_a_scheduler_that_predicts_noise_is_refused():
    scheduler = DDIMScheduler(trained_betas=to_betas(GAMMAS).tolist(), prediction_type="epsilon")
    with pytest.raises(ValueError, match="prediction_type 'sample'"):
        IDMPipeline(make_pipeline().denoiser, scheduler)


# As diffusers users expect


def test_the_class_is_found_in_the_package_and_torch_is_not_imported_for_it():
    import idm

    assert idm.IDMPipeline is IDMPipeline
    code = "import sys, idm; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_moves_to_another_precision_and_shows_its_components():
    pipeline = make_pipeline().to(torch.bfloat16)
    assert pipeline.denoiser.dtype == torch.bfloat16
    assert set(pipeline.components) == {"denoiser", "scheduler"}
    assert pipeline.restore(faces(1), [3]).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "size", "num_steps"), [(None, 256, 2), ("idm-faces-256", 256, 2), ("idm-faces-128", 128, 4)]
)
def test_bundled_models_have_names_and_the_first_needs_none(name: str | None, size: int, num_steps: int):
    pipeline = IDMPipeline.from_pretrained(name)
    assert pipeline.image_size == size
    assert pipeline.chain == Chain("ddim", num_steps)


def test_without_a_dictionary_the_faces_come_in_a_tuple():
    pipeline, lq = make_pipeline(), faces(1)
    (images,) = pipeline(lq, generator=generators(3), output_type="pt", return_dict=False)
    assert torch.equal(images, pipeline(lq, generator=generators(3), output_type="pt").images)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_callback_sees_every_step_with_its_timestep_and_the_last_estimate_is_the_result(sampler):
    pipeline, lq, seen = make_pipeline(sampler), faces(2), []
    chain = pipeline.chain.changed(start_from="degraded", strength=0.5, num_steps=6)

    def on_step_end(pipe, step, timestep, tensors):
        assert pipe is pipeline
        seen.append((step, timestep, tensors["x_0"].clone()))

    result = pipeline(lq, generator=generators(3, 4), output_type="pt", chain=chain, callback_on_step_end=on_step_end)
    assert [step for step, _, _ in seen] == [0, 1, 2]
    pipeline.scheduler.set_timesteps(6)
    assert [timestep for _, timestep, _ in seen] == [int(t) for t in pipeline.scheduler.timesteps[3:6]]
    torch.testing.assert_close((seen[-1][2] + 1) / 2, result.images)


def test_a_saved_pipeline_has_a_card_and_an_authors_card_is_kept(tmp_path):
    make_pipeline().save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "library_name: diffusers" in card
    assert "faces of 16 px" in card
    (tmp_path / "README.md").write_text("mine")
    make_pipeline().save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_pickled_weights_are_not_loaded(tmp_path):
    pipeline = make_pipeline()
    pipeline.save_pretrained(tmp_path)
    weights = tmp_path / "denoiser" / "diffusion_pytorch_model.safetensors"
    torch.save(pipeline.denoiser.state_dict(), weights.with_suffix(".bin"))
    IDMPipeline.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match=r"safetensors: is missing"):
        IDMPipeline.from_pretrained(tmp_path)


def test_what_is_pushed_to_the_hub_is_what_is_saved_with_the_card(monkeypatch):
    import huggingface_hub

    pushed = {}

    def create_repo(self, repo_id, private, exist_ok):
        assert exist_ok
        return huggingface_hub.RepoUrl(f"https://huggingface.co/me/{repo_id}")

    def upload_folder(self, *, repo_id, folder_path, commit_message, create_pr):
        pushed[repo_id] = {path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*.*")}
        return "address"

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", create_repo)
    monkeypatch.setattr(huggingface_hub.HfApi, "upload_folder", upload_folder)
    assert make_pipeline().push_to_hub("faces") == "address"
    assert pushed["me/faces"] == {
        "README.md",
        "model_index.json",
        "denoiser/config.json",
        "denoiser/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    }


# The chain


@pytest.fixture(params=["IDM", "IDMPipeline"])
def model(request) -> IDM | IDMPipeline:
    pipeline = make_pipeline("ddim", num_inference_steps=8, eta=0.5)
    return pipeline if request.param == "IDMPipeline" else pipeline.idm


def test_a_chain_is_changed_where_it_is_asked_and_else_stays(model):
    model.chain = model.chain.changed(num_steps=5, sampler=None)
    assert model.chain == Chain("ddim", 5, "noise", 1.0, 0.5)
    model.chain = model.chain.changed(sampler="langevin", start_from="degraded", strength=0.4)
    assert model.chain == Chain("langevin", 5, "degraded", 0.4)  # eta is DDIM's
    model.chain = model.chain.changed(spacing="levels", levels=(5.0, 1.0), num_steps=2)
    model.chain = model.chain.changed(spacing="karras")
    assert model.chain == Chain("langevin", 2, "degraded", 0.4, spacing="karras")


def test_a_changed_sampler_has_the_same_betas():
    pipeline = make_pipeline("ddim")
    betas = pipeline.scheduler.config.trained_betas
    pipeline.chain = pipeline.chain.changed(sampler="unipc")
    assert type(pipeline.scheduler).__name__ == "UniPCMultistepScheduler"
    assert pipeline.scheduler.config.trained_betas == pytest.approx(betas, rel=1e-9)


@pytest.mark.parametrize(("fidelity", "strength"), [(0.0, 1.0), (0.25, 0.75), (1.0, 0.125), (0.95, 0.125)])
def test_fidelity_runs_the_rest_of_a_chain_from_the_degraded_face_and_at_least_one_step(fidelity, strength):
    chain = Chain("ddim", 8).changed(fidelity=fidelity)
    assert (chain.start_from, chain.strength) == ("degraded" if fidelity else "noise", strength)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fidelity": 1.5}, "fidelity must lie in"),
        ({"fidelity": 0.5, "strength": 0.5}, "give it or them"),
        ({"strength": 0.5}, "strength below 1 needs"),
        ({"num_steps": 0}, "number of steps"),
        ({"num_steps": 201}, "number of steps"),
    ],
)
def test_an_impossible_chain_is_refused_and_the_model_stays_as_it_was(model, settings, message):
    before = model.chain
    with pytest.raises(ValueError, match=message):
        model.chain = model.chain.changed(sampler="unipc", **settings)
    assert model.chain == before


def test_an_unconditional_denoiser_generates_faces_from_their_seeds_without_a_condition():
    torch.manual_seed(0)
    sizes = {"image_size": 16, "patch_size": 2, "channels": [16], "num_blocks": [1], "attention_resolutions": []}
    denoiser = UNet(**sizes, conditional=False)
    torch.nn.init.normal_(denoiser.conv_out.weight, std=0.1)
    assert denoiser.conv_in.in_channels == 12
    generator = torch.Generator().manual_seed(0)
    x_t, gamma = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([0.3, 0.7])
    outputs = [denoiser(x_d=x_d, x_t=x_t, gamma=gamma) for x_d in (torch.zeros(2, 3, 16, 16), torch.ones(2, 3, 16, 16))]
    assert torch.equal(*outputs)
    pipeline = IDMPipeline(denoiser, build_scheduler("ddim", linear(1e-4, 2e-2, 50)), num_inference_steps=3)
    faces = pipeline.generate([1, 2])
    assert faces.shape == (2, 3, 16, 16)
    assert torch.allclose(faces[1], pipeline.generate([2])[0], atol=1e-5)
    assert not torch.allclose(faces[0], faces[1])


def test_a_conditional_denoiser_generates_nothing_and_needs_its_condition():
    sizes = {"image_size": 16, "patch_size": 2, "channels": [16], "num_blocks": [1], "attention_resolutions": []}
    pipeline = IDMPipeline(UNet(**sizes), build_scheduler("ddim", linear(1e-4, 2e-2, 50)))
    with pytest.raises(ValueError, match="unconditional"):
        pipeline.generate([0])
    for name in ("add_degraded", "inject_degraded"):
        with pytest.raises(ValueError, match="conditional denoiser"):
            UNet(**sizes, conditional=False, **{name: True})
