"""``idm app``."""

import importlib.util
import sys

from idm.apps.cli.model import builtin_note, choose_device, load_labelled, prepare_machine, print_identity_note
from idm.apps.cli.options.app import AppOptions
from idm.apps.web.session import PageService
from idm.faces.detector.load import load_detector
from idm.faces.recognition import find_identity
from idm.io.errors import InvalidInput


def app_command(options: AppOptions) -> int:
    """``idm app``: 0 when the user ended it, 1 if it could not start."""
    if importlib.util.find_spec("gradio") is None:
        print("error: the page needs gradio: pip install 'idm-face-restoration[app]'", file=sys.stderr)
        return 1
    from idm.apps.web.server import Service, served, startup_message, wait

    service = Service(
        options.host,
        options.port,
        options.max_mb,
        options.queue_size,
        options.user_mb,
        options.total_mb,
        tuple(options.allow_host),
    )
    page_service = _page_service(options)
    with served(page_service, service) as address:
        print(startup_message(service, address, list(page_service.restorers)), flush=True)
        wait()
    return 0


def _page_service(options: AppOptions) -> PageService:
    if not options.max_megapixels > 0:
        raise InvalidInput(f"--max-megapixels must be positive, got {options.max_megapixels:g}")
    device = str(choose_device(options.device))
    detector = load_detector(weights=options.weights_dir, device=device)
    if detector.name == "builtin":
        print(builtin_note(), file=sys.stderr)
    identity = find_identity(options.weights_dir, device, print_identity_note)
    restorers = load_labelled(options.model, prepare_machine(options))
    return PageService(
        {label: loaded.restorer for label, loaded in restorers.items()},
        detector,
        identity,
        round(options.max_megapixels * 1e6),
        options.max_memory,
    )
