"""Whether to ship an adapted model: limits on its signs, none of which needs a label of the new line.

The limits are one table, each with the sentence that a reader gets when it is broken.  They can be wrong in
both directions; how often they were is counted by ``benchmarks.adaptation.verdicts``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from training.health_signs import Signs
from training.rules import COSTS

__all__ = ["LIMITS", "Check", "Limit", "Verdict", "checked", "judged"]

FLOOR = 0.05
"""Alarms on the original line count as at least this share, or one alarm among few pictures would be a crowd."""
SURE = 1.96
"""Standard errors beyond which a share is not chance."""


@dataclass(frozen=True)
class Limit:
    """A limit on what may be shipped."""

    name: str
    most: float
    """Broken above it."""
    measure: Callable[[Signs, Signs], float | None]
    """Of a method and of the model as it was; ``None`` where the pictures do not say."""
    sentence: str
    """Of a broken limit; knows ``now`` and ``before`` (signs), ``value`` and ``most``."""


@dataclass(frozen=True)
class Check:
    """A limit, applied to a method."""

    limit: str
    value: float | None
    most: float
    sentence: str
    """Why not to ship; empty where the limit is held or nothing can be said."""

    @property
    def held(self) -> bool:
        """Whether it does not speak against shipping."""
        return not self.sentence


@dataclass(frozen=True)
class Verdict:
    """Whether to ship."""

    ship: bool
    why: str
    """One sentence."""

    @property
    def word(self) -> str:
        """``ship`` or ``do not ship``."""
        return "ship" if self.ship else "do not ship"


def _alarms(now: Signs, before: Signs) -> float:
    return now.facts.positive_rate_new / max(before.facts.positive_rate_original, FLOOR)


def _passes(now: Signs, before: Signs) -> float:
    """How many times fewer pictures pass; half a picture is added, so that none of four is not yet nothing."""
    here, there = before.pictures_original, now.pictures_new
    passed = (1 - before.facts.positive_rate_original) * here + 0.5
    passed_new = (1 - now.facts.positive_rate_new) * there + 0.5
    return (passed / (here + 1)) / (passed_new / (there + 1))


def _unsure(now: Signs, before: Signs) -> float:
    return now.facts.unsure_new - before.facts.unsure_original


def _lost(now: Signs, before: Signs) -> float | None:
    if now.kept.balanced_accuracy is None or before.kept.balanced_accuracy is None:
        return None
    return before.kept.balanced_accuracy - now.kept.balanced_accuracy


def _unexplained(now: Signs, before: Signs) -> float | None:
    """Standard errors by which the positive rate exceeds the hit rate: what a line of defects alone would give."""
    hits, count = now.kept.hit_rate, now.kept.defective
    if hits is None:
        return None
    rate, pictures = now.facts.positive_rate_new, now.pictures_new
    smooth = (hits * count + 0.5) / (count + 1)
    smooth_new = (rate * pictures + 0.5) / (pictures + 1)
    error = np.sqrt(smooth * (1 - smooth) / (count + 1) + smooth_new * (1 - smooth_new) / (pictures + 1))
    return float((rate - hits) / error)


def _blind(now: Signs, before: Signs) -> float | None:
    """Of the original line's own pictures; where all of them are defective, of those alone."""
    seen = now.kept.hit_rate if now.kept.balanced_accuracy is None else now.kept.balanced_accuracy
    return None if seen is None else 1 - seen


LIMITS = (
    Limit(
        "blind",
        0.4,
        _blind,
        "{now.subject} finds {now.kept.found} of the {now.kept.defective} defective pictures of the original line "
        "itself, with alarms on {now.kept.disturbed} of its {now.kept.healthy} healthy ones, so its alarms say "
        "nothing of the new line",
    ),
    Limit(
        "alarms",
        3.0,
        _alarms,
        "{now.subject} calls {now.facts.positive_rate_new:.0%} of the new line's pictures defective, more than "
        "{most:g} times the original line's {before.facts.positive_rate_original:.0%}",
    ),
    Limit(
        "passes",
        5.0,
        _passes,
        "{now.subject} passes {now.passed_new} of the new line's {now.pictures_new} pictures, "
        "where the model passed {before.passed_original} of the original line's {before.pictures_original}",
    ),
    Limit(
        "unsure",
        0.25,
        _unsure,
        "{now.subject} is unsure of {now.facts.unsure_new:.0%} of the new line's cells, "
        "where the model was unsure of {before.facts.unsure_original:.0%} of the original line's",
    ),
    Limit(
        "unexplained",
        SURE,
        _unexplained,
        "{now.subject} calls {now.facts.positive_rate_new:.0%} of the new line's pictures defective but only "
        "{now.kept.hit_rate:.0%} of the original line's defective ones, so more defects cannot be the reason",
    ),
    Limit(
        "source",
        COSTS,
        _lost,
        "{now.subject} costs the original line {value:.1%} of balanced accuracy "
        "({before.kept.balanced_accuracy:.1%} to {now.kept.balanced_accuracy:.1%} on "
        "{now.pictures_original} labelled pictures; the limit is {most:.0%})",
    ),
)
"""What must hold before anything is shipped."""

SLACK = 1e-9
"""So that a limit that is met exactly is met."""


def checked(now: Signs, before: Signs) -> tuple[Check, ...]:
    """Every limit, applied to one method.

    Args:
        now: Of the method.
        before: Of the model as it was, ``source``.
    """
    found = []
    for limit in LIMITS:
        value = limit.measure(now, before)
        broken = value is not None and value > limit.most + SLACK
        sentence = limit.sentence.format(now=now, before=before, value=value, most=limit.most) if broken else ""
        found.append(Check(limit.name, value, limit.most, sentence))
    return tuple(found)


def judged(chosen: str, signs: Mapping[str, Signs], *, undecided: str = "") -> Verdict:
    """Whether to ship what was chosen.

    Args:
        chosen: The method.
        signs: By method; ``source`` is the model as it was.
        undecided: Why the rules that choose could not, where they could not: then nothing ships either.

    Returns:
        With the sentence of the first broken limit, how many more are, and whether everything else that was
        tried breaks one too.  A method that breaks none is not named: that is no reason to take it.
    """
    now, before = signs[chosen], signs["source"]
    broken = [check for check in checked(now, before) if not check.held]
    if broken:
        more = "" if len(broken) == 1 else f" (and {_counted(len(broken) - 1, 'more limit')} broken)"
        why = broken[0].sentence + more
        others = [name for name in signs if name not in (chosen, "source")]
        if others and not any(all(check.held for check in checked(signs[name], before)) for name in others):
            why += f", and none of {', '.join(others)} holds them all"
        elif chosen == "source" and not others:
            why += ", and nothing else was tried"
        return Verdict(False, why)
    if undecided:
        return Verdict(False, undecided)
    why = (
        f"{now.subject} raises alarms on {now.facts.positive_rate_new:.0%} of the new line's pictures and "
        f"{before.facts.positive_rate_original:.0%} of the original line's"
    )
    if now.kept.balanced_accuracy is not None and chosen != "source":
        why += f", which keeps its balanced accuracy of {now.kept.balanced_accuracy:.0%}"
    return Verdict(True, why)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
