"""The last lines of a line-scan camera's frame, judged once more above the next one.

The camera cuts a web where it likes, and a defect on the border of two frames is half in each: perhaps too little of it
to be seen in either.  With the last ``n`` lines above the next frame every defect of up to ``n`` lines is whole in one
of the two.  What lies in those lines alone and was reported is not reported again; a detection that reaches from them
into the new lines is, since it makes this frame defective too, and is marked as going on, so that it counts once.

What lies at one place is told by cells: two scratches whose boxes cross are two.  A detector has no cells, and there
boxes have to do.  The pipeline owns one; the judge asks it before it decides.  It keeps ``n`` lines and the detections
of one frame.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.arrays import Array, Bools, Image, Ints
from edge_sdk.detections import Detections, Question
from edge_sdk.errors import RangeError
from edge_sdk.frames import Frame
from edge_sdk.labels import Thresholds

__all__ = ["Overlap", "Told"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Told:
    """What is new on a frame."""

    detections: Detections
    """To be reported."""
    continued: tuple[int, ...]
    """Those of them that the frame before reported in part, or as uncertain."""
    again: Detections
    """What the frame before has reported already."""

    def new_questions(self, asked: tuple[Question, ...]) -> tuple[Question, ...]:
        """Without those about what was reported before."""
        cells, classes = self.again.cells[:, 1:], self.again.classes[self.again.cells[:, 0]]

        def old(one: Question) -> bool:
            return bool(((classes == one.class_id) & (cells == one.cells[0]).all(axis=1)).any())

        return tuple(one for one in asked if not old(one))


class Overlap:
    """Lines that two successive frames share.  Frames of one camera in their order; not for two threads at once.

    A frame follows another where its index is the next, nothing was lost between them and both are equally wide.  Else
    nothing is carried over: lines that were never seen cannot be.

    Args:
        lines: How many, n.

    Raises:
        RangeError: Fewer than one.
    """

    def __init__(self, lines: int) -> None:
        if lines < 1:
            raise RangeError(f"overlap_lines is {lines}; give 1 line or more, or leave it out")
        self._lines = lines
        self._complained = False
        self.forget()

    def forget(self) -> None:
        """What comes next begins anew: a camera fault, or a frame that was no photograph."""
        self._last: tuple[str, int] | None = None
        self._repeated = 0
        self._tail: Image = np.zeros((0, 0, 3), np.uint8)
        self._height = 0
        self._above = 0
        self._reported = Detections.none()
        self._known = Detections.none()
        self._model = ""

    @property
    def repeated(self) -> int:
        """Lines on top of the frame that ``extended`` gave last."""
        return self._repeated

    def extended(self, frame: Frame) -> Frame:
        """The frame with the lines before it on top, where it follows the last one."""
        last, this = self._last, (frame.camera, frame.index)
        follows = (
            last is not None
            and frame.follows
            and this == (last[0], last[1] + 1)
            and frame.pixels.shape[1] == self._tail.shape[1]
        )
        if this == last and not self._complained:
            self._complained = True
            log.warning(
                "two frames have the same index, so no lines are carried over; count index up by one a frame",
                extra={"camera": frame.camera, "index": frame.index},
            )
        if not follows:
            self.forget()
        self._above = self._height - len(self._tail)
        shift = np.array([0, self._above] * 2, np.float32)
        self._known = replace(self._reported, boxes=self._reported.boxes - shift)
        self._repeated = len(self._tail)
        pixels = np.concatenate([self._tail, frame.pixels]) if self._repeated else frame.pixels
        # nothing is reported of this frame until it is judged
        self._reported = Detections.none()
        self._tail, self._height = pixels[-self._lines :].copy(), len(pixels)
        self._last = this
        return replace(frame, pixels=pixels)

    def told(
        self, found: Detections, thresholds: Thresholds, *, model: str, near: int, of_cells: bool = False
    ) -> Told:
        """What of a frame's detections is to be reported.

        A detection in the repeated lines alone is left out where the frame before reported one of its class at that
        place.  Where that was uncertain and this is defective it is reported, and marked like one that goes on.

        Args:
            found: On the frame that ``extended`` gave last.
            thresholds: That they were found with.
            model: Id of the bundle; another one's detections are not compared.
            near: Pixels that the ends of two pieces of one defect may lie apart: a cell of the network.
            of_cells: Whether the detections are groups of such cells, from the frame's top left, which say where a
                defect lies; else their boxes do.
        """
        known = self._known if model == self._model else Detections.none()
        self._reported, self._model = found, model
        if not len(known) or not len(found):
            return Told(found, (), Detections.none())
        old = np.asarray(found.boxes[:, 3] <= self._repeated)
        on, by = (self._of_cells if of_cells else self._of_boxes)(found, known, near)
        sure = thresholds.defective_from[found.classes]
        no_worse = (found.confidence < sure)[:, None] | (known.confidence[None] >= sure[:, None])
        again = old & (on & no_worse).any(axis=1)
        going_on = np.asarray((on | (by & ~old[:, None])).any(axis=1))
        kept = np.flatnonzero(~again)
        continued = tuple(int(n) for n in np.flatnonzero(going_on[kept]))
        return Told(found[kept], continued, found[np.flatnonzero(again)])

    def _of_boxes(self, found: Detections, known: Detections, near: int) -> tuple[Bools, Bools]:
        """``(D, E)`` twice, of one class: whether boxes lie on each other; whether they are near and at the border."""
        same = found.classes[:, None] == known.classes[None]
        # a border hides what lies at it: what was reported may end before it and yet be a part of what is whole now
        open_ = known.boxes[:, 3] >= self._repeated - near
        return same & _meet(found, known, 0), same & _meet(found, known, near) & open_

    def _of_cells(self, found: Detections, known: Detections, cell: int) -> tuple[Bools, Bools]:
        """The same by cells.  What is there again needs no other end: nothing else goes on from it by being near."""
        on = _share(found, known, known.cells, above=self._above, cell=cell, reach=0)
        ends = (known.cells[:, 1] + 2) * cell - self._above >= self._repeated
        by = _share(found, known, known.cells[ends], above=self._above, cell=cell, reach=1)
        return on, by & ~on.any(axis=0)


def _meet(found: Detections, known: Detections, near: int) -> Bools:
    """``(D, E)``: whether two boxes lie on each other, or less than so many pixels apart."""
    one, other = found.boxes[:, None], known.boxes[None]
    apart = np.maximum(one[..., :2], other[..., :2]) - np.minimum(one[..., 2:], other[..., 2:])
    return np.asarray((apart < near).all(axis=-1))


def _share(found: Detections, known: Detections, cells: Ints, *, above: int, cell: int, reach: int) -> Bools:
    """``(D, E)``: whether cells of one class lie on each other, or with a reach of 1 less than a cell apart.

    The two frames' cells lie alike across, but not down: ``above`` pixels are no multiple of a cell, and a cell of the
    frame before lies on two of this one then.  A cell is in one detection of its class at most, so it is looked up.

    Args:
        found: D detections on this frame.
        known: E detections on the frame before.
        cells: Those of theirs that count.
        above: Lines of the frame before that this one does not show.
        cell: Side of a cell, pixels.
        reach: 0 or 1.
    """
    meet = np.zeros((len(found), len(known)), np.bool_)
    up = -(-above // cell)
    theirs = cells[cells[:, 1] >= up - 1 - reach]
    if not len(theirs):
        return meet
    low, downs = theirs[:, 1] - up, range(-reach, (above % cell > 0) + reach + 1)
    mine = found.cells[found.cells[:, 1] <= low.max() + downs[-1]]
    # class, row and column as one number, with a border so that no row runs over into the next
    columns = int(max(mine[:, 2].max(initial=0), theirs[:, 2].max())) + 3
    rows = int(low.max()) + 6

    def numbers(classes: Ints, row: Ints, column: Ints) -> Array:
        return np.asarray((classes.astype(np.int64) * rows + row + 3) * columns + column + 1)

    taken = numbers(found.classes[mine[:, 0]], mine[:, 1], mine[:, 2])
    order = np.argsort(taken)
    taken, owner = taken[order], mine[order, 0]
    wanted = numbers(known.classes[theirs[:, 0]], low, theirs[:, 2])
    for step in (down * columns + across for down in downs for across in range(-reach, reach + 1)):
        at = np.searchsorted(taken, wanted + step)
        hit = np.searchsorted(taken, wanted + step, side="right") > at
        meet[owner[at[hit]], theirs[hit, 0]] = True
    return meet
