"""One bundle at work: from a frame to its inspection, and the inspection of a frame nobody judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edge_sdk.clock import Clock, SystemClock
from edge_sdk.detections import Detections, Question
from edge_sdk.errors import RunnerError
from edge_sdk.frames import Frame
from edge_sdk.inspections import Inspection, Timing, Verdict
from edge_sdk.manifest import Manifest, labels_of, thresholds_of
from edge_sdk.vision.decide import decide
from edge_sdk.vision.decode import (
    IOU,
    area_logits,
    box_questions,
    confidence_from_logits,
    decode_anchors,
    decode_cells,
    questions,
)
from edge_sdk.vision.preprocess import Adjustment, Geometry, geometry, valid_cells
from edge_sdk.vision.tiles import joined_over_seams, outputs_of_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edge_sdk.arrays import Array, Bools, Floats
    from edge_sdk.overlap import Overlap
    from edge_sdk.runners.base import Runner

    _Decoded = tuple[Floats, Detections, Callable[[], tuple[Question, ...]]]
    """Confidence of the areas, detections, and what makes the questions once the verdict is out."""

__all__ = ["Judge", "not_inspected"]


class Judge:
    """One bundle at work: from a frame to its inspection.  Not for two threads at once.

    Args:
        manifest: Of the bundle.
        runner: Executes its graph; belongs to the judge from here on.
        model: The bundle's id.
        rendering: Role of the graph that the runner executes, e.g. ``int8-cpu``.
        clock: Times the stages.
        adjust: The station's gain and offset before the graph.
    """

    def __init__(
        self,
        manifest: Manifest,
        runner: Runner,
        *,
        model: str,
        rendering: str = "fp32",
        clock: Clock | None = None,
        adjust: Adjustment | None = None,
    ) -> None:
        self.manifest = manifest
        self.adjust = adjust
        self.labels = labels_of(manifest)
        self.model = model
        self.rendering = rendering
        self._runner = runner
        self._clock = clock or SystemClock()
        self._thresholds = thresholds_of(manifest, rendering)
        self._temperature = np.array([band.temperature for band in manifest.thresholds], np.float32)
        self._normals = manifest.postprocess.normals
        spec = manifest.preprocess
        self._input = np.zeros((1, 3, spec.height, spec.width), np.float32)
        self._feeds: dict[str, Array] = {runner.inputs[0].name: self._input}
        self._places: dict[tuple[int, ...], tuple[Geometry, Bools]] = {}

    def inspect(self, frame: Frame, *, taken_ns: int, overlap: Overlap | None = None) -> Inspection:
        """Judge one frame.

        Args:
            frame: What to judge.
            taken_ns: When it was taken from the queue.
            overlap: Says what of a frame that it extended was reported before.

        Raises:
            RunnerError: The engine failed, or answered with neither a confidence map nor boxes.
            DefectErased: At this frame's size the resize would erase the smallest defect that must be seen.
        """
        spec = self.manifest.preprocess
        outputs = outputs_of_frame(frame.pixels, spec, self._infer, out=self._input, adjust=self.adjust)
        inferred_ns = self._clock.monotonic_ns()
        of_cells = self.manifest.postprocess.kind != "anchors"
        decode = self._cells if of_cells else self._boxes
        confidence, found, ask = decode(outputs, frame.pixels.shape)
        told = None
        if overlap is not None:
            told = overlap.told(
                found, self._thresholds, model=self.model, near=self._cell_on_frame, of_cells=of_cells
            )
            found = told.detections
        verdict, reason = decide(found, self._thresholds, self.labels)
        decided_ns = self._clock.monotonic_ns()
        asked = ask() if len(found) else ()
        feature = outputs.get("feature")
        return Inspection(
            frame=frame,
            detections=found,
            verdict=verdict,
            reason=reason,
            timing=Timing(frame.captured_ns or taken_ns, taken_ns, inferred_ns, decided_ns),
            questions=asked if told is None else told.new_questions(asked),
            confidence=confidence,
            feature=None if feature is None else np.asarray(feature[0], np.float32),
            model=self.model,
            continued=() if told is None else told.continued,
            reported_before=0 if told is None else len(told.again),
            repeated_lines=0 if overlap is None else overlap.repeated,
        )

    @property
    def _cell_on_frame(self) -> int:
        """Side of a cell in pixels of a frame that is cut into tiles; of a detector 1."""
        return (self.manifest.postprocess.cell_px or 1) * (self.manifest.preprocess.shrink or 1)

    def _infer(self, frame: Floats) -> Mapping[str, Array]:
        return self._runner.infer(self._feeds)  # its input is the memory that the frame was written into

    def _cells(self, outputs: Mapping[str, Array], shape: tuple[int, ...]) -> _Decoded:
        name = "cells" if self._normals is None else "novelty"
        given = outputs.get(name)
        if given is None or given.ndim != 4 or given.shape[:2] != (1, len(self.labels)):
            told = "nothing" if given is None else f"{given.shape}"
            raise RunnerError(
                f"{name} is {told}; the bundle promises (1, {len(self.labels)}, h, w), so pack it again"
            )
        logits = area_logits({name: given}, normals=self._normals)
        assert logits is not None  # cells are logits, and novelty has its normals
        confidence = confidence_from_logits(logits[0], self._temperature)
        pass_below, cell_px = self._thresholds.pass_below, self.manifest.postprocess.cell_px
        place, valid = self._place_of(shape, confidence.shape[1:])
        found = decode_cells(confidence, pass_below, place=place, cell_px=cell_px, valid=valid)
        return (
            confidence,
            found,
            lambda: questions(confidence, pass_below, place=place, cell_px=cell_px, valid=valid),
        )

    def _boxes(self, outputs: Mapping[str, Array], shape: tuple[int, ...]) -> _Decoded:
        logits, boxes = area_logits(outputs), outputs.get("boxes")
        if logits is None or boxes is None or logits.shape[:2] != (1, len(self.labels)):
            told = ", ".join(f"{name} {outputs[name].shape}" for name in sorted(outputs)) or "nothing"
            raise RunnerError(
                f"the outputs are {told}; the bundle promises boxes (1, A, 4) and scores (1, A, {len(self.labels)}), "
                "so pack it again"
            )
        confidence = np.ascontiguousarray(confidence_from_logits(logits[0], self._temperature)[..., 0].T)
        place, _ = self._place_of(shape, (1, 1))
        iou = self.manifest.postprocess.iou or IOU
        found = decode_anchors(boxes[0], confidence, self._thresholds.pass_below, place=place, iou=iou)
        found = joined_over_seams(found, self.manifest.preprocess, shape[0], shape[1])
        return confidence, found, lambda: box_questions(found)

    def warm_up(self) -> None:
        """Execute the graph once, so that the first frame does not pay for what engines do at first."""
        self._runner.infer(self._feeds)

    def close(self) -> None:
        """Free the engine.  May be called twice."""
        self._runner.close()

    def _place_of(self, shape: tuple[int, ...], grid: tuple[int, ...]) -> tuple[Geometry, Bools]:
        known = self._places.get(shape)
        if known is None:
            spec = self.manifest.preprocess
            valid = valid_cells(spec, shape[0], shape[1], (grid[0], grid[1]))
            if len(self._places) >= 16:
                self._places.clear()
            known = self._places[shape] = geometry(spec, shape[0], shape[1]), valid
        return known


def not_inspected(frame: Frame, reason: str, *, taken_ns: int = 0, decided_ns: int = 0) -> Inspection:
    """The inspection of a frame that nobody judged."""
    timing = Timing(frame.captured_ns or taken_ns, taken_ns, 0, decided_ns)
    return Inspection(frame, Detections.none(), Verdict.NOT_INSPECTED, reason, timing)
