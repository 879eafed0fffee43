"""The pictures of the docs: the top of a page as a browser shows it.

    python docs/picture.py build/demo/report.html
    python docs/picture.py build/adapted/health.html
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).resolve().parent / "images"
CHROMIUM = "/usr/bin/chromium"
PAGES = {"report.html": ("demo.jpg", 1180, 56, 1386), "health.html": ("health.jpg", 1180, 0, 1180)}
"""By the page's name the picture's, then CSS pixels: width, top and bottom of what is shown."""
SHOWN = 944


def main(report: Path) -> None:
    """Take the picture and write it beside the docs."""
    name, width, top, bottom = PAGES[report.name]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": bottom})
        page.goto(report.resolve().as_uri())
        taken = page.screenshot(clip={"x": 0, "y": top, "width": width, "height": bottom - top})
        browser.close()
    picture = cv2.imdecode(np.frombuffer(taken, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height = round(picture.shape[0] * SHOWN / width)
    small = cv2.resize(picture, (SHOWN, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(IMAGES / name), small, [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111])
    print(f"{name}: {(IMAGES / name).stat().st_size // 1024} KiB", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
