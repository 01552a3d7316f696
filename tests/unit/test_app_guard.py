"""What the server refuses before gradio sees it, and what it cleans up after a process that was killed."""

import asyncio
import json
import os
import signal
import tempfile
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from idm.apps.web import session
from idm.apps.web.guard import Guard, Hosts, Quota
from idm.apps.web.server import Service, temporary_home
from idm.apps.web.session import PageService
from idm.faces.detect import DetectedFace
from idm.faces.template import ffhq_landmarks
from idm.io.image_writer import write_image
from idm.io.images import ImageError

LOCAL = "127.0.0.1:7860"
MB = 10**6


async def behind(scope, receive, send) -> None:
    """The application behind the guard answers everything."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"through"})


def guarded(hosts: Hosts | None = None, quota: Quota | None = None) -> Guard:
    return Guard(behind, 30 * MB, hosts or Hosts("127.0.0.1"), quota or Quota(100 * MB, 200 * MB, 3600.0))


def ask(guard: Guard, method: str, path: str, client: str = "127.0.0.1", **options) -> httpx.Response:
    async def once() -> httpx.Response:
        transport = httpx.ASGITransport(guard, client=(client, 1234))
        headers = {"host": LOCAL} | options.pop("headers", {})
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:7860") as http:
            return await http.request(method, path, headers=headers, **options)

    return asyncio.run(once())


# --- hosts and other sites


@pytest.mark.parametrize("host", [LOCAL, "localhost:7860", "[::1]:7860", "LOCALHOST"])
def test_its_own_names_are_answered(host: str) -> None:
    assert ask(guarded(), "GET", "/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:7860", "127.0.0.1.evil.example", "localhost.evil", ""),
        *("a@localhost", "localhost#.evil"),
    ],
)
def test_a_name_that_dns_rebinding_would_send_is_not(host: str) -> None:
    answer = ask(guarded(), "GET", "/", headers={"host": host, "origin": f"http://{host}"})
    assert answer.status_code == 421
    assert "access-control-allow-origin" not in answer.headers


def test_further_names_are_answered_on_request_and_addresses_where_it_listens_on_all() -> None:
    assert ask(guarded(Hosts("127.0.0.1", ["Faces.example"])), "GET", "/", headers={"host": "faces.example"}).is_success
    everywhere = guarded(Hosts("0.0.0.0"))
    assert ask(everywhere, "GET", "/", headers={"host": "192.168.1.7:7860"}).is_success
    assert ask(everywhere, "GET", "/", headers={"host": "evil.example"}).status_code == 421
    assert ask(guarded(), "GET", "/", headers={"host": "192.168.1.7:7860"}).status_code == 421


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_another_site_can_neither_upload_nor_call(headers: dict[str, str]) -> None:
    files = {"files": ("a.png", b"x")}
    assert ask(guarded(), "POST", "/gradio_api/upload", headers=headers, files=files).status_code == 403
    assert ask(guarded(), "POST", "/gradio_api/queue/join", headers=headers, json={}).status_code == 403
    own = {"origin": f"http://{LOCAL}", "sec-fetch-site": "same-origin"}
    assert ask(guarded(), "POST", "/gradio_api/upload", headers=own, files=files).status_code == 200


def test_a_body_whose_stated_length_does_not_count_is_refused() -> None:
    headers = {"transfer-encoding": "chunked", "content-length": "1"}  # by HTTP the former holds
    for route in ("upload", "queue/join"):
        assert ask(guarded(), "POST", f"/gradio_api/{route}", headers=headers, content=b"{}").status_code == 411


# --- quotas


def test_one_address_and_all_together_have_a_quota_which_time_gives_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("idm.apps.web.guard.time.monotonic", lambda: now[0])
    guard = guarded(quota=Quota(70 * MB, 150 * MB, 3600.0))

    def upload(client: str) -> int:
        files = {"files": ("a.png", bytes(29 * MB))}
        return ask(guard, "POST", "/gradio_api/upload", client, files=files).status_code

    assert [upload("10.0.0.1") for _ in range(3)] == [200, 200, 429]
    assert [upload(f"10.0.0.{i}") for i in (2, 3, 4, 5)] == [200, 200, 200, 429]
    now[0] = 3601
    assert upload("10.0.0.1") == 200


def test_many_empty_files_use_up_the_quota_too() -> None:
    quota = Quota(MB, 2 * MB, 3600.0)
    assert [quota.admit("me", 1) for _ in range(16)].count(True) == 15


def test_quotas_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="--max-mb, --user-mb and --total-mb must rise"):
        Service(max_mb=300.0)


# --- bad calls


@pytest.mark.parametrize(
    "body",
    [
        [],
        "text",
        {"data": None},
        {"data": []},
        {"data": [None]},
        {"data": ["/etc/passwd", {}]},
        {"data": [None, ["seed", 1]]},
        {"data": [None, {}, "more"]},
    ],
)
def test_a_request_that_is_not_a_call_of_the_page_gets_an_error(body: object) -> None:
    assert ask(guarded(), "POST", "/gradio_api/call/restore_v1", content=json.dumps(body)).status_code == 400
    assert ask(guarded(), "POST", "/gradio_api/queue/join", content=json.dumps(body)).status_code == 400


def test_calls_of_the_page_go_through() -> None:
    call = {"data": [None, {"seed": 3}]}
    assert ask(guarded(), "POST", "/gradio_api/call/restore_v1", json=call).is_success
    join = {"data": [], "fn_index": 3, "session_hash": "x"}
    assert ask(guarded(), "POST", "/gradio_api/queue/join", json=join).is_success


# --- what a killed process leaves


def test_files_of_a_process_that_was_killed_are_removed_at_the_next_start_and_of_living_ones_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    read, ready = os.pipe()
    child = os.fork()
    if child == 0:
        with temporary_home() as home:
            (home / "cache" / "private.png").touch()
            os.write(ready, b"x")
            signal.pause()
    os.read(read, 1)
    (left,) = tmp_path.iterdir()
    (tmp_path / "idm-app-of-something-else").mkdir()
    with temporary_home():
        assert (left / "cache" / "private.png").exists()  # it lives
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with temporary_home() as home:
        assert {path.name for path in tmp_path.iterdir()} == {home.name, "idm-app-of-something-else"}


# --- cancelling and memory


class OneFace:
    def detect(self, pixels: np.ndarray) -> list[DetectedFace]:
        return [DetectedFace(np.array([0, 0, 30, 30.0]), ffhq_landmarks(32), 0.9)]


class Waits:
    image_size = 32

    def __init__(self) -> None:
        self.started, self.go_on, self.num_faces = threading.Event(), threading.Event(), 0

    def restore(self, lq, seeds):
        self.num_faces += len(lq)
        self.started.set()
        assert self.go_on.wait(60)
        return lq


def test_a_user_who_cancels_or_leaves_frees_the_restorer_after_a_step(tmp_path: Path) -> None:
    gr = pytest.importorskip("gradio")
    from idm.apps.web.endpoints import Endpoints
    from idm.apps.web.work import Work

    write_image(tmp_path / "a.png", np.full((32, 32, 3), 90, np.uint8))
    waits = Waits()
    work = Work(PageService({"waits": waits}, OneFace(), None, max_pixels=10**6), tmp_path)
    messages: list[str] = []

    def user(name: str) -> None:
        try:
            order = (str(tmp_path / "a.png"), {"samples": 8})
            Endpoints(work).restore(*order, gr.Request(session_hash=name), gr.Progress())
        except gr.Error as error:
            messages.append(f"{name}: {error.message}")

    first = threading.Thread(target=user, args=["first"])
    first.start()
    assert waits.started.wait(60)
    work.cancel(gr.Request(session_hash="another"))  # others cannot
    work.cancel(gr.Request(session_hash="first"))
    waits.go_on.set()
    first.join(60)
    assert messages == ["first: cancelled"]
    assert waits.num_faces == 1
    user("second")
    assert messages == ["first: cancelled"]
    assert work.running == {}


def test_no_result_is_made_when_the_space_is_full(tmp_path: Path) -> None:
    gr = pytest.importorskip("gradio")
    from idm.apps.web.endpoints import Endpoints
    from idm.apps.web.work import Work

    write_image(tmp_path / "a.png", np.full((32, 32, 3), 90, np.uint8))
    (tmp_path / "results" / "old").mkdir(parents=True)
    (tmp_path / "results" / "old" / "b.png").write_bytes(bytes(1001))
    waits = Waits()
    work = Work(PageService({"waits": waits}, OneFace(), None, max_pixels=10**6), tmp_path / "results", 1000)
    with pytest.raises(gr.Error, match="no space for more results"):
        Endpoints(work).restore(str(tmp_path / "a.png"), {}, gr.Request(session_hash="me"), gr.Progress())
    assert not waits.started.is_set()


def test_memory_of_a_photograph_is_given_back_to_the_system_when_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path / "a.png", np.zeros((32, 32, 3), np.uint8))
    page_service = PageService({"waits": Waits()}, OneFace(), None, max_pixels=10**7)
    released: list[bool] = []
    monkeypatch.setattr(session, "release_freed_memory", lambda: released.append(True))
    with page_service.memory_for(tmp_path / "a.png"):
        assert released == []
    with pytest.raises(ImageError), page_service.memory_for(tmp_path / "a.png"):
        page_service.read(tmp_path / "b.png")
    assert released == [True, True]


def test_users_at_once_share_the_memory_and_a_picture_beyond_it_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((1000, 1000, 3), np.uint8))
    page_service = PageService({"waits": Waits()}, OneFace(), None, max_pixels=10**7, max_memory=20 * MB)
    with page_service.memory_for(tmp_path / "a.png"):
        second = threading.Thread(target=lambda: page_service.memory_for(tmp_path / "a.png").__enter__(), daemon=True)
        second.start()
        second.join(0.1)
        assert second.is_alive()  # 16 MB each do not fit into 20
    second.join(60)
    assert not second.is_alive()
    with pytest.raises(ImageError, match=r"of memory, not .*--max-memory"):
        page_service.read(tmp_path / "a.png", 4)
