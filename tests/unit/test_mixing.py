"""The pool between P_X and P_X*: its share at every step, and that it depends on (seed, position) only."""

import numpy as np
import pytest

from idm.data.cache import Cached
from idm.data.mixing import Pool, constant_share, linear_share
from idm.data.pairs import IndexedPairs, Pairing, epoch_order
from idm.data.sources import Part, SyntheticFaces
from idm.degradation import GFPGAN

OLD, NEW = Cached(SyntheticFaces(10, 0, 32)), Cached(SyntheticFaces(10, 1, 32))


def drawn(pool: Pool, positions: range) -> np.ndarray:
    """Whether each position gets a face of P_X*."""
    return np.array([pool.at(position, position % 10).key.startswith("synthetic_1") for position in positions])


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_mixed_pool_holds_its_share(share: float) -> None:
    taken = drawn(Pool(OLD, NEW, constant_share(share), 4, seed=0), range(2000))
    assert taken.mean() == pytest.approx(share, abs=0.03)
    if share in (0.0, 1.0):
        assert taken.mean() == share


def test_a_gradual_pool_is_replaced_from_nothing_to_everything() -> None:
    batch, over = 4, 250
    taken = drawn(Pool(OLD, NEW, linear_share(over), batch, seed=0), range(batch * 400))
    assert not taken[:batch].any()
    assert taken[batch * over :].all()
    quarters = taken[: batch * over].reshape(4, -1).mean(axis=1)
    np.testing.assert_allclose(quarters, [0.125, 0.375, 0.625, 0.875], atol=0.08)


def test_a_pools_face_depends_on_seed_and_position_only() -> None:
    first, second, other = (Pool(OLD, NEW, constant_share(0.5), 4, seed) for seed in (0, 0, 1))
    assert [first.at(p, p % 10).key for p in range(50)] == [second.at(p, p % 10).key for p in reversed(range(50))][::-1]
    assert (drawn(first, range(50)) != drawn(other, range(50))).any()


def test_pairs_take_the_pools_face_at_their_position() -> None:
    pool = Pool(OLD, NEW, linear_share(5), 4, seed=3)
    pairs = IndexedPairs(pool, Pairing(GFPGAN, seed=3, flip_probability=0.0))
    for position in range(25):
        epoch, place = divmod(position, 10)
        index = int(epoch_order(3, epoch, 10)[place])
        expected = pool.at(position, index)
        np.testing.assert_array_equal(pairs[position].hq, expected.image)
        assert pairs[position].key == expected.key


def test_pools_of_different_faces_are_refused() -> None:
    with pytest.raises(ValueError, match="P_X has 9 faces but P_X\\* 10"):
        Pool(Part(OLD, range(9)), NEW, constant_share(1.0), 4, 0)
