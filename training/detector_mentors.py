"""A simulated operator of a detector: who says of each box whether it shows the defect that it is said to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.answers import Answer
from edge_sdk.arrays import Floats
from edge_sdk.detections import Question
from edge_sdk.quality.datasets import Line
from edge_sdk.records import ItemHeader
from edge_sdk.vision.boxes import overlaps
from edge_sdk.vision.decode import box_questions, confidence_from_logits, decode_anchors
from training.checkpoint import Checkpoint
from training.data.boxes import BoxViews, Drawn, MapCache
from training.detector import detector_of, judged_pictures, read_boxes
from training.mentors import answer_of, header_of
from training.recipe import Recipe
from training.strategies import Strategy
from training.truth import truth_and_mentored

__all__ = ["CONFIRM_FROM", "INFIRM_BELOW", "AskedBoxes", "ask_boxes", "said_of_box"]

CONFIRM_FROM = 0.5
"""Overlap with a drawn box of the class from which the operator confirms: what counts as found in the figures too."""
INFIRM_BELOW = 0.3
"""Below it they infirm; between, the box holds half a defect, and they are unsure."""


@dataclass(frozen=True, eq=False)
class AskedBoxes:
    """A line's mentor pictures with what was asked and answered of each."""

    views: BoxViews
    confidence: Floats
    """``(N, A, K)`` of the detector that asked, tempered."""
    headers: tuple[ItemHeader, ...]
    answers: tuple[tuple[Answer, ...], ...]
    classes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Answers by kind."""
        found = Counter({"confirm": 0, "infirm": 0, "unsure": 0})
        found.update(answer.answer for given in self.answers for answer in given)
        return dict(found)

    def taught(self, strategy: str | Strategy) -> BoxViews:
        """The pictures on which an answer says something, with what it says under a strategy; no drawn box."""
        truth, known = np.zeros_like(self.views.truth), np.zeros_like(self.views.known)
        maximum = np.zeros_like(self.views.maximum)
        kept = [n for n, given in enumerate(self.answers) if any(answer.answer != "unsure" for answer in given)]
        for n in kept:
            areas = truth_and_mentored(
                self.headers[n],
                self.answers[n],
                classes=self.classes,
                grid=(truth.shape[1], 1),
                strategy=strategy,
                baseline=self.confidence[n].T[..., None],
            )
            truth[n], known[n], maximum[n] = areas[0][..., 0].T, areas[1][..., 0].T, areas[2]
        views = replace(
            self.views,
            truth=truth,
            known=known,
            maximum=maximum,
            wanted=np.zeros_like(self.views.wanted),
            drawn=(None,) * len(self.views),
        )
        return views[np.array(kept, int)]


def ask_boxes(
    checkpoint: Checkpoint, line: Line, recipe: Recipe, *, name: str = "new", cache: MapCache | None = None
) -> AskedBoxes:
    """Stream a line's mentor pictures past a detector, and let the operator answer what it asks.

    Args:
        checkpoint: The detector that asks, with the line ``name`` or else the original line's state.
        line: Whose part ``mentor`` is streamed; its boxes are the operator's eye.
        recipe: Of the training that the pictures are for.
        name: Of the line.
        cache: See ``training.data.boxes.with_maps``.
    """
    network, spec = detector_of(checkpoint), checkpoint.preprocess
    state = checkpoint.lines.get(name, checkpoint.line("original"))
    views = read_boxes(network, line, line.mentor, spec, recipe, labelled=True, cache=cache)
    boxes, scores, _ = judged_pictures(network, state.statistics, views, spec)
    confidence = np.stack([_sure(one, state.temperature) for one in scores]) if len(views) else scores
    headers: list[ItemHeader] = []
    answers: list[tuple[Answer, ...]] = []
    for n in range(len(views)):
        found = decode_anchors(boxes[n], confidence[n], state.thresholds.pass_below, place=views.places[n])
        asked = box_questions(found)
        drawn = views.drawn[n]
        assert drawn is not None  # labelled
        words = [said_of_box(drawn, one) for one in asked]
        places = [one.cells for one in asked]
        headers.append(header_of(n, checkpoint.classes, asked, places, 1.0, flagged=False))
        answers.append(tuple(answer_of(n, number, word) for number, word in enumerate(words)))
    return AskedBoxes(views, confidence, tuple(headers), tuple(answers), checkpoint.classes)


def said_of_box(drawn: Drawn, asked: Question) -> str:
    """What an honest operator says of a box.

    Args:
        drawn: The picture's true boxes.
        asked: In the same pixels.
    """
    mine = drawn.boxes[drawn.classes == asked.class_id]
    most = float(overlaps(np.array([asked.box], np.float32), mine).max(initial=0))
    return "confirm" if most >= CONFIRM_FROM else "infirm" if most < INFIRM_BELOW else "unsure"


def _sure(scores: Floats, temperature: Floats) -> Floats:
    return np.ascontiguousarray(confidence_from_logits(scores.T[..., None], temperature)[..., 0].T)
