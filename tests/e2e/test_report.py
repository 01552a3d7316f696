"""The page of ``idm report`` in a real browser: what it shows, its sliders, and that it asks no host."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_baseline.gfpgan import GFPGAN
from gan_baseline.weights import save_gfpgan
from idm.apps.cli import main as cli


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two tiny networks on synthetic faces."""
    folder = tmp_path_factory.mktemp("report")
    torch.manual_seed(0)
    for size in (16, 32):
        save_gfpgan(GFPGAN(size, 8, 1, 1, 1 / 64), folder / f"{size}.safetensors")
    restorers = [f"small={folder / '16.safetensors'}", f"large={folder / '32.safetensors'}"]
    options = ["--device", "cpu", "--size", "32", "--num-images", "12", "-o", str(folder / "results")]
    assert cli.run(cli.build_parser().parse_args(["compare", *restorers, *options])) == 0
    page = folder / "report.html"
    assert cli.run(cli.build_parser().parse_args(["report", str(folder / "results"), "-o", str(page)])) == 0
    return page


@pytest.fixture(params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=str)
def tab(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    width, scheme = request.param
    tab = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    asked: list[str] = []
    complaints: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("console", lambda message: message.type == "error" and complaints.append(message.text))
    tab.goto(report.as_uri())
    yield tab
    tab.close()
    assert [url for url in asked if not url.startswith("data:")] == [report.as_uri()]
    assert complaints == []


def test_the_page_fits_the_window_and_shows_every_picture(tab: Any) -> None:
    assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]
    assert tab.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    worst, plot = tab.locator("figure").first.bounding_box(), tab.locator("svg").first.bounding_box()
    assert worst["y"] + worst["height"] < plot["y"]


def test_the_slider_and_the_choice_work_with_the_keyboard(tab: Any) -> None:
    figure = tab.locator("figure").first
    slider = figure.locator("input[type=range]")
    slider.focus()
    tab.keyboard.press("ArrowRight")
    assert figure.locator(".idm-compare").evaluate("element => element.style.getPropertyValue('--edge')") == "51%"
    outline = slider.evaluate("element => getComputedStyle(element).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    tab.keyboard.press("Tab")
    for name in ("large", "original"):
        tab.keyboard.press("ArrowDown")
        seen = figure.locator("img[data-label]:visible")
        assert [image.get_attribute("data-label") for image in seen.all()] == [name]
    assert figure.locator("select").evaluate("element => element === document.activeElement")


def test_axe_finds_nothing_serious_on_the_report(tab: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python").Axe()
    found = axe.run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    assert [
        f"{problem['id']}: {[node['html'][:200] for node in problem['nodes']]}"
        for problem in found
        if problem["impact"] in ("serious", "critical")
    ] == []
