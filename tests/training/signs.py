"""Signs of a model that is in good health, to be made ill one sign at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from training.health_signs import Kept, Signs
from training.prior import Prior
from training.probe import Probe
from training.rules import Facts

__all__ = ["signs"]


def signs(method: str = "source", **changes: Any) -> Signs:
    """Of 100 pictures a line, 30 of the original's defective and all but two judged right."""
    facts = Facts(
        positive_rate_new=0.3,
        positive_rate_original=0.3,
        unsure_new=0.05,
        unsure_original=0.04,
        score_distance=0.4,
        feature_distance=0.3,
    )
    kept = Kept(
        unit="cells",
        ap=0.9,
        auroc=0.98,
        balanced_accuracy=0.96,
        hit_rate=0.95,
        alarm_rate=0.03,
        defective=30,
        healthy=70,
    )
    healthy = Signs(
        method=method,
        pictures_original=100,
        pictures_new=100,
        facts=facts,
        spread_original=3.0,
        spread_new=3.1,
        kept=kept,
        probe=Probe(0.4, 200),
        prior=Prior(0.3, 0.2, 0.4, original=0.3, condition=1.1, unclipped=0.3),
        gradients={},
    )
    own = {name: changes.pop(name) for name in list(changes) if name in vars(healthy)}
    facts = replace(facts, **{name: changes.pop(name) for name in list(changes) if name in vars(facts)})
    return replace(healthy, facts=facts, kept=replace(kept, **changes), **own)
