"""``idm weights`` and ``idm weights fetch``."""

import sys
from pathlib import Path

from tqdm import tqdm

from idm.apps.cli.options.models import WeightsOptions
from idm.io.errors import InvalidInput
from idm.io.fetch import fetch
from idm.io.known_weights import KNOWN, WeightsFile
from idm.io.weights import flaw, path_of_weights, weights_folders

# What ``idm restore`` works better with.
_DEFAULT = ("detection_mobilenet0.25_Final.pth", "mobilefacenet_casia.safetensors")


def weights_command(options: WeightsOptions) -> int:
    """``idm weights``: 0 unless a file that is present differs from the known one. ``idm weights fetch``: 0 if all
    requested files are present now."""
    folders = weights_folders(options.weights_dir)
    if options.action is None:
        return _list(folders)
    names = [_full_name(name) for name in options.names] or list(_DEFAULT)
    return max([_fetch(name, folders, options.yes) for name in dict.fromkeys(names)])


def _list(folders: list[Path]) -> int:
    print(
        f"Looked in {', '.join(map(str, folders))}. Nothing was downloaded; idm weights fetch [NAME ...] does that.\n"
    )
    status = 0
    for name, known in KNOWN.items():
        path = path_of_weights(name, folders)
        if path is None:
            state = f"missing\n  from     {known.url}\n  put into {folders[0]}"
        else:
            wrong = flaw(path, known)
            status = 1 if wrong else status
            state = f"present, {_verdict(wrong, known)}\n  at       {path}"
        print(f"{name}: {state}\n  what     {known.what}\n  licence  {known.licence}\n")
    return status


def _verdict(wrong: str | None, known: WeightsFile) -> str:
    return wrong or ("its sha256 is right" if known.sha256 else "its sha256 is not known")


def _full_name(text: str) -> str:
    """The one known file whose name contains a text, in any case.

    Raises:
        ValueError: there is none, or several.
    """
    found = [text] if text in KNOWN else [name for name in KNOWN if text.lower() in name.lower()]
    if len(found) != 1:
        raise InvalidInput(
            f"{text}: {'is part of several' if found else 'no'} known files: {', '.join(found or KNOWN)}"
        )
    return found[0]


def _fetch(name: str, folders: list[Path], agreed: bool) -> int:
    """Download one file if the user agrees: 0 if it is present now."""
    known = KNOWN[name]
    path = path_of_weights(name, folders)
    if path is not None:
        wrong = flaw(path, known)
        print(
            f"{name}: present at {path}, {_verdict(wrong, known)}" + (", remove it to fetch it again" if wrong else "")
        )
        return 1 if wrong else 0
    size = f"{known.size / 1e6:.1f} MB" if known.size else "not known"
    print(
        f"{name}\n  what     {known.what}\n  licence  {known.licence}\n  from     {known.file_url}\n"
        f"  size     {size}\n  sha256   {known.sha256 or 'not known: the download cannot be verified'}\n"
        f"  into     {folders[0]}"
    )
    if not (agreed or _agrees()):
        print(f"{name}: not fetched")
        return 1
    with tqdm(desc=name, unit="B", unit_scale=True, disable=None) as bar:

        def on_bytes(so_far: int, total: int | None) -> None:
            bar.total = total
            bar.update(so_far - bar.n)

        path = fetch(name, known, folders[0], on_bytes)
    print(f"{name}: fetched, {_verdict(flaw(path, known), known)}\n  at       {path}")
    return 0


def _agrees() -> bool:
    """Ask on the terminal.

    Raises:
        ValueError: there is none.
    """
    if not sys.stdin.isatty():
        raise InvalidInput("there is no terminal to ask for your agreement; --yes states that you accept the licence")
    return input("Download it on these terms? [y/N] ").strip().lower() in ("y", "yes")
