"""``idm adapt``: fine-tune a model to your own photographs, and keep it only if held-out photographs improve."""

import sys
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile, copytree, rmtree
from typing import Any

from idm.apps.cli.options.models import AdaptOptions
from idm.apps.cli.parse import parse_degradation
from idm.apps.photo.album import detect_and_align, read_aligned
from idm.apps.photo.collect import HELD_OUT, METADATA, TRAIN, format_counts, select_faces, write_collection
from idm.config.assembly.adapt import DEGRADATION, AdaptConfig, adapt_config, build_adaptation, with_steps
from idm.config.assembly.data import build_recipe
from idm.data.sources import FolderFaces
from idm.evaluation.before_after import DRAWS, Verdict, compare_scores, scores_by_face
from idm.evaluation.metrics import build_metrics
from idm.faces.detector.load import load_detector
from idm.io.atomic import read_json, sha256, write_json, write_text
from idm.io.errors import InvalidInput
from idm.io.find import as_text, find_images
from idm.io.lock import locked
from idm.io.machine import best_device, inference_dtype, provenance
from idm.io.run_folder import list_checkpoints
from idm.restorers.idm import IDM
from idm.restorers.load import describe
from idm.restorers.saved import load_idm

RESULT = "adapt.json"
_PARTS = ("denoiser", "scheduler")
_INDEX = "model_index.json"  # written last: a folder that has it holds a whole model

CARD = """
## Adapted

{result}

`idm adapt` trained for {steps} steps on {train} faces of the user's own photographs. It measured {held_out} faces of
other photographs before and after, each degraded in {draws} frozen ways:

| measure | degraded | before | after | difference |
|---|---|---|---|---|
{rows}
"""

_HELPED = """This folder holds adapted weights. Weights that were fitted to photographs of a few people contain
information about these people: share them as you would share the photographs."""
_DID_NOT_HELP = "This folder holds the original weights, because adapting them did not help."


@dataclass(frozen=True)
class Faces:
    """The collected faces: their folders, and what their record says."""

    folder: Path
    metadata: dict[str, Any]

    @property
    def sides(self) -> tuple[Path, Path]:
        """The folders of the faces to train on and of those held out."""
        return self.folder / TRAIN, self.folder / HELD_OUT


def adapt_command(options: AdaptOptions) -> int:
    """``idm adapt``: 0 if the result was measured, whether or not it helped."""
    options.output.mkdir(parents=True, exist_ok=True)
    with locked(options.output):
        _adapt(options)
    return 0


def _adapt(options: AdaptOptions) -> None:
    degradation = parse_degradation(options.preset, DEGRADATION)
    _check(options)
    given = _load(None if options.model is None else Path(options.model))
    if not given.denoiser.config.conditional:
        raise InvalidInput(f"{options.model}: generates faces from noise and restores none; it cannot be adapted")
    faces = _find_faces(options, given.image_size)
    print(_counted(faces), flush=True)
    config = adapt_config(
        options.output / "run",
        given,
        faces.sides,
        sha256(faces.folder / METADATA),
        num_held_out=faces.metadata["held_out"],
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        degradation=degradation,
        lora_rank=options.lora_rank,
        seed=options.seed,
    )
    config = with_steps(config, options.steps, options.minutes)
    loss = "pixels and features" if config.features else "pixels only, because MobileFaceNet's weights are missing"
    print(f"training {config.train.num_steps} steps of {config.train.batch_size} faces; loss of {loss}", flush=True)
    build_adaptation(config).fit()
    adapted = _load(list_checkpoints(config.output_dir / "checkpoints")[-1] / "pipeline")
    verdict = _measure(config, faces, given, adapted)
    _publish(adapted if verdict.helped else given, options.output, _card(config, faces, verdict))
    write_json(options.output / RESULT, _record(config, faces, given, verdict))
    print(_summary(verdict, options.output))


def _check(options: AdaptOptions) -> None:
    if not 0 < options.minutes < 1e5:
        raise InvalidInput(f"--minutes must be positive, got {options.minutes:g}")
    if options.steps is not None and options.steps < 1:
        raise InvalidInput(f"--steps must be at least 1, got {options.steps}")
    if options.lora_rank is not None and options.lora_rank < 1:
        raise InvalidInput(f"--lora-rank must be at least 1, got {options.lora_rank}")
    if options.seed < 0:
        raise InvalidInput(f"--seed must be 0 or above, got {options.seed}")
    if not options.learning_rate > 0:
        raise InvalidInput(f"--learning-rate must be positive, got {options.learning_rate:g}")
    if options.batch_size < 1:
        raise InvalidInput(f"--batch-size must be at least 1, got {options.batch_size}")


def _load(path: Path | None) -> IDM:
    device = best_device()
    return load_idm(path, device, inference_dtype(device))


# ------------------------------------------------------------------------------------------------ faces


