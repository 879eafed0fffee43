"""Has the input changed?  Statistics of what the network computes anyway, without a label.

The station keeps running sums over windows of W frames that *passed* and compares each window with the line's
reference, made when the bundle was packed of pictures that passed.  Symbols:

- ``x_t`` ``(d,)``: the pooled feature of frame t (or, of a graph without one, a summary of its confidence map);
- ``mu``, ``sd`` ``(d,)``: mean and standard deviation of the reference's pictures; ``m`` ``(d,)`` the window's mean;
- ``T = W mean_j ((m_j - mu_j) / sd_j)^2``: about 1 while nothing changed;
- ``h``: the threshold, the ``1 - alpha`` quantile of T over windows drawn from the reference itself.

Frames with a detection are left out, since a network made to see defects has features that leap at one: a window
with three defects in place of two would drown what a blur does, and more defects are no change of the input.  They
are counted by a watch of their own (``quality.cusum``), and where next to nothing passes, that counts as changed.

The input counts as changed where 3 of the last 5 windows lie above h.  That alone is harmless as often as not, so it
is an alarm only where the scores moved too: thresholds are quantiles of the pictures' scores, and those are what a
changed input makes wrong.

Reference:
    Rabanser, Günnemann, Lipton, Failing loudly, NeurIPS 2019, for tests on what a trained network computes; T, its
    threshold, the rule of 3 in 5 and looking at passed frames alone are ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from edge_sdk.arrays import Floats
from edge_sdk.errors import ShapeError
from edge_sdk.quality.cusum import RateWatch
from edge_sdk.quality.drift_reference import KEPT, Reference, statistic
from edge_sdk.quality.facts import FACTS, causes

__all__ = ["NEEDED", "Drift", "State", "Watch"]

NEEDED = 3
"""Of the last ``KEPT`` windows, how many must lie above the threshold."""
STARVED = 4
"""Windows' worth of frames after which a window ends although too few of them passed."""

State = Literal["starting", "unchanged", "input changed", "detections changed", "alarm"]


@dataclass(frozen=True)
class Drift:
    """What the watch says after a window."""

    state: State
    sentence: str
    statistic: float | None
    """T of the last window; ``None`` where too few of its frames passed."""
    threshold: float
    over: int
    """Of the last 5 windows, those above the threshold."""
    score_shift: float
    """Largest change of a share in ``Reference.below``, over the last 5 windows."""
    causes: tuple[str, ...]
    detected: float
    """Share of frames with a detection over the last 5 windows."""
    windows: int
    """Whole windows seen."""


@dataclass(frozen=True)
class _Window:
    """What is kept of a window that has ended."""

    t: float | None
    below: tuple[float, ...]
    """``(Q,)`` how many of its frames that passed scored at or below each quantile."""
    passed: int
    frames: int
    facts: tuple[float, ...]
    """``(6,)`` mean over the frames that were measured."""
    measured: int

    @classmethod
    def read(cls, said: Mapping[str, Any]) -> _Window:
        """As it was kept; KeyError, TypeError, ValueError or OverflowError where it is damaged."""
        t = said["t"]
        found = cls(
            t=None if t is None else float(t),
            below=tuple(float(count) for count in said["below"]),
            passed=int(said["passed"]),
            frames=int(said["frames"]),
            facts=tuple(float(fact) for fact in said["facts"]),
            measured=int(said["measured"]),
        )
        numbers = [found.t or 0.0, *found.below, *found.facts]
        if len(found.facts) != len(FACTS) or not np.isfinite(numbers).all():
            raise ValueError("a number of it is none")
        return found


