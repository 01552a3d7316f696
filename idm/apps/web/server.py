"""The server behind the page: what it listens to, what it refuses, and what it leaves behind (nothing)."""

import json
import logging
import os
import re
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
from typing import TYPE_CHECKING, Any

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from idm.apps.web.session import Studio

if TYPE_CHECKING:
    import gradio as gr

KEPT_SECONDS = 3600.0  # how long uploads and results are kept
_SWEEP_SECONDS = 300.0
_MAX_CALL_BYTES = 256 * 1024
_ENVELOPE_BYTES = 16 * 1024  # what a form adds to the file in it

# All that the page needs of what gradio serves. Among the rest are routes that fetch an address for whoever asks.
_GET = re.compile(
    r"/|/config/?|/(theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static)/[^?]+"
    r"|/gradio_api/(info|app_id|startup-events|upload_progress|queue/data|heartbeat/\w+|call/\w+/\w+)/?"
    r"|/gradio_api/file=(?!\w+:).+"
)
_POST = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset|call/\w+)/?")

_HEADERS = {
    # Whatever the page wanted to load from elsewhere, the browser would refuse.
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}


# Some of these are on by default, others where an environment variable says so.
_OFF = dict.fromkeys(("share", "inbrowser", "ssr_mode", "mcp_server", "pwa", "run_history", "enable_monitoring"), False)


@dataclass(frozen=True)
class Service:
    """Where the page is served, and its limits."""

    host: str = "127.0.0.1"
    port: int = 7860
    max_mb: float = 32.0
    queue_size: int = 16

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ValueError(f"--port must lie in 1..65535, got {self.port}")
        if not self.max_mb > 0 or self.queue_size < 1:
            raise ValueError(f"--max-mb and --queue-size must be positive, got {self.max_mb:g} and {self.queue_size}")


class Guard:
    """Middleware: refuses what the page does not need before gradio sees it.

    Unknown routes, bodies without a stated length or beyond their limit, and calls that name an address instead of an
    uploaded file, which gradio would fetch.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self.app, self.max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        path, method = scope["path"], scope["method"]
        allowed = _POST if method == "POST" else _GET
        if method not in ("GET", "HEAD", "POST") or not allowed.fullmatch(path):
            await _refuse(404, "There is nothing here.", scope, receive, send)
        elif method == "POST":
            await self._post(path, scope, receive, send)
        else:
            await self.app(scope, receive, _with_headers(send))

    async def _post(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = path.startswith("/gradio_api/upload")
        limit = self.max_bytes + _ENVELOPE_BYTES if is_upload else _MAX_CALL_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"")
        if not length.isdigit():
            await _refuse(411, "Say how long the body is.", scope, receive, send)
        elif int(length) > limit:
            most = f"A file may have at most {self.max_bytes / 1e6:g} MB." if is_upload else "This call is too long."
            await _refuse(413, most, scope, receive, send)
        elif is_upload:
            await self.app(scope, receive, _with_headers(send))
        else:
            body = await _read(receive)
            if _names_an_address(body):
                await _refuse(403, "Upload the file; addresses are not fetched.", scope, receive, send)
            else:
                await self.app(scope, _again(body, receive), _with_headers(send))


async def _refuse(status: int, message: str, scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse(message, status, {"connection": "close"})(scope, receive, _with_headers(send))


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], *_HEADERS.items()]}
        await send(message)

    return send_with_headers


async def _read(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """The body that was read already, and then whatever comes."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> Message:
        return messages.pop() if messages else await receive()

    return receive_again


def _names_an_address(body: bytes) -> bool:
    """Whether some file in a call is named by something other than a path."""

    def search(value: Any) -> bool:
        if isinstance(value, dict):
            path = value.get("path")
            return (isinstance(path, str) and "://" in path) or any(map(search, value.values()))
        return isinstance(value, list) and any(map(search, value))

    try:
        return search(json.loads(body or b"null"))
    except (ValueError, RecursionError):
        return True


# ------------------------------------------------------------------------------------------- files


@contextmanager
def temporary_home() -> Iterator[Path]:
    """A folder for all files of this process, which is gone afterwards; gradio's uploads and results lie in it too.

    It is also removed when the process is told to end (SIGTERM).
    """
    home = Path(tempfile.mkdtemp(prefix="idm-app-"))
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        for name in ("cache", "examples"):
            (home / name).mkdir()
        yield home
    finally:
        signal.signal(signal.SIGTERM, before)
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
def served(studio: Studio, service: Service, kept_seconds: float = KEPT_SECONDS) -> Iterator[str]:
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
        page = build_page(studio, write_examples(home / "examples"), results, service.max_mb)
        stopped = threading.Event()
        try:
            address = _launch(page, service)
            sweeping = (cache, set(cache.rglob("*")), kept_seconds, stopped)
            threading.Thread(target=_keep_sweeping, args=sweeping, daemon=True).start()
            yield address
        finally:
            stopped.set()
            logging.getLogger("uvicorn.error").disabled = True  # it reports each open page that it cuts off
            page.close(verbose=False)


def _launch(page: "gr.Blocks", service: Service) -> str:
    """Start the server in a thread of its own and give its address.

    Not gr.mount_gradio_app: on a mounted page gradio 6.31 does not check which files a call names.
    """
    from idm.apps.web.theme import CSS, THEME

    max_bytes = round(service.max_mb * 1e6)
    page.queue(max_size=service.queue_size)
    try:
        _, address, _ = page.launch(
            server_name=service.host,
            server_port=service.port,
            max_file_size=max_bytes,
            app_kwargs={"middleware": [Middleware(Guard, max_bytes=max_bytes)]},
            theme=THEME,
            css=CSS,
            footer_links=[],
            prevent_thread_lock=True,
            quiet=True,
            **_OFF,
        )
    except OSError as error:
        where = f"{service.host}:{service.port}"
        raise OSError(f"cannot listen on {where}: taken, or not of this machine; choose another --port") from error
    page.server.config.timeout_graceful_shutdown = 1  # an open page holds a connection for ever
    return str(address)


def _without_proxy(before: str | None) -> str:
    """gradio asks its own server whether it is up, which no proxy can answer."""
    return ",".join([*filter(None, [before]), "127.0.0.1", "localhost", "::1"])


def wait() -> None:
    """Until the user interrupts."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return


def describe(service: Service, address: str, labels: Sequence[str]) -> str:
    """What the command says when the page is up."""
    lines = [f"{address}  (restorers: {', '.join(labels)}; Ctrl+C ends)"]
    if service.host not in ("127.0.0.1", "localhost", "::1"):
        lines.append(f"note: --host {service.host} lets others reach this page; it has no accounts")
    return "\n".join(lines)
