"""The health panel of an adaptation: what can be said without a label of the new line, and whether to ship.

A model that was adapted without labels cannot be tested on the new line.  What can be looked at is how many
alarms it raises there, whether its features still tell the lines apart, whether the original line was kept, and
how hard each loss term pulled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_sdk.documents import write_atomic
from training.adapt import ENOUGH, Adaptation
from training.health_rules import LIMITS, Check, Verdict, checked, judged
from training.health_signs import Seen, Signs, signs_of

__all__ = ["Health", "health_of", "write_health"]

FEW = 20
"""Pictures of a line below which a share is coarse."""
PULLS = 10.0
"""Times the supervised term's gradient from which another term steers the training."""
TOLD_APART = 1.5
"""A-distance, of 2, from which the lines were not brought together."""
FEWER = 3.0
"""Times fewer alarms than on the original line that are worth a look."""


@dataclass(frozen=True)
class Health:
    """How an adaptation came out."""

    chosen: str
    """The method."""
    decision: str
    """Why it was chosen, one sentence of the rules."""
    verdict: Verdict
    signs: Mapping[str, Signs]
    """By method tried; ``source`` is the model as it was."""
    checks: Mapping[str, tuple[Check, ...]]
    """By method, every limit."""
    cautions: tuple[str, ...]
    """What makes the panel less sure, or what to look at, a sentence each."""
    seen: Mapping[str, Seen] = field(repr=False, compare=False)
    """By method what the signs were measured on: for the pictures of the page."""
    units: tuple[tuple[str, ...], tuple[str, ...]] = field(repr=False, compare=False)
    """What may not be torn apart, of the original line's pictures and of the new one's."""

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "verdict": self.verdict.word,
            "why": self.verdict.why,
            "chosen": self.chosen,
            "decision": self.decision,
            "cautions": list(self.cautions),
            "limits": {limit.name: limit.most for limit in LIMITS},
            "methods": {
                name: {
                    **signs.document(),
                    "checks": {
                        check.limit: {
                            "value": None if check.value is None else round(check.value, 4),
                            "held": check.held,
                            "why": check.sentence,
                        }
                        for check in self.checks[name]
                    },
                }
                for name, signs in self.signs.items()
            },
        }


def health_of(adaptation: Adaptation, *, name: str = "new") -> Health:
    """Measure every method that was tried, and say whether to ship the one that was chosen.

    Of the new line's pictures nothing is read but how they look and what belongs together.

    Args:
        adaptation: As ``training.adapt`` gives it.
        name: Of the new line.
    """
    signs, seen = {}, {}
    for method, checkpoint in adaptation.methods.items():
        signs[method], seen[method] = signs_of(
            method,
            checkpoint,
            name=name,
            held=adaptation.held,
            reference=adaptation.reference,
            history=adaptation.histories.get(method, ()),
        )
    decision = adaptation.decision
    chosen = decision.method
    return Health(
        chosen=chosen,
        decision=decision.why,
        verdict=judged(chosen, signs, undecided=decision.why if decision.undecided else ""),
        signs=signs,
        checks={method: checked(one, signs["source"]) for method, one in signs.items()},
        cautions=tuple(_cautions(signs[chosen], signs["source"], held_out=adaptation.held_out)),
        seen=seen,
        units=(adaptation.reference.picture_units, adaptation.held.picture_units),
    )


def write_health(adaptation: Adaptation, out: Path, *, name: str = "new") -> Health:
    """Write ``health.json`` and ``health.html`` into a folder, each whole or not at all.

    Args:
        adaptation: As ``training.adapt`` gives it.
        out: A folder; made where it is not there.
        name: Of the new line.
    """
    from training.health_page import health_page

    health = health_of(adaptation, name=name)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "health.html", health_page(health).encode())
    write_atomic(out / "health.json", json.dumps(health.document(), indent=1, allow_nan=False).encode() + b"\n")
    return health


def _cautions(now: Signs, before: Signs, *, held_out: int) -> list[str]:
    found = []
    if now.pictures_new < FEW:
        found.append(
            f"Only {now.pictures_new} unlabelled pictures of the new line were looked at, so one of them is "
            f"{1 / now.pictures_new:.0%} of every share; adapt with more pictures."
        )
    if held_out < ENOUGH:
        found.append(
            f"Only {held_out} labelled pictures of the original line were held out; they are judged together with "
            "those that were trained on, so what is kept and the prior look better than they are."
        )
    elif min(now.kept.defective, now.kept.healthy) < FEW:
        found.append(
            f"The original line is judged on {now.kept.defective} defective and {now.kept.healthy} healthy pictures; "
            "one more mistake is several points of balanced accuracy."
        )
    new, expected = now.facts.positive_rate_new, before.facts.positive_rate_original
    if new * FEWER < expected:
        found.append(
            f"Alarms on {new:.0%} of the new line's pictures are few beside {expected:.0%} on the original line: "
            "either the new line makes fewer defects, or the model is blind to them."
        )
    if now.probe is None:
        found.append("Too few pictures or groups for a held-out probe: how far the lines lie apart is not known.")
    elif now.probe.distance > TOLD_APART:
        found.append(
            f"A probe still tells the two lines apart (A-distance {now.probe.distance:.2f} of 2): "
            "their features were not brought together."
        )
    if now.prior is not None and now.prior.singular:
        number = f"{now.prior.condition:.0f}" if now.prior.condition < 1e6 else "infinite"
        found.append(
            f"The confusion matrix is nearly singular (condition number {number}): on the original line a defect is "
            "hardly more likely to raise an alarm, so the estimated share of defects says nothing."
        )
    supervised = now.gradients.get("supervised")
    for term, norm in now.gradients.items():
        if supervised is not None and term != "supervised" and norm > PULLS * max(supervised, 1e-12):
            found.append(
                f"The loss term {term} pulled {norm / max(supervised, 1e-12):.0f} times as hard as the supervised one "
                "in the median step; give it less weight."
            )
    return found
