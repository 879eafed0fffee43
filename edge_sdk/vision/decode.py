"""From the network's confidence map to detections on a frame, and to questions for an operator.

The runtime, the calibration report and training's evaluation all decode here, so all three count
the same defects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats, check_shape
from edge_sdk.detections import Detections, Question
from edge_sdk.errors import ShapeError
from edge_sdk.vision.boxes import suppressed
from edge_sdk.vision.novelty import novelty_logits
from edge_sdk.vision.preprocess import Geometry

__all__ = [
    "IOU",
    "area_logits",
    "box_questions",
    "confidence_from_logits",
    "decode_anchors",
    "decode_cells",
    "questions",
]

IOU = 0.5
"""Two boxes of a class that overlap by more report one defect."""
MOST_BOXES = 100
"""A frame: a failing detector must not fill the disk."""


def area_logits(outputs: Mapping[str, Array], *, normals: Sequence[float] | None = None) -> Array | None:
    """What a graph says of its areas, as ``(N, K, h, w)`` logits.

    A segmenter's areas are its ``cells``.  A detector's are its anchors: ``scores`` ``(N, A, K)`` become
    ``(N, K, A, 1)``, so that whoever asks for the surest area of a class need not know which it is.  An anomaly map
    ``novelty`` ``(N, 1, h, w)`` becomes logits by the line's normals.

    Args:
        outputs: Of the graph, by name.
        normals: ``(n,)`` the highest distance of each normal that an anomaly map was calibrated on.

    Returns:
        ``None`` where the graph gives none of them, or an anomaly map without normals.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 3.1: "areas".
    """
    if "cells" in outputs:
        return outputs["cells"]
    if "novelty" in outputs and normals:
        return novelty_logits(outputs["novelty"], normals)
    scores = outputs.get("scores")
    return None if scores is None or scores.ndim != 3 else scores.transpose(0, 2, 1)[..., None]


def confidence_from_logits(logits: Array, temperature: Array | float = 1.0) -> Floats:
    """Sigmoid of the tempered logits.

    Args:
        logits: ``(..., K, h, w)``, unbounded.
        temperature: One number, or ``(K,)``, above 0.

    Returns:
        Of the same shape, float32 in [0, 1].
    """
    scaled = np.asarray(logits, np.float32)
    warmth = np.asarray(temperature, np.float32)
    scaled = scaled / (warmth.reshape(-1, 1, 1) if warmth.ndim else warmth)
    # split by sign: exp never overflows
    small = np.exp(-np.abs(scaled))
    found: Floats = np.where(scaled >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)
    return found


def decode_cells(
    confidence: Floats, thresholds: Floats, *, place: Geometry, cell_px: int, valid: Bools | None = None
) -> Detections:
    """Group neighbouring defective cells of one class into detections.

    A cell counts where its confidence reaches its class's ``pass_below``.  A detection is as sure
    as its surest cell.

    Args:
        confidence: ``(K, h, w)`` per class and cell, in [0, 1].
        thresholds: ``(K,)`` ``pass_below`` of each class, in (0, 1].
        place: Where the frame lies on the network's input.
        cell_px: Side of a cell in pixels of the network's input.
        valid: ``(h, w)`` cells that show the picture; padding is known healthy and never reported.

    Returns:
        One detection a connected group (8-neighbourhood), surest first.

    Raises:
        ShapeError: The map and the thresholds disagree on K.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 3.1: a segmentation network's
        areas are its cells.
    """
    _check(confidence, thresholds)
    counts = confidence >= thresholds[:, None, None]
    if valid is not None:
        counts &= valid
    if not counts.any():
        return Detections.none()
    import cv2

    groups: list[tuple[float, int, Array]] = []
    for class_id in range(len(confidence)):
        number, labelled = cv2.connectedComponents(counts[class_id].astype(np.uint8), connectivity=8)
        for group in range(1, number):
            cells = np.argwhere(labelled == group).astype(np.int32)
            surest = float(confidence[class_id][cells[:, 0], cells[:, 1]].max())
            groups.append((surest, class_id, cells))
    groups.sort(key=lambda found: (-found[0], found[1], found[2][0].tolist()))
    on_input = np.array([_box_of_cells(cells, cell_px) for _, _, cells in groups], np.float32)
    numbered = [np.column_stack([np.full(len(cells), n, np.int32), cells]) for n, (_, _, cells) in enumerate(groups)]
    return Detections(
        boxes=place.boxes_to_frame(on_input),
        classes=np.array([class_id for _, class_id, _ in groups], np.int32),
        confidence=np.array([surest for surest, _, _ in groups], np.float32),
        cells=np.concatenate(numbered).astype(np.int32),
    )


def questions(
    confidence: Floats,
    thresholds: Floats,
    *,
    place: Geometry,
    cell_px: int,
    valid: Bools | None = None,
    limit: int = 3,
) -> tuple[Question, ...]:
    """The small places an operator is asked about: the highest peaks with their neighbours.

    A peak is a cell at or above its class's ``pass_below`` that none of its eight neighbours
    exceeds; of equal neighbours the first in reading order is the peak.  A question is the peak
    with those of its 3 x 3 neighbours that reach ``pass_below`` too.  Ours: connected groups of a
    failing model are mostly wrong, its peaks are answerable.

    Args:
        confidence: ``(K, h, w)`` in [0, 1].
        thresholds: ``(K,)`` ``pass_below`` of each class.
        place: Where the frame lies on the network's input.
        cell_px: Side of a cell in pixels of the network's input.
        valid: ``(h, w)`` cells that show the picture; padding is never asked about.
        limit: At most so many a frame.

    Returns:
        Highest peak first.
    """
    _check(confidence, thresholds)
    shown = confidence if valid is None else np.where(valid[None], confidence, 0).astype(np.float32)
    candidates = np.argwhere(shown >= thresholds[:, None, None])
    if not len(candidates):
        return ()
    heights = shown[candidates[:, 0], candidates[:, 1], candidates[:, 2]]
    padded = np.pad(shown, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    found: list[Question] = []
    for number in np.argsort(-heights, kind="stable"):
        class_id, row, column = (int(part) for part in candidates[number])
        around = padded[class_id, row : row + 3, column : column + 3]
        peak = around[1, 1]
        before = around.ravel()[:4]
        if around.max() > peak or (before == peak).any():
            continue
        near = np.argwhere(around >= thresholds[class_id])
        cells = [(row, column)]
        cells += [(row + int(r) - 1, column + int(c) - 1) for r, c in near if (r, c) != (1, 1)]
        box = place.boxes_to_frame(np.array([_box_of_cells(np.array(cells), cell_px)], np.float32))[0]
        left, top, right, bottom = (float(edge) for edge in box)
        found.append(Question(class_id, float(peak), (left, top, right, bottom), tuple(cells)))
        if len(found) == limit:
            break
    return tuple(found)


def decode_anchors(
    boxes: Floats,
    confidence: Floats,
    thresholds: Floats,
    *,
    place: Geometry,
    iou: float = IOU,
    most: int = MOST_BOXES,
) -> Detections:
    """A detector's boxes after greedy non-maximum suppression, class by class.

    A box counts where its confidence reaches its class's ``pass_below`` and a pixel of it or more lies on the
    frame.

    Args:
        boxes: ``(A, 4)`` in pixels of the network's input, right and bottom outside.
        confidence: ``(A, K)`` in [0, 1].
        thresholds: ``(K,)`` ``pass_below`` of each class, in (0, 1].
        place: Where the frame lies on the network's input.
        iou: Of two boxes of one class that overlap by more the surer is reported.
        most: At most so many detections.

    Returns:
        Surest first; ``cells`` are rows of detection, anchor, 0: first the anchor that is reported, then
        those that it suppressed, which the network took for the same defect.

    Raises:
        ShapeError: Boxes, confidence and thresholds disagree on A or K.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), section 3.1, eq. 2: a detector's areas are its
        anchors.
    """
    check_shape("confidence", confidence, (None, None), as_text="(A, K), one value an anchor and class")
    check_shape("boxes", boxes, (len(confidence), 4), as_text=f"({len(confidence)}, 4), one row an anchor")
    _check_classes(thresholds, confidence.shape[1])
    on_frame = place.boxes_to_frame(boxes)
    shown = np.asarray((on_frame[:, 2:] - on_frame[:, :2] >= 1).all(axis=1))
    counts = np.asarray((confidence >= thresholds) & shown[:, None])
    found: list[tuple[float, int, Array]] = []
    for class_id in range(confidence.shape[1]):
        anchors = np.flatnonzero(counts[:, class_id])
        sure = confidence[anchors, class_id]
        for group in suppressed(on_frame[anchors], sure, iou=iou, most=most):
            found.append((float(sure[group[0]]), class_id, anchors[group]))
    if not found:
        return Detections.none()
    found = sorted(found, key=lambda one: (-one[0], one[1], int(one[2][0])))[:most]
    rows = [
        np.column_stack([np.full(len(group), n), group, np.zeros(len(group))]) for n, (_, _, group) in enumerate(found)
    ]
    return Detections(
        boxes=on_frame[[group[0] for _, _, group in found]],
        classes=np.array([class_id for _, class_id, _ in found], np.int32),
        confidence=np.array([sure for sure, _, _ in found], np.float32),
        cells=np.concatenate(rows).astype(np.int32),
    )


def box_questions(found: Detections, *, limit: int = 3) -> tuple[Question, ...]:
    """What an operator is asked of a detector: its surest boxes.

    An answer is about the box that is shown, so it speaks of that box's anchor alone: what it suppressed lies
    elsewhere, by up to half.

    Args:
        found: Of ``decode_anchors``, surest first.
        limit: At most so many.

    Returns:
        Surest first; a question's one cell is the anchor of its box and 0.
    """
    asked = []
    for n in range(min(limit, len(found))):
        left, top, right, bottom = (float(edge) for edge in found.boxes[n])
        anchor = int(found.cells[found.cells[:, 0] == n][0, 1])
        sure = float(found.confidence[n])
        asked.append(Question(int(found.classes[n]), sure, (left, top, right, bottom), ((anchor, 0),)))
    return tuple(asked)


def _check(confidence: Floats, thresholds: Floats) -> None:
    check_shape("confidence", confidence, (None, None, None), as_text="(K, h, w), one map a class")
    _check_classes(thresholds, len(confidence))


def _check_classes(thresholds: Floats, classes: int) -> None:
    if thresholds.shape != (classes,):
        raise ShapeError(f"thresholds is {thresholds.shape} for {classes} classes; give ({classes},), one a class")


def _box_of_cells(cells: Array, cell_px: int) -> list[float]:
    top, left = cells.min(axis=0)
    bottom, right = cells.max(axis=0) + 1
    return [left * cell_px, top * cell_px, right * cell_px, bottom * cell_px]
