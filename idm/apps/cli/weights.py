"""``idm weights``."""

import argparse

from idm.io.weights import KNOWN, flaw, look_up, weights_folders

# Below a weights folder, the files of these libraries may lie in folders of their own.
_FOLDERS = ("facexlib", "pyiqa")


def weights_command(arguments: argparse.Namespace) -> int:
    """``idm weights``: 0 unless a file that is there is not the one we know."""
    folders = weights_folders(arguments.weights_dir)
    places = [place for folder in folders for place in (folder, *(folder / name for name in _FOLDERS))]
    print(f"Looked in {', '.join(map(str, folders))}. Nothing is downloaded: what is missing is yours to fetch.\n")
    status = 0
    for name, known in KNOWN.items():
        path = look_up(name, places)
        if path is None:
            state = f"missing\n  from     {known.url}\n  put into {folders[0]}"
        else:
            wrong = flaw(path, known)
            status = 1 if wrong else status
            verdict = wrong or ("its sha256 is right" if known.sha256 else "its sha256 is not known to us")
            state = f"present, {verdict}\n  at       {path}"
        print(f"{name}: {state}\n  what     {known.what}\n  licence  {known.licence}\n")
    return status
