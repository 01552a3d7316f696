"""The bundled prior: it is the file of its card, its samples are faces, and the configurations start from it."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_baseline.build import build_generator
from gan_baseline.prior import BUNDLED, load_prior
from gan_baseline.schema import GANConfig
from gan_baseline.stylegan2 import StyleGAN2Generator, draw_noise
from idm.config.load import load_config
from idm.faces.detector.search import load_builtin
from idm.io.ranges import chw_to_hwc, from_diffusion, to_uint8

CONFIGS = Path(__file__).parents[2] / "configs"


def prior_of(size: int) -> StyleGAN2Generator:
    prior = StyleGAN2Generator(size, num_style_feat=128, channel_multiplier=1, num_mlp=2, narrow=0.125)
    load_prior(prior, BUNDLED)
    return prior


@torch.no_grad()
def faces_in(prior: StyleGAN2Generator, number: int = 16) -> float:
    """The share of samples in which a face is found."""
    rngs = [torch.Generator().manual_seed(seed) for seed in range(number)]
    z = torch.stack([torch.randn(128, generator=rng) for rng in rngs])
    samples = to_uint8(from_diffusion(prior.sample(z, draw_noise(prior.image_size, rngs))).clamp(0, 1))
    detector = load_builtin("cpu", 512)
    return float(np.mean([len(detector.detect(chw_to_hwc(image))) > 0 for image in samples]))


def test_the_card_states_the_checksum():
    assert hashlib.sha256(BUNDLED.read_bytes()).hexdigest() in BUNDLED.with_name("README.md").read_text()


@pytest.mark.parametrize("size", [64, 128])
def test_its_samples_are_faces_at_its_own_size_and_from_its_first_levels(size):
    torch.manual_seed(0)
    untrained = StyleGAN2Generator(size, num_style_feat=128, channel_multiplier=1, num_mlp=2, narrow=0.125)
    assert faces_in(untrained) == 0
    assert faces_in(prior_of(size)) > 0.7


@pytest.mark.parametrize("size", [64, 128])
def test_a_configuration_of_faces_starts_from_it(size):
    config = load_config(CONFIGS / f"gan_faces{size}.yaml", GANConfig)
    assert config.prior is not None
    assert config.prior.name == "bundled"
    decoder = build_generator(config).stylegan_decoder
    load_prior(decoder, BUNDLED)
    ours, theirs = decoder.state_dict(), prior_of(size).state_dict()
    assert all(torch.equal(ours[name], weight) for name, weight in theirs.items())
