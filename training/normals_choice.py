"""Which method a new line takes, by an audit: a few of its pictures, labelled; the only labels of it that are seen.

An audit is drawn by lot from what is there to train with, whatever any model says, and at most ``MOST`` large.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import DatasetError
from edge_sdk.quality.datasets import Line, Sample
from edge_sdk.quality.measures import auroc
from training.checkpoint import Checkpoint
from training.data.views import Views
from training.lines import predicted

__all__ = ["MOST", "Choice", "audit_drawn", "chosen_by_audit", "shared_pictures", "standard_error"]

MOST = 30
"""Pictures of an audit: a few minutes of an operator."""
FEWEST = 5
"""Pictures of a kind below which no method is told from another."""
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


def shared_pictures(normals: Views, audit: Views) -> dict[str, str]:
    """Normals that an audit shows too: of each its name, and its name in the audit.

    Pictures are the same where the network gets the same pixels of them.  Names say nothing: each is relative to a
    folder of its own, so that two folders' ``000.png`` are two pictures, and a copy may be called anything.
    """
    audited = {content: name for name, content in _contents(audit)}
    return {name: audited[content] for name, content in _contents(normals) if content in audited}


def _contents(views: Views) -> list[tuple[str, str]]:
    """Of each picture its name and a digest of its pixels, those of all its tiles."""
    names = [""] * views.count
    digests = [hashlib.sha256() for _ in names]
    for name, image, picture in zip(views.names, views.images, views.pictures, strict=True):
        names[picture] = name
        digests[picture].update(image.tobytes())
    return [(name, digest.hexdigest()) for name, digest in zip(names, digests, strict=True)]


def chosen_by_audit(made: Mapping[str, Checkpoint], audit: Views, *, name: str = "new") -> Choice:
    """The method named first, unless another one ranks the audit's pictures better by more than chance would.

    Thirty pictures tell little: the difference of two AUROC on them has a standard error of about 0.1, so that the best
    of several would mostly be the luckiest.  The best is taken where its AUROC is above the first one's by more than
    one standard error of that difference, and never with fewer than ``FEWEST`` pictures of a kind.

    ``s^2 = var_i(a_i - b_i) / m + var_j(a_j - b_j) / n`` over m defective pictures i and n healthy ones j, where
    ``a_i`` and ``b_i`` are the shares of healthy pictures that i stands above by either method, ``a_j`` and ``b_j``
    those of defective ones that stand above j; equal scores count half.

    Args:
        made: By method, in order of preference, each with the line.
        audit: Labelled, at most ``MOST`` pictures.
        name: Of the line.

    Raises:
        DatasetError: The audit holds more than ``MOST`` pictures, or none.

    Reference:
        DeLong, DeLong and Clarke-Pearson, Comparing the areas under two or more correlated receiver operating
        characteristic curves, Biometrics 1988.
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
    truth = audit.shown_defective
    scores = {method: _scores(one, audit, name) for method, one in made.items()}
    areas = {method: auroc(one, truth) for method, one in scores.items()}
    found = {method: round(area, 4) for method, area in areas.items()}
    best = max(areas, key=lambda method: areas[method])
    told = f"AUROC on the audit's {count} pictures, {defective} of them defective: "
    told += ", ".join(f"{method} {area:.2f}" for method, area in areas.items())
    if best == first:
        return Choice(first, f"{first} ranks best; {told}", found, count, defective)
    if min(defective, count - defective) < FEWEST:
        why = f"fewer than {FEWEST} of a kind are too few to leave {first}, named first; {told}"
        return Choice(first, why, found, count, defective)
    error = standard_error(scores[best], scores[first], truth)
    if areas[best] - areas[first] <= error:
        why = f"{best} is better than {first}, named first, by no more than chance ({error:.2f}) makes it; {told}"
        return Choice(first, why, found, count, defective)
    why = f"{best} ranks better than {first}, named first, by more than chance ({error:.2f}) makes it; {told}"
    return Choice(best, why, found, count, defective)


def standard_error(one: Array, other: Array, truth: Array) -> float:
    """Of the difference of two AUROC on the same pictures; see ``chosen_by_audit``.

    Args:
        one: ``(N,)`` scores, and ``other``.
        truth: ``(N,)`` bool, two or more of each kind.
    """
    apart = _above(one, truth) - _above(other, truth)
    return float(np.sqrt(apart.mean(1).var(ddof=1) / apart.shape[0] + apart.mean(0).var(ddof=1) / apart.shape[1]))


def _above(scores: Array, truth: Array) -> Array:
    """``(m, n)``: 1 where a defective picture stands above a healthy one, a half where they are equal."""
    high, low = scores[truth > 0][:, None], scores[truth == 0][None]
    return np.asarray((high > low) + 0.5 * (high == low))


def _scores(checkpoint: Checkpoint, audit: Views, name: str) -> Array:
    logits, _ = predicted(checkpoint.network, checkpoint.line(name).statistics, audit.images, checkpoint.preprocess)
    found: Array = audit.of_pictures(np.where(audit.valid[:, None], logits, -np.inf).max(axis=(1, 2, 3)))
    return found
