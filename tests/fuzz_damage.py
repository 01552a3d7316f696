"""Damage to files, and what every fuzzer says of a case that its oracle does not explain."""

import sys
from collections import Counter
from collections.abc import Callable

import numpy as np


class UnexplainedError(AssertionError):
    """A sound file is refused, a wrong result is accepted, or an error is not one that names its file."""


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One of six kinds of damage: cut short, bytes replaced near the beginning, bits flipped anywhere, a stretch of
    zeros, other bytes behind the beginning, or nothing left."""
    broken = bytearray(data)
    match rng.choice(6, p=(0.2, 0.2, 0.3, 0.15, 0.1, 0.05)) if data else 4:
        case 0:
            return data[: int(rng.random() * len(data))]
        case 1:
            for place in (rng.random(rng.integers(1, 12)) ** 2 * len(data)).astype(int):
                broken[place] = rng.integers(256)
        case 2:
            for place in rng.integers(0, len(data), rng.integers(1, 4)):
                broken[place] ^= 1 << rng.integers(8)
        case 3:
            start, length = rng.integers(len(data)), rng.integers(1, 200)
            broken[start : start + length] = bytes(len(broken[start : start + length]))
        case 4:
            return data[: rng.integers(0, 64)] + rng.bytes(rng.integers(0, 400))
        case _:
            return b""
    return bytes(broken)


def count_outcomes(num_cases: int, seed: int, outcome: Callable[[np.random.Generator], str]) -> Counter[str]:
    """Outcomes of cases, each with a generator of its own, so that a single case can be run again.

    Raises:
        Exception: what the first unexplained case raised, after its number was printed.
    """
    counts: Counter[str] = Counter()
    for case in range(num_cases):
        try:
            counts[outcome(np.random.default_rng([seed, case]))] += 1
        except Exception:
            print(f"not explained: case {case} of seed {seed}", file=sys.stderr)
            raise
    return counts
