"""The last lines of a line-scan camera's frame, judged once more above the next one.

The camera cuts a web where it likes, and a defect on the border of two frames is half in each: perhaps too little of it
to be seen in either.  With the last ``n`` lines above the next frame every defect of up to ``n`` lines is whole in one
of the two.  What lies in those lines alone and was reported is not reported again; a detection that reaches from them
into the new lines is, since it makes this frame defective too, and is marked as going on, so that it counts once.

The pipeline owns one; the judge asks it before it decides.  It keeps ``n`` lines and the boxes of one frame.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.arrays import Array, Bools, Image
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
        boxes, classes = self.again.boxes, self.again.classes

        def old(one: Question) -> Bools:
            low, high = np.array(one.box[:2]) >= boxes[:, :2], np.array(one.box[2:]) <= boxes[:, 2:]
            return np.asarray((classes == one.class_id) & low.all(axis=1) & high.all(axis=1))

        return tuple(one for one in asked if not old(one).any())


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
        shift = np.array([0, self._height - len(self._tail)] * 2, np.float32)
        self._known = replace(self._reported, boxes=self._reported.boxes - shift)
        self._repeated = len(self._tail)
        pixels = np.concatenate([self._tail, frame.pixels]) if self._repeated else frame.pixels
        # nothing is reported of this frame until it is judged
        self._reported = Detections.none()
        self._tail, self._height = pixels[-self._lines :].copy(), len(pixels)
        self._last = this
        return replace(frame, pixels=pixels)

    def told(self, found: Detections, thresholds: Thresholds, *, model: str, near: float) -> Told:
        """What of a frame's detections is to be reported.

        A detection in the repeated lines alone is left out where the frame before reported one of its class at that
        place.  Where that was uncertain and this is defective it is reported, and marked like one that goes on.

        Args:
            found: On the frame that ``extended`` gave last.
            thresholds: That they were found with.
            model: Id of the bundle; another one's detections are not compared.
            near: Pixels that the ends of two pieces of one defect may lie apart: a cell of the network.
        """
        known = self._known if model == self._model else Detections.none()
        self._reported, self._model = found, model
        if not len(known) or not len(found):
            return Told(found, (), Detections.none())
        same = found.classes[:, None] == known.classes[None]
        old = np.asarray(found.boxes[:, 3] <= self._repeated)
        sure = thresholds.defective_from[found.classes]
        no_worse = (found.confidence < sure)[:, None] | (known.confidence[None] >= sure[:, None])
        there = same & _meet(found, known, 0)
        again = old & (there & no_worse).any(axis=1)
        open_ = known.boxes[:, 3] >= self._repeated - near
        # a border hides what lies at it: what was reported may end before it and yet be a part of what is whole now
        near_by = ~old[:, None] & _meet(found, known, near) & open_
        going_on = (same & (_meet(found, known, 0) | near_by)).any(axis=1)
        kept = np.flatnonzero(~again)
        continued = tuple(int(n) for n in np.flatnonzero(going_on[kept]))
        return Told(found[kept], continued, found[np.flatnonzero(again)])


def _meet(found: Detections, known: Detections, near: float) -> Array:
    """``(D, E)``: whether two boxes lie on each other, or no more than so many pixels apart."""
    one, other = found.boxes[:, None], known.boxes[None]
    apart = np.maximum(one[..., :2], other[..., :2]) - np.minimum(one[..., 2:], other[..., 2:])
    return np.asarray((apart < near).all(axis=-1) if near else (apart < 0).all(axis=-1))
