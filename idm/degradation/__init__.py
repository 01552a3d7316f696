"""Blind-face-restoration degradations: an image in [0, 1] and a generator in, a worse image out.

`steps` and `further_steps` hold the steps, `recipes` what a recipe is and how it degrades, `presets` the published
recipes, `operations` and `kernels` what happens to the pixels. Everything is numpy and OpenCV on the CPU; nothing here
knows of configs, files or training.
"""

from idm.degradation.further_steps import AnyStep
from idm.degradation.presets import (
    CODEFORMER,
    CODEFORMER_STAGE2,
    DAEFR,
    DIFFACE,
    DIFFBIR,
    GFPGAN,
    MILD,
    PRESETS,
    REAL_ESRGAN,
    RESTOREFORMER_PP,
    VQFR,
    PresetName,
)
from idm.degradation.recipes import (
    Degradation,
    Mixture,
    Recipe,
    apply_degradation,
    degradation_rng,
    degrade,
    draw_degradation,
)

__all__ = [
    "CODEFORMER",
    "CODEFORMER_STAGE2",
    "DAEFR",
    "DIFFACE",
    "DIFFBIR",
    "GFPGAN",
    "MILD",
    "PRESETS",
    "REAL_ESRGAN",
    "RESTOREFORMER_PP",
    "VQFR",
    "AnyStep",
    "Degradation",
    "Mixture",
    "PresetName",
    "Recipe",
    "apply_degradation",
    "degradation_rng",
    "degrade",
    "draw_degradation",
]
