"""So many questions a shift, spent on the frames that are worth most, without knowing what is still to come."""

from __future__ import annotations

from collections import deque

import numpy as np

from edge_sdk.clock import Clock

__all__ = ["Budget"]

SAVED = 0.25
"""Share of a shift's questions that can be saved up, and so the most that a burst can take besides the steady part."""
DRAIN = 0.125
"""Of a shift: within that time what is saved up is meant to be spent."""
MEMORY = 0.25
"""Of a shift: what was seen longer ago hardly counts when frames are ranked."""
PLENTY = 0.75
"""Of what can be saved up: above it every frame is taken, since what comes in now would be lost.  So it is when the
station starts and has nothing to rank among, and after a burst, against which nothing later would rank."""
STEPS = 2048
"""Values in [0, 1] are ranked in so many steps."""


class Budget:
    """An adaptive quantile in front of a token bucket.  Ours.

    A frame is taken if frames that rank higher, at the rate they came lately, would not use up the budget alone; so the
    threshold rises when much is offered and falls when little is.  The bucket fills steadily and holds a
    quarter of a shift's questions: a burst, such as a failing lamp, takes that quarter and no more than its own time's
    part.  Whatever happens, no span as long as a shift sees more questions than the budget.  Nothing ever
    waits: what is not taken is gone, and the caller counts it.

    The control sample is drawn outside of the budget, which neither counts nor delays it.
    """

    def __init__(self, questions: int, *, shift_h: float, clock: Clock) -> None:
        """
        Args:
            questions: A shift; 0 asks nothing.
            shift_h: Hours of a shift.
            clock: Tells how fast the bucket fills; the wall clock plays no part.
        """
        self._size = questions
        self._shift_ns = shift_h * 3600e9
        self._clock = clock
        self._spent: deque[tuple[int, int]] = deque()
        """When and how many, within the last shift."""
        self._room = max(1.0, SAVED * questions)
        self._saved = self._room
        self._offered = np.zeros(STEPS)
        """Questions by the step of their frame's value, fading."""
        self._begun_ns = self._at_ns = clock.monotonic_ns()

    @property
    def left(self) -> float:
        """Questions that this shift has left, however fast they may be asked; may be read by another thread."""
        since = self._clock.monotonic_ns() - self._shift_ns
        return self._size - sum(count for when, count in tuple(self._spent) if when > since)

    def affords(self, questions: int, value: float) -> bool:
        """Whether a frame of this value, in [0, 1], with so many questions, may be queued now."""
        self._pass_time()
        step = min(STEPS - 1, max(0, int(value * STEPS)))
        higher = float(self._offered[step + 1 :].sum())
        self._offered[step] += questions
        # the last frame may overdraw what is saved, else frames with one question would starve those with three
        if self._saved <= 0 or questions > self.left:
            return False
        if self._saved > PLENTY * self._room:
            return True
        per_ns = self._size / self._shift_ns + self._saved / (DRAIN * self._shift_ns)
        # as much time as the faded counts stand for
        memory = MEMORY * self._shift_ns
        span = memory * -np.expm1(-(self._at_ns - self._begun_ns) / memory)
        return bool(higher <= per_ns * span)

    def spend(self, questions: int) -> None:
        """Take from the budget, once the frame is queued."""
        self._pass_time()
        self._saved -= questions
        self._spent.append((self._at_ns, questions))

    def _pass_time(self) -> None:
        now = self._clock.monotonic_ns()
        gone = now - self._at_ns
        self._at_ns = now
        self._saved = min(self._room, self._saved + gone * self._size / self._shift_ns)
        self._offered *= np.exp(-gone / (MEMORY * self._shift_ns))
        while self._spent and self._spent[0][0] <= now - self._shift_ns:
            self._spent.popleft()
