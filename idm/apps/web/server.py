"""The server behind the page: its address, its limits, and the removal of all files at its end."""

import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.middleware import Middleware

from idm.apps.web.guard import Guard, Hosts, Quota
from idm.apps.web.session import PageService
from idm.io.errors import InvalidInput
from idm.io.lock import LOCK, FolderInUse, locked
from idm.io.slider import SLIDER_CSS

if TYPE_CHECKING:
    import gradio as gr

KEPT_SECONDS = 3600.0  # how long uploads and results are kept
_SWEEP_SECONDS = 300.0
_PREFIX = "idm-app-"
# Some of these are on by default, others where an environment variable says so.
_OFF = dict.fromkeys(("share", "inbrowser", "ssr_mode", "mcp_server", "pwa", "run_history", "enable_monitoring"), False)


@dataclass(frozen=True)
class Service:
    """The address of the page and its limits: ``user_mb`` and ``total_mb`` are of uploads within an hour, by each
    address and by all; the latter also of results."""

    host: str = "127.0.0.1"
    port: int = 7860
    max_mb: float = 32.0
    queue_size: int = 16
    user_mb: float = 256.0
    total_mb: float = 2048.0
    allow_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise InvalidInput(f"--port must lie in 1..65535, got {self.port}")
        if not self.max_mb > 0 or self.queue_size < 1:
            raise InvalidInput(f"--max-mb and --queue-size must be positive, got {self.max_mb:g} and {self.queue_size}")
        if not self.max_mb <= self.user_mb <= self.total_mb:
            raise InvalidInput(
                f"--max-mb, --user-mb and --total-mb must rise, got {self.max_mb:g}, {self.user_mb:g} and "
                f"{self.total_mb:g}"
            )


# ------------------------------------------------------------------------------------------- files


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for all files of this process, which is gone afterwards; gradio's uploads and results lie in it too.

    It is also removed when the process receives SIGTERM. Folders of killed processes are removed first.
    """
    _remove_leftovers()
    home = Path(tempfile.mkdtemp(prefix=_PREFIX))
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with locked(home):
            for name in ("cache", "examples"):
                (home / name).mkdir()
            yield home
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(home, ignore_errors=True)


def _remove_leftovers() -> None:
    """Remove the folders that this user's processes left when they were killed: nobody holds their locks."""
    for home in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(FolderInUse, OSError):
            if not home.is_symlink() and home.stat().st_uid == os.getuid() and (home / LOCK).is_file():
                with locked(home):
                    shutil.rmtree(home, ignore_errors=True)


def sweep(folder: Path, kept: set[Path], older_than: float) -> None:
    """Remove the files that are not in ``kept`` and were last changed before ``older_than`` (seconds since 1970),
    and folders left empty for as long."""
    stale = []
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):
            if path not in kept and path.lstat().st_mtime < older_than:
                stale.append(path)
    for path in reversed(stale):  # what is in a folder before the folder
        with suppress(OSError):  # a folder that is not empty
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def _keep_sweeping(folder: Path, kept: set[Path], kept_seconds: float, stopped: threading.Event) -> None:
    while not stopped.wait(min(_SWEEP_SECONDS, kept_seconds)):
        sweep(folder, kept, time.time() - kept_seconds)


# ------------------------------------------------------------------------------------------- serving


@contextmanager
def served(page_service: PageService, service: Service, kept_seconds: float = KEPT_SECONDS) -> Iterator[str]:
    """Serve the page and give its address; afterwards the server is closed and its files are gone.

    Raises:
        OSError: the address cannot be listened on, for one because the port is taken.
    """
    with temporary_home() as home:
        cache = home / "cache"
        # Read by gradio when it is imported, and when components are made.
        os.environ |= {"GRADIO_TEMP_DIR": str(cache), "GRADIO_ANALYTICS_ENABLED": "False"}
        os.environ |= {name: _without_proxy(os.environ.get(name)) for name in ("no_proxy", "NO_PROXY")}
        from idm.apps.web.examples import write_examples
        from idm.apps.web.page import build_page

        results = cache / "results"
        results.mkdir()
        page = build_page(page_service, write_examples(home / "examples"), results, service.max_mb, service.total_mb)
        stopped = threading.Event()
        try:
            address = _launch(page, service, kept_seconds)
            sweeping = (cache, set(cache.rglob("*")), kept_seconds, stopped)
            threading.Thread(target=_keep_sweeping, args=sweeping, daemon=True).start()
            yield address
        finally:
            stopped.set()
            logging.getLogger("uvicorn.error").disabled = True  # it reports each open page that it cuts off
            page.close(verbose=False)


def _launch(page: "gr.Blocks", service: Service, kept_seconds: float) -> str:
    """Start the server in a thread of its own and give its address.

    Not gr.mount_gradio_app: on a mounted page gradio 6.31 does not check which files a call names.
    """
    from idm.apps.web.theme import CSS, THEME

    max_bytes = round(service.max_mb * 1e6)
    hosts = Hosts(service.host, service.allow_hosts)
    quota = Quota(round(service.user_mb * 1e6), round(service.total_mb * 1e6), kept_seconds)
    page.queue(max_size=service.queue_size)
    try:
        _, address, _ = page.launch(
            server_name=service.host,
            server_port=service.port,
            max_file_size=max_bytes,
            app_kwargs={"middleware": [Middleware(Guard, max_bytes=max_bytes, hosts=hosts, quota=quota)]},
            theme=THEME,
            css=SLIDER_CSS + CSS,
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            **_OFF,
        )
    except OSError as error:
        where = f"{service.host}:{service.port}"
        raise OSError(
            f"cannot listen on {where}: the port is in use, or the address is not local; change --port or --host"
        ) from error
    # before gradio's own, which greets other sites
    page.app.user_middleware.sort(key=lambda middleware: middleware.cls is not Guard)
    page.app.middleware_stack = page.app.build_middleware_stack()
    page.server.config.timeout_graceful_shutdown = 1  # an open page holds a connection for ever
    return str(address)


def _without_proxy(before: str | None) -> str:
    """gradio asks its own server whether it is up, which no proxy can answer."""
    return ",".join([*filter(None, [before]), "127.0.0.1", "localhost", "::1"])


def wait() -> None:
    """Wait until the user interrupts."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def startup_message(service: Service, address: str, labels: Sequence[str]) -> str:
    """The message of the command when the page is up."""
    lines = [f"{address}  (restorers: {', '.join(labels)}; Ctrl+C ends)"]
    if service.host not in ("127.0.0.1", "localhost", "::1"):
        lines.append(f"note: --host {service.host} lets others reach this page; it has no accounts (docs/security.md)")
    return "\n".join(lines)
