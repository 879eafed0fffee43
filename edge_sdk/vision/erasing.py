"""What to do where a resize would erase the smallest defect: what would keep it, and what that costs here.

The workstation's commands ask for the price; a station does not, whose frames may have a new length each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.arrays import Image
from edge_sdk.vision.cuts import STEP
from edge_sdk.vision.preprocess import LEAST_KEPT, PreprocessSpec, geometry, kept_of_defect
from edge_sdk.vision.resampling import Sampling
from edge_sdk.vision.tiles import pictures_of_frame, tiles_of

__all__ = ["Alternative", "alternatives", "loss", "refusal"]

ROUNDS = 4
"""Timed at most: the first one pays for fresh memory."""
BUDGET_S = 0.05
"""No further round once one alternative has taken so long."""
OVERLAP = 64
"""Pixels that proposed tiles share: room for a defect and for what a small network looks at around it."""
WORDS: dict[Sampling, str] = {
    "area": "sampling: area",
    "filtered": "sampling: filtered (a mean before linear)",
    "linear": "sampling: linear",
}


@dataclass(frozen=True)
class Alternative:
    """Another preprocessing of the same frame that keeps the defect."""

    spec: PreprocessSpec
    words: str
    kept: float
    """Of the smallest defect's contrast, in [0, 1]."""
    ms: float
    """Of one frame's resize on this machine, one thread or as many as OpenCV takes."""
    work: float
    """Times as many pixels for the network."""

    @property
    def sentence(self) -> str:
        """What it is, what it keeps and what it costs."""
        more = f", {self.work:.1f} times the network's work" if self.work > 1.05 else ""
        return f"{self.words} keeps {100 * self.kept:.0f} % at {self.ms:.1f} ms a frame{more}"


def alternatives(spec: PreprocessSpec, height: int, width: int) -> tuple[Alternative, ...]:
    """What would keep the smallest defect on a frame of this size, each measured here and now.

    Args:
        spec: Says how small the smallest defect is.
        height: Of the frame, pixels.
        width: Of the frame.

    Returns:
        Those that leave ``LEAST_KEPT`` of its contrast or more, the cheapest for the network first.
    """
    frame = np.full((height, width, 3), 114, np.uint8)
    found = []
    for other, words in _others(spec, height, width):
        kept = kept_of_defect(other, height, width)
        if kept >= LEAST_KEPT:
            inputs = len(tiles_of(other, height, width))
            work = inputs * other.width * other.height / (spec.width * spec.height)
            found.append(Alternative(other, words, kept, _ms(frame, other), work))
    return tuple(sorted(found, key=lambda one: (one.work, one.ms)))


def loss(spec: PreprocessSpec, height: int, width: int) -> str:
    """What is refused and why, without what would be better; nothing is measured."""
    place = geometry(spec, height, width)
    kept = kept_of_defect(spec, height, width)
    return (
        f"a defect of {spec.defect_px} px on a frame of {width} x {height} would keep {100 * kept:.0f} % of its "
        f"contrast at {place.inner_width} x {place.inner_height} ({spec.sampling or 'area'}), so it could be missed"
    )


def refusal(spec: PreprocessSpec, height: int, width: int) -> str:
    """The sentence that refuses a resize, with what would keep the defect and what that costs here and now."""
    ways = [one.sentence for one in alternatives(spec, height, width)]
    advice = "; ".join(ways) if ways else "give a larger input, or a larger defect_px if so small a one may be missed"
    return f"{loss(spec, height, width)}; {advice}"


def _others(spec: PreprocessSpec, height: int, width: int) -> Iterator[tuple[PreprocessSpec, str]]:
    now: Sampling = spec.sampling or "area"
    rules: tuple[Sampling, ...] = ("area", "filtered")
    for sampling in rules:
        if sampling != now:
            yield replace(spec, sampling=sampling), WORDS[sampling]
    if spec.tile_overlap_px is not None:
        if spec.shrink:
            yield replace(spec, shrink=None), "tiles without shrink"
        return
    place = geometry(spec, height, width)
    # of the ratios that are whole the largest that keeps it: with a whole ratio no pixel is shared unevenly
    for ratio in range(int(np.ceil(max(1 / place.scale_x, 1 / place.scale_y))), 0, -1):
        if width % ratio or height % ratio:
            continue
        inner = width // ratio, height // ratio
        across, down = (STEP * -(-side // STEP) for side in inner)
        if across * down <= spec.width * spec.height:
            continue
        larger = replace(spec, width=across, height=down)
        at = geometry(larger, height, width)
        if (at.inner_width, at.inner_height) != inner:
            larger = replace(spec, width=inner[0], height=inner[1])
        if kept_of_defect(larger, height, width) >= LEAST_KEPT:
            yield larger, f"an input of {larger.width} x {larger.height} (a whole ratio of {ratio})"
            break
    if min(spec.width, spec.height) >= OVERLAP + STEP:
        words = f"tiles of {spec.width} x {spec.height} (tile_overlap_px: {OVERLAP})"
        yield replace(spec, tile_overlap_px=OVERLAP), words


def _ms(frame: Image, spec: PreprocessSpec) -> float:
    took: list[float] = []
    while len(took) < ROUNDS and sum(took) < BUDGET_S:
        start = time.perf_counter()
        for _ in pictures_of_frame(frame, spec):
            pass
        took.append(time.perf_counter() - start)
    return min(took) * 1e3
