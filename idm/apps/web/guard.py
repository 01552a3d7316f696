"""Middleware that passes only the page's own requests, within limits, to gradio."""

import ipaddress
import json
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_MAX_CALL_BYTES = 256 * 1024
_ENVELOPE_BYTES = 16 * 1024  # what a form adds to the file in it
_BLOCK_BYTES = 64 * 1024
_NOT_A_REQUEST = "This is not a request of the page."

# The routes of gradio that the page needs. Others would fetch an address for anyone.
_GET = re.compile(
    r"/|/config/?|/(theme\.css|favicon\.ico|manifest\.json|robots\.txt)|/(assets|static)/[\w./-]{1,200}"
    r"|/gradio_api/(info|app_id|startup-events|upload_progress|queue/data|heartbeat/\w+|call/\w+/\w+)/?"
    r"|/gradio_api/file=(?!\w+:).+"
)
_POST = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset|call/(find_v1|restore_v1))/?")

_HOST = re.compile(r"((?P<name>[a-z0-9._-]+)|\[(?P<address>[a-f0-9:.]+)\])(:[0-9]*)?")

_HEADERS = {
    # Whatever the page wanted to load from elsewhere, the browser would refuse.
    b"content-security-policy": b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    b"style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
}

# Types of what the functions of the API take.
_CALLS: dict[str, tuple[Any, ...]] = {
    "find_v1": ((dict, type(None)),),
    "restore_v1": ((dict, type(None)), (dict, type(None))),
}

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Hosts:
    """Host names under which the page may be requested. With DNS rebinding, a browser sends the name of another site.

    Args:
        host: the address that the server listens on; with a wildcard address every IP address is accepted, since no
            site has one as its name.
        allowed: further names, such as that of a reverse proxy.
    """

    host: str
    allowed: Sequence[str] = ()

    def problem(self, headers: Headers, method: str) -> tuple[int, str] | None:
        """Status and message of a refused request."""
        found = [(name.lower(), value.decode("latin-1").strip().lower()) for name, value in headers]
        hosts = [value for name, value in found if name == b"host"]
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return 421, "This server does not answer to this name; see --allow-host."
        for origin in (value for name, value in found if name == b"origin"):
            place = origin.partition("://")[2].partition("/")[0]
            if place != hosts[0] and _name(place) not in map(str.lower, self.allowed):
                return 403, "Requests from another site are not accepted."
        if method == "POST" and (b"sec-fetch-site", b"cross-site") in [(n, v.encode()) for n, v in found]:
            return 403, "Requests from another site are not accepted."
        return None

    def _knows(self, host: str) -> bool:
        name = _name(host)
        if name in ("localhost", "127.0.0.1", "::1", self.host.lower().strip("[]"), *map(str.lower, self.allowed)):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.host in ("0.0.0.0", "::", "[::]")


def _name(host: str) -> str:
    """Return a host without its port: "::1" for "[::1]:7860"; nothing for what is no host."""
    found = _HOST.fullmatch(host)
    return (found["name"] or found["address"]) if found else ""


@dataclass
class Quota:
    """Bytes that may be uploaded within ``seconds``, after which uploads are removed: by each address, and by all."""

    each: int
    total: int
    seconds: float
    _uploads: deque[tuple[float, str, int]] = field(default_factory=deque)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def admit(self, user: str, num_bytes: int) -> bool:
        """Return whether the user may upload this much; counts it if so. An empty file takes some space too."""
        num_bytes = max(num_bytes, _BLOCK_BYTES)
        with self._lock:
            now = time.monotonic()
            while self._uploads and self._uploads[0][0] < now - self.seconds:
                self._uploads.popleft()
            own = sum(size for _, who, size in self._uploads if who == user)
            everybody = sum(size for _, _, size in self._uploads)
            if own + num_bytes > self.each or everybody + num_bytes > self.total:
                return False
            self._uploads.append((now, user, num_bytes))
            return True


class Guard:
    """Middleware: refuses what the page does not need before gradio sees it.

    Hosts that are not its own, other sites' requests, unknown routes, bodies without a stated length or beyond their
    limit, uploads beyond the quota, calls that are no calls of the page, and calls that name an address instead of an
    uploaded file, which gradio would fetch.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, hosts: Hosts, quota: Quota) -> None:
        self.app, self.max_bytes, self.hosts, self.quota = app, max_bytes, hosts, quota

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        problem = self.hosts.problem(scope["headers"], scope["method"])
        if problem is not None:
            await _refuse(*problem, scope, receive, send)
            return
        path, method = scope["path"], scope["method"]
        allowed = _POST if method == "POST" else _GET
        if method not in ("GET", "HEAD", "POST") or not allowed.fullmatch(path):
            await _refuse(404, "This page does not exist.", scope, receive, send)
        elif method == "POST":
            await self._post(path, scope, receive, send)
        else:
            await self.app(scope, receive, _with_headers(send))

    async def _post(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        is_upload = path.startswith("/gradio_api/upload")
        limit = self.max_bytes + _ENVELOPE_BYTES if is_upload else _MAX_CALL_BYTES
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        if b"transfer-encoding" in headers or not length.isdigit():  # the former would outweigh a stated length
            await _refuse(411, "The length of the body must be stated.", scope, receive, send)
        elif int(length) > limit:
            most = f"A file may have at most {self.max_bytes / 1e6:g} MB." if is_upload else "This call is too long."
            await _refuse(413, most, scope, receive, send)
        elif is_upload:
            user = (scope.get("client") or ("unknown",))[0]
            if self.quota.admit(user, int(length)):
                await self._call(scope, receive, send)
            else:
                await _refuse(429, "Too much was uploaded in the last hour; try again later.", scope, receive, send)
        else:
            body = await _read(receive)
            if _names_an_address(body):
                await _refuse(403, "Upload the file; addresses are not fetched.", scope, receive, send)
            elif not _is_call(path, body):
                await _refuse(400, _NOT_A_REQUEST, scope, receive, send)
            else:
                await self._call(scope, _again(body, receive), send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let gradio answer. It fails on some bad calls, of functions that do not exist for one."""
        has_begun = False

        async def noted(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, receive, _with_headers(noted))
        except ClientDisconnect:  # nobody is left to answer
            return
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError):
            if has_begun:
                raise
            await _refuse(400, _NOT_A_REQUEST, scope, receive, send)


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
    """Return whether some file in a call is named by something other than a path."""

    def search(value: Any) -> bool:
        if isinstance(value, dict):
            path = value.get("path")
            return (isinstance(path, str) and "://" in path) or any(map(search, value.values()))
        return isinstance(value, list) and any(map(search, value))

    try:
        return search(json.loads(body or b"null"))
    except (ValueError, RecursionError):
        return True


def _is_call(path: str, body: bytes) -> bool:
    """Return whether a body is what the page itself would send to a route."""
    content = json.loads(body or b"null")  # that it is JSON was seen before
    name = path.rstrip("/").rpartition("/call/")[2]
    if name in _CALLS and "/call/" in path:
        data = content.get("data") if isinstance(content, dict) else None
        wanted = _CALLS[name]
        return (
            isinstance(data, list)
            and len(data) == len(wanted)
            and all(isinstance(value, kinds) for value, kinds in zip(data, wanted, strict=True))
        )
    if path.rstrip("/").endswith("/queue/join"):
        return (
            isinstance(content, dict)
            and isinstance(content.get("data"), list)
            and type(content.get("fn_index")) is int
            and isinstance(content.get("session_hash"), str)
        )
    return isinstance(content, dict)
