"""The counter-based generator against its published vectors, and its numbers against their distributions."""

import math
from collections import Counter

import pytest
import torch
from scipy import stats
from torch.utils._python_dispatch import TorchDispatchMode

from idm.diffusion.noise import NORMALS, UNIFORMS, box_muller, normals, philox, uniforms, words_of
from idm.training.learner import training_noise

POSITIONS = torch.arange(64)
PUBLISHED = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]
"""Counter, key and result: ``philox4x32 10`` in tests/kat_vectors of Random123 (DEShawResearch/random123)."""


def hexadecimal(words: str) -> list[int]:
    return [int(word, 16) for word in words.split()]


@pytest.fixture(scope="module")
def eps() -> torch.Tensor:
    """The noise of 64 neighbouring samples, one row each."""
    return normals(3, POSITIONS, (3, 32, 32)).flatten(1).double()


# Words


@pytest.mark.parametrize(("counter", "key", "wanted"), PUBLISHED)
def test_the_words_are_those_that_the_authors_publish(counter, key, wanted):
    k0, k1 = hexadecimal(key)
    found = philox([torch.tensor(word) for word in hexadecimal(counter)], (k0, k1))
    assert [int(word) for word in found] == hexadecimal(wanted)


def test_the_key_is_the_seed_and_the_counter_the_place_the_stream_and_the_position():
    seed, position = 0x0123456789ABCDEF, 0x11223344556677
    found = words_of(seed, torch.tensor([0, position]), UNIFORMS, 5)
    counter = [torch.tensor(word) for word in (4, 1, 0x44556677, 0x112233)]
    wanted = philox(counter, (0x89ABCDEF, 0x01234567))
    assert [int(word[1, 4]) for word in found] == [int(word) for word in wanted]


def test_no_two_streams_places_positions_or_seeds_have_a_word_in_common():
    chosen = [(seed, stream) for seed in (0, 1, 2**32) for stream in (NORMALS, UNIFORMS)]
    positions = torch.tensor([0, 1, 2, 2**32])
    words = [word for seed, stream in chosen for word in words_of(seed, positions, stream, 8)]
    every = torch.stack(words).flatten()
    assert len(every.unique()) == len(every) == 6 * 4 * 4 * 8


# Normal numbers


def test_a_pair_of_normals_has_the_radius_and_the_angle_of_box_and_muller():
    u_1, u_2 = torch.rand(2, 1000, generator=torch.Generator().manual_seed(0))
    z_0, z_1 = box_muller(u_1.clone(), u_2.clone())
    torch.testing.assert_close(z_0.square() + z_1.square(), -2 * u_1.log(), rtol=1e-5, atol=1e-6)
    turns = torch.atan2(z_1, z_0) / (2 * math.pi) - u_2
    torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-5)


def test_the_extreme_words_give_finite_normals():
    u = torch.tensor([0, 0xFFFFFFFF]).float().add_(0.5).mul_(2.0**-32)
    largest, smallest = box_muller(u.clone(), torch.zeros(2))[0].tolist()
    assert largest == pytest.approx(math.sqrt(66 * math.log(2)))
    assert smallest == 0


def test_the_noise_has_the_moments_of_a_normal_distribution(eps):
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert (eps**power).mean().item() == pytest.approx(moment, abs=4 * (variance / eps.numel()) ** 0.5)


def test_the_noise_of_all_samples_and_of_each_passes_kolmogorov_and_smirnovs_test(eps):
    assert stats.kstest(eps.flatten(), "norm").pvalue > 0.01
    each = [stats.kstest(row, "norm").pvalue for row in eps]
    assert stats.kstest(each, "uniform").pvalue > 0.01


def test_neighbouring_samples_seeds_and_pixels_are_uncorrelated(eps):
    limit = 4.5 / eps.shape[1] ** 0.5
    assert torch.corrcoef(eps).triu(1).abs().max().item() < limit
    assert torch.corrcoef(eps.square()).triu(1).abs().max().item() < limit
    other = normals(4, POSITIONS, (3, 32, 32)).flatten(1).double()
    limit = 4 / eps.numel() ** 0.5
    assert abs((eps * other).mean().item()) < limit
    for lag in (1, 2, 3, 4, 32, 768, 1024):
        assert abs((eps[:, lag:] * eps[:, :-lag]).mean().item()) < 1.1 * limit, lag


@pytest.mark.parametrize("shape", [(3, 32, 32), (3, 5, 7), (1,)])
def test_the_noise_of_a_sample_is_the_same_alone_and_in_any_batch(shape):
    together = normals(5, torch.tensor([9, 2, 7, 2**40]), shape)
    assert together.shape == (4, *shape)
    assert together.dtype == torch.float32
    assert together.is_contiguous() or math.prod(shape) % 4
    for i, position in enumerate((9, 2, 7, 2**40)):
        assert torch.equal(normals(5, torch.tensor([position]), shape)[0], together[i])


def test_the_noise_does_not_depend_on_the_number_of_threads():
    threads = torch.get_num_threads()
    try:
        drawn = []
        for number in (1, 3):
            torch.set_num_threads(number)
            drawn.append(normals(5, torch.arange(3), (3, 131, 131)))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*drawn)


# Uniform numbers


def test_the_uniforms_are_uniform_and_independent():
    u = uniforms(0, torch.arange(5000))
    assert u.shape == (4, 5000)
    assert u.dtype == torch.float64
    assert ((u >= 0) & (u < 1)).all()
    for row in u:
        assert stats.kstest(row, "uniform").pvalue > 0.01
    assert torch.corrcoef(u).triu(1).abs().max().item() < 4 / 5000**0.5
    assert torch.equal(uniforms(0, torch.tensor([17]))[:, 0], u[:, 17])


def test_the_uniforms_share_no_word_with_the_normals():
    drawn = (uniforms(0, POSITIONS) * 2**32).long()
    assert not torch.isin(drawn, torch.cat(words_of(0, POSITIONS, NORMALS, 8))).any()


# Cost


class Operations(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.seen[str(function)] += 1
        return function(*arguments, **(keywords or {}))


def test_a_batch_of_sixteen_takes_as_many_operations_as_one_of_two():
    counts = []
    for size in (2, 16):
        like = torch.empty(size, 3, 8, 8)
        with Operations() as operations:
            training_noise(0, list(range(size)), like)
        counts.append(operations.seen)
    assert counts[0] == counts[1]
    assert counts[0].total() < 300
