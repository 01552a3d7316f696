"""Take the screenshot of a report for the documentation:

python experiments/report_picture.py -o docs/pictures/report.png

Two of the bundled models are compared on synthetic faces, and a headless Chromium shows the page of ``idm report``.
``--width 390`` shows it as on a telephone, and ``--dark`` in dark colours.
"""

import argparse
import io
import shutil
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from idm.apps.cli import main as cli

RESTORERS = ("idm-128=idm-faces-128", "idm-256=idm-faces-256")
OPTIONS = ("--metrics", "psnr,ssim,sharpness", "--size", "128", "--num-images", "12", "--device", "cpu")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1280, help="of the window in pixels (default 1280)")
    parser.add_argument("--height", type=int, default=1180, help="of the window in pixels (default 1180)")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--results", type=Path, help="folder of the comparison, to keep it (default: a temporary one)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        results, page = arguments.results or Path(temporary) / "results", Path(temporary) / "report.html"
        if not (results / "comparison.json").exists():
            run("compare", *RESTORERS, *OPTIONS, "-o", str(results))
        run("report", str(results), "-o", str(page))
        shot = screenshot(page, arguments.width, arguments.height, "dark" if arguments.dark else "light")
    width = min(900, arguments.width)
    small = shot.resize((width, round(width * shot.height / shot.width)), Image.Resampling.LANCZOS)
    small.quantize(256).save(arguments.output, optimize=True)


def run(*arguments: str) -> None:
    if cli.run(cli.build_parser().parse_args(arguments)):
        raise SystemExit(1)


def screenshot(page: Path, width: int, height: int, scheme: str) -> Image.Image:
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        tab.goto(page.as_uri())
        tab.wait_for_function("[...document.images].every(image => image.complete)")
        picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        browser.close()
    return picture


if __name__ == "__main__":
    main()
