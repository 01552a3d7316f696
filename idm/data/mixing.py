"""The pool of an extrinsic iteration: P_X, gradually replaced and filled by P_X*."""

from collections.abc import Callable

import numpy as np

from idm.data.sources import Face, FaceSource
from idm.io.errors import InvalidInput

ShareSchedule = Callable[[int], float]
"""Share of P_X* at an optimiser step."""


class Pool:
    """Faces of P_X or P_X*, as a pure function of (seed, position).

    Args:
        old, new: the same faces in the same order, of P_X and P_X*.
        share: of P_X* in the pool at a step.
        batch_size: positions of one step.
    """

    def __init__(self, old: FaceSource, new: FaceSource, share: ShareSchedule, batch_size: int, seed: int) -> None:
        if len(old) != len(new):
            raise InvalidInput(f"P_X has {len(old)} faces but P_X* {len(new)}")
        self.old, self.new, self.share, self.batch_size, self.seed = old, new, share, batch_size, seed

    def __len__(self) -> int:
        return len(self.new)

    def at(self, position: int, index: int) -> Face:
        """Face ``index`` as the sample at ``position`` of the training sees it."""
        drawn = np.random.default_rng([0x706F6F6C, self.seed, position]).random()
        source = self.new if drawn < self.share(position // self.batch_size) else self.old
        return source[index]


def linear_share(num_steps: int) -> ShareSchedule:
    """Rise linearly from 0 at the first step to 1 at ``num_steps`` and after."""
    return lambda step: min(1.0, step / num_steps)


def constant_share(share: float) -> ShareSchedule:
    """The same share at every step."""
    return lambda step: share
