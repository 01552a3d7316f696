"""Faces and degradations."""

from dataclasses import replace
from typing import Any

from idm.config.load import ConfigError
from idm.config.schema import DegradationConfig, RunConfig
from idm.data.cache import Cached
from idm.data.huggingface import StreamedFaces
from idm.data.sources import FaceSource, FolderFaces, Part, balanced
from idm.degradation import PRESETS, Mixture, Recipe
from idm.degradation.steps import Blur, Downscale, GaussianNoise, Jpeg, Step

# What a key of the section changes in the preset's steps.
_CHANGES: dict[str, tuple[type[Step[Any]], str]] = {
    "blur_sigma": (Blur, "sigma"),
    "down": (Downscale, "factor"),
    "noise_sigma": (GaussianNoise, "sigma"),
    "jpeg_quality": (Jpeg, "quality"),
}


def build_recipe(config: DegradationConfig) -> Recipe:
    """The preset with the section's changes."""
    recipe = replace(
        PRESETS[config.preset],
        clean_probability=config.clean_probability,
        skip_probability=config.skip_probability,
        bicubic_probability=config.bicubic_probability,
        half_size_probability=config.half_size_probability,
    )
    if config.steps is not None:
        recipe = replace(recipe, steps=tuple(config.steps))
    for key, (step, field) in _CHANGES.items():
        if (value := getattr(config, key)) is not None:
            try:
                recipe = recipe.change(step, **{field: value})
            except ValueError as error:
                raise ConfigError(f"degradation.{key}: {error}") from None
    return recipe


def build_mixture(config: DegradationConfig) -> Recipe | Mixture:
    """Build the degradation of training faces: the recipe, and for their shares the mixture's presets as published but
    for steps that are left out, the interpolation and the size."""
    recipe = build_recipe(config)
    if not config.mixture:
        return recipe
    shared: dict[str, Any] = {
        "skip_probability": config.skip_probability,
        "bicubic_probability": config.bicubic_probability,
        "half_size_probability": config.half_size_probability,
    }
    try:
        others = tuple(replace(PRESETS[name], **shared) for name in config.mixture)
        return Mixture((recipe, *others), tuple(config.mixture.values()))
    except ValueError as error:
        raise ConfigError(f"degradation.mixture: {error}") from None


def build_data(config: RunConfig) -> tuple[FaceSource | StreamedFaces, FaceSource]:
    """(faces to train on, faces to validate on); without a source of their own, the latter are held out of the
    former."""
    data, num_val = config.data, config.validation.num_images
    train = data.source.build(data.image_size, config.seed)
    if data.balance_groups:
        if not isinstance(train, FolderFaces):
            raise ConfigError("data.balance_groups: needs a folder of faces, whose metadata.jsonl names groups")
        train = balanced(_cached(train, data.image_size) if data.cache else train, train)
    if data.val_source is not None:
        val = data.val_source.build(data.image_size, config.seed)
        assert not isinstance(val, StreamedFaces)
        if len(val) < num_val:
            raise ConfigError(f"validation.num_images: {num_val}, but data.val_source holds {len(val)}")
        val = Part(val, evenly(len(val), num_val))
    else:
        assert not isinstance(train, StreamedFaces)
        if len(train) <= num_val:
            raise ConfigError(
                f"validation.num_images: {num_val} would be held out of data.source, which holds only {len(train)}"
            )
        held_out = len(train) - num_val
        train, val = Part(train, range(held_out)), Part(train, range(held_out, len(train)))
    if data.cache:
        val = _cached(val, data.image_size)
        if not isinstance(train, StreamedFaces) and not data.balance_groups:
            train = _cached(train, data.image_size)
    return train, val


def _cached(source: FaceSource, size: int) -> Cached:
    try:
        return Cached(source, size)
    except OSError as error:
        raise ConfigError(
            f"data.cache: {len(source)} faces of {size} px do not fit in memory ({error.strerror}); set it to false"
        ) from None


def evenly(total: int, wanted: int) -> list[int]:
    """``wanted`` indices spread evenly over ``total``."""
    return [i * total // wanted for i in range(wanted)]
