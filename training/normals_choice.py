"""Which method a new line takes, by an audit: a few of its pictures, labelled; the only labels of it that are seen.

An audit is drawn by lot from what is there to train with, whatever any model says, and at most ``MOST`` large.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Line, Sample
from edge_sdk.quality.measures import auroc
from training.checkpoint import Checkpoint
from training.data.views import Views
from training.lines import predicted

__all__ = ["MOST", "Choice", "audit_drawn", "chosen_by_audit"]

MOST = 30
"""Pictures of an audit: a few minutes of an operator."""
LEFT = 3
"""One picture in so many of part train, at most: the others are there to train with."""


@dataclass(frozen=True)
class Choice:
    """What an audit said."""

    method: str
    why: str
    """One sentence."""
    auroc: Mapping[str, float | None]
    """By method, on the audit's pictures; ``None`` where they are of one kind."""
    pictures: int
    defective: int

    def document(self) -> dict[str, object]:
        """Ready for JSON."""
        return asdict(self)


def audit_drawn(line: Line, *, seed: int, most: int = MOST) -> tuple[Sample, ...]:
    """Draw an audit by lot from the labelled pictures of a line's part train; none of another part is ever drawn.

    A picture without a truth, such as one whose label is ignored, is none that an operator could have judged.

    Args:
        line: The new one; its labels are looked up by whoever reads the pictures.
        seed: Of the lot.
        most: At most so many, up to ``MOST``, and no more than a third of what is there.

    Raises:
        DatasetError: More than ``MOST`` are asked for, there is none, or part train holds a test picture.
    """
    if most > MOST:
        raise DatasetError(f"an audit of {most} pictures is asked for; give at most {MOST}")
    judged = {sample.image for sample in line.test} | line.withheld
    for sample in line.train:
        if sample.image in judged:
            raise DatasetError(
                f"{sample.image} is in part test, which no audit may see; draw from the pictures to train with"
            )
    told = [sample for sample in line.train if sample.healthy is not None]
    order = np.random.default_rng([seed, 14]).permutation(len(told))
    drawn = tuple(told[n] for n in order[: min(most, -(-len(order) // LEFT))])
    if not drawn:
        raise DatasetError(f"line {line.name} has no labelled picture in part train to draw an audit from; add some")
    return drawn


def chosen_by_audit(made: Mapping[str, Checkpoint], audit: Views, *, name: str = "new") -> Choice:
    """The method that ranks the audit's pictures best; of equals the first.

    Args:
        made: By method, in order of preference, each with the line.
        audit: Labelled, at most ``MOST`` pictures.
        name: Of the line.

    Raises:
        DatasetError: The audit holds more than ``MOST`` pictures, or none.
    """
    if not 0 < audit.count <= MOST:
        raise DatasetError(f"the audit holds {audit.count} pictures; give 1 to {MOST}, drawn by lot from the new line")
    count, defective = audit.count, int(audit.shown_defective.sum())
    first = next(iter(made))
    found: dict[str, float | None] = dict.fromkeys(made)
    if not 0 < defective < count:
        what = "defective" if defective else "healthy"
        why = f"all {count} pictures of the audit are {what}, so nothing tells the methods apart: {first}, named first"
        return Choice(first, why, found, count, defective)
    scores = {method: _auroc(one, audit, name) for method, one in made.items()}
    found = {method: round(score, 4) for method, score in scores.items()}
    best = max(scores, key=lambda method: scores[method])
    why = (
        f"{best} ranks the audit's {count} pictures best, {defective} of them defective: AUROC {scores[best]:.2f}"
        + _others(scores, best)
    )
    return Choice(best, why, found, count, defective)


def _auroc(checkpoint: Checkpoint, audit: Views, name: str) -> float:
    logits, _ = predicted(checkpoint.network, checkpoint.line(name).statistics, audit.images, checkpoint.preprocess)
    shown = np.where(audit.valid[:, None], logits, -np.inf).max(axis=(1, 2, 3))
    return auroc(audit.of_pictures(shown), audit.shown_defective)


def _others(scores: Mapping[str, float], best: str) -> str:
    said: Sequence[str] = [f"{name} {score:.2f}" for name, score in scores.items() if name != best]
    return f" ({', '.join(said)})" if said else ""
