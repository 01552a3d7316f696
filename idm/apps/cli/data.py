"""``idm data``."""

import sys

from tqdm import tqdm

from idm.apps.cli.options.measure import DataOptions, PrepareOptions
from idm.apps.photo.collect import format_counts
from idm.apps.photo.people import name_photos, read_people
from idm.apps.photo.prepare import PrepareSettings, build_aligned_reader, build_photo_reader, find_faces, write_splits
from idm.evaluation.face_sets import FACE_SETS, check_face_set
from idm.faces.detector.load import load_detector
from idm.io.errors import InvalidInput
from idm.io.lock import locked
from idm.io.machine import best_device

SHOWN = 20


def check_command(options: DataOptions) -> int:
    """``idm data check``: 0 if the folder holds the whole set."""
    faults = list(check_face_set(options.name, options.path))
    known = FACE_SETS[options.name]
    print(f"{known.title}: {known.num_images} images of {known.size} px, from {known.where}\n{known.note}")
    _show(faults)
    if not faults:
        print(f"{options.path}: complete")
    return 1 if faults else 0


def prepare_command(options: PrepareOptions) -> int:
    """``idm data prepare``: 0 if every photograph could be read."""
    settings = _settings(options)
    photos = name_photos(options.input)
    read_people(settings.people)  # a mistake in it is reported before any work
    read = build_aligned_reader(settings.size)
    if not settings.aligned:
        read = build_photo_reader(load_detector(weights=options.weights_dir, device=str(best_device())), settings.size)
    options.output.mkdir(parents=True, exist_ok=True)
    with locked(options.output):
        steps = find_faces(photos, settings, read, options.output)
        for _ in tqdm(steps, total=len(photos), unit="photograph", disable=not sys.stderr.isatty()):
            pass
        summary = write_splits(options.output, settings)
    parts = ", ".join(f"{number} {name}" for name, number in summary["faces"].items() if number)
    left_out = f"; left out: {format_counts(summary['left_out'])}" if summary["left_out"] else ""
    print(f"{summary['photographs']} photographs -> {parts} in {options.output}{left_out}")
    _show(summary["unreadable"])
    return 1 if summary["unreadable"] else 0


def _settings(options: PrepareOptions) -> PrepareSettings:
    if options.size < 16:
        raise InvalidInput(f"--size must be at least 16, got {options.size}")
    for name, share in (("val", options.val), ("test", options.test)):
        if not 0 <= share < 1:
            raise InvalidInput(f"--{name} must be in [0, 1), got {share:g}")
    return PrepareSettings(options.size, options.aligned, options.people, options.val, options.test, options.seed)


def _show(faults: list[str]) -> None:
    for fault in faults[:SHOWN]:
        print(f"error: {fault}", file=sys.stderr)
    if len(faults) > SHOWN:
        print(f"error: and {len(faults) - SHOWN} more", file=sys.stderr)
