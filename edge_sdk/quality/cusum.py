"""Do more, or fewer, frames have a detection than used to?  Two cumulative sums over a stream of yes and no.

Symbols: ``p0`` the usual share of frames with a detection, ``p1`` the share that is looked for, ``y_t`` in {0, 1};

    ``S_t = min(2 h, max(0, S_(t-1) + y_t log(p1 / p0) + (1 - y_t) log((1 - p1) / (1 - p0))))``

and an alarm where ``S_t >= h``.

One sum looks for a rise, one for a fall.  While nothing changes, the mean number of frames to a false alarm of a sum is
at least ``exp(h)``; the cap lets an alarm end some time after the rate is back.  ``p0`` is itself an estimate from so
many pictures: the rise starts from the upper end of its 95 % interval, the fall from the lower one.

Reference:
    Page, Continuous inspection schemes, Biometrika 1954; the bound: Lorden, Procedures for reacting to a change in
    distribution, Annals of Mathematical Statistics 1971, theorem 2.  ``p1`` and the learned ``p0`` are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["LEARNT", "RateWatch"]

LEARNT = 320
"""Frames that ``p0`` is learned on where the bundle does not say it."""
BETWEEN = 100_000
"""Frames of an unchanged line between two false alarms of a sum, at least, on the average."""
RISE, FALL = 3.0, 1 / 3
"""Times ``p0`` that are looked for; a rise also by at least ``STEP``."""
STEP = 0.1
RECENT = 1 / 160
"""Weight of the newest frame in the share that is told."""


class RateWatch:
    """The two sums.

    Args:
        usual: ``p0`` in [0, 1]; ``None``: learned on the first ``LEARNT`` frames.
        of: How many pictures it was counted on.
    """

    def __init__(self, usual: float | None = None, *, of: int = LEARNT) -> None:
        self._told = None if usual is None else (usual, max(1, of))
        self._frames = self._yes = 0
        self._up = self._down = 0.0
        self._recent: float | None = usual

    @property
    def usual(self) -> float | None:
        """``p0``; ``None`` while it is being learned."""
        if self._told is not None:
            return self._told[0]
        return None if self._frames < LEARNT else self._yes / self._frames

    @property
    def alarm(self) -> str:
        """``"rose"``, ``"fell"`` or nothing."""
        limit = math.log(BETWEEN)
        return "rose" if self._up >= limit else "fell" if self._down >= limit else ""

    @property
    def sentence(self) -> str:
        """What is said of an alarm; nothing without one."""
        if not self.alarm or self.usual is None or self._recent is None:
            return ""
        return f"the share of frames with a detection {self.alarm} from {self.usual:.1%} to {self._recent:.1%}"

    def see(self, detected: bool) -> None:
        """Count one frame."""
        usual = self.usual
        if usual is None:
            self._frames += 1
            self._yes += detected
            self._recent = self._yes / self._frames
            return
        limit = 2 * math.log(BETWEEN)
        low, high = _between(usual, LEARNT if self._told is None else self._told[1])
        above = min(0.99, max(RISE * high, high + STEP))
        if high < above:
            self._up = min(limit, max(0.0, self._up + _step(detected, high, above)))
        self._down = min(limit, max(0.0, self._down + _step(detected, low, FALL * low)))
        self._recent = (self._recent or 0.0) + RECENT * (detected - (self._recent or 0.0))

    def document(self) -> dict[str, Any]:
        """What ``resume`` goes on from, ready for JSON."""
        return {
            "frames": self._frames,
            "yes": self._yes,
            "up": self._up,
            "down": self._down,
            "recent": self._recent,
        }

    def resume(self, said: Mapping[str, Any]) -> None:
        """Go on from what ``document`` gave.

        Raises:
            KeyError: Something is missing.
            ValueError: A number is none.
            OverflowError: A count is infinite.
        """
        recent = said["recent"]
        frames, yes, up, down = int(said["frames"]), int(said["yes"]), float(said["up"]), float(said["down"])
        if not (0 <= yes <= frames and math.isfinite(up) and math.isfinite(down)):
            raise ValueError("its counts contradict each other")
        self._frames, self._yes, self._up, self._down = frames, yes, up, down
        self._recent = None if recent is None else float(recent)


def _between(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, kept off 0 and 1."""
    z2 = 1.96**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    reach = 1.96 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return min(0.95, max(0.001, centre - reach)), max(0.002, min(0.98, centre + reach))


def _step(detected: bool, usual: float, looked_for: float) -> float:
    """The log-likelihood ratio of one frame."""
    return math.log(looked_for / usual) if detected else math.log((1 - looked_for) / (1 - usual))
