"""The README's picture: the top of a demo's report as a browser shows it.

    python docs/picture.py build/demo/report.html
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import sync_playwright

OUT = Path(__file__).resolve().parent / "images" / "demo.jpg"
CHROMIUM = "/usr/bin/chromium"
WIDTH, TOP, BOTTOM = 1180, 56, 1386
"""CSS pixels: the headline, the three figures and the first two parts."""
SHOWN = 944


def main(report: Path) -> None:
    """Take the picture and write it beside the docs."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": BOTTOM})
        page.goto(report.resolve().as_uri())
        taken = page.screenshot(clip={"x": 0, "y": TOP, "width": WIDTH, "height": BOTTOM - TOP})
        browser.close()
    picture = cv2.imdecode(np.frombuffer(taken, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    height = round(picture.shape[0] * SHOWN / WIDTH)
    small = cv2.resize(picture, (SHOWN, height), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(OUT), small, [cv2.IMWRITE_JPEG_QUALITY, 90, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111])
    print(f"{OUT.name}: {OUT.stat().st_size // 1024} KiB", file=sys.stderr)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
