"""Published recipes, and one of our own: tables of steps.

All recipes for faces have the steps and the order of GFP-GAN (gfpgan/data/ffhq_degradation_dataset.py,
`__getitem__`, with BasicSR's basicsr/data/degradations.py) and differ in their ranges. Colour terms are those of the
source's options file: only GFP-GAN's has shift and jitter. RestoreFormer++ and DifFace turn the *target* grey too
(`gt_gray`): that is the caller's to do, from `Degradation.strength(Grey)`.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal

from idm.degradation.further_steps import OneOf, PoissonNoise, RandomResize, ShapedBlur, Sinc
from idm.degradation.recipes import Recipe
from idm.degradation.steps import (
    Blur,
    ColourShift,
    Downscale,
    GaussianNoise,
    Grey,
    Jitter,
    Jpeg,
    Range,
    Resize,
    Step,
)

PresetName = Literal[
    "gfpgan",
    "vqfr",
    "restoreformer_pp",
    "codeformer",
    "codeformer_stage2",
    "diffbir",
    "daefr",
    "difface",
    "mild",
    "real_esrgan",
]


def face_recipe(
    blur: Range,
    down: Range,
    noise: Range,
    jpeg: Range,
    *,
    colour_shift: float = 0.0,
    grey: float = 0.0,
    jitter: float = 0.0,
) -> Recipe:
    """GFP-GAN's steps with other ranges.

    Args:
        blur: sigma in pixels of a 512 px face.
        down: factor; below 1 enlarges.
        noise: sigma in units of 1/255.
        jpeg: libjpeg's quality.
        colour_shift, grey, jitter: shares of the images. A step of share 0 stays, so that all recipes draw the same
            numbers.
    """
    return Recipe(
        (
            Blur(blur),
            Downscale(down),
            GaussianNoise(noise),
            Jpeg(jpeg),
            Resize(),
            ColourShift(colour_shift),
            Grey(grey),
            Jitter(jitter),
        )
    )


# options/train_gfpgan_v1.yml
GFPGAN = face_recipe((0.1, 10.0), (0.8, 8.0), (0.0, 20.0), (60.0, 100.0), colour_shift=0.3, grey=0.01, jitter=0.3)
# options/train/VQFR/train_vqfr_v1_B16_200K.yml
VQFR = face_recipe((0.1, 10.0), (0.8, 8.0), (0.0, 20.0), (60.0, 100.0))
# configs/RestoreFormerPlusPlus.yaml. Left out: haze (p .008), a patch degraded unlike the rest ("uneven",
# p .1), kernels of 39 as well as 41 px, and its geometric shift (p .2), which moves the target too.
RESTOREFORMER_PP = face_recipe((0.1, 10.0), (0.8, 8.0), (0.0, 20.0), (60.0, 100.0), grey=0.008)
# options/CodeFormer_stage3.yml
CODEFORMER = face_recipe((0.1, 10.0), (1.0, 12.0), (0.0, 15.0), (60.0, 100.0))
# options/CodeFormer_stage2.yml
CODEFORMER_STAGE2 = face_recipe((1.0, 15.0), (4.0, 30.0), (0.0, 20.0), (30.0, 80.0))
# DiffBIR v2, configs/train/train_stage1.yaml
DIFFBIR = face_recipe((0.1, 12.0), (1.0, 12.0), (0.0, 15.0), (30.0, 100.0))
# configs/DAEFR.yaml; left out: kernels of 39 as well as 41 px
DAEFR = face_recipe((0.1, 15.0), (0.8, 30.0), (0.0, 20.0), (30.0, 100.0))
# DifFace, configs/training/swinir_ffhq512.yaml; PMRF's "difface" degradation
DIFFACE = face_recipe((0.1, 15.0), (0.8, 32.0), (0.0, 20.0), (30.0, 100.0), grey=0.01)
# Our own choice: what is wrong with the poorer photographs of FFHQ itself (soft focus, sensor noise, JPEG).
MILD = face_recipe((0.1, 3.0), (1.0, 2.0), (0.0, 8.0), (60.0, 95.0))


def _real_esrgan_blur(sigma: Range, probability: float) -> OneOf:
    """kernel_list, kernel_prob, sinc_prob: 0.1 of the kernels are sinc, the rest has the six shapes of the list."""
    generalised, plateau = (0.5, 4.0), (1.0, 2.0)
    kinds: tuple[tuple[float, Step[Any]], ...] = (
        (0.1, Sinc((math.pi / 5, math.pi))),
        (0.9 * 0.45, Blur(sigma, 1.0, 21)),
        (0.9 * 0.25, Blur(sigma, 0.0, 21)),
        (0.9 * 0.12, ShapedBlur("generalised", sigma, generalised, 1.0)),
        (0.9 * 0.03, ShapedBlur("generalised", sigma, generalised, 0.0)),
        (0.9 * 0.12, ShapedBlur("plateau", sigma, plateau, 1.0)),
        (0.9 * 0.03, ShapedBlur("plateau", sigma, plateau, 0.0)),
    )
    return OneOf(tuple((step,) for _, step in kinds), tuple(probability * share for share, _ in kinds))


def _real_esrgan_noise(sigma: Range, scale: Range) -> OneOf:
    """gaussian_noise_prob 0.5, gray_noise_prob 0.4."""
    noises: tuple[Step[Any], ...] = (
        GaussianNoise(sigma),
        GaussianNoise(sigma, grey=True),
        PoissonNoise(scale),
        PoissonNoise(scale, grey=True),
    )
    return OneOf(tuple((noise,) for noise in noises), (0.3, 0.2, 0.3, 0.2))


_AT_A_QUARTER = RandomResize(0.0, 0.0, (1.0, 1.0), base=4.0)
_RING = OneOf(((Sinc(),),), (0.8,))
_JPEG = Jpeg((30.0, 95.0))

# Real-ESRGAN (arXiv 2107.10833), options/train_realesrgan_x4plus.yml, realesrgan/models/realesrgan_model.py
# (`feed_data`) and realesrgan/data/realesrgan_dataset.py: two passes of blur, resize, noise and JPEG, the second at a
# quarter of the size, where a sinc filter comes before or after the last JPEG. The last resize is ours, for a model of
# faces sees x_d at full size. Of our own too: lengths scale with the face, which the source's crops of 400 px of
# anything do not; Gaussians and plateaus have kernels of 21 px, not of 7 to 21; the target is not sharpened.
REAL_ESRGAN = Recipe(
    (
        _real_esrgan_blur((0.2, 3.0), 1.0),
        RandomResize(0.2, 0.7, (0.15, 1.5)),
        _real_esrgan_noise((1.0, 30.0), (0.05, 3.0)),
        _JPEG,
        _real_esrgan_blur((0.2, 1.5), 0.8),
        RandomResize(0.3, 0.4, (0.3, 1.2), base=4.0),
        _real_esrgan_noise((1.0, 25.0), (0.05, 2.5)),
        OneOf(((_AT_A_QUARTER, _RING, _JPEG), (_JPEG, _AT_A_QUARTER, _RING)), (0.5, 0.5)),
        Resize("bicubic"),
    )
)

PRESETS: Mapping[PresetName, Recipe] = MappingProxyType(
    {
        "gfpgan": GFPGAN,
        "vqfr": VQFR,
        "restoreformer_pp": RESTOREFORMER_PP,
        "codeformer": CODEFORMER,
        "codeformer_stage2": CODEFORMER_STAGE2,
        "diffbir": DIFFBIR,
        "daefr": DAEFR,
        "difface": DIFFACE,
        "mild": MILD,
        "real_esrgan": REAL_ESRGAN,
    }
)
