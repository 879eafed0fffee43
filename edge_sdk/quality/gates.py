"""What must hold before a model judges parts: one table of gates, numpy only.

The same table judges an INT8 graph against FP32 (the calibration report), a rendering before it is
packed, and a station's runner on the golden frames of its bundle, so that a model is not accepted
in one place by a rule that another place does not know.  It travels in the bundle's manifest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from edge_sdk.arrays import Array, Bools, Ints, check_shape
from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.labels import Thresholds
from edge_sdk.quality.areas import Areas
from edge_sdk.quality.measures import sqnr_db

__all__ = [
    "Against",
    "ClassRecall",
    "Finding",
    "Gates",
    "Measured",
    "all_findings",
    "compare",
    "judge",
    "verdicts",
]

Against = Literal["fp32", "graph"]
"""``fp32``: an INT8 graph against the FP32 graph it was made from.  ``graph``: an engine, or another
machine, against the very graph that it runs."""


@dataclass(frozen=True)
class Gates:
    """The limits.  The defaults are the ones we ship."""

    agreement_fp32: float = 0.97
    """Share of pictures whose verdict an INT8 graph must leave as FP32 has it."""
    agreement_graph: float = 0.98
    """Share of pictures whose verdict an engine must leave as its own graph has it."""
    cells_agreement: float = 0.995
    """Share of cells that must stay on the same side of their class's decision boundary."""
    sqnr_fp32_db: float = 10.0
    """INT8 against FP32: below this something is placed wrongly, whatever the verdicts say."""
    sqnr_graph_db: float = 20.0
    """Two correct runtimes of one INT8 graph are 20 to 36 dB apart: rounding flips downstream."""
    score_drop_points: float = 1.0
    """How much of the score (AP or Dice, in points of 100) may be lost, on few pictures as on many: a score is of a
    ranking, in which no picture has a fixed worth.  What one picture may do is said by flips and recall."""
    recall_drop_points: float = 0.5
    """How much recall any class may lose, in points of 100; one picture is always allowed."""
    weak_below: int = 100
    """With fewer pictures than this the verdict is weak evidence."""

    def __post_init__(self) -> None:
        for name in ("agreement_fp32", "agreement_graph", "cells_agreement"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise RangeError(f"{name} is {value:g}; give a share from 0 to 1")
        for name in ("score_drop_points", "recall_drop_points", "weak_below"):
            value = getattr(self, name)
            if not value >= 0:
                raise RangeError(f"{name} is {value:g}; give 0 or more")

    def flips_allowed(self, pictures: int, against: Against) -> int:
        """``max(1, rate * n)``: on a small set a single picture must not decide."""
        rate = 1 - (self.agreement_fp32 if against == "fp32" else self.agreement_graph)
        # 0.02 * 150 is 3.0000000000000004 and (1 - 0.98) * 150 is below 3: neither may decide
        return max(1, int(rate * pictures + 1e-9))

    def weak(self, pictures: int) -> bool:
        """Whether so few pictures are weak evidence."""
        return pictures < self.weak_below


@dataclass(frozen=True)
class ClassRecall:
    """How many defective pictures of a class were found, before and after."""

    pictures: int
    found_before: int
    found_after: int


@dataclass(frozen=True)
class Measured:
    """What was seen when one model was compared with another on the same pictures."""

    pictures: int
    flips: tuple[int, ...]
    """Which pictures got another verdict, by their place."""
    cells_agreement: float | None = None
    """Share of cells on the same side of the boundary, in [0, 1]."""
    sqnr_db: float | None = None
    """Of the raw outputs; infinite where no bit differs."""
    score_drop_points: float | None = None
    """Points of 100; negative where the other model scores better."""
    recall: Mapping[str, ClassRecall] = field(default_factory=dict)

    @property
    def agreement(self) -> float:
        """Share of pictures with the same verdict, in [0, 1]."""
        return 1 - len(self.flips) / self.pictures


@dataclass(frozen=True)
class Finding:
    """One gate, and whether it held."""

    gate: str
    """Which one, e.g. ``agreement`` or ``recall of crack``."""
    value: float
    limit: float
    held: bool
    weak: bool
    """Told from fewer pictures than ``Gates.weak_below``."""
    sentence: str
    """What was seen against what is asked."""


def judge(measured: Measured, gates: Gates, *, against: Against) -> tuple[Finding, ...]:
    """The gates that do not hold; empty means that the model may judge.

    Args:
        measured: What was seen; a figure that is ``None`` is not judged.
        gates: The limits.
        against: What the model was compared with.

    Returns:
        Findings with ``held`` false, each with a sentence for people.

    Raises:
        RangeError: Nothing was compared: no picture.
    """
    return tuple(finding for finding in all_findings(measured, gates, against=against) if not finding.held)


def all_findings(measured: Measured, gates: Gates, *, against: Against) -> tuple[Finding, ...]:
    """Every gate that has a figure, whether it held or not, for the table of a report.

    Raises:
        RangeError: Nothing was compared: no picture.
    """
    n = measured.pictures
    if n < 1:
        raise RangeError("no picture was compared; give at least one")
    weak = gates.weak(n)
    other = "FP32" if against == "fp32" else "its own graph"
    rows: list[tuple[str, float, float, bool, str]] = []

    def pictures(count: int) -> str:
        return f"{count} picture{'' if count == 1 else 's'}"

    flips, allowed = len(measured.flips), gates.flips_allowed(n, against)
    rows.append(
        (
            "agreement",
            measured.agreement,
            1 - allowed / n,
            flips <= allowed,
            f"{flips} of {pictures(n)} got another verdict than from {other}; at most {allowed} may",
        )
    )
    if measured.cells_agreement is not None:
        share, limit = measured.cells_agreement, gates.cells_agreement
        text = f"{_percent(share)} of the cells are decided as by {other}; at least {_percent(limit)} must be"
        rows.append(("cells_agreement", share, limit, share >= limit, text))
    if measured.sqnr_db is not None:
        limit = gates.sqnr_fp32_db if against == "fp32" else gates.sqnr_graph_db
        text = f"the outputs are {measured.sqnr_db:.1f} dB from those of {other}; at least {limit:g} dB must be reached"
        # not (a < b) would let NaN pass
        rows.append(("sqnr_db", measured.sqnr_db, limit, measured.sqnr_db >= limit, text))
    if measured.score_drop_points is not None:
        drop, limit = measured.score_drop_points, gates.score_drop_points
        text = f"the score falls by {drop:.2f} points; at most {limit:.3g} may be lost"
        rows.append(("score_drop", drop, limit, drop <= limit, text))
    for name, seen in sorted(measured.recall.items()):
        if not seen.pictures:
            continue
        lost = seen.found_before - seen.found_after
        may = max(1, int(gates.recall_drop_points / 100 * seen.pictures + 1e-9))
        text = f"{lost} of {pictures(seen.pictures)} with {name} are no longer found; at most {may} may be"
        rows.append((f"recall of {name}", float(lost), float(may), lost <= may, text))
    mark = f" (weak evidence: {n} of the {gates.weak_below} pictures wanted)" if weak else ""
    return tuple(
        Finding(name, value, limit, held, weak, text + mark) for name, value, limit, held, text in rows
    )


def compare(
    reference: Areas, other: Areas, thresholds: Thresholds, *, temperature: Array | float = 1.0
) -> Measured:
    """What differs between two models' areas on the same pictures.

    Args:
        reference: Of the model compared with.
        other: Of the model that is judged.
        thresholds: Of the line, K classes.
        temperature: One number, or ``(K,)``, above 0.

    Returns:
        Flipped verdicts, areas on the other side of their boundary, and SQNR over the logits of the areas that speak in
        both, or over what is raw of those that speak in the reference, whichever is less.

    Raises:
        ShapeError: The two disagree on their shape, or the thresholds on K.
    """
    if reference.logits.shape != other.logits.shape:
        raise ShapeError(
            f"the outputs are {other.logits.shape} against {reference.logits.shape}; compare the same pictures"
        )
    before, after = reference.confidence(temperature), other.confidence(temperature)
    flipped = np.flatnonzero(verdicts(before, thresholds) != verdicts(after, thresholds))
    boundary = thresholds.boundary[None, :, None, None]
    either = reference.valid | other.valid
    same = ((before >= boundary) == (after >= boundary)).transpose(0, 2, 3, 1)[either]
    # a box may move across the border of what its tile speaks for, so of two that speak differently one says nothing;
    # that it moved shows in the boxes
    both = reference.valid & other.valid
    pairs = [(reference.logits.transpose(0, 2, 3, 1)[both], other.logits.transpose(0, 2, 3, 1)[both])]
    if reference.raw is not None and other.raw is not None:
        pairs.append((_spoken(reference.raw, reference.valid), _spoken(other.raw, reference.valid)))
    finite = all(np.isfinite(one).all() for _, one in pairs)
    return Measured(
        pictures=len(reference),
        flips=tuple(int(n) for n in flipped),
        cells_agreement=float(same.mean()) if same.size else 1.0,
        sqnr_db=min(sqnr_db(*pair) for pair in pairs) if finite else float("-inf"),
    )


def _spoken(raw: Array, valid: Bools) -> Array:
    """Rows of boxes ``(N, A, 4)``, or distances ``(N, 1, h, w)``, of the areas that speak."""
    return raw[valid[..., 0]] if raw.ndim == 3 else raw[:, 0][valid]


def verdicts(confidence: Array, thresholds: Thresholds) -> Ints:
    """The verdict on each picture from its cells: 0 passed, 1 uncertain, 2 defective.

    The same as ``decide(decode_cells(...))``, whose detections are as sure as their surest cell.  Of cells that do not
    show the picture, confidence is 0: see ``Areas.confidence``.

    Args:
        confidence: ``(N, K, h, w)`` in [0, 1]; NaN counts as uncertain, never as a pass.
        thresholds: Of the line, K classes.

    Returns:
        ``(N,)`` int32.
    """
    check_shape(
        "confidence",
        confidence,
        (None, None, None, None),
        as_text="(N, K, h, w), one map a class and picture",
    )
    if confidence.shape[1] != len(thresholds):
        raise ShapeError(
            f"confidence has {confidence.shape[1]} classes but there are thresholds for {len(thresholds)}"
        )
    surest = confidence.max(axis=(2, 3))
    found = np.zeros(len(confidence), np.int32)
    found[((surest >= thresholds.pass_below) | np.isnan(surest)).any(axis=1)] = 1
    found[(surest >= thresholds.defective_from).any(axis=1)] = 2
    return found


def _percent(share: float) -> str:
    # 99.996 % must not read as 100 %
    return f"{np.floor(share * 1e4) / 100:.2f} %"
