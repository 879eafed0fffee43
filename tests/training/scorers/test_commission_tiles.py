"""A large part with a small defect: lost where the picture is made to fit, found where it is cut into tiles."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import cv2
import numpy as np
import pytest

from calibration.pictures import pictures_in
from edge_sdk import Verdict
from edge_sdk.arrays import Image
from edge_sdk.bundles import open_bundle
from edge_sdk.frames import Frame
from edge_sdk.judge import Judge
from edge_sdk.runners import open_runner
from tests.training.scorers.commissioning import commission
from tests.training.scorers.normal_parts import write_trunk
from training.scorers.distances import distances_of, scorer_of
from training.scorers.fitting import ScorerRecipe, fit_scorer
from training.scorers.normals import normals_in

pytestmark = pytest.mark.slow

SIDE, DEFECT = 1024, 6
WHERE = ((300, 400), (511, 511), (700, 223), (90, 900))
"""Top left corners of the defects, one of them where four tiles meet."""


def part(seed: int) -> Image:
    """A plate with holes and a groove, which lies alike but for a pixel or two, under a grainy camera."""
    chance = np.random.default_rng(seed)
    grey = np.full((SIDE, SIDE), 140, np.float32)
    down, across = (int(one) for one in chance.integers(-1, 2, 2))
    for y, x, radius in ((200, 250, 30), (800, 260, 45), (500, 760, 60), (820, 800, 20)):
        cv2.circle(grey, (x + across, y + down), radius, 70.0, -1, cv2.LINE_AA)
    cv2.line(grey, (100 + across, 600 + down), (900 + across, 640 + down), 100.0, 5, cv2.LINE_AA)
    grey += chance.normal(0, 4, (SIDE, SIDE)).astype(np.float32)
    return np.repeat(np.clip(grey, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def spoiled(seed: int, where: tuple[int, int]) -> Image:
    """The part with a chip of 6 x 6 pixels."""
    image, (y, x) = part(seed), where
    chip = np.where(np.indices((DEFECT, DEFECT)).sum(axis=0) % 4 < 2, 5, 250)
    image[y : y + DEFECT, x : x + DEFECT] = chip[..., None]
    return image


def verdicts(bundle: Path, role: str, images: list[Image]) -> list[tuple[Verdict, np.ndarray]]:
    opened = open_bundle(bundle, trust="unsigned")
    path = opened.file(role)
    assert path is not None
    judge = Judge(opened.manifest, open_runner(path), model=opened.id, rendering=role)
    now = datetime.now(timezone.utc)
    found = [judge.inspect(Frame(image, "test", n, now), taken_ns=0) for n, image in enumerate(images)]
    judge.close()
    return [(one.verdict, one.detections.boxes) for one in found]


def test_tiles_find_what_a_resize_loses_through_the_stations_verdict(tmp_path: Path) -> None:
    write_trunk(tmp_path / "trunk")
    (tmp_path / "good").mkdir()
    for number in range(20):
        cv2.imwrite(str(tmp_path / "good" / f"{number:02d}.png"), part(160 + number))
    good = [part(200 + number) for number in range(3)]
    bad = [spoiled(210 + n, where) for n, where in enumerate(WHERE)]

    checkpoint, said, _ = fit_scorer(normals_in(tmp_path / "good"), ScorerRecipe(), lent=tmp_path / "trunk")
    assert any("a defect below about 16 px may be lost" in note for note in checkpoint.data["notes"])
    for n, image in enumerate(bad):
        cv2.imwrite(str(tmp_path / f"{n}.png"), image)
    lost = distances_of(scorer_of(checkpoint), pictures_in(tmp_path)[: len(bad)], checkpoint.preprocess).highest
    assert (lost < said.highest.max()).sum() >= 3

    bundle = tmp_path / "tiles-1.bundle"
    flags = ("--from", tmp_path / "trunk", "--alpha", 0.1, "--defect-px", DEFECT, "--json")
    code, out, talk = commission(tmp_path / "good", "--bundle", bundle, *flags)
    assert code == 0, talk
    told = json.loads(out)
    assert told["tiles"] == 25 and any("cut into 25 tiles of 256 px" in note for note in told["notes"])
    manifest = open_bundle(bundle, trust="unsigned").manifest
    assert manifest.preprocess.tile_overlap_px == 64 and manifest.preprocess.defect_px == DEFECT
    assert told["judged"] == told["threshold_from"] == 10
    for role in set(told["graphs"]) - {"int8-trt"}:
        passed = [verdict for verdict, _ in verdicts(bundle, role, good)]
        assert passed.count(Verdict.PASSED) >= 2, role
        for (verdict, boxes), (y, x) in zip(verdicts(bundle, role, bad), WHERE, strict=True):
            assert verdict is not Verdict.PASSED, role
            # in the frame's own pixels, once, whichever tile saw it
            left, top, right, bottom = boxes[0]
            assert left <= x + DEFECT and right >= x and top <= y + DEFECT and bottom >= y
    page = (tmp_path / "tiles-1" / "page.html").read_text()
    assert "cut into 25 tiles" in page
