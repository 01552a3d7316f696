"""``idm restore``."""

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from tqdm import tqdm

from idm.apps.cli.model import builtin_note, choose_device, load, print_identity_note
from idm.apps.cli.options.restore import RestoreOptions
from idm.apps.photo.files import restore_files, restore_photos
from idm.apps.photo.job import ProgressCallbacks, Report
from idm.apps.photo.photo_restorer import PhotoRestorer
from idm.apps.photo.reference import Reference
from idm.apps.photo.settings import PhotoSettings
from idm.apps.photo.upscale import Bicubic, load_upscaler
from idm.faces.detect import MAX_SIDE
from idm.faces.detector.load import MIN_FACE, choose_detector, load_detector
from idm.faces.recognition import find_identity
from idm.io.encoding import Encoding
from idm.io.errors import InvalidInput
from idm.io.find import as_text
from idm.io.images import HEIF_SUFFIXES
from idm.restorers.protocol import Restorer

# Options that mean something for photographs only; each is None unless given.
_PHOTO_OPTIONS = (
    *(field.name for field in fields(PhotoSettings) if field.name not in ("seed", "batch_size")),
    *("detector", "min_score", "detect_side", "background", "format", "weights_dir", "video_codec", "crf"),
)

# The labels of files that were written without a restored face.
_STATE_LABELS = {"no face": "without a face", "not chosen": "with no face chosen", "kept": "kept as given"}


def restore_command(options: RestoreOptions) -> int:
    """``idm restore``: 0 if every file was restored."""
    with tqdm(unit="face" if options.aligned else "photo", disable=not sys.stderr.isatty()) as bar:
        loaded = load(options)
        metadata: dict[str, Any] = {"restorer": loaded.metadata}
        restore = _restore_aligned if options.aligned else _restore_photos
        report = restore(options, loaded.restorer, metadata, _progress(bar))
    print(as_text(_summary(report, options)))
    return 1 if report.failed else 0


def _summary(report: Report, options: RestoreOptions) -> str:
    """Print the outcome of the files and their faces, and what the user can change."""
    done = "previewed" if options.preview else "restored"
    counts = [f"{report.states[done]} {done}"]
    counts += [f"{report.states[state]} {label}" for state, label in _STATE_LABELS.items() if report.states[state]]
    counts += [f"{len(report.skipped)} already there"] if report.skipped else []
    counts += [f"{len(report.failed)} failed"]
    lines = [f"{', '.join(counts)} -> {options.output}"]
    if report.faces:
        kept = f", {report.faces['kept']} kept as given" if report.faces["kept"] else ""
        kept += f", {report.faces['left alone']} too small or no plausible face" if report.faces["left alone"] else ""
        status = options.output / "status.json"
        lines.append(f"faces: {report.faces['restored']} restored{kept}; see {status} for each of them")
    side = options.detect_side or MAX_SIDE
    if report.longest_side >= 2 * side:
        detector = choose_detector(options.detector or "auto", options.weights_dir)
        least = MIN_FACE[detector] * report.longest_side / side
        lines.append(
            f"note: pictures of up to {report.longest_side} px were searched in copies of {side} px, where faces below "
            f"about {least:.0f} px are missed; --detect-side {report.longest_side} finds them, and is slower"
        )
    if report.passed_over:
        others = ", ".join(f"{number} {suffix or 'without suffix'}" for suffix, number in report.passed_over.items())
        heif = any(suffix in HEIF_SUFFIXES for suffix in report.passed_over)
        how = "install idm-face-restoration[heic], or " if heif else ""
        lines.append(f"note: unsupported files: {others}; {how}convert photographs among them to PNG first")
    return "\n".join(lines)


def _progress(bar: tqdm) -> ProgressCallbacks:
    def on_start(num_files: int) -> None:
        bar.reset(total=num_files)

    def on_file(path: Path, error: Exception | None) -> None:
        bar.update()
        if error is not None:
            text = str(error) if str(path) in str(error) else f"{path}: {error or type(error).__name__}"
            tqdm.write(as_text(f"error: {text}"), file=sys.stderr)

    def on_frames(path: Path, done: int, of: int | None) -> None:
        bar.set_postfix_str(f"{as_text(path.name)}: frame {done}{f' of {of}' if of else ''}")

    return ProgressCallbacks(on_start, on_file, on_frames)


def _restore_aligned(
    options: RestoreOptions, restorer: Restorer, metadata: dict[str, Any], progress: ProgressCallbacks
) -> Report:
    given = [name for name in _PHOTO_OPTIONS if getattr(options, name) is not None]
    if given or options.preview:
        option = (given or ["preview"])[0].replace("_", "-")
        raise InvalidInput(f"--{option} is for photographs; it does nothing with --aligned")
    return restore_files(
        restorer,
        options.input,
        options.output,
        seed=options.seed,
        batch_size=options.batch_size,
        output_size=options.output_size or "model",
        metadata=metadata,
        skip_existing=options.skip_existing,
        overwrite=options.overwrite,
        max_memory=options.max_memory,
        progress=progress,
    )


def _restore_photos(
    options: RestoreOptions, restorer: Restorer, metadata: dict[str, Any], progress: ProgressCallbacks
) -> Report:
    if options.output_size is not None:
        raise InvalidInput("--output-size is for aligned faces (--aligned); photographs have --upscale")
    settings = _settings(options)
    encoding = Encoding(options.video_codec, options.crf)
    device = str(choose_device(options.device))
    detector = load_detector(
        options.detector or "auto",
        options.weights_dir,
        device,
        max_side=MAX_SIDE if options.detect_side is None else options.detect_side,
        min_score=options.min_score,
    )
    if options.detector is None and detector.name == "builtin":
        print(builtin_note(), file=sys.stderr)

    def on_missing(error: FileNotFoundError) -> None:
        if settings.needs_identity:
            raise error
        print_identity_note(error)

    identity = find_identity(options.weights_dir, device, on_missing)
    upscaler = load_upscaler(options.background, device) if options.background else Bicubic()
    metadata["identity"] = "MobileFaceNet" if identity else "not measured: its weights are missing (idm weights)"
    metadata["background"] = str(options.background or "bicubic")
    metadata["detector"] = [detector.name, detector.min_score, detector.max_side]
    photo_restorer = PhotoRestorer(restorer, detector, identity, upscaler)
    if reference := photo_restorer.reference(settings):
        print(as_text(_reference_note(reference, options.reference)), file=sys.stderr)
    return restore_photos(
        photo_restorer,
        options.input,
        options.output,
        settings,
        metadata=metadata,
        file_format=options.format or "same",
        encoding=encoding,
        preview=options.preview,
        skip_existing=options.skip_existing,
        overwrite=options.overwrite,
        max_memory=options.max_memory,
        progress=progress,
    )


def _reference_note(reference: Reference, album: str | None) -> str:
    left_out = f"; {len(reference.left_out)} photographs do not show one face" if reference.left_out else ""
    return f"note: identity is compared with {reference.num_faces} faces of {album}{left_out}"


def _settings(options: RestoreOptions) -> PhotoSettings:
    asked = {field.name: getattr(options, field.name) for field in fields(PhotoSettings)}
    return PhotoSettings(**{name: value for name, value in asked.items() if value is not None})
