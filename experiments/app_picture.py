"""Take the screenshot of the web page for the documentation. The page must be running:

idm app & python experiments/app_picture.py http://127.0.0.1:7860 -o docs/pictures/app.png

A headless Chromium restores the first example and moves the slider to the face.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1040, "height": 800})
        tab.goto(arguments.address)
        tab.locator("#idm-examples .thumbnail-lg").first.click()
        tab.locator("#idm-restore:not([disabled])").click()
        tab.wait_for_selector(".idm-faces")
        tab.wait_for_timeout(1000)  # the pictures fade in
        tab.locator("#idm-compare input").fill("43")
        tab.mouse.move(0, 0)
        tab.evaluate("window.scrollTo(0, 0)")
        tab.wait_for_timeout(500)
        picture = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert("RGB")
        small = picture.resize((760, round(760 * picture.height / picture.width)), Image.Resampling.LANCZOS)
        small.quantize(256).save(arguments.output, optimize=True)
        browser.close()


if __name__ == "__main__":
    main()
