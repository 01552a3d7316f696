"""The web page's server: attacked over raw HTTP, and used by two clients at once.

Detector and restorer are stand-ins: what is tested here is who gets what, and what is refused.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("gradio")

import httpx

from idm.apps.cli import main as cli
from idm.apps.cli.app import _page_service
from idm.apps.cli.options.app import AppOptions
from idm.apps.cli.options.shared import read
from idm.apps.photo.face import FaceReport
from idm.apps.photo.photo_restorer import RestoredPhoto
from idm.apps.web import views
from idm.apps.web.request import RestoreRequest, most_steps
from idm.apps.web.server import Service, served, sweep
from idm.apps.web.session import PageService, RestoreResult
from idm.data.synthetic import synthetic_face
from idm.diffusion.chain import Chain
from idm.faces.detect import DetectedFace
from idm.io.photos import Photo, read_photo

FACE = 64
MAX_MB = 0.2
SECRET = "nobody may read this"
SET_BY_SERVERS = ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "no_proxy", "NO_PROXY")
HTTP = httpx.Client(timeout=60, trust_env=False)


class OneFace:
    def detect(self, pixels):
        if pixels.max() == 0:
            return []
        marks = synthetic_face(0, 0, FACE).landmarks.astype(np.float64)
        return [DetectedFace(np.array([8.0, 8, 56, 60]), marks, 0.9)]


class Paints:
    """What it gives depends on the face and the seed. A face of 16 px is not judged, which would refuse the noise."""

    image_size = 16

    def restore(self, lq, seeds):
        noise = [torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return (lq + torch.stack(noise)) / 2


@dataclass(frozen=True)
class Running:
    address: str
    cache: Path
    home: Path
    contacted: list[str]

    def get(self, path: str) -> httpx.Response:
        return HTTP.get(self.address.rstrip("/") + path)

    def post(self, path: str, **arguments) -> httpx.Response:
        return HTTP.post(self.address.rstrip("/") + path, **arguments)

    def upload(self, name: str, data: bytes) -> str:
        """Where the server put it."""
        answer = self.post("/gradio_api/upload", files={"files": (name, data)})
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    def call(self, name: str, *data: object, session: str = "one") -> str:
        """The stream of events that answers a call, or why there is none."""
        answer = self.post(f"/gradio_api/call/{name}", json={"data": data, "session_hash": session})
        if answer.status_code != 200:
            return f"{answer.status_code} {answer.text}"
        return self.get(f"/gradio_api/call/{name}/{answer.json()['event_id']}").text

    def find(self, path: str) -> str:
        """The answer to a search for faces in a file of the server."""
        return self.call("find_v1", file_data(path))


def file_data(path: str) -> dict[str, object]:
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def page_service() -> PageService:
    return PageService({"paints": Paints()}, OneFace(), None, max_pixels=100_000)


@pytest.fixture
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What another server sets in the environment is put back after the test."""
    for name in SET_BY_SERVERS:
        monkeypatch.setenv(name, os.environ.get(name, ""))


