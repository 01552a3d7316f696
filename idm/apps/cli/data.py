"""``idm data``."""

import argparse
import sys

from idm.evaluation.face_sets import FACE_SETS, check_face_set
from idm.io.images import ImageError

SHOWN = 20


def data_command(arguments: argparse.Namespace) -> int:
    """``idm data check``: 0 if the folder holds the whole set."""
    try:
        faults = list(check_face_set(arguments.name, arguments.path))
    except (ImageError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    known = FACE_SETS[arguments.name]
    print(f"{known.title}: {known.num_images} images of {known.size} px, from {known.where}\n{known.note}")
    for fault in faults[:SHOWN]:
        print(f"error: {fault}", file=sys.stderr)
    if len(faults) > SHOWN:
        print(f"error: and {len(faults) - SHOWN} more", file=sys.stderr)
    if not faults:
        print(f"{arguments.path}: complete")
    return 1 if faults else 0