def _find_faces(options: AdaptOptions, size: int) -> Faces:
    """The faces of the photographs; those that an earlier start of the same command found, if there was one.

    Raises:
        ValueError: the folder holds faces of other photographs, or there are too few good ones.
    """
    paths = find_images(options.input)
    asked = {
        "photographs": [[as_text(path.name), path.stat().st_size] for path in paths],
        "aligned": options.aligned,
        "image_size": size,
        "min_sharpness": options.min_sharpness,
    }
    folder = (options.output / "faces").resolve()
    if folder.exists():
        metadata = read_json(folder / METADATA)
        if asked != {key: metadata.get(key) for key in asked}:
            raise InvalidInput(
                f"{options.output}: holds faces of other photographs, or of another model's size; choose another "
                "output folder, or delete this one to start again"
            )
        return Faces(folder, metadata)
    unreadable: dict[Path, str] = {}
    if options.aligned:
        photographs = read_aligned(paths, size, unreadable)
    else:
        detector = load_detector(weights=options.weights_dir, device=str(best_device()))
        photographs = detect_and_align(paths, detector, size, 0.0, unreadable)
    collection = select_faces(photographs, options.min_sharpness)
    for path, why in unreadable.items():
        print(as_text(f"warning: {why if str(path) in why else f'{path}: {why}'}"), file=sys.stderr)
    write_collection(collection, folder, {**asked, "unreadable": [as_text(str(path)) for path in unreadable]})
    return Faces(folder, read_json(folder / METADATA))


def _counted(faces: Faces) -> str:
    train, held_out, reasons = (faces.metadata[key] for key in ("train", "held_out", "left_out"))
    left_out = f"; left out: {format_counts(reasons)}" if reasons else ""
    return (
        f"{train + held_out} good faces in {len(faces.metadata['photographs'])} photographs: {train} to learn from, "
        f"{held_out} held out{left_out}"
    )


# ------------------------------------------------------------------------------------------ the verdict


def _measure(config: AdaptConfig, faces: Faces, given: IDM, adapted: IDM) -> Verdict:
    names = ["psnr", "ssim"] + (["identity"] if config.features else [])
    metrics = build_metrics(names, given.image_size).each
    recipe = build_recipe(config.degradation.model_copy(update={"clean_probability": 0.0}))
    held_out = FolderFaces(faces.sides[1], given.image_size)
    degraded, before = scores_by_face(given, held_out, recipe, metrics, config.validation.seed)
    _, after = scores_by_face(adapted, held_out, recipe, metrics, config.validation.seed)
    return compare_scores(degraded, before, after)


def _record(config: AdaptConfig, faces: Faces, given: IDM, verdict: Verdict) -> dict[str, Any]:
    return {
        **verdict.summary(),
        "model": describe(given),
        "steps": config.train.num_steps,
        "faces": {key: faces.metadata[key] for key in ("train", "held_out", "left_out")},
        **provenance(),
    }


def _summary(verdict: Verdict, output: Path) -> str:
    lines = [f"{verdict.num_faces} held-out faces, each degraded in {DRAWS} frozen ways:"]
    for name, column in verdict.metrics.items():
        lines.append(
            f"  {name:8} {column['degraded']:7.3f} degraded, {column['before']:7.3f} before -> {column['after']:7.3f} "
            f"after  (difference {_difference(column)})"
        )
    if verdict.helped:
        lines.append(f"adapting helped: idm restore PHOTO -o restored/ --model {output} uses the adapted weights")
    else:
        lines.append(
            "adapting did not help: no measure improved significantly, or one became significantly worse; "
            f"{output} holds the given model's weights, unchanged"
        )
    return "\n".join(lines)


def _difference(column: dict[str, float]) -> str:
    return f"{column['difference']:+.3f}, 95 % interval {column['low']:+.3f} to {column['high']:+.3f}"


# --------------------------------------------------------------------------------------- the new model


def _card(config: AdaptConfig, faces: Faces, verdict: Verdict) -> str:
    rows = [
        f"| {name} | {c['degraded']:.3f} | {c['before']:.3f} | {c['after']:.3f} | {_difference(c)} |"
        for name, c in verdict.metrics.items()
    ]
    return CARD.format(
        result=_HELPED if verdict.helped else _DID_NOT_HELP,
        steps=config.train.num_steps,
        train=faces.metadata["train"],
        held_out=faces.metadata["held_out"],
        draws=DRAWS,
        rows="\n".join(rows),
    )


def _publish(model: IDM, output: Path, card: str) -> None:
    """Copy a saved model's files to the output folder, byte for byte, and extend its card."""
    assert model.origin is not None
    source = model.origin.folder
    (output / _INDEX).unlink(missing_ok=True)
    for part in _PARTS:
        rmtree(output / part, ignore_errors=True)
        copytree(source / part, output / part)
    given = source / "README.md"
    write_text(output / "README.md", (given.read_text() if given.exists() else "# IDM\n") + card)
    copyfile(source / _INDEX, output / _INDEX)
