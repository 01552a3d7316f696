"""``idm weights fetch`` against servers that are good, slow, wrong, cut off, or know no ranges."""

import dataclasses
import hashlib
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from idm.apps.cli import main as cli
from idm.io.fetch import ATTEMPTS, FetchError, fetch
from idm.io.known_weights import KNOWN, Checkpoint, WeightsFile
from idm.io.weights import find_weights

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves ``content``; ``breaks`` are byte counts after which its successive answers end."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.breaks, self.statuses = CONTENT, [], []
        self.knows_ranges, self.has_length, self.pause = True, True, 0.0
        self.asked: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/net.bin"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        time.sleep(server.pause)
        if server.statuses:
            return self.send_error(server.statuses.pop(0))
        etag = f'"{hashlib.sha256(server.content).hexdigest()[:8]}"'
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.knows_ranges else 0
        if self.headers.get("If-Range") not in (None, etag):
            start = 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        if server.has_length:
            self.send_header("Content-Length", str(len(server.content) - start))
        self.send_header("ETag", etag)
        self.end_headers()
        stop = start + server.breaks.pop(0) if server.breaks else None
        self.wfile.write(server.content[start:stop])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def known(server: Server, **changes: object) -> WeightsFile:
    return dataclasses.replace(WeightsFile("a net", "MIT", server.url, SHA256, len(CONTENT)), **changes)


def get(server: Server, folder: Path, timeout: float = 5.0, **changes: object) -> Path:
    return fetch("net.bin", known(server, **changes), folder, timeout=timeout, pause=0.001)


