"""A new line's guarantee starts with the answers to its control sample.

The control sample is drawn whatever the model says, so its pictures are like those to come, and only they are: what was
queued for a question was chosen by its score.  ``retrain`` keeps half of the answered control items from training where
that half is enough, and calibrates the retrained model on it; ``recalibrated`` does so for a model as it stands.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np

from edge_sdk.arrays import Bools
from edge_sdk.documents import sha256_hex
from edge_sdk.outbox.tombstones import CONTROL
from edge_sdk.quality.datasets import read_picture
from edge_sdk.quality.thresholds import ALPHA, missing
from edge_sdk.records import Answer, MentoredRow
from edge_sdk.vision.preprocess import fitted, valid_cells
from training.answers import Mentored
from training.checkpoint import Checkpoint
from training.data.views import Views
from training.lines import Certainty, calibrated
from training.statistics import Statistics
from training.truth import standing_answers

__all__ = ["SOURCE", "Audit", "audit_of", "audited", "recalibrated", "thinned"]

SOURCE = "the answered control sample"


@dataclass(frozen=True, eq=False)
class Audit:
    """Control items of which a whole picture's truth is known."""

    rows: tuple[MentoredRow, ...]
    shows: Bools
    """``(N, K)`` whether an operator saw a defect of the class."""

    def __len__(self) -> int:
        return len(self.rows)

    def taken(self, which: Bools) -> Audit:
        """Some of them."""
        return Audit(tuple(row for row, keep in zip(self.rows, which, strict=True) if keep), self.shows[which])

    def held_out(self) -> Audit:
        """The half that does not train, by lot: always the same one of the same items."""
        return self.taken(np.array([_lot(row.item, "held out") < 0.5 for row in self.rows], bool))

    def missing(self, alpha: float = ALPHA) -> str:
        """What a guarantee at ``alpha`` lacks; empty where nothing is."""
        healthy = int((~self.shows.any(axis=1)).sum())
        rarest = int(self.shows.sum(axis=0).min())
        return missing(healthy, rarest, self.shows.shape[1], alpha=alpha, source=SOURCE)


def audit_of(mentored: Mentored, classes: Collection[str]) -> Audit:
    """The control items whose picture an operator has judged whole, each as likely to be among them as any other.

    A picture is healthy where it was infirmed as a whole, or where every place that it was asked about was infirmed:
    the operator sees the whole picture beside the place.  It shows the classes that were confirmed.  Left out are
    pictures with an unsure or an open question, and those confirmed as a whole without a class where there are several.
    """
    names = list(classes)
    rows: list[MentoredRow] = []
    shows: list[Bools] = []
    for row in mentored.rows:
        if row.header.stratum != CONTROL:
            continue
        found = _shown(row, mentored.answers.get(row.item, ()), names)
        if found is not None:
            rows.append(row)
            shows.append(found)
    whole = Audit(tuple(rows), np.array(shows, bool).reshape(len(rows), len(names)))
    return whole.taken(thinned(whole.rows))


def thinned(rows: Collection[MentoredRow]) -> Bools:
    """``(N,)``: some are left out, by lot, so that all of the rest were drawn with the same probability.

    A station's ``control_share`` may have changed: a frame drawn with 0.2 is then kept half as often as one with 0.1.
    """
    drawn = np.array([row.header.inclusion_probability for row in rows], np.float64)
    if not len(drawn):
        return np.zeros(0, bool)
    keep = drawn.min() / drawn
    return np.array([_lot(row.item, "thinned") < share for row, share in zip(rows, keep, strict=True)], bool)


def audited(checkpoint: Checkpoint, statistics: Statistics, mentored: Mentored, audit: Audit) -> Certainty:
    """Temperature and thresholds of a line from its audit, which the network must not have been trained on.

    Args:
        checkpoint: Whose network it is.
        statistics: Of the line.
        mentored: Where the pictures lie.
        audit: Enough of them, or the band is fixed and says why.
    """
    views = _views(checkpoint, mentored, audit)
    return calibrated(checkpoint.network, statistics, views, checkpoint.preprocess, source=SOURCE)


def recalibrated(checkpoint: Checkpoint, mentored: Mentored, *, name: str = "new") -> Checkpoint:
    """The same weights with a line's temperature and thresholds from all of its control sample's answers.

    Only for a model that was not trained on them, such as the one that was deployed while they were given.
    """
    audit = audit_of(mentored, checkpoint.classes)
    sure = audited(checkpoint, checkpoint.line(name).statistics, mentored, audit)
    state = replace(
        checkpoint.line(name),
        temperature=sure.temperature,
        thresholds=sure.thresholds,
        reliability=sure.reliability,
    )
    return checkpoint.with_line(name, state)


def _shown(row: MentoredRow, answers: Collection[Answer], classes: list[str]) -> Bools | None:
    """``(K,)`` what an operator saw, or ``None`` where that is not known of the whole picture."""
    standing = standing_answers(tuple(answers))
    shows = np.zeros(len(classes), bool)
    for answer in standing:
        if answer.question is not None and answer.question >= len(row.header.questions):
            return None
        if answer.answer != "confirm":
            continue
        asked = None if answer.question is None else row.header.questions[answer.question].class_name
        named = answer.class_name or asked or (classes[0] if len(classes) == 1 else None)
        if named not in classes:
            return None
        shows[classes.index(named)] = True
    if any(answer.question is None for answer in standing):
        return shows
    answered = {answer.question for answer in standing}
    return shows if row.header.questions and answered == set(range(len(row.header.questions))) else None


def _views(checkpoint: Checkpoint, mentored: Mentored, audit: Audit) -> Views:
    """Healthy pictures are known everywhere, of the others only that they show a defect."""
    spec, grid = checkpoint.preprocess, checkpoint.grid
    count, classes = audit.shows.shape
    images = np.empty((count, spec.height, spec.width, 3), np.uint8)
    valid = np.ones((count, *grid), bool)
    for n, row in enumerate(audit.rows):
        picture = read_picture(mentored.root / row.picture)
        images[n] = fitted(picture, spec)
        valid[n] = valid_cells(spec, picture.shape[0], picture.shape[1], grid)
    defective: Bools = np.asarray(audit.shows.any(axis=1))
    known = np.broadcast_to(~defective[:, None, None, None], (count, classes, *grid)).astype(np.float32)
    items = tuple(row.item for row in audit.rows)
    return Views(
        images=images,
        truth=np.zeros((count, classes, *grid), np.float32),
        known=known,
        maximum=audit.shows.astype(np.float32),
        valid=valid,
        defective=defective,
        units=items,
        names=items,
    )


def _lot(item: str, what: str) -> float:
    """A number in [0, 1) that an item always draws."""
    return int(sha256_hex(f"{what} {item}".encode())[:13], 16) / 16**13
