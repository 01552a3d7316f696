"""``idm app``."""

import argparse
import importlib.util
import sys

from idm.apps.cli.model import BUILTIN_NOTE, IDENTITY_NOTE, USER_ERRORS, choose_device, load_labelled, prepare_machine
from idm.apps.web.session import PageService
from idm.faces.detect import load_detector
from idm.faces.recognition import IdentityNet, load_identity


def app_command(arguments: argparse.Namespace) -> int:
    """``idm app``: 0 when the user ended it, 1 if it could not start."""
    if importlib.util.find_spec("gradio") is None:
        print("error: the page needs gradio: pip install 'idm-face-restoration[app]'", file=sys.stderr)
        return 1
    from idm.apps.web.server import Service, describe, served, wait

    try:
        service = Service(
            arguments.host,
            arguments.port,
            arguments.max_mb,
            arguments.queue_size,
            arguments.user_mb,
            arguments.total_mb,
            tuple(arguments.allow_host),
        )
        page_service = _page_service(arguments)
        with served(page_service, service) as address:
            print(describe(service, address, list(page_service.restorers)), flush=True)
            wait()
    except USER_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _page_service(arguments: argparse.Namespace) -> PageService:
    if not arguments.max_megapixels > 0:
        raise ValueError(f"--max-megapixels must be positive, got {arguments.max_megapixels:g}")
    device = str(choose_device(arguments.device))
    detector = load_detector(weights=arguments.weights_dir, device=device)
    if detector.name == "builtin":
        print(BUILTIN_NOTE, file=sys.stderr)
    identity = _identity(arguments, device)
    restorers = load_labelled(arguments.model, prepare_machine(arguments))
    return PageService(
        {label: loaded.restorer for label, loaded in restorers.items()},
        detector,
        identity,
        round(arguments.max_megapixels * 1e6),
        arguments.max_memory,
    )


def _identity(arguments: argparse.Namespace, device: str) -> IdentityNet | None:
    try:
        return load_identity(arguments.weights_dir, device)
    except FileNotFoundError:
        print(IDENTITY_NOTE, file=sys.stderr)
        return None