def test_a_good_answer_becomes_the_file_and_nothing_else_remains(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch("net.bin", known(server), tmp_path / "new", lambda *bytes_: seen.append(bytes_))
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert server.asked == [None]


def test_an_answer_that_breaks_off_is_resumed_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks = [1000, 50_000]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1000-", "bytes=51000-"]


def test_a_later_call_resumes_what_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.bin.part").write_bytes(CONTENT[:70_000])
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=70000-"]


def test_a_part_that_is_all_there_is_only_verified(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.bin.part").write_bytes(CONTENT)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("left", [b"of another file", CONTENT + b"too long"])
def test_a_part_of_another_file_is_fetched_anew(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "net.bin.part").write_bytes(left)
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.asked[-1] is None


def test_what_no_checksum_joins_is_not_resumed_by_a_later_call(server: Server, tmp_path: Path) -> None:
    (tmp_path / "net.bin.part").write_bytes(b"of another file")
    assert get(server, tmp_path, sha256=None, size=None).read_bytes() == CONTENT
    assert server.asked == [None]


def test_a_file_that_changes_between_two_answers_is_not_pieced_together(server: Server, tmp_path: Path) -> None:
    server.breaks = [1000]
    changed = bytes(reversed(CONTENT))

    def change(so_far: int, total: int | None) -> None:
        server.content = changed

    path = fetch("net.bin", known(server, sha256=None), tmp_path, change, pause=0.001)
    assert path.read_bytes() == changed


def test_a_server_that_knows_no_ranges_is_asked_for_the_whole(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    server.breaks = [1000]
    assert get(server, tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("has_length", [True, False])
def test_a_wrong_file_is_refused_and_removed(server: Server, tmp_path: Path, has_length: bool) -> None:
    server.content, server.has_length = b"x" + CONTENT[1:], has_length
    with pytest.raises(FetchError, match=rf"^{server.url}: what the server sent has sha256 \w+, not {SHA256}"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>sign in</html>"
    with pytest.raises(FetchError, match=f"offers 20 bytes, not {len(CONTENT)}"):
        get(server, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_file_of_a_server_that_sends_no_length_is_refused(server: Server, tmp_path: Path) -> None:
    server.has_length = False
    server.breaks = [1000, *[0] * ATTEMPTS]
    with pytest.raises(FetchError, match=rf"ended after 1000 of {len(CONTENT)} bytes \({ATTEMPTS} attempts\)"):
        get(server, tmp_path)
    assert (tmp_path / "net.bin.part").stat().st_size == 1000
    assert not (tmp_path / "net.bin").exists()


def test_a_slow_server_is_given_up_after_some_attempts(server: Server, tmp_path: Path) -> None:
    server.pause = 0.5
    with pytest.raises(FetchError, match=rf"timed out.*{ATTEMPTS} attempts"):
        get(server, tmp_path, timeout=0.05)
    assert len(server.asked) <= ATTEMPTS
    server.pause = 0.2
    assert get(server, tmp_path, timeout=5.0).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again_and_a_refusal_is_final(server: Server, tmp_path: Path) -> None:
    server.statuses = [503, 429, 502]
    assert get(server, tmp_path).read_bytes() == CONTENT
    server.statuses = [404]
    with pytest.raises(FetchError, match=f"^{server.url}: 404"):
        get(server, tmp_path)
    assert len(server.asked) == 5


def test_an_address_where_nobody_answers_is_named(server: Server, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(FetchError, match=rf"^{server.url}: .*refused \({ATTEMPTS} attempts\)"):
        get(server, tmp_path)


def test_a_checkpoint_is_converted_and_the_result_verified(server: Server, tmp_path: Path) -> None:
    net = {"layer.weight": torch.arange(6.0).reshape(2, 3)}
    torch.save({"epoch": 68, "net_state_dict": net}, tmp_path / "068.ckpt")
    server.content = (tmp_path / "068.ckpt").read_bytes()
    save_file(net, tmp_path / "expected", metadata={"source": "model/068.ckpt"})
    sha256 = hashlib.sha256((tmp_path / "expected").read_bytes()).hexdigest()
    checkpoint = Checkpoint(server.url, "net_state_dict", "model/068.ckpt")
    path = get(server, tmp_path / "to", sha256=sha256, size=None, made_of=checkpoint)
    assert torch.equal(load_file(path)["layer.weight"], net["layer.weight"])
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FetchError, match="not 0000"):
        get(server, tmp_path / "wrong", sha256="0000", size=None, made_of=checkpoint)
    server.content = b"no checkpoint"
    with pytest.raises(FetchError, match="is not what it should be"):
        get(server, tmp_path / "wrong", sha256=sha256, size=None, made_of=checkpoint)
    assert list((tmp_path / "wrong").iterdir()) == []


def test_a_checkpoint_that_would_run_code_is_refused(server: Server, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"net_state_dict": Evil()}, tmp_path / "068.ckpt")
    server.content = (tmp_path / "068.ckpt").read_bytes()
    with pytest.raises(FetchError, match="is not what it should be"):
        get(server, tmp_path, sha256=None, size=None, made_of=Checkpoint(server.url, "net_state_dict", "x"))
    assert not (tmp_path / "ran").exists()


# --- the command


@pytest.fixture
def command(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(KNOWN, "net.bin", known(server))
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    return lambda *words: cli.run(cli.build_parser().parse_args(["weights", "fetch", *words]))


def test_the_command_shows_the_terms_fetches_and_then_finds_the_file(command, capsys, tmp_path: Path) -> None:
    assert command("net.bin", "--yes") == 0
    printed = capsys.readouterr().out
    for text in ("a net", "MIT", "0.3 MB", SHA256, str(tmp_path / "weights"), "its sha256 is right"):
        assert text in printed
    assert find_weights("net.bin").read_bytes() == CONTENT
    assert command("NET.B", "--yes") == 0
    assert "present at" in capsys.readouterr().out


def test_nothing_is_fetched_without_consent(command, server: Server, capsys, monkeypatch) -> None:
    assert command("net.bin") == 1  # the tests have no terminal
    assert "--yes states that you accept" in capsys.readouterr().err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    for answer in ("", "n", "what?"):
        monkeypatch.setattr("builtins.input", lambda question, answer=answer: answer)
        assert command("net.bin") == 1
    assert server.asked == []
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert command("net.bin") == 0


def test_a_file_that_is_another_is_left_alone(command, server: Server, capsys, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "net.bin").write_bytes(b"the user's own")
    assert command("net.bin", "--yes") == 1
    assert "remove it to fetch it again" in capsys.readouterr().out
    assert server.asked == []


def test_a_name_must_be_one_of_the_known_files(command, capsys) -> None:
    assert command("nothing.pth", "--yes") == 1
    assert "no known files: detection_mobilenet" in capsys.readouterr().err
    assert command("detection", "--yes") == 1
    assert "part of several known files: detection_mobilenet0.25_Final.pth, detection_Res" in capsys.readouterr().err


def test_a_failed_fetch_is_one_line(command, server: Server, capsys) -> None:
    server.statuses = [403]
    assert command("net.bin", "--yes") == 1
    assert capsys.readouterr().err.strip().endswith(f"{server.url}: 403 Forbidden")


def test_a_missing_file_is_an_error_with_the_command_that_fetches_it(command, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`idm weights fetch net\.bin` downloads it"):
        find_weights("net.bin")
    with pytest.raises(FileNotFoundError, match=rf"`idm weights fetch net\.bin --weights-dir {tmp_path}`"):
        find_weights("net.bin", tmp_path)
