"""Random numbers as a function of (seed, position of a sample in the run), drawn for a whole batch at once.

A counter-based generator has no state: its n-th number is a function of a key and of n. A sample's noise therefore
depends neither on its batch nor on what was drawn before, and all samples are drawn by the same few operations, on the
device of their positions. The key is the seed; the counter holds the position, the stream and the place in the stream.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

Words = Int64[Tensor, "..."]
"""Unsigned 32-bit words, in [0, 2^32)."""

NORMALS: Literal[0] = 0
UNIFORMS: Literal[1] = 1
"""The streams of a sample."""

WORD = 0xFFFFFFFF
M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85  # golden ratio, sqrt(3) - 1


# (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)), (k0, k1) <- (k0 + W0, k1 + W1)
def philox(counter: Sequence[Words], key: tuple[int, int]) -> list[Words]:
    """Four random words for each counter: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
    SC 2011, doi 10.1145/2063384.2063405), with the constants of the authors' library, Random123.

    Args:
        counter: four words, of shapes that broadcast.
        key: two words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = M0 * c0, M1 * c2  # of 64 bits; c1 and c3 keep all of them, until they are cut off
        c0, c1, c2, c3 = ((p1 >> 32) ^ c1 ^ k0) & WORD, p1, ((p0 >> 32) ^ c3 ^ k1) & WORD, p0
        k0, k1 = (k0 + W0) & WORD, (k1 + W1) & WORD
    return [c0, c1 & WORD, c2, c3 & WORD]


# z_0 = sqrt(-2 ln u_1) cos(2 pi u_2), z_1 = sqrt(-2 ln u_1) sin(2 pi u_2)
def box_muller(
    u_1: Float32[Tensor, "*n"], u_2: Float32[Tensor, "*n"]
) -> tuple[Float32[Tensor, "*n"], Float32[Tensor, "*n"]]:
    """Two independent standard normal numbers from two uniform ones, ``u_1`` in (0, 1] (Box and Muller, Annals of
    Mathematical Statistics 29(2), 1958). Overwrites both."""
    radius, angle = u_1.log_().mul_(-2).sqrt_(), u_2.mul_(2 * math.pi)
    return radius * angle.cos(), radius * angle.sin()


def normals(seed: int, positions: Int64[Tensor, " b"], shape: Sequence[int]) -> Float32[Tensor, " b *shape"]:
    """Standard normal noise for each sample, on the device of ``positions``.

    The words are the same on all devices, and the noise is the same up to the rounding of logarithms and cosines. No
    number is larger than 6.8, because u_1 >= 2^-33.
    """
    count = math.prod(shape)
    words = words_of(seed, positions, NORMALS, -(-count // 4))
    u = [word.float().add_(0.5).mul_(2.0**-32) for word in words]
    return torch.cat([*box_muller(*u[:2]), *box_muller(*u[2:])], dim=1)[:, :count].unflatten(1, tuple(shape))


def uniforms(seed: int, positions: Int64[Tensor, " b"]) -> Float64[Tensor, "4 b"]:
    """Four uniform numbers in [0, 1) for each sample, multiples of 2^-32, on the device of ``positions``."""
    return torch.cat(words_of(seed, positions, UNIFORMS, 1), dim=1).T.double() * 2.0**-32


def words_of(
    seed: int, positions: Int64[Tensor, " b"], stream: Literal[0, 1], count: int
) -> list[Int64[Tensor, "b n"]]:
    """Four lists of ``count`` random words for each sample."""
    place = torch.arange(count, device=positions.device)
    low, high = positions[:, None] & WORD, positions[:, None] >> 32
    return philox((place, torch.full_like(place, stream), low, high), (seed & WORD, seed >> 32 & WORD))
