"""Did numbers move without our wish? One synthetic face, and what each recipe made of it.

Summaries, not hashes: an OpenCV of another version or processor may differ in the last bits. To print the
table anew after a change that is meant to move it: `python tests/golden/test_degradation.py`.
"""

import numpy as np
import pytest

from idm.degradation import (
    GFPGAN,
    PRESETS,
    Degradation,
    apply_degradation,
    degradation_rng,
    degrade,
    draw_degradation,
)
from idm.degradation.steps import Blur, ColourShift, Downscale, GaussianNoise, Grey, Jitter, Jpeg

JITTER = (("hue", 0.05), ("contrast", 1.2), ("saturation", 0.7), ("brightness", 0.9))
STRENGTHS = ((9.0, 3.0, 0.6), 2.5, 10.0, 70, "bilinear", (12.0, -7.0, 4.0), None, JITTER)
EVERYTHING = Degradation(clean=False, drawn=tuple(zip(GFPGAN.steps, STRENGTHS, strict=True)))

# Mean of red, green and blue; standard deviation; mean step between neighbours; all in grey levels.
GOLDEN = {
    "gfpgan": (189.25, 173.90, 172.79, 24.07, 2.98),
    "vqfr": (150.76, 131.45, 139.44, 34.38, 3.34),
    "restoreformer_pp": (150.76, 131.45, 139.44, 34.38, 3.34),
    "codeformer": (151.35, 130.49, 139.01, 32.70, 2.74),
    "codeformer_stage2": (153.53, 134.00, 144.80, 26.83, 0.62),
    "diffbir": (150.86, 132.08, 138.49, 31.90, 2.70),
    "daefr": (150.16, 138.45, 136.69, 18.82, 0.57),
    "difface": (150.16, 138.45, 136.69, 18.82, 0.57),
    "mild": (150.79, 131.80, 139.22, 36.59, 3.64),
    "real_esrgan": (151.27, 131.07, 139.51, 33.16, 2.70),
    "everything": (146.21, 119.80, 126.07, 33.05, 3.55),
}


def face(size: int = 128) -> np.ndarray:
    """A shaded oval with eyes and a mouth before a striped ground, different in each channel and corner."""
    y, x = np.mgrid[0:size, 0:size] / np.float32(size)
    oval = ((x - 0.5) / 0.3) ** 2 + ((y - 0.5) / 0.4) ** 2 < 1
    eyes = ((np.abs(x - 0.5) - 0.12) / 0.05) ** 2 + ((y - 0.42) / 0.03) ** 2 < 1
    mouth = ((x - 0.5) / 0.12) ** 2 + ((y - 0.7) / 0.035) ** 2 < 1
    image = np.stack([0.3 + 0.4 * x, 0.5 + 0.2 * np.sin(50 * y), 0.7 - 0.4 * x * y], axis=-1)
    image[oval] = np.array([0.85, 0.65, 0.55]) - 0.3 * (x[oval] ** 2)[:, None]
    image[eyes] = 0.1
    image[mouth] = (0.7, 0.2, 0.25)
    return image.astype(np.float32)


def summary(image: np.ndarray) -> tuple[float, ...]:
    levels = image.astype(np.float64) * 255
    step = (np.abs(np.diff(levels, axis=0)).mean() + np.abs(np.diff(levels, axis=1)).mean()) / 2
    return (*levels.mean(axis=(0, 1)).tolist(), float(levels.std()), float(step))


def results() -> dict[str, np.ndarray]:
    made = {name: degrade(face(), recipe, degradation_rng(7, 1, 26)) for name, recipe in PRESETS.items()}
    made["everything"] = apply_degradation(face(), EVERYTHING, degradation_rng(7, 1, 0))
    return made


@pytest.mark.parametrize("name", GOLDEN)
def test_a_degraded_face_is_what_it_was(name):
    np.testing.assert_allclose(summary(results()[name]), GOLDEN[name], atol=0.1)


def test_every_preset_has_a_golden_face():
    assert set(GOLDEN) == {*PRESETS, "everything"}


def test_the_stream_of_an_item_is_what_it_was():
    expected = [0.2558767498989756, 0.7390067684717186, 0.1913420704626907]
    np.testing.assert_allclose(degradation_rng(7, 1, 2).random(3), expected, rtol=1e-12)


def test_a_draw_is_what_it_was():
    drawn = draw_degradation(GFPGAN, degradation_rng(7, 1, 26))
    assert (drawn.clean, drawn.strength(Grey), drawn.strength(Jpeg)) == (False, None, 63)
    numbers = (*drawn.strength(Blur), drawn.strength(Downscale), drawn.strength(GaussianNoise))
    assert numbers == pytest.approx((3.2154450603, 3.2154450603, 1.7899502436, 4.1331239895, 13.6957973574))
    assert drawn.strength(ColourShift) == pytest.approx((13.3680359455, 11.1848053170, -13.8996364060))
    assert [name for name, _ in drawn.strength(Jitter)] == ["contrast", "hue", "brightness", "saturation"]
    strengths = [strength for _, strength in drawn.strength(Jitter)]
    assert strengths == pytest.approx((0.7427717860, -0.0615047149, 1.2624697625, 0.4727027555))


if __name__ == "__main__":
    for name, image in results().items():
        print(f'    "{name}": ({", ".join(f"{value:.2f}" for value in summary(image))}),')