@pytest.fixture(scope="module")
def running(page_service: PageService, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The page, with every address that anything in this process connects to."""
    contacted: list[str] = []
    connect = socket.socket.connect

    def note(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            contacted.append(address[0])
        return connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", note)
        for name in SET_BY_SERVERS:
            patch.setenv(name, os.environ.get(name, ""))  # so that they are put back
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("tmp")))
        patch.setattr("tempfile.tempdir", None)
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        Path("secret.txt").write_text(SECRET)
        with served(page_service, Service(port=free_port(), max_mb=MAX_MB)) as address:
            cache = Path(os.environ["GRADIO_TEMP_DIR"])
            yield Running(address, cache, cache.parent, contacted)
        assert not cache.parent.exists(), "temporary files are left"
        assert [path.name for path in Path.cwd().iterdir()] == ["secret.txt"], "files are left where it was started"


def png(number: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(synthetic_face(0, number, FACE).image).save(file, "PNG")
    return file.getvalue()


def bomb(side: int) -> bytes:
    """A small PNG whose header promises side x side pixels."""
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(side // 8 + 1) * side, 9)), (b"IEND", b"")]
    parts = [
        len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# --- people who use it


def restore_as_a_user(running: Running, data: bytes, seed: int) -> np.ndarray:
    path = running.upload("photo.png", data)  # the same name for all: a mix-up would not show in it
    session = f"user {seed}"
    assert "event: complete" in running.call("find_v1", file_data(path), session=session)
    response = running.call("restore_v1", file_data(path), {"seed": seed}, session=session)
    [result], answer = json.loads(response.partition("event: complete\ndata: ")[2].splitlines()[0])
    assert answer["settings"]["seed"] == seed
    assert [face["number"] for face in answer["faces"]] == [0]
    result = result["path"]
    assert result.endswith("/photo_restored.png")
    return np.asarray(Image.open(io.BytesIO(running.get(f"/gradio_api/file={result}").content)))


def test_users_at_once_get_their_own_results_lossless(
    running: Running, page_service: PageService, tmp_path: Path
) -> None:
    with ThreadPoolExecutor(3) as users:
        got = list(users.map(lambda n: restore_as_a_user(running, png(n % 2), 10 + n), range(3)))
    for n, result in enumerate(got):
        (tmp_path / "photo.png").write_bytes(png(n % 2))
        photo = read_photo(tmp_path / "photo.png")
        assert np.array_equal(
            result, page_service.restore(photo, page_service.request({"seed": 10 + n})).result.photo.pixels
        )
    assert not np.array_equal(got[0], got[2])  # one photograph, two seeds


def test_the_server_contacts_nobody_but_itself(running: Running) -> None:
    running.find(running.upload("face.png", png(0)))
    assert running.contacted
    assert set(running.contacted) <= {"127.0.0.1", "::1", "localhost"}
    config = running.get("/config").json()
    assert config["analytics_enabled"] is False


def test_the_page_names_no_other_host(running: Running) -> None:
    page = running.get("/")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "url(http" not in running.get("/theme.css").text
    assert [sheet for sheet in running.get("/config").json()["stylesheets"] if sheet.startswith("http")] == []


def test_a_full_queue_refuses_a_request_and_serves_the_others_in_turn(own_environment: None, tmp_path: Path) -> None:
    started, go_on = threading.Event(), threading.Event()

    class Waits(Paints):
        def restore(self, lq, seeds):
            started.set()
            assert go_on.wait(60)
            return super().restore(lq, seeds)

    page_service = PageService({"waits": Waits()}, OneFace(), None, max_pixels=100_000)
    with served(page_service, Service(port=free_port(), queue_size=1)) as address:
        cache = Path(os.environ["GRADIO_TEMP_DIR"])
        server = Running(address, cache, cache.parent, [])
        path = server.upload("face.png", png(0))

        def ask(session: str) -> httpx.Response:
            order = {"data": [file_data(path), {}], "session_hash": session}
            return server.post("/gradio_api/call/restore_v1", json=order)

        for user in ("one", "two", "three"):
            server.call("find_v1", file_data(path), session=user)
        first = ask("one")
        assert started.wait(60)
        second, third = ask("two"), ask("three")
        assert [answer.status_code for answer in (first, second, third)] == [200, 200, 503]
        assert "full" in third.text
        go_on.set()
        for answer in (first, second):
            assert "event: complete" in server.get(f"/gradio_api/call/restore_v1/{answer.json()['event_id']}").text


GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "web.md"


@pytest.mark.parametrize("language", ["bash", "python"])
def test_the_programs_of_the_guide_restore_a_photograph(
    running: Running, page_service: PageService, tmp_path: Path, language: str
) -> None:
    if language == "bash" and shutil.which("curl") is None:
        pytest.skip("the guide's commands need curl")
    program = GUIDE.read_text().partition("## From other programs")[2].split(f"```{language}\n")[1].split("```")[0]
    program = program.replace("http://127.0.0.1:7860", running.address.rstrip("/"))
    Image.open(io.BytesIO(png(0))).save(tmp_path / "photo.jpg")
    environment = {name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"}
    done = subprocess.run(
        ["bash", "-euc", program] if language == "bash" else [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = tmp_path / "restored.png" if language == "bash" else Path(done.stdout.splitlines()[-2])
    wanted = page_service.request({"change": "full", "seed": 1})
    expected = page_service.restore(read_photo(tmp_path / "photo.jpg"), wanted).result.photo.pixels
    assert np.array_equal(np.asarray(Image.open(result)), expected)
    if language == "python":
        note = "a face of 64 px was restored at 16 px: its finer detail is the photograph's"
        assert done.stdout.splitlines()[-1] == repr([(0, "restored", note)])


# --- people who do not mean well


def test_the_attacks_below_would_see_a_success(running: Running) -> None:
    path = running.upload("face.png", png(0))
    assert running.get(f"/gradio_api/file={path}").content == png(0)
    assert "event: complete" in running.find(path)
    assert "event: complete" in running.call("restore_v1", file_data(path), {"faces": [0]})


@pytest.mark.parametrize(
    "attempt",
    [
        "{cwd}/secret.txt",
        "secret.txt",
        "/etc/passwd",
        "{cache}/../../elsewhere0/secret.txt",
        "{cache}/../../../../../../../../../../etc/passwd",
        "{cache}/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "..%2f..%2f..%2f..%2f..%2f..%2fetc%2fpasswd",
        "file:///etc/passwd",
        "{cache}/link",
    ],
)
def test_no_file_outside_the_cache_is_served_or_read(running: Running, attempt: str) -> None:
    (running.cache / "link").unlink(missing_ok=True)
    (running.cache / "link").symlink_to(Path.cwd() / "secret.txt")
    path = attempt.format(cwd=Path.cwd(), cache=running.cache)
    with socket.create_connection(("127.0.0.1", int(running.address.rstrip("/").rsplit(":", 1)[1]))) as raw:
        raw.sendall(f"GET /gradio_api/file={path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b"")).decode(errors="replace")
    assert answer.split()[1] in ("403", "404")
    assert SECRET not in answer
    assert "root:" not in answer
    (running.cache / "link").unlink()
    response = running.find(path)
    assert "event: complete" not in response
    assert SECRET not in response


def test_the_name_of_an_upload_does_not_lead_out_of_the_cache(running: Running) -> None:
    path = Path(running.upload("../../../../out.png", png(0)))
    assert path.resolve().is_relative_to(running.cache.resolve())
    assert not list(running.home.parent.rglob("out.png"))[1:]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=http://example.com/",
        "/gradio_api/file=https://example.com/a.png",
        "/gradio_api/proxy=https://huggingface.co/",
        "/gradio_api/vibe-code/",
        "/gradio_api/runs",
        "/monitoring",
        "/docs",
        "/openapi.json",
        "/gradio_api/openapi.json",
        "/static/../../../../../../etc/passwd",
    ],
)
def test_routes_that_the_page_does_not_need_are_closed(running: Running, path: str) -> None:
    before = len(running.contacted)
    assert running.get(path).status_code in (403, 404)
    assert set(running.contacted[before:]) <= {"127.0.0.1"}


@pytest.mark.parametrize(
    "path", ["http://example.com/a.png", "https://127.0.0.1/", "gopher://x", "HTTP://example.com/"]
)
def test_an_address_instead_of_an_upload_is_not_fetched(running: Running, path: str) -> None:
    before = len(running.contacted)
    assert running.find(path).startswith("403")
    assert set(running.contacted[before:]) <= {"127.0.0.1"}


def test_an_upload_beyond_the_limit_is_refused_and_leaves_nothing(running: Running) -> None:
    before = set(running.cache.rglob("*"))
    answer = running.post("/gradio_api/upload", files={"files": ("a.png", bytes(int(MAX_MB * 1e6) + 20_000))})
    assert (answer.status_code, answer.text) == (413, "A file may have at most 0.2 MB.")
    hardly = running.post("/gradio_api/upload", files={"files": ("a.png", bytes(int(MAX_MB * 1e6) + 10))})
    assert hardly.status_code == 413  # by gradio, file by file
    assert {path for path in set(running.cache.rglob("*")) - before if path.stat().st_size} == set()


def test_an_upload_without_a_length_is_refused(running: Running) -> None:
    pieces = (b"x" * 1000 for _ in range(10))
    form = {"content-type": "multipart/form-data; boundary=x"}
    answer = running.post("/gradio_api/upload", content=pieces, headers=form)
    assert answer.status_code == 411


def test_a_call_that_is_too_long_is_refused(running: Running) -> None:
    assert running.post("/gradio_api/call/find_v1", json={"data": ["x" * 300_000]}).status_code == 413


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("bomb.png", bomb(4000), "bomb.png: is too large (4000 x 4000 pixels, the limit is 0.1 megapixels)"),
        ("notes.png", b"no picture at all", "notes.png: is not an image of a known kind"),
        ("page.html", b"<script>alert(1)</script>", "page.html: is not an image of a known kind"),
        ("cut.png", png(0)[:900], "cut.png: is broken or cut short"),
        ("empty.jpg", b"", "empty.jpg: the file is empty"),
    ],
)
def test_a_file_that_is_not_a_photograph_is_refused_without_naming_the_servers_folders(
    running: Running, name: str, data: bytes, message: str
) -> None:
    response = running.find(running.upload(name, data))
    assert "event: error" in response
    assert message in json.loads(response.partition("data: ")[2].splitlines()[0])["error"]
    assert str(running.home) not in response


def test_a_photograph_without_faces_is_not_an_error_and_offers_nothing_to_restore(
    running: Running, tmp_path: Path
) -> None:
    Image.new("RGB", (FACE, FACE)).save(tmp_path / "black.png")
    response = running.find(running.upload("black.png", (tmp_path / "black.png").read_bytes()))
    assert "event: complete" in response
    assert json.loads(response.partition("data: ")[2].splitlines()[0]) == [[]]


@pytest.mark.parametrize(
    "setting",
    [
        {"faces": [5]},
        {"restorer": "nobody"},
        {"steps": 10**6},
        {"fidelity": 7.0},
        {"seed": -1},
        {"seed": None},
        {"upscale": 999},
        {"samples": 10**6},
        {"reference": "/etc"},
        {"batch_size": 10**6},
    ],
)
def test_settings_that_the_page_does_not_offer_are_refused(running: Running, setting: dict[str, object]) -> None:
    response = running.call("restore_v1", file_data(running.upload("a.png", png(0))), setting)
    assert "event: error" in response
    assert "event: complete" not in response


def test_it_listens_on_this_machine_only(running: Running) -> None:
    assert running.address.startswith("http://127.0.0.1:")
    assert cli.build_parser().parse_args(["app"]).host == "127.0.0.1"
    port = int(running.address.rstrip("/").rsplit(":", 1)[1])
    own = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in own - {"127.0.0.1", "127.0.1.1"}:
        with pytest.raises(OSError, match=r"."):
            socket.create_connection((address, port), timeout=2)


# --- files


def test_uploads_and_results_are_removed_after_a_while(page_service: PageService, running: Running) -> None:
    old = Path(running.upload("old.png", png(3)))
    kept = {running.cache / "kept.png"}
    (running.cache / "kept.png").write_bytes(png(0))
    started = time.time()
    time.sleep(0.05)
    new = Path(running.upload("new.png", png(4)))
    sweep(running.cache, kept, started + 0.02)
    assert not old.exists()
    assert not old.parent.exists()
    assert new.exists()
    assert (running.cache / "kept.png").exists()


def test_a_running_server_sweeps_by_itself_but_keeps_the_examples(
    page_service: PageService, own_environment: None
) -> None:
    with served(page_service, Service(port=free_port(), max_mb=MAX_MB), kept_seconds=0.3) as address:
        cache = Path(os.environ["GRADIO_TEMP_DIR"])
        server = Running(address, cache, cache.parent, [])
        thumbnails = set(cache.rglob("*.png"))
        upload = Path(server.upload("face.png", png(5)))
        deadline = time.monotonic() + 10
        while upload.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not upload.exists()
        assert thumbnails
        assert all(path.exists() for path in thumbnails)


def test_a_port_in_use_is_reported_and_leaves_no_files(
    page_service: PageService, running: Running, own_environment: None
) -> None:
    port = int(running.address.rstrip("/").rsplit(":", 1)[1])
    with (
        pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}: the port is in use"),
        served(page_service, Service(port=port)),
    ):
        pass
    assert [home for home in running.home.parent.glob("idm-app-*") if home != running.home] == []


# --- what stands on the page


def test_names_in_the_table_of_faces_are_text_and_not_html() -> None:
    face = FaceReport(0, "kept", (1.0, 1.0, 9.0, 9.0), 0.9, 12.0, -0.25, "<img src=x onerror=alert(1)>")
    pixels = np.zeros((12, 12, 3), np.uint8)
    table = views.faces_table(
        RestoreResult(RestoreRequest("<b>mine</b>"), pixels, RestoredPhoto(Photo(pixels), [face], 1))
    )
    assert "<b>" not in table
    assert "onerror" in table
    assert "<img src=x" not in table
    assert "-0.25" in table
    assert "width:0%" in table


def test_missing_identity_weights_are_reported() -> None:
    face = FaceReport(0, "restored", (1.0, 1.0, 9.0, 9.0), 0.9, 12.0)
    pixels = np.zeros((12, 12, 3), np.uint8)
    table = views.faces_table(RestoreResult(RestoreRequest("idm"), pixels, RestoredPhoto(Photo(pixels), [face], 1)))
    assert "were not measured" in table


def test_the_page_names_the_builtin_detector_when_no_other_weights_are_installed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IDM_HOME", str(tmp_path))
    monkeypatch.delenv("IDM_ASSETS", raising=False)
    page_service = _page_service(read(AppOptions, cli.build_parser().parse_args(["app"])))
    assert page_service.identity is None
    assert page_service.find(Photo(np.zeros((64, 64, 3), np.uint8))) == []
    notes = capsys.readouterr().err.splitlines()
    assert [note.startswith("note: ") and "`idm weights fetch`" in note for note in notes] == [True, True]


@pytest.mark.parametrize(
    "wrong", [["--port", "0"], ["--max-mb", "0"], ["--max-mb", "nan"], ["--queue-size", "0"], ["--max-megapixels", "0"]]
)
def test_impossible_limits_are_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.build_parser().parse_args(["app", *wrong])) == 1
    assert capsys.readouterr().err.startswith("error: --")


def test_steps_are_offered_up_to_those_that_a_model_is_made_for() -> None:
    assert [most_steps(Chain(num_steps=n)) for n in (1, 4, 10)] == [4, 4, 10]
