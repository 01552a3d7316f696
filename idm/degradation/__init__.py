"""Blind-face-restoration degradations: functions from an image in [0, 1] and a generator to a degraded image.

`steps` and `further_steps` hold the steps, `recipes` recipes and how they degrade, `presets` the published recipes,
`operations` and `kernels` the operations on pixels. Everything is numpy and OpenCV on the CPU, independent of
configurations, files and training.
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