class Watch:
    """Running sums of one line: frames in, a word after each window.  Not for two threads at once.

    The memory is some vectors of d numbers, whatever the stream's length; order within a window does not matter.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.unusable = 0
        """Frames whose feature was not finite, or of another length; they are in no window."""
        self.last: Drift | None = None
        self._rate = RateWatch(reference.detected, of=reference.looked_at)
        self._windows = 0
        self._kept: deque[_Window] = deque(maxlen=KEPT)
        self._clear()

    def see(
        self, vector: Floats, score: float, *, detected: bool, facts: Floats | None = None
    ) -> Drift | None:
        """Count one frame.

        Args:
            vector: ``(d,)``.
            score: Strongest confidence, in [0, 1].
            detected: Whether the frame has a detection.
            facts: ``(6,)``, where they were measured; not every frame's need be.

        Returns:
            What is said now that a window is full; ``None`` within one.
        """
        if vector.shape != self._sum.shape or not np.isfinite(vector).all() or not np.isfinite(score):
            self.unusable += 1
            return None
        self._rate.see(detected)
        self._frames += 1
        if not detected:
            self._passed += 1
            self._sum += vector
            self._below += score <= self.reference.scores
        if facts is not None and np.isfinite(facts).all():
            self._facts += facts
            self._measured += 1
        window = self.reference.window
        if self._passed < window and self._frames < STARVED * window:
            return None
        self._close()
        return self.last

    def document(self) -> dict[str, Any]:
        """What ``resumed`` goes on from, ready for JSON: whole windows; a window under way is left out."""
        return {"windows": self._windows, "kept": [asdict(one) for one in self._kept], "rate": self._rate.document()}

    def resume(self, said: Mapping[str, Any]) -> None:
        """Go on from what ``document`` gave for the same reference.

        Raises:
            ShapeError: It is of another reference, or damaged; the watch is as it was.
        """
        try:
            kept = [_Window.read(one) for one in said["kept"]]
            rate = RateWatch(self.reference.detected, of=self.reference.looked_at)
            rate.resume(said["rate"])
            windows = int(said["windows"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ShapeError(f"the kept state of the drift watch is damaged ({error}); it starts clean") from error
        if any(len(one.below) != len(self.reference.scores) for one in kept):
            raise ShapeError("the kept state of the drift watch is of another reference; it starts clean")
        self._kept = deque(kept, maxlen=KEPT)
        self._rate, self._windows = rate, windows
        if kept:
            self.last = self._said()

    def _clear(self) -> None:
        self._frames = self._passed = self._measured = 0
        self._sum = np.zeros(len(self.reference.mean))
        self._below = np.zeros(len(self.reference.scores))
        self._facts = np.zeros(len(FACTS))

    def _close(self) -> None:
        """A window is full, or so few frames pass that it will not be."""
        mine, passed = self.reference, self._passed
        full = passed >= mine.window
        self._kept.append(
            _Window(
                t=statistic(self._sum / passed, mine.mean, mine.sd, window=passed) if full else None,
                below=tuple(self._below.tolist()),
                passed=passed,
                frames=self._frames,
                facts=tuple((self._facts / max(1, self._measured)).tolist()),
                measured=self._measured,
            )
        )
        self._windows += 1
        self._clear()
        self.last = self._said()

    def _said(self) -> Drift:
        mine, kept = self.reference, self._kept
        over = [one.t is None or one.t > mine.threshold for one in kept]
        passed, frames = sum(one.passed for one in kept), sum(one.frames for one in kept)
        starved = passed < mine.window
        shares = np.sum([one.below for one in kept], axis=0) / max(1, passed)
        shift = 1.0 if starved else float(np.abs(shares - mine.below).max())
        changed = sum(over) >= NEEDED
        state: State = "unchanged" if len(kept) >= NEEDED else "starting"
        if changed:
            state = "alarm" if shift > mine.score_threshold or self._rate.alarm else "input changed"
        elif self._rate.alarm:
            state = "detections changed"
        high = [one for one, above in zip(kept, over, strict=True) if above or not changed]
        why = self._causes(high) if state not in ("unchanged", "starting") else ()
        return Drift(
            state=state,
            sentence=self._sentence(state, why, shift),
            statistic=kept[-1].t,
            threshold=mine.threshold,
            over=sum(over),
            score_shift=shift,
            causes=why,
            detected=1 - passed / max(1, frames),
            windows=self._windows,
        )

    def _causes(self, windows: Sequence[_Window]) -> tuple[str, ...]:
        count = sum(one.measured for one in windows)
        if not count:
            return ()
        now = np.sum([np.array(one.facts) * one.measured for one in windows], axis=0) / count
        mine = self.reference
        return causes(mine.facts_mean, mine.facts_sd, now.astype(np.float32), count=count, reference=mine.n)

    def _sentence(self, state: State, why: tuple[str, ...], shift: float) -> str:
        mine, rate = self.reference, self._rate.sentence
        cause = f"the picture {' and '.join(why[:2])}"
        if state == "starting":
            return f"{len(self._kept)} of the first {NEEDED} windows of {mine.window} frames that pass were seen"
        if state == "unchanged":
            return "the input is as it was when the bundle was packed"
        if state == "detections changed":
            return f"{rate}; {cause if why else 'the input is as it was, so look at the parts first'}"
        if not why:
            cause = "brightness, colour, contrast and sharpness are as they were, so look for another product or dirt"
        if state == "input changed":
            return f"the input changed, the scores hardly: {cause}"
        signs = [rate] if rate else []
        if all(one.t is None for one in self._kept):
            signs.append("next to no frame passes any more")
        elif shift > mine.score_threshold:
            signs.append(f"{shift:.0%} of the frames that pass crossed a quantile of the reference's scores")
        return f"the input changed and the thresholds no longer hold: {cause}; {', and '.join(signs)}"
