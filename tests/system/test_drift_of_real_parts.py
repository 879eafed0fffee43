"""The watch for drift behind a commissioned scorer, on photographs of real parts that it was not made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np
import pytest

from edge_sdk.arrays import Image
from edge_sdk.bundles import Bundle, open_bundle
from edge_sdk.frames import Frame
from edge_sdk.judge import Judge
from edge_sdk.quality.datasets import load_dataset
from edge_sdk.quality.drift import NEEDED, STARVED
from edge_sdk.runners import open_runner
from edge_sdk.watching import DriftWatch
from tests.house.places import ROOT
from tests.requirements import need
from tests.training.scorers.commissioning import commission
from training.recipe import pretrained_weights

pytestmark = pytest.mark.slow

SCREWS = ROOT.parent / "shared" / "data" / "mvtec_screw"
GIVEN = 130
"""Good parts to commission from; the others are the line's next ones."""
WINDOWS = 8
"""Of the watch, of a stream that shows the others by turns, in another order each time."""
FRAMES = NEEDED * STARVED * 32
"""At most: where a change stops nearly every part a window waits so long for frames that pass."""


def lamp(image: Image) -> Image:
    """A fifth less light, as from a lamp that ages."""
    return np.asarray(np.rint(image * 0.8), np.uint8)


def blur(image: Image) -> Image:
    """Out of focus by a standard deviation of two pixels of the camera, one of the network's input."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 2.0), np.uint8)


def warm(image: Image) -> Image:
    """A lamp of another colour, equally bright on the whole."""
    return np.asarray(np.clip(np.rint(image * np.array([0.85, 1.0, 1.12])), 0, 255), np.uint8)


CHANGES: dict[str, Callable[[Image], Image]] = {"darker": lamp, "blurred": blur, "colour": warm}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, list[Image]]:
    need("../shared/data/mvtec_screw", found=SCREWS.is_dir())
    need("the ImageNet weights of MobileNetV2", found=pretrained_weights() is not None)
    place = tmp_path_factory.mktemp("screws")
    good = [one for one in load_dataset(SCREWS).samples if one.healthy]
    chance = np.random.default_rng(100)
    order = chance.permutation(len(good))
    (place / "good").mkdir()
    for n in order[:GIVEN]:
        (place / "good" / good[n].path.name).with_stem(f"{n:03d}").symlink_to(good[n].path)
    words = ("--bundle", place / "screws-1.bundle", "--side-px", 256)
    code, _, talk = commission(place / "good", *words)
    assert code == 0, talk
    others = [np.asarray(cv2.imread(str(good[n].path)), np.uint8) for n in order[GIVEN:]]
    return open_bundle(place / "screws-1.bundle", trust="unsigned"), others


def watched(bundle: Bundle, images: list[Image], change: Callable[[Image], Image]) -> dict[str, Any]:
    """What the watch says when the station has judged the stream."""
    path, role = bundle.model()
    judge = Judge(bundle.manifest, open_runner(path), model=bundle.id, rendering=role)
    watch = DriftWatch(bundle.manifest, rendering=role)
    chance, now = np.random.default_rng(101), datetime.now(timezone.utc)
    order = np.concatenate([chance.permutation(len(images)) for _ in range(-(-FRAMES // len(images)))])[:FRAMES]
    try:
        for index, n in enumerate(order):
            frame = Frame(change(images[n]), "camera", index, now)
            watch.offer(judge.inspect(frame, taken_ns=0))
            assert watch.drain(10)
            if watch.snapshot().get("windows") == WINDOWS:
                break
        return watch.snapshot()
    finally:
        watch.close()
        judge.close()


def test_an_unchanged_line_alarms_nobody_and_a_changed_one_is_named(line: tuple[Bundle, list[Image]]) -> None:
    bundle, images = line
    found = {name: watched(bundle, images, change) for name, change in {"same": lambda one: one, **CHANGES}.items()}
    assert (found["same"]["state"], found["same"]["over"]) == ("unchanged", 0)
    for name in CHANGES:
        assert found[name]["over"] >= 3, found[name]
        assert name in found[name]["sentence"], found[name]
        assert found[name]["state"] in ("input changed", "alarm"), found[name]
    # it moves the scores, so the thresholds no longer hold
    assert found["blurred"]["state"] == "alarm"
    assert found["blurred"]["detected"] > found["same"]["detected"]
