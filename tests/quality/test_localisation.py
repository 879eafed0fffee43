"""AU-PRO against a slow version written from its definition."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_sdk.arrays import Array
from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.quality.localisation import au_pro


def slowly(maps: list[Array], truth: list[Array], limit: float) -> float:
    """A point of the curve for every distance there is, defect by defect."""
    healthy = sum(int((mask == 0).sum()) for mask in truth)
    points = [(0.0, 0.0)]
    for threshold in sorted({float(v) for one in maps for v in one.ravel()}, reverse=True):
        covered, alarms = [], 0
        for one, mask in zip(maps, truth, strict=True):
            above = one >= threshold
            alarms += int((above & (mask == 0)).sum())
            count, regions = cv2.connectedComponents((mask != 0).astype(np.uint8), connectivity=8)
            covered += [above[regions == number].mean() for number in range(1, count)]
        points.append((alarms / healthy, float(np.mean(covered))))
    area, (x0, y0) = 0.0, points[0]
    for x, y in points[1:]:
        if x > limit:
            y = y0 + (y - y0) * (limit - x0) / (x - x0)
            x = limit
        area += (x - x0) * (y + y0) / 2
        if x == limit:
            break
        x0, y0 = x, y
    return area / limit


def drawn(seed: int, *, ties: bool) -> tuple[list[Array], list[Array]]:
    chance = np.random.default_rng(seed)
    maps, truth = [], []
    for number in range(4):
        mask = np.zeros((14, 11 + number), np.uint8)
        if number:
            mask[2:4, 3:9] = 1
            mask[9, 1 : 1 + number] = 255
        noise = chance.normal(size=mask.shape) + 1.2 * (mask > 0)
        maps.append(np.round(noise, 0 if ties else 6))
        truth.append(mask)
    return maps, truth


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("limit", [0.3, 0.05, 1.0])
def test_it_agrees_with_the_definition(limit: float, ties: bool) -> None:
    maps, truth = drawn(102, ties=ties)
    assert au_pro(maps, truth, limit=limit) == pytest.approx(slowly(maps, truth, limit), abs=1e-9)


def test_a_small_defect_weighs_as_much_as_a_large_one() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[0:10, 0:10] = 1
    mask[15, 15] = 1
    only_large, only_small = (mask * (np.arange(400).reshape(20, 20) < 300)), np.zeros((20, 20))
    only_small[15, 15] = 1
    first, second = (au_pro([one.astype(float)], [mask]) for one in (only_large, only_small))
    assert first == pytest.approx(second, abs=1e-9)


def test_perfect_is_one_and_no_defect_is_no_number() -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 1
    assert au_pro([mask.astype(float)], [mask]) == pytest.approx(1.0)
    assert np.isnan(au_pro([np.zeros((8, 8))], [np.zeros((8, 8))]))


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"a map is \(4, 4\) and its truth \(5, 4\); give both at the same size"):
        au_pro([np.zeros((4, 4))], [np.zeros((5, 4))])
    with pytest.raises(ShapeError, match="1 maps for 0 truths"):
        au_pro([np.zeros((4, 4))], [])
    with pytest.raises(RangeError, match="limit is 0; give a share of the healthy pixels"):
        au_pro([], [], limit=0)
    mask = np.eye(4)
    with pytest.raises(RangeError, match="a distance is NaN or infinite; give finite maps"):
        au_pro([np.full((4, 4), np.nan)], [mask])
