"""The gate on constructed cases, and what quality sees of blur, noise and JPEG."""

from dataclasses import replace

import numpy as np
import pytest

from idm.config.schema import GateConfig
from idm.data.synthetic import synthetic_face
from idm.degradation import kernels, operations
from idm.extrinsic.gate import Decision, Gate, decide
from idm.extrinsic.quality import Quality, measure
from idm.io.ranges import from_uint8, to_uint8

GATE = Gate(
    min_identity=0.6,
    max_sharpness_loss=0.01,
    max_noise_gain=0.3,
    max_blockiness_gain=0.1,
    min_sharpness_gain=0.02,
    min_noise_loss=1.0,
    min_blockiness_loss=0.2,
)
X = Quality(sharpness=1.2, noise=2.0, blockiness=1.5)


def sharper(share: float) -> Quality:
    return replace(X, sharpness=X.sharpness * (1 + share))


@pytest.mark.parametrize(
    ("after", "identity", "reason"),
    [
        (X, 1.0, "no better"),  # a restorer that returns its input
        (sharper(0.05), 0.9, "better"),
        (sharper(0.05), 0.59, "identity"),
        (sharper(-0.02), 0.9, "softer"),
        (replace(X, noise=0.5), 0.9, "better"),
        (replace(sharper(0.05), noise=2.4), 0.9, "noisier"),
        (replace(sharper(0.05), noise=2.2), 0.9, "better"),  # within the tolerance
        (replace(X, blockiness=1.2), 0.9, "better"),
        (replace(sharper(0.05), blockiness=1.7), 0.9, "blockier"),
        (replace(sharper(-0.02), noise=0.5), 0.9, "softer"),  # noise traded for blur
        (replace(sharper(0.01), noise=1.5, blockiness=1.4), 0.9, "no better"),
    ],
)
def test_the_gate_takes_what_is_better_in_one_thing_and_worse_in_none(
    after: Quality, identity: float, reason: str
) -> None:
    assert decide(GATE, X, after, identity) == Decision(reason == "better", reason)


def test_without_a_gate_every_x_star_is_taken() -> None:
    worst = Quality(sharpness=0.1, noise=50.0, blockiness=9.0)
    assert decide(None, X, worst, None) == Decision(True, "no gate")


def test_not_a_number_never_passes_the_gate() -> None:
    nan = float("nan")
    assert decide(GATE, X, sharper(0.05), nan).reason == "identity"
    for after in (replace(X, sharpness=nan), replace(sharper(0.05), noise=nan), replace(sharper(0.05), blockiness=nan)):
        assert not decide(GATE, X, after, 0.9).accepted


def test_a_gate_that_asks_for_identity_wants_it_measured_and_another_does_without() -> None:
    with pytest.raises(ValueError, match="min_identity"):
        decide(GATE, X, sharper(0.05), None)
    assert decide(replace(GATE, min_identity=None), X, sharper(0.05), None).accepted


def test_the_settings_and_the_gate_have_the_same_defaults() -> None:
    assert Gate(**GateConfig().model_dump()) == Gate()


# ------------------------------------------------------------------------------------------- quality


def face(size: int) -> np.ndarray:
    return synthetic_face(0, 3, size).image


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    return to_uint8(operations.add_gaussian_noise(from_uint8(image), sigma, np.random.default_rng(0)))


def blurred(image: np.ndarray, sigma: float) -> np.ndarray:
    return to_uint8(operations.blur(from_uint8(image), kernels.gaussian_taps(sigma, 4)))


@pytest.mark.parametrize("size", [64, 128, 256])
def test_each_number_sees_its_own_fault(size: int) -> None:
    image = face(size)
    original = measure(image)
    assert measure(blurred(image, 0.7)).sharpness < 0.98 * original.sharpness
    assert measure(noisy(image, 4.0)).noise > original.noise + 2
    assert measure(to_uint8(operations.jpeg(from_uint8(image), 40))).blockiness > original.blockiness + 0.1


@pytest.mark.parametrize("size", [64, 128])
def test_noise_is_not_taken_for_sharpness(size: int) -> None:
    image = face(size)
    assert measure(noisy(image, 10.0)).sharpness == pytest.approx(measure(image).sharpness, rel=0.03)


def test_noise_of_a_flat_picture_is_its_standard_deviation() -> None:
    grey = np.full((96, 96, 3), 128, np.uint8)
    assert measure(grey).noise == 0
    assert measure(noisy(grey, 8.0)).noise == pytest.approx(8.0, rel=0.05)


def test_a_picture_without_a_grid_has_blockiness_one() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (128, 128, 3), dtype=np.uint8)
    assert measure(image).blockiness == pytest.approx(1.0, abs=0.05)


def test_blockiness_is_found_on_the_grid_of_8_and_nowhere_else() -> None:
    column = np.repeat(np.arange(16) * 15, 8).astype(np.uint8)
    image = np.repeat(np.repeat(column[None], 128, axis=0)[..., None], 3, axis=2)
    assert measure(image).blockiness > 3.5
    assert measure(np.roll(image, 4, axis=1)).blockiness < 1


def test_a_picture_too_small_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="24 pixels"):
        measure(np.zeros((16, 16, 3), np.uint8))
