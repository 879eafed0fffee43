"""A new line's guarantee starts with the answers to its control sample.

The control sample is drawn whatever the model says, so its pictures are like those to come, and only they are: what was
queued for a question was chosen by its score.  ``retrain`` keeps half of the answered control items from training where
that half is enough, and calibrates the retrained model on it.  For every other graph of the line, INT8 or not yet
retrained, the command ``audit`` writes what the model has not seen as labelled pictures for ``calibration thresholds``.
"""

from __future__ import annotations

import csv
import io
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from edge_sdk.answers import Answer, MentoredRow
from edge_sdk.arrays import Bools
from edge_sdk.documents import sha256_hex
from edge_sdk.errors import ConfigError, DatasetError
from edge_sdk.folders import begun, put_in_place, settle
from edge_sdk.outbox.tombstones import CONTROL
from edge_sdk.quality.datasets import read_picture
from edge_sdk.quality.thresholds import ALPHA, missing
from training.answers import Mentored
from training.checkpoint import FACTORY, Checkpoint
from training.data.views import Views, unlabelled
from training.lines import Certainty, calibrated
from training.pictures import MARK, check_replaceable
from training.statistics import Statistics
from training.truth import standing_answers

__all__ = ["SOURCE", "Audit", "audit_of", "audited", "controls", "thinned", "unseen", "write_audit"]

SOURCE = "the answered control sample"
RETRAINED = "retrained"
"""The method of a line that ``retrain`` wrote."""
HEALTHY = "no defect"
"""Label of the healthy pictures of a written audit."""


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

    def without(self, items: Collection[str]) -> Audit:
        """All but those."""
        return self.taken(np.array([row.item not in items for row in self.rows], bool))

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


def controls(mentored: Mentored) -> set[str]:
    """The items of the control sample, whatever was answered."""
    return {row.item for row in mentored.rows if row.header.stratum == CONTROL}


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


def unseen(checkpoint: Checkpoint, mentored: Mentored, *, name: str = "new") -> Audit:
    """What of a line's audit its network was not trained on: of a retrained one what was held out or answered since.

    Raises:
        ConfigError: The checkpoint has no such line, or is a detector.
        DatasetError: No picture of the control sample was judged whole, or all of them were trained on.
    """
    state = checkpoint.line(name)
    if checkpoint.factory != FACTORY:
        raise ConfigError(
            f"the checkpoint is of {checkpoint.factory}; only thresholds of cells are calibrated, so give one of cells "
            "or a classifier"
        )
    audit = audit_of(mentored, checkpoint.classes)
    if not len(audit):
        raise DatasetError(
            f"{mentored.root} holds no picture of the control sample that an operator judged whole (healthy, or every "
            "question of it answered with its class); answer some and export again"
        )
    if state.method != RETRAINED:
        return audit
    # a checkpoint that remembers nothing held out half, where that was enough
    held = audit.without(set(state.trained_on)) if state.trained_on else audit.held_out()
    if not len(held) or (not state.trained_on and held.missing()):
        raise DatasetError(
            f"retrain trained line {name} on every answer, since half of them is too few to be held out ({SOURCE}: "
            f"{len(audit)} pictures); its guarantee is none until more are answered"
        )
    return held


def write_audit(audit: Audit, mentored: Mentored, classes: Sequence[str], folder: Path) -> None:
    """Write an audit as labelled pictures (``dataset/1``); one that shows several classes stands there for each.

    Args:
        audit: Of ``mentored``.
        mentored: Where the pictures lie; they are copied as they are.
        classes: Of the model.
        folder: Written anew, whole or not at all; must not hold anything else.

    Raises:
        DatasetError: The folder holds something else.
        OSError: The disk refused.
    """
    settle(folder)
    check_replaceable(folder)
    part = begun(folder)
    (part / "images").mkdir()
    (part / MARK).touch()
    rows = []
    for row, shows in zip(audit.rows, audit.shows, strict=True):
        seen = [name for name, shown in zip(classes, shows, strict=True) if shown]
        for number, label in enumerate(seen or [HEALTHY]):
            name = f"images/{row.item}{f'-{number}' if number else ''}{Path(row.picture).suffix}"
            shutil.copyfile(mentored.root / row.picture, part / name)
            rows.append((name, label))
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("image", "label"), *rows])
    (part / "labels.csv").write_text(table.getvalue(), encoding="utf-8")
    said = {"schema": "dataset/1", "healthy": [HEALTHY]}
    (part / "dataset.yaml").write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")
    put_in_place(folder)


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
    """Healthy pictures are known everywhere, of the others, and so of all their tiles, only that they show a defect."""
    pictures = ((read_picture(mentored.root / row.picture), row.item, row.item) for row in audit.rows)
    views = unlabelled(pictures, checkpoint.preprocess, grid=checkpoint.grid, classes=audit.shows.shape[1])
    shows = audit.shows[views.pictures]
    defective: Bools = np.asarray(shows.any(axis=1))
    core = np.ones_like(views.truth) if views.tiles is None else views.tiles.cores[:, None]
    known = (core * ~defective[:, None, None, None] * np.ones_like(views.truth)).astype(np.float32)
    return replace(views, known=known, maximum=shows.astype(np.float32), defective=defective)


def _lot(item: str, what: str) -> float:
    """A number in [0, 1) that an item always draws."""
    return int(sha256_hex(f"{what} {item}".encode())[:13], 16) / 16**13
