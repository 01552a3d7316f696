"""Equalised learning rates, and the first release's layout, against a network that spells them out."""

from math import sqrt

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_baseline import weights
from gan_baseline.adversary import Adam
from gan_baseline.equalised import factors, fold, is_equalised
from gan_baseline.gfpgan import GFPGAN
from gan_baseline.prior import load_prior
from gan_baseline.stylegan2 import StyleGAN2Generator
from gan_baseline.weights import PUBLISHED, load_gfpgan
from idm.io.weights import WeightsError

SIZE, WIDTH, UNET, D, LEVELS, CODES = 16, 8, 4, 16, 2, 6
TINY = {"image_size": SIZE, "num_style_feat": D, "channel_multiplier": 1, "num_mlp": 2, "narrow": 1 / 64}


# The layout of GFPGANv1.pth, in small


def decoder_layout() -> dict[str, tuple[int, ...]]:
    def conv(name: str, out: int, side: int) -> dict[str, tuple[int, ...]]:
        return {
            f"{name}.modulated_conv.weight": (1, out, WIDTH, side, side),
            f"{name}.modulated_conv.modulation.weight": (WIDTH, D),
            f"{name}.modulated_conv.modulation.bias": (WIDTH,),
        }

    layout: dict[str, tuple[int, ...]] = {"constant_input.weight": (1, WIDTH, 4, 4)}
    for i in (1, 2):
        layout |= {f"style_mlp.{i}.weight": (D, D), f"style_mlp.{i}.bias": (D,)}
    for name in ("style_conv1", *(f"style_convs.{i}" for i in range(2 * LEVELS))):
        layout |= {**conv(name, WIDTH, 3), f"{name}.weight": (1,), f"{name}.activate.bias": (WIDTH,)}
    for name in ("to_rgb1", *(f"to_rgbs.{i}" for i in range(LEVELS))):
        layout |= {**conv(name, 3, 1), f"{name}.bias": (1, 3, 1, 1)}
    return layout | {f"noises.noise{i}": (1, 1, side, side) for i, side in enumerate((4, 8, 8, 16, 16))}


def unet_layout() -> dict[str, tuple[int, ...]]:
    three, one, bias = (UNET, UNET, 3, 3), (UNET, UNET, 1, 1), (UNET,)
    layout = {"conv_body_first.0.weight": (UNET, 3, 1, 1), "conv_body_first.1.bias": bias}
    layout |= {"final_conv.0.weight": three, "final_conv.1.bias": bias}
    layout |= {"final_linear.weight": (CODES * D, UNET * 16), "final_linear.bias": (CODES * D,)}
    for i in range(LEVELS):
        down, up = f"conv_body_down.{i}", f"conv_body_up.{i}"
        layout |= {f"{down}.conv1.0.weight": three, f"{down}.conv1.1.bias": bias}
        layout |= {f"{down}.conv2.1.weight": three, f"{down}.conv2.2.bias": bias, f"{down}.skip.1.weight": one}
        layout |= {f"{up}.conv1.0.weight": three, f"{up}.conv1.1.bias": bias}
        layout |= {f"{up}.conv2.weight": three, f"{up}.conv2.activation.bias": bias, f"{up}.skip.weight": one}
        layout |= {f"toRGB.{i}.weight": (3, UNET, 1, 1), f"toRGB.{i}.bias": (3,)}
        for branch in ("condition_scale", "condition_shift"):
            for k in (0, 2):
                layout |= {f"{branch}.{i}.{k}.weight": three, f"{branch}.{i}.{k}.bias": bias}
    return layout


def drawn(layout: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=rng) for name, shape in layout.items()}


@pytest.fixture(scope="module")
def decoder() -> dict[str, Tensor]:
    return drawn(decoder_layout())


@pytest.fixture(scope="module")
def whole(decoder) -> dict[str, Tensor]:
    return {**drawn(unet_layout()), **{f"stylegan_decoder.{name}": weight for name, weight in decoder.items()}}


# Its computation, spelt out: weights divided by sqrt(fan-in), transposed convolutions, explicit zeros and filters


