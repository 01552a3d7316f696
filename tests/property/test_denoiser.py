"""Laws that hold for every architecture, image size and noise level."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from idm.models.architecture import Architecture
from idm.models.denoiser import Denoiser
from idm.models.layers import Attention, attend
from idm.models.unet import UNet

ARCHITECTURES = {
    "two levels": {"channels": (8, 16), "num_blocks": (1, 1), "attention_resolutions": (8, 4)},
    "no attention": {"channels": (8, 16), "num_blocks": (1, 2), "attention_resolutions": ()},
    "one level": {"channels": (8,), "num_blocks": (2,), "attention_resolutions": (8,)},
    "three levels, x_d at each": {
        "channels": (8, 8, 16),
        "num_blocks": (1, 0, 1),
        "attention_resolutions": (2,),
        "inject_degraded": True,
    },
    "pixels as patches": {
        "patch_size": 1,
        "channels": (8, 16),
        "num_blocks": (1, 1),
        "attention_resolutions": (8,),
    },
    "patches of 4": {
        "patch_size": 4,
        "channels": (8, 16),
        "num_blocks": (1, 1),
        "attention_resolutions": (4, 2),
    },
    "x_d added": {
        "channels": (8, 16),
        "num_blocks": (1, 1),
        "attention_resolutions": (4,),
        "inject_degraded": True,
        "add_degraded": True,
    },
}
everywhere = pytest.mark.parametrize("name", ARCHITECTURES)
SIDES = st.integers(5, 21)


def build(name: str, **change) -> Denoiser:
    torch.manual_seed(0)
    return Architecture(**{"image_size": 16, "head_dim": 8, **ARCHITECTURES[name], **change}).build()


def randomised(denoiser: Denoiser) -> Denoiser:
    """Move every weight off its start, the zero-initialised ones too."""
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=rng)
    return denoiser


def inputs(height: int = 16, width: int = 16, count: int = 2, seed: int = 1) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    x_d, x_t = (torch.randn(count, 3, height, width, generator=rng) for _ in range(2))
    return {
        "x_d": x_d,
        "x_t": x_t,
        "gamma": torch.rand(count, generator=rng, dtype=torch.float64) * 0.98 + 0.01,
    }


@everywhere
@settings(max_examples=12)
@given(height=SIDES, width=SIDES, count=st.integers(1, 3))
def test_a_fresh_denoiser_gives_exactly_nothing_or_x_d_at_any_size(name, height, width, count):
    images = inputs(height, width, count)
    denoiser = build(name)
    output = denoiser(**images)
    wanted = images["x_d"] if denoiser.config.add_degraded else torch.zeros(count, 3, height, width)
    assert torch.equal(output, wanted)


@everywhere
@settings(max_examples=8)
@given(height=SIDES, width=SIDES)
@torch.no_grad()
def test_each_sample_is_independent_of_the_others_in_its_batch(name, height, width):
    denoiser, images = randomised(build(name)), inputs(height, width, count=3)
    together = denoiser(**images)
    assert together.shape == (3, 3, height, width)
    for i in range(3):
        alone = denoiser(**{key: value[i : i + 1] for key, value in images.items()})
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-5)


@everywhere
@settings(max_examples=8)
@given(height=SIDES, width=SIDES)
@torch.no_grad()
def test_an_image_that_does_not_divide_is_padded_by_its_edge_and_cropped(name, height, width):
    denoiser, images = randomised(build(name)), inputs(height, width)
    right, bottom = -width % denoiser.stride, -height % denoiser.stride
    padded = {key: F.pad(x, (0, right, 0, bottom), mode="replicate") if x.ndim == 4 else x for key, x in images.items()}
    wanted = denoiser(**padded)[..., :height, :width]
    torch.testing.assert_close(denoiser(**images), wanted, rtol=0, atol=1e-5)


@everywhere
def test_gradients_reach_every_parameter_once_the_zeros_are_left(name):
    denoiser = randomised(build(name))
    denoiser(**inputs()).square().mean().backward()
    without = [n for n, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


@everywhere
@torch.no_grad()
def test_the_noise_level_changes_the_output(name):
    denoiser, images = randomised(build(name)), inputs()
    outputs = [denoiser(**{**images, "gamma": torch.full((2,), gamma)}) for gamma in (0.3, 0.9, 0.31)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-2
    assert (outputs[0] - outputs[2]).abs().max() > 1e-4


@everywhere
@torch.no_grad()
def test_the_noise_level_of_a_sample_changes_that_sample_only(name):
    denoiser, images = randomised(build(name)), inputs()
    other = {**images, "gamma": torch.stack([images["gamma"][0], 1 - images["gamma"][1]])}
    before, after = denoiser(**images), denoiser(**other)
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=1e-6)
    assert (before[1] - after[1]).abs().max() > 1e-3


@everywhere
@torch.no_grad()
def test_the_degraded_face_changes_the_output(name):
    denoiser, images = randomised(build(name, add_degraded=False)), inputs()
    other = {**images, "x_d": images["x_d"].flip(-1)}
    assert (denoiser(**images) - denoiser(**other)).abs().max() > 1e-2


@pytest.mark.parametrize("inject", [True, False])
@torch.no_grad()
def test_x_d_enters_the_levels_beside_the_first_layer_only_if_injected(inject):
    denoiser = randomised(build("two levels", inject_degraded=inject))
    denoiser.conv_in.weight[:, :12] = 0  # the first layer no longer sees x_d: 3 channels in patches of 2 x 2
    images = inputs()
    change = denoiser(**images) - denoiser(**{**images, "x_d": images["x_d"] + 1})
    assert (change.abs().max() > 1e-2) == inject
    assert len(denoiser.injections) == (2 if inject else 0)


@everywhere
@torch.no_grad()
def test_added_to_x_d_is_what_would_be_put_out_alone(name):
    images = inputs()
    alone, added = (randomised(build(name, add_degraded=added))(**images) for added in (False, True))
    torch.testing.assert_close(added, images["x_d"] + alone)


@everywhere
def test_gradient_checkpointing_gives_the_same_gradients(name):
    gradients = []
    for checkpointing in (False, True):
        denoiser = randomised(build(name)).train()
        denoiser.gradient_checkpointing = checkpointing
        denoiser(**inputs()).square().mean().backward()
        gradients.append([p.grad for p in denoiser.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("resolutions", [(), (8,), (4,), (2,), (8, 2), (32, 8, 4, 2)])
@torch.no_grad()
def test_attention_sits_exactly_at_the_requested_resolutions(resolutions):
    denoiser = UNet(
        image_size=16,
        channels=(8, 8, 16),
        num_blocks=(1, 1, 1),
        attention_resolutions=resolutions,
        head_dim=8,
    )
    sides = []
    for module in denoiser.modules():
        if isinstance(module, Attention):
            module.register_forward_pre_hook(lambda module, arguments: sides.append(arguments[0].shape[-1]))
    denoiser(**inputs())
    encoder, decoder = [8, 4, 2], [4, 8]
    assert sides == [side for side in encoder + decoder if side in resolutions]


@settings(max_examples=30)
@given(
    heads=st.integers(1, 3),
    tokens=st.integers(1, 70),
    width=st.integers(1, 16),
    seed=st.integers(0, 2**31 - 1),
)
def test_attention_in_plain_products_equals_the_fused_kernel(heads, tokens, width, seed):
    rng = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 2, heads, tokens, width, generator=rng)
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v), rtol=1e-4, atol=1e-5)


def test_attention_is_the_same_on_both_sides_of_the_choice_of_kernel():
    rng = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, 1, 1025, 4, generator=rng)
    weights = torch.softmax(q @ k.mT / 2, dim=-1)
    torch.testing.assert_close(attend(q, k, v), weights @ v, rtol=1e-4, atol=1e-5)
    few = attend(q[..., :1024, :], k[..., :1024, :], v[..., :1024, :])
    weights = torch.softmax(q[..., :1024, :] @ k[..., :1024, :].mT / 2, dim=-1)
    torch.testing.assert_close(few, weights @ v[..., :1024, :], rtol=1e-4, atol=1e-5)
