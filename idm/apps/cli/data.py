"""``idm data``."""

import sys

from idm.apps.cli.options.measure import DataOptions
from idm.evaluation.face_sets import FACE_SETS, check_face_set

SHOWN = 20


def data_command(options: DataOptions) -> int:
    """``idm data check``: 0 if the folder holds the whole set."""
    faults = list(check_face_set(options.name, options.path))
    known = FACE_SETS[options.name]
    print(f"{known.title}: {known.num_images} images of {known.size} px, from {known.where}\n{known.note}")
    for fault in faults[:SHOWN]:
        print(f"error: {fault}", file=sys.stderr)
    if len(faults) > SHOWN:
        print(f"error: and {len(faults) - SHOWN} more", file=sys.stderr)
    if not faults:
        print(f"{options.path}: complete")
    return 1 if faults else 0
