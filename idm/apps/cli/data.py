"""``idm data``."""

import argparse
import sys

from tqdm import tqdm

from idm.apps.cli.model import USER_ERRORS
from idm.apps.photo.collect import told
from idm.apps.photo.people import name_photos, read_people
from idm.apps.photo.prepare import Settings, aligned, detected, find_faces, finish
from idm.evaluation.face_sets import FACE_SETS, check_face_set
from idm.faces.detect import load_detector
from idm.io.find import as_text
from idm.io.images import ImageError
from idm.io.lock import FolderInUse, locked
from idm.io.machine import best_device

SHOWN = 20


def data_command(arguments: argparse.Namespace) -> int:
    """``idm data check``: 0 if the folder holds the whole set. ``idm data prepare``: 0 if every photograph could be
    read."""
    return _prepare(arguments) if arguments.action == "prepare" else _check(arguments)


def _check(arguments: argparse.Namespace) -> int:
    try:
        faults = list(check_face_set(arguments.name, arguments.path))
    except (ImageError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    known = FACE_SETS[arguments.name]
    print(f"{known.title}: {known.num_images} images of {known.size} px, from {known.where}\n{known.note}")
    _show(faults)
    if not faults:
        print(f"{arguments.path}: complete")
    return 1 if faults else 0


def _prepare(arguments: argparse.Namespace) -> int:
    try:
        settings = _settings(arguments)
        photos = name_photos(arguments.input)
        read_people(settings.people)  # a mistake in it is said before any work
        read = aligned(settings.size)
        if not settings.aligned:
            read = detected(load_detector(weights=arguments.weights_dir, device=str(best_device())), settings.size)
        arguments.output.mkdir(parents=True, exist_ok=True)
        with locked(arguments.output):
            steps = find_faces(photos, settings, read, arguments.output)
            for _ in tqdm(steps, total=len(photos), unit="photograph", disable=not sys.stderr.isatty()):
                pass
            about = finish(arguments.output, settings)
    except (*USER_ERRORS, FolderInUse) as error:
        print(as_text(f"error: {error}"), file=sys.stderr)
        return 1
    parts = ", ".join(f"{number} {name}" for name, number in about["faces"].items() if number)
    left_out = f"; left out: {told(about['left_out'])}" if about["left_out"] else ""
    print(f"{about['photographs']} photographs -> {parts} in {arguments.output}{left_out}")
    _show(about["unreadable"])
    return 1 if about["unreadable"] else 0


def _settings(arguments: argparse.Namespace) -> Settings:
    if arguments.size < 16:
        raise ValueError(f"--size must be at least 16, got {arguments.size}")
    for name in ("val", "test"):
        if not 0 <= getattr(arguments, name) < 1:
            raise ValueError(f"--{name} must be in [0, 1), got {getattr(arguments, name):g}")
    return Settings(arguments.size, arguments.aligned, arguments.people, arguments.val, arguments.test, arguments.seed)


def _show(faults: list[str]) -> None:
    for fault in faults[:SHOWN]:
        print(f"error: {fault}", file=sys.stderr)
    if len(faults) > SHOWN:
        print(f"error: and {len(faults) - SHOWN} more", file=sys.stderr)
