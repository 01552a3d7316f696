"""Calls that the page never makes are answered with an error, and leave no traceback in the server's log."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio")

import httpx

from idm.apps.web.server import Service, served
from idm.apps.web.session import PageService
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image

NAMES = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "no_proxy", "NO_PROXY")
UPLOAD = "/gradio_api/upload"
JOIN = "/gradio_api/queue/join"
FORM = "multipart/form-data; boundary=x"


class OneFace:
    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return [DetectedFace(np.array([0, 0, 30, 30.0]), ffhq_landmarks(32), 0.9)]


class Same:
    image_size = 32

    def restore(self, lq, seeds):
        return lq


@dataclass(frozen=True)
class Page:
    """The page's address, an uploaded photograph, and how many values each function of the page takes."""

    address: str
    photo: dict[str, Any]
    inputs: list[int]

    def post(self, path: str, content: bytes | str, kind: str = "application/json") -> httpx.Response:
        headers = {"content-type": kind}
        return httpx.post(self.address + path, content=content, headers=headers, timeout=30, trust_env=False)

    def get(self, path: str) -> int:
        with httpx.stream("GET", self.address + path, timeout=30, trust_env=False) as answer:
            return answer.status_code

    def join(self, **body: Any) -> str:
        """What the queue answers: a status if it refuses the call, else how the call ended."""
        answer = self.post(JOIN, content=json.dumps({"session_hash": "s", **body}))
        if answer.status_code != 200:
            return str(answer.status_code)
        place = f"{self.address}/gradio_api/queue/data?session_hash={body.get('session_hash', 's')}"
        with httpx.stream("GET", place, timeout=30, trust_env=False) as events:
            for line in events.iter_lines():
                if line.startswith("data: ") and (event := json.loads(line[6:]))["msg"] == "process_completed":
                    return "done" if event["success"] else f"error: {event['output']['error']}"
        return "nothing"

    def call(self, name: str, *data: Any) -> str:
        """The stream of events that answers a call of the API, or a status if it is refused."""
        answer = self.post(f"/gradio_api/call/{name}", content=json.dumps({"data": data}))
        if answer.status_code != 200:
            return str(answer.status_code)
        place = f"{self.address}/gradio_api/call/{name}/{answer.json()['event_id']}"
        return httpx.get(place, timeout=30, trust_env=False).text

    def raw(self, request: bytes) -> str:
        """The status of an answer to bytes that no client library would send."""
        with socket.create_connection(("127.0.0.1", int(self.address.rsplit(":", 1)[1])), timeout=10) as connection:
            connection.sendall(request)
            return connection.recv(65536).split(b" ", 2)[1].decode()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """Of one server, which every bad call must leave alive for the next test."""
    folder = tmp_path_factory.mktemp("page")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    write_image(folder / "a.png", np.full((64, 64, 3), 90, np.uint8))
    page_service = PageService({"same": Same()}, OneFace(), None, max_pixels=100_000)
    with pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as stack:
        for name in NAMES:
            monkeypatch.setenv(name, os.environ.get(name, ""))  # so that they are put back
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr("tempfile.tempdir", None)
        stderr = stack.enter_context(os.fdopen(2, "w", buffering=1, closefd=False))  # for whichever test captures it
        with redirect_stderr(stderr):  # the server's log keeps the stream of its start
            address = stack.enter_context(served(page_service, Service(port=port, max_mb=0.2))).rstrip("/")
        put = httpx.post(address + UPLOAD, files={"files": ("a.png", (folder / "a.png").read_bytes())}, trust_env=False)
        photo = {"path": put.json()[0], "meta": {"_type": "gradio.FileData"}}
        functions = httpx.get(address + "/config", trust_env=False).json()["dependencies"]
        yield Page(address, photo, [len(function["inputs"]) for function in functions])


@dataclass
class Log:
    """Holds the server's answers to what it must refuse, and what it logged meanwhile."""

    capture: pytest.CaptureFixture[str]

    def check(self, what: object, ask: Callable[[], object], *accepted: str) -> None:
        """The answer must begin with one of these words, and nothing may be logged as a traceback."""
        answer = str(ask())
        printed = "".join(self.capture.readouterr())
        assert answer.startswith(accepted), f"{what}: {answer}"
        assert "Traceback" not in printed, f"{what}: {printed}"


