"""The health page in real Chromium, on a phone and at a desk, light and dark: nothing cut off, nothing fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.house.places import ROOT
from tests.requirements import need
from tests.training.signs import signs
from training.health import Health
from training.health_page import health_page
from training.health_rules import checked, judged
from training.health_signs import Seen
from training.rules import Scores

pytestmark = [pytest.mark.system, pytest.mark.slow]

CHROMIUM = Path(shutil.which("chromium") or "/usr/bin/chromium")
METHODS = ("source", "adabn", "mmd", "coral", "dann", "adda")
SHOTS = ROOT / "build" / "health-page"


def scores(seed: int, shift: float) -> Scores:
    chance = np.random.default_rng(seed)
    logits = chance.normal(shift, 2, (50, 1, 4, 4)).astype(np.float32)
    return Scores(logits, chance.normal(shift, 1, (50, 8)).astype(np.float32), np.ones((50, 4, 4), bool))


@pytest.fixture(scope="module")
def page() -> str:
    """The longest one: every method, most limits broken, every caution, gradients."""
    ill = {"positive_rate_new": 1.0, "unsure_new": 0.9, "balanced_accuracy": 0.5, "hit_rate": 0.7, "pictures_new": 12}
    pulled = {"supervised": 0.01, "discriminator": 1.5}
    all_signs = {name: signs(name, **ill, gradients=pulled) for name in METHODS}
    return health_page(
        Health(
            chosen="adda",
            decision="adda brings the scores on the new line from 3.04 to 0.91 of the original's spread (noise 0.62)",
            verdict=judged("adda", all_signs),
            signs=all_signs,
            checks={name: checked(one, signs()) for name, one in all_signs.items()},
            cautions=("Only 12 unlabelled pictures of the new line were looked at.",) * 3,
            seen={name: Seen(scores(0, -3), scores(n, n - 3.0)) for n, name in enumerate(METHODS)},
            units=(tuple(map(str, range(50))), tuple(map(str, range(50, 100)))),
        )
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    need("chromium", found=CHROMIUM.exists(), apt="chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_and_asks_nobody(page: str, browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "health.html").write_text(page)
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    shown = context.new_page()
    asked: list[str] = []
    troubles: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.on("console", lambda said: troubles.append(said.text))
    shown.on("pageerror", lambda error: troubles.append(str(error)))
    shown.goto((tmp_path / "health.html").as_uri())
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert [url for url in asked if not url.startswith("file:")] == [] and troubles == []
    assert shown.inner_text("h1").startswith("Do not ship: adda finds 21 of the 30 defective pictures")
    ground, ink = shown.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    bright = [sum(map(int, value[4:-1].split(","))) for value in (ground, ink)]
    assert (bright[0] < bright[1]) == (scheme == "dark")
    drawn = shown.evaluate(
        "[...document.querySelectorAll('figure svg')].map(s => s.getBoundingClientRect()).map(r => [r.width, r.height])"
    )
    assert len(drawn) == 4 and all(wide > 200 and tall > 80 for wide, tall in drawn)
    SHOTS.mkdir(parents=True, exist_ok=True)
    shown.screenshot(path=str(SHOTS / f"{width}-{scheme}.png"), full_page=True)
    context.close()
