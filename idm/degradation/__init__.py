"""Blind-face-restoration degradations: an image in [0, 1] and a generator in, a worse image out.

`recipes` holds the recipes and the fixed order of the steps, `steps` the steps one by one, `kernels` the blur
kernels. Everything is numpy and OpenCV on the CPU; nothing here knows of configs, files or training.
"""

from idm.degradation.recipes import (
    CODEFORMER,
    CODEFORMER_STAGE2,
    DAEFR,
    DIFFACE,
    DIFFBIR,
    GFPGAN,
    MILD,
    PRESETS,
    RESTOREFORMER_PP,
    VQFR,
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
    "RESTOREFORMER_PP",
    "VQFR",
    "Degradation",
    "Mixture",
    "Recipe",
    "apply_degradation",
    "degradation_rng",
    "degrade",
    "draw_degradation",
]
