"""Restore a photograph from Python: ``python examples/restore_from_python.py photo.jpg -o restored.png``.

``restore_photo`` finds the faces, restores them and pastes them back. It returns the restored photograph and a report
for each face.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from idm import PhotoSettings, load_photo_restorer, restore_photo
from idm.io.photo_writer import write_photo


def main(arguments: Sequence[str] | None = None) -> None:
    """Restore the photograph that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", help="a run, a saved model or a bundled model (default: the default bundled model)")
    parsed = parser.parse_args(arguments)

    restorer = load_photo_restorer(parsed.model)  # loads the networks once; use it for many photographs
    settings = PhotoSettings(change="full", seed=1)
    result = restore_photo(parsed.photo, settings, restorer=restorer)

    for face in result.faces:
        identity = "not measured" if face.identity is None else f"{face.identity:.3f}"
        print(f"face {face.number} ({face.side:.0f} px): {face.state}, identity {identity} {face.note}")
    write_photo(parsed.output, result.photo)  # with EXIF, colour profile and transparency; result.image is a PIL image
    print(parsed.output)


if __name__ == "__main__":
    main()