@pytest.fixture
def log(page: Page, capfd: pytest.CaptureFixture[str]) -> Log:
    """After the page's start, whose messages are not checked."""
    capfd.readouterr()
    return Log(capfd)


def test_the_checks_below_would_see_an_answer_and_a_traceback(
    page: Page, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert page.call("find_v1", page.photo).startswith("event: complete")
    assert page.call("restore_v1", page.photo, {"faces": [0]}).startswith("event: complete")
    log.check("nothing wrong", lambda: "done", "done")
    monkeypatch.setattr(PageService, "find", lambda self, photo, *turn: 1 // 0)
    with pytest.raises(AssertionError, match="ZeroDivisionError"):  # a fault of our own is logged
        log.check("a fault", lambda: page.call("find_v1", page.photo), "event: error")


@pytest.mark.parametrize(
    "bad", [None, "x", 7, {}, [None], {"path": 5}, {"path": "a\0b"}, float("nan"), 1e308, True, ["x"] * 3]
)
def test_values_that_no_control_has_are_an_error_of_whichever_function_takes_them(
    page: Page, log: Log, bad: object
) -> None:
    for number, inputs in enumerate(page.inputs):
        for values in ([bad] * inputs, [bad] * (inputs - 1)):
            # None is no photograph, and an empty page; a number of steps is also what ``True`` is in JSON's heirs
            expected = ("error", "400") if inputs and bad is not None else ("error", "400", "done")
            if inputs or bad is None:
                log.check((number, values), lambda v=values, n=number: page.join(data=v, fn_index=n), *expected)


def test_calls_of_functions_that_there_are_not_are_refused(page: Page, log: Log) -> None:
    for number in (99, -1, 10**30, True, "1", None, 1.5, [], {}):
        log.check(number, lambda n=number: page.join(data=[], fn_index=n), "400", "422")
    for name in ("nothing", "__init__", "example", "find", "find_v1%00", "v2/find", "lambda"):
        log.check(name, lambda n=name: page.call(n, None), "404")
    for more in ({"trigger_id": "x"}, {"batched": 5}, {"event_id": 7}, {"simple_format": "x"}):
        log.check(more, lambda m=more: page.join(data=[None], fn_index=1, **m), "422")


@pytest.mark.parametrize(
    "event", [None, 5, "x", [], {}, {"index": 99}, {"index": -1}, {"index": "x"}, {"index": [0, 1]}]
)
def test_an_example_that_there_is_not_is_an_error(page: Page, log: Log, event: object) -> None:
    log.check(event, lambda: page.join(data=[], fn_index=0, event_data=event), "error")


def test_bad_calls_of_the_api_are_errors(page: Page, log: Log) -> None:
    for photo in ({}, {"path": 3}, {"path": "a\0b"}, {"path": "/etc/passwd"}, {"url": "x"}):
        log.check(photo, lambda p=photo: page.call("find_v1", p), "event: error")
        log.check(photo, lambda p=photo: page.call("restore_v1", p, {"faces": [0]}), "event: error")
    faulty = [{"faces": ["x"]}, {"faces": [7]}, {"restorer": "nobody"}, {"steps": 1e308}, {"fidelity": 7}, {"seed": -1}]
    for settings in [*faulty, {"upscale": 9}, {"samples": 0.5}, {"another": 1}, "x", [1]]:
        log.check(settings, lambda s=settings: page.call("restore_v1", page.photo, s), "event: error", "400")


@pytest.mark.parametrize("route", ["cancel", "reset", "queue/join", "call/find_v1", "upload"])
def test_bodies_that_are_not_calls_are_refused(page: Page, log: Log, route: str) -> None:
    bodies = [b"", b"{", b"[]", b"{}", b"null", b"\xff", b"[" * 100_000, b'{"event_id": 5}', b'{"data": NaN}', b'"x"']
    for body in [*bodies, b'{"session_hash": "x", "fn_index": "a", "event_id": []}']:
        log.check(body[:40], lambda b=body: page.post(f"/gradio_api/{route}", content=b).status_code, "4")


def test_forms_without_a_file_are_refused_or_hold_nothing(page: Page, log: Log) -> None:
    disposition = b"--x\r\nContent-Disposition: form-data; "
    forms = [b'name="files"', b'name="files"; filename=".."', b'name="files"; filename="%s"' % (b"a" * 9000)]
    for form in (b"--x\r\nbad header", *(disposition + form for form in forms)):
        content = form + b"\r\n\r\nabc\r\n--x--\r\n"
        log.check(form[:80], lambda c=content: page.post(UPLOAD, content=c, kind=FORM).status_code, "4")
    for kind in ("multipart/form-data", "multipart/form-data; boundary=", "text/plain"):
        log.check(kind, lambda k=kind: page.post(UPLOAD, content=b"--x\r\n", kind=k).status_code, "4")


def test_addresses_that_lead_nowhere_are_refused(page: Page, log: Log) -> None:
    for path in ("upload_progress", "upload_progress?upload_id=x", "queue/data", "file=%00", "file=a%00b", "file=%ff"):
        log.check(path, lambda p=path: page.get(f"/gradio_api/{p}"), "4")
    for path in ("file=", "file=.", "file=/", "file=" + "a" * 5000, "call/find", "info/x", "heartbeat/"):
        log.check(path[:20], lambda p=path: page.get(f"/gradio_api/{p}"), "4")
    for path in ("/assets/%00", "/static/%00", "/static/img", "/assets/" + "a" * 5000, "/assets/%ff", "/nothing"):
        log.check(path[:20], lambda p=path: page.get(p), "4")


def test_another_site_is_not_greeted_even_by_a_refusal(page: Page) -> None:
    port = page.address.rsplit(":", 1)[1]
    for host in (f"127.0.0.1:{port}", "evil.example"):
        for method in ("OPTIONS", "GET", "POST"):
            headers = {"host": host, "origin": "http://evil.example", "access-control-request-method": "POST"}
            answer = httpx.request(method, page.address, headers=headers, trust_env=False)
            assert answer.status_code in (403, 421)
            assert not [name for name in answer.headers if name.startswith("access-control")]


def test_cancelling_removes_what_waits_for_the_restorer(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    functions = httpx.get(page.address + "/config", trust_env=False).json()["dependencies"]
    names = {function["id"]: function["api_name"] for function in functions}
    (button,) = [function for function in functions if function["cancels"]]
    assert sorted(names[number] for number in button["cancels"]) == ["redraw", "restore", "restore_1"]
    release, calls = threading.Event(), []
    monkeypatch.setattr(Same, "restore", lambda self, lq, seeds: calls.append(seeds) or (release.wait(60) and lq))

    def begin(seed: int) -> str:
        body = json.dumps({"data": [page.photo, {"faces": [0], "seed": seed}]})
        return page.post("/gradio_api/call/restore_v1", content=body).json()["event_id"]

    begun = [begin(1), begin(2), begin(3)]
    page.post("/gradio_api/cancel", content=json.dumps({"session_hash": "s", "fn_index": 0, "event_id": begun[1]}))
    release.set()
    for event in (begun[0], begun[2]):
        place = f"{page.address}/gradio_api/call/restore_v1/{event}"
        assert "event: complete" in httpx.get(place, timeout=60, trust_env=False).text
    assert [list(seeds) for seeds in calls] == [[1], [3]]


def test_a_user_who_leaves_during_an_upload_leaves_no_traceback(page: Page, log: Log) -> None:
    head = b"POST /gradio_api/upload HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    with socket.create_connection(("127.0.0.1", int(page.address.rsplit(":", 1)[1])), timeout=10) as connection:
        connection.sendall(head + b"Content-Length: 100000\r\n\r\n--x\r\n")
        time.sleep(0.3)
    log.check("left", lambda: time.sleep(0.5) or page.call("find_v1", page.photo), "event: complete")


@pytest.mark.parametrize(
    "header",
    [
        b"Origin: http://[::1",
        b"Origin: \xff",
        b"Host: [::1",
        b"Host: \xff",
        b"Content-Length: -5",
        b"Content-Length: " + b"9" * 6000,
    ],
)
def test_headers_that_cannot_be_understood_are_refused(page: Page, log: Log, header: bytes) -> None:
    host = b"" if header.startswith(b"Host") else b"Host: 127.0.0.1\r\n"
    request = b"POST /gradio_api/cancel HTTP/1.1\r\n" + host + header + b"\r\n\r\n"
    log.check(header[:40], lambda: page.raw(request), "4")
