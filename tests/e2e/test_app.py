"""``idm app`` in a real browser: every step that a user takes, with the bundled model and the real detector."""

import os
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from idm.apps.web.examples import write_examples

pytest.importorskip("gradio")

PATIENCE = 120_000  # milliseconds, for machines that do other things too


@dataclass
class Page:
    """A page of the browser, and what it asked for and complained about."""

    tab: Any
    address: str
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def press(self, selector: str) -> None:
        self.tab.locator(selector).click(timeout=PATIENCE)

    def wait_for(self, selector: str) -> Any:
        return self.tab.wait_for_selector(selector, timeout=PATIENCE)

    def text(self, selector: str) -> str:
        return self.tab.locator(selector).inner_text()

    def is_ready(self) -> bool:
        return self.tab.locator("#idm-restore").is_enabled()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(assets: Path, temporary: Path) -> Iterator[str]:
    """A running ``idm app``, ended as service managers do; it leaves no file behind."""
    environment = {**os.environ, "IDM_ASSETS": str(assets), "TMPDIR": str(temporary)}
    command = [sys.executable, "-m", "idm", "app", "--port", str(free_port()), "--max-mb", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment) as app:
        assert app.stdout is not None
        lines = []
        for line in app.stdout:
            lines.append(line)
            if line.startswith("http://127.0.0.1:"):
                break
        else:
            pytest.fail(f"idm app ended: {''.join(lines)}")
        assert list(temporary.glob("idm-app-*"))
        yield line.split()[0]
        app.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 60
        while list(temporary.glob("idm-app-*")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(temporary.glob("idm-app-*")) == []
        assert app.wait(120) == 128 + signal.SIGTERM
        assert "Traceback" not in app.stdout.read()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Page]:
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    page = Page(tab, address)
    tab.on("request", lambda request: page.asked.append(request.url))
    tab.on("pageerror", lambda error: page.complaints.append(str(error)))
    tab.on("response", lambda r: r.status >= 400 and page.complaints.append(f"{r.status} {r.url}"))
    tab.goto(address, timeout=PATIENCE)
    page.wait_for("#idm-restore")
    yield page
    tab.close()
    elsewhere = [url for url in page.asked if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == [], "the page asked another host"
    assert page.complaints == []


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def download(page: Page, selector: str, folder: Path) -> Path:
    with page.tab.expect_download(timeout=PATIENCE) as caught:
        page.press(selector)
    path = folder / caught.value.suggested_filename
    caught.value.save_as(path)
    return path


def restored_by_the_command(assets: Path, photo: Path, folder: Path, *settings: str) -> np.ndarray:
    done = subprocess.run(
        [sys.executable, "-m", "idm", "restore", str(photo), "-o", str(folder), *settings],
        env={**os.environ, "IDM_ASSETS": str(assets)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return pixels(folder / photo.name)


def test_an_example_is_restored_by_clicking_and_the_download_is_what_the_command_gives(
    page: Page, assets: Path, tmp_path: Path
) -> None:
    assert not page.is_ready()
    page.tab.locator("#idm-examples .thumbnail-lg").nth(2).click()
    page.wait_for("#idm-restore:not([disabled])")
    assert page.text("#idm-faces").count("score") == 3
    page.tab.locator("#idm-faces input").nth(1).uncheck()
    page.tab.locator("#idm-steps input[type=number]").fill("3")
    page.tab.locator("#idm-fidelity input[type=number]").fill("0.3")
    page.tab.locator("#idm-seed input").fill("11")
    page.tab.locator("#idm-seed input").blur()
    page.press("#idm-restore")
    page.wait_for(".idm-faces")
    rows = page.tab.locator(".idm-faces tbody tr")
    assert [rows.nth(n).locator("td").first.inner_text() for n in range(rows.count())] == ["0", "2"]
    assert [float(cell) for cell in page.tab.locator(".idm-identity").all_inner_texts()] == pytest.approx(
        [0.8, 0.8], abs=0.2
    )
    assert "seed 11" in page.text("#idm-table")

    sources = [image.get_attribute("src") for image in page.tab.locator("#idm-compare img").all()]
    shown = {page.tab.request.get(page.address + source).body()[:8] for source in sources}
    assert len(sources) == 2
    assert shown == {b"\x89PNG\r\n\x1a\n"}

    (tmp_path / "examples").mkdir()
    photo = write_examples(tmp_path / "examples")[2]
    result = pixels(download(page, "#idm-png", tmp_path))
    settings = ("--faces", "0,2", "--steps", "3", "--fidelity", "0.3", "--seed", "11")
    assert np.array_equal(result, restored_by_the_command(assets, photo, tmp_path / "out", *settings))
    assert not np.array_equal(result, pixels(photo))


def test_an_uploaded_jpeg_comes_back_as_png_and_as_jpeg(page: Page, tmp_path: Path) -> None:
    photo = write_examples(tmp_path)[0]
    Image.open(photo).save(tmp_path / "holiday.jpg", quality=95)
    page.tab.locator("#idm-photo input[type=file]").set_input_files(tmp_path / "holiday.jpg")
    page.wait_for("#idm-restore:not([disabled])")
    page.press("#idm-restore")
    page.wait_for(".idm-faces")
    page.wait_for("#idm-same")
    assert download(page, "#idm-png", tmp_path).name == "holiday_restored.png"
    again = download(page, "#idm-same", tmp_path)
    assert again.name == "holiday_restored.jpg"
    assert Image.open(again).format == "JPEG"


def test_a_file_that_is_not_a_photograph_is_refused_and_clears_the_previous_one(page: Page, tmp_path: Path) -> None:
    page.tab.locator("#idm-examples .thumbnail-lg").nth(0).click()
    page.wait_for("#idm-restore:not([disabled])")
    page.press('#idm-photo button[aria-label="Clear"], #idm-photo button[title="Clear"]')
    page.wait_for("#idm-restore[disabled]")
    (tmp_path / "notes.png").write_text("no picture")
    page.tab.locator("#idm-photo input[type=file]").set_input_files(tmp_path / "notes.png")
    toast = page.wait_for(".toast-body")
    assert "notes.png: is not an image of a known kind" in toast.inner_text()
    assert "idm-app-" not in toast.inner_text()
    assert not page.is_ready()


def test_a_file_beyond_the_limit_is_refused_by_the_page_itself(page: Page, tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(bytes(3_000_000))
    page.tab.locator("#idm-photo input[type=file]").set_input_files(tmp_path / "large.png")
    toast = page.wait_for(".toast-body")
    assert "maximum" in toast.inner_text().lower()
    assert not page.is_ready()
    page.complaints.clear()  # where the browser sent it all the same, the server said 413


def restore_the_group(page: Page) -> None:
    page.tab.locator("#idm-examples .thumbnail-lg").nth(2).click()
    page.wait_for("#idm-restore:not([disabled])")
    page.press("#idm-restore")
    page.wait_for(".idm-faces")


def test_faces_are_judged_one_by_one_with_the_keyboard(page: Page, assets: Path, tmp_path: Path) -> None:
    page.tab.locator("#idm-change input").nth(1).check()
    restore_the_group(page)
    page.press("role=tab[name='Each face']")
    slider = page.tab.locator("#idm-before-after input[type=range]")
    slider.focus()
    page.tab.keyboard.press("ArrowRight")
    edge = page.tab.locator("#idm-before-after .idm-compare").evaluate(
        "element => element.style.getPropertyValue('--edge')"
    )
    assert edge == "51%"
    outline = slider.evaluate("element => getComputedStyle(element).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    assert all(
        image.get_attribute("alt") for image in page.tab.locator("#idm-before-after img, #idm-variants img").all()
    )

    page.tab.locator("#idm-face input").nth(1).focus()  # gradio's radio buttons are reached by Tab, each by itself
    page.tab.keyboard.press("Space")
    page.tab.locator("#idm-before-after img[alt^='Face 1']").first.wait_for(timeout=PATIENCE)
    page.tab.locator("#idm-used input").nth(0).focus()  # as given
    page.tab.keyboard.press("Space")
    page.tab.locator("#idm-before-after", has_text="it was rejected").wait_for(timeout=PATIENCE)
    page.press("role=tab[name='Result']")
    result = pixels(download(page, "#idm-png", tmp_path))
    (tmp_path / "examples").mkdir()
    photo = write_examples(tmp_path / "examples")[2]
    settings = ("--faces", "0,2", "--change", "full")
    assert np.array_equal(result, restored_by_the_command(assets, photo, tmp_path / "out", *settings))

    page.press("role=tab[name='Each face']")
    page.press("#idm-redraw")
    page.tab.locator("#idm-variants figure").nth(2).wait_for(timeout=PATIENCE)
    assert "in use" in page.tab.locator("#idm-variants figure").nth(2).inner_text()


def test_a_result_is_marked_stale_while_other_settings_are_set(page: Page) -> None:
    restore_the_group(page)
    stale = page.tab.locator("#idm-stale")
    assert not stale.is_visible()
    for seed, is_stale in (("7", True), ("0", False)):
        page.tab.locator("#idm-seed input").fill(seed)
        page.tab.locator("#idm-seed input").blur()
        stale.wait_for(state="visible" if is_stale else "hidden", timeout=PATIENCE)


def test_several_photographs_come_back_in_one_zip(page: Page, tmp_path: Path) -> None:
    photos = write_examples(tmp_path)[:2]
    page.press("role=tab[name='Batch']")
    page.tab.locator("#idm-files input[type=file]").set_input_files(photos)
    page.tab.locator("#idm-files", has_text="old_print").wait_for(timeout=PATIENCE)
    page.press("#idm-restore-all")
    page.wait_for("#idm-summary .idm-faces")
    with zipfile.ZipFile(download(page, "#idm-zip", tmp_path)) as archive:
        assert sorted(archive.namelist()) == ["astronaut.png", "old_print.png", "status.json"]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_serious(page: Page, tmp_path: Path, width: int, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    page.tab.set_viewport_size({"width": width, "height": 900})
    page.tab.goto(f"{page.address}?__theme={theme}", timeout=PATIENCE)
    page.wait_for("#idm-restore")

    def problems(state: str) -> list[str]:
        page.tab.wait_for_timeout(500)  # what appears fades in
        box = page.tab.locator("#idm-restore").bounding_box()
        assert box["x"] + box["width"] <= width, "the page is wider than the window"
        found = axe.run(page.tab, options={"resultTypes": ["violations"]}).response["violations"]
        return [
            f"{state}: {problem['id']}: {[node['html'][:200] for node in problem['nodes']]}"
            for problem in found
            if problem["impact"] in ("serious", "critical")
        ]

    seen = problems("empty")
    photos = write_examples(tmp_path)[:2]
    page.press("#idm-more button")
    page.press("#idm-trust button")
    page.tab.locator("#idm-reference input[type=file]").set_input_files(photos)
    page.tab.locator("#idm-samples input[type=number]").fill("2")
    page.tab.locator("#idm-samples input[type=number]").blur()
    page.tab.locator("#idm-uncertainty input").focus()
    page.tab.keyboard.press("Space")
    restore_the_group(page)
    page.wait_for("#idm-map img")
    assert "2 reference photographs were used" in page.text("#idm-table")
    seen += problems("result")
    for name in ("Faces", "Each face", "Batch"):
        page.tab.locator(f"role=tab[name='{name}']").click(timeout=PATIENCE)
        seen += problems(name)
    page.tab.locator("#idm-files input[type=file]").set_input_files(photos)
    page.tab.locator("#idm-files", has_text="old_print").wait_for(timeout=PATIENCE)
    seen += problems("Batch, chosen")
    assert seen == []