def lrelu(x: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    bias = bias.view(1, -1, *[1] * (x.ndim - 2)) if isinstance(bias, Tensor) else bias
    return sqrt(2) * F.leaky_relu(x + bias, 0.2)


def scaled(weight: Tensor) -> Tensor:
    return weight / sqrt(weight[0].numel())


def filtered(x: Tensor, pad: tuple[int, int], gain: float = 1.0) -> Tensor:
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    kernel = gain * torch.outer(taps, taps) / 64
    return F.conv2d(F.pad(x, (*pad, *pad)), kernel.expand(x.shape[1], 1, 4, 4), groups=x.shape[1])


def spread(x: Tensor) -> Tensor:
    """A zero after every pixel, to the right and below."""
    wide = x.new_zeros(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])
    wide[..., ::2, ::2] = x
    return wide


def modulated(state: dict[str, Tensor], name: str, x: Tensor, code: Tensor, up: bool, demodulate: bool) -> Tensor:
    outputs = []
    for image, w in zip(x, code, strict=True):
        style = scaled(state[f"{name}.modulation.weight"]) @ w + state[f"{name}.modulation.bias"]
        weight = scaled(state[f"{name}.weight"][0]) * style[:, None, None]
        if demodulate:
            weight = weight / weight.square().sum(dim=(1, 2, 3), keepdim=True).add(1e-8).sqrt()
        if up:
            h = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)
            outputs.append(filtered(h, (1, 1), gain=4))
        else:
            outputs.append(F.conv2d(image[None], weight, padding=weight.shape[-1] // 2))
    return torch.cat(outputs)


def generate(state: dict[str, Tensor], codes: Tensor, conditions: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
    def style_conv(name: str, x: Tensor, code: Tensor, noise: int, up: bool) -> Tensor:
        h = modulated(state, f"{name}.modulated_conv", x, code, up, demodulate=True)
        return lrelu(h + state[f"{name}.weight"] * state[f"noises.noise{noise}"], state[f"{name}.activate.bias"])

    def to_rgb(name: str, x: Tensor, code: Tensor) -> Tensor:
        return modulated(state, f"{name}.modulated_conv", x, code, False, demodulate=False) + state[f"{name}.bias"]

    h = style_conv("style_conv1", state["constant_input.weight"].expand(len(codes), -1, -1, -1), codes[:, 0], 0, False)
    image = to_rgb("to_rgb1", h, codes[:, 1])
    for i in range(LEVELS):
        h = style_conv(f"style_convs.{2 * i}", h, codes[:, 2 * i + 1], 2 * i + 1, True)
        if conditions is not None:
            same, changed = h.chunk(2, dim=1)
            h = torch.cat([same, changed * conditions[i][0] + conditions[i][1]], dim=1)
        h = style_conv(f"style_convs.{2 * i + 1}", h, codes[:, 2 * i + 2], 2 * i + 2, False)
        image = to_rgb(f"to_rgbs.{i}", h, codes[:, 2 * i + 3]) + filtered(spread(image), (2, 1), gain=4)
    return image


def restore(state: dict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    def conv(name: str, x: Tensor, bias: str | None = None) -> Tensor:
        weight = state[name]
        h = F.conv2d(x, scaled(weight), padding=weight.shape[-1] // 2)
        return h if bias is None else lrelu(h, state[bias])

    def double(x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear")

    h, skips = conv("conv_body_first.0.weight", x, "conv_body_first.1.bias"), []
    for i in range(LEVELS):
        name = f"conv_body_down.{i}"
        inner = conv(f"{name}.conv1.0.weight", h, f"{name}.conv1.1.bias")
        inner = F.conv2d(filtered(inner, (2, 2)), scaled(state[f"{name}.conv2.1.weight"]), stride=2)
        skip = F.conv2d(filtered(h, (1, 1)), scaled(state[f"{name}.skip.1.weight"]), stride=2)
        h = (lrelu(inner, state[f"{name}.conv2.2.bias"]) + skip) / sqrt(2)
        skips.append(h)
    h = conv("final_conv.0.weight", h, "final_conv.1.bias")
    codes = (h.flatten(1) @ scaled(state["final_linear.weight"]).T + state["final_linear.bias"]).view(len(x), CODES, D)
    conditions, rgbs = [], []
    for i in range(LEVELS):
        name, h = f"conv_body_up.{i}", h + skips.pop()
        inner = conv(f"{name}.conv1.0.weight", h, f"{name}.conv1.1.bias")
        inner = conv(f"{name}.conv2.weight", double(inner), f"{name}.conv2.activation.bias")
        h = (inner + conv(f"{name}.skip.weight", double(h))) / sqrt(2)
        pair = []
        for branch in (f"condition_scale.{i}", f"condition_shift.{i}"):
            inner = lrelu(conv(f"{branch}.0.weight", h) + state[f"{branch}.0.bias"].view(1, -1, 1, 1))
            pair.append(conv(f"{branch}.2.weight", inner) + state[f"{branch}.2.bias"].view(1, -1, 1, 1))
        conditions.append((pair[0], pair[1]))
        rgbs.append(conv(f"toRGB.{i}.weight", h) + state[f"toRGB.{i}.bias"].view(1, -1, 1, 1))
    decoder = {name.removeprefix("stylegan_decoder."): weight for name, weight in state.items()}
    return generate(decoder, codes, conditions), rgbs


# The same function


def test_the_first_release_folded_is_the_function_that_its_layout_spells_out(whole):
    model = GFPGAN(**TINY, smooth=True)
    model.load_state_dict(fold(whole))
    x_d = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        (restored, rgbs), (wanted, wanted_rgbs) = model(x_d), restore(whole, x_d)
    torch.testing.assert_close(rgbs, wanted_rgbs, rtol=1e-4, atol=1e-4)
    assert wanted.abs().mean() > 0.1
    torch.testing.assert_close(restored, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_the_authors_prior_folded_samples_what_its_layout_spells_out(decoder, tmp_path):
    torch.save({"params_ema": decoder}, tmp_path / "prior.pth")
    prior = StyleGAN2Generator(**TINY, smooth=True)
    load_prior(prior, tmp_path / "prior.pth")
    z = torch.randn(2, D, generator=torch.Generator().manual_seed(1))
    w = z / z.square().mean(dim=1, keepdim=True).add(1e-8).sqrt()
    for i in (1, 2):
        w = lrelu(w @ (0.01 * scaled(decoder[f"style_mlp.{i}.weight"])).T, 0.01 * decoder[f"style_mlp.{i}.bias"])
    wanted = generate(decoder, w[:, None].expand(-1, CODES, -1))
    with torch.no_grad():
        torch.testing.assert_close(prior.sample(z), wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_a_prior_that_resamples_smoothly_is_refused_where_the_decoder_does_not(decoder, tmp_path):
    torch.save({"params_ema": decoder}, tmp_path / "prior.pth")
    with pytest.raises(WeightsError, match=r"prior\.pth: is a prior that resamples smoothly; set generator\.smooth"):
        load_prior(StyleGAN2Generator(**TINY), tmp_path / "prior.pth")


def test_a_file_of_the_first_release_is_loaded_by_its_names(whole, monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "PUBLISHED", {**PUBLISHED, **TINY})
    torch.save({"params_ema": whole}, tmp_path / "GFPGANv1.pth")
    model = load_gfpgan(tmp_path / "GFPGANv1.pth")
    assert model.architecture == {**TINY, "sft_half": True, "smooth": True}
    for name, weight in fold(whole).items():
        assert torch.equal(model.state_dict()[name], weight)
    assert is_equalised(whole)
    assert not is_equalised(model.state_dict())


# The same training


def test_training_at_equalised_rates_is_training_the_stored_numbers():
    """Adam on r with w = c r computed anew in each step, against Adam on w at rates c."""
    torch.manual_seed(0)
    ours = GFPGAN(**TINY)
    c = factors(ours)
    names = [name for name, _ in ours.named_parameters() if "style_mlp" not in name]
    stored = {n: (p.detach() / c[n]).requires_grad_() for n, p in ours.named_parameters() if n in names}
    theirs = GFPGAN(**TINY)
    adam = Adam(1e-2, (0.0, 0.99))
    ours.stylegan_decoder.style_mlp.requires_grad_(False)
    optimizers = adam.optimizer(ours, c), torch.optim.Adam(stored.values(), lr=1e-2, betas=(0.0, 0.99))
    for step in range(3):
        x = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(step))
        adam.schedule(optimizers[0], step)
        (ours(x)[0] - x).square().mean().backward()
        others = {name: weight for name, weight in ours.state_dict().items() if name not in stored}
        computed = {**others, **{name: c[name] * r for name, r in stored.items()}}
        (torch.func.functional_call(theirs, computed, (x,))[0] - x).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    trained: dict[str, nn.Parameter] = dict(ours.named_parameters())
    for name, r in stored.items():
        torch.testing.assert_close(trained[name], c[name] * r, rtol=1e-3, atol=1e-5, msg=name)
    assert len(set(c.values())) > 8
