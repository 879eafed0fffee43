"""Whether to adapt at all, decided from unlabelled pictures.

A method is judged by how the network's scores on held-out pictures of the new line compare with its
scores on the original line: a line that makes the same parts should raise as many alarms, as surely.
Nothing here sees a label, so the rules can be wrong; how often they were is for an evaluation to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats

__all__ = ["CANDIDATES", "Decision", "Facts", "Scores", "decide_method", "facts_of", "noise_of"]

CANDIDATES = ("adabn", "dann")
"""What is tried where no method is named, the one that changes least first."""
TELLING = 2.0
"""A distance must be so many times the noise of equally many original pictures before it says anything."""
CLOSER = 0.7
"""Share of the unadapted distance that a method must come down to."""
CROWD = 3.0
"""At most so many times the original's alarms, and at least the same part of them."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What a network says of N pictures under one line's statistics."""

    logits: Floats
    """``(N, K, h, w)``."""
    features: Floats
    """``(N, F)`` pooled."""
    valid: Bools
    """``(N, h, w)`` cells that show the picture."""

    @property
    def cells(self) -> Array:
        """Logits of every cell that shows the picture, the largest over classes, flat."""
        return np.asarray(self.logits.max(axis=1)[self.valid])

    @property
    def maxima(self) -> Array:
        """``(N,)``: of each picture its strongest cell's logit."""
        return np.asarray(np.where(self.valid, self.logits.max(axis=1), -np.inf).max(axis=(1, 2)))


@dataclass(frozen=True)
class Facts:
    """One method on held-out unlabelled pictures of the new line, beside the original line."""

    positive_rate_new: float
    """Share of pictures with a cell from the boundary up."""
    positive_rate_original: float
    unsure_new: float
    """Share of cells with a confidence between 0.1 and 0.9."""
    unsure_original: float
    score_distance: float
    """How far the scores lie from the original's, in its standard deviations: cells plus pictures' maxima."""
    feature_distance: float
    """Mean over features of the difference of means, in the original's standard deviations."""


@dataclass(frozen=True)
class Decision:
    """What the rules say."""

    method: str
    """What is taken."""
    why: str
    """One sentence."""
    facts: Mapping[str, Facts]
    noise: float
    """Score distance between equally many pictures of the original line itself."""
    advised: str = ""
    """What the rules would take; they are not asked where a method was named, and say it all the same."""
    undecided: bool = False
    """The scores are far from the original's and no method brings them back: do not ship without answers."""

    def document(self) -> dict[str, object]:
        """Ready for JSON."""
        facts = {name: {key: round(value, 4) for key, value in asdict(one).items()} for name, one in self.facts.items()}
        return {
            "method": self.method,
            "advised": self.advised or self.method,
            "undecided": self.undecided,
            "why": self.why,
            "noise": round(self.noise, 4),
            "facts": facts,
        }


def facts_of(original: Scores, new: Scores) -> Facts:
    """Compare a method's scores on the new line with the original's; both unlabelled and held out."""
    return Facts(
        positive_rate_new=float((new.maxima >= 0).mean()),
        positive_rate_original=float((original.maxima >= 0).mean()),
        unsure_new=float((np.abs(new.cells) < np.log(9)).mean()),
        unsure_original=float((np.abs(original.cells) < np.log(9)).mean()),
        score_distance=_score_distance(original, new),
        feature_distance=_feature_distance(original.features, new.features),
    )


def noise_of(original: Scores, count: int, *, rounds: int = 40, seed: int = 0) -> float:
    """The score distance that ``count`` pictures of the original line itself have: the mean over draws."""
    chance = np.random.default_rng(seed)
    total = len(original.logits)
    count = max(1, min(count, total // 2))
    found = []
    for _ in range(rounds):
        drawn = chance.permutation(total)
        found.append(_score_distance(_some(original, drawn[count:]), _some(original, drawn[:count])))
    return float(np.mean(found)) if total > 1 else float("inf")


def decide_method(facts: Mapping[str, Facts], *, noise: float, order: Sequence[str] = CANDIDATES) -> Decision:
    """Which method to take; ``source`` where nothing says that another is better.

    Args:
        facts: By method; ``source`` is the network as it is.
        noise: Of ``noise_of``.
        order: Methods that may be taken, the one that changes least first; it is taken if it does.
    """
    source = facts["source"]
    here = source.score_distance
    if here <= TELLING * noise:
        why = (
            f"the scores on the new line lie as close to the original's ({here:.2f}) as pictures of the original "
            f"line lie to each other ({noise:.2f}), so it is left as it is"
        )
        return Decision("source", why, facts, noise)
    better = [
        name
        for name in order
        if name in facts and facts[name].score_distance <= CLOSER * here
        and facts[name].feature_distance <= source.feature_distance
        and _plausible(facts[name])
    ]
    if not better:
        why = (
            f"the scores on the new line are far from the original's ({here:.2f}, noise {noise:.2f}), but no method "
            "brings them and the features clearly closer with a plausible share of alarms, so it is left as it is: "
            "undecided"
        )
        return Decision("source", why, facts, noise, undecided=True)
    best = better[0]
    found = facts[best]
    why = (
        f"{best} brings the scores on the new line from {here:.2f} to {found.score_distance:.2f} of the original's "
        f"spread (noise {noise:.2f}); alarms on {found.positive_rate_new:.0%} of its pictures against "
        f"{found.positive_rate_original:.0%} on the original line, {source.positive_rate_new:.0%} unadapted"
    )
    return Decision(best, why, facts, noise)


def _plausible(facts: Facts) -> bool:
    """No more than a crowd of alarms, and not silence where the original line has alarms."""
    rate, expected = facts.positive_rate_new, max(facts.positive_rate_original, 0.05)
    return expected / CROWD <= rate <= min(1.0, expected * CROWD)


def _some(scores: Scores, which: Array) -> Scores:
    return Scores(scores.logits[which], scores.features[which], scores.valid[which])


def _score_distance(original: Scores, new: Scores) -> float:
    pairs = ((original.cells, new.cells), (original.maxima, new.maxima))
    return sum(_wasserstein(one, other) / max(float(one.std()), 1e-6) for one, other in pairs)


def _wasserstein(one: Array, other: Array) -> float:
    """Mean difference of the quantiles: the distance that mass must be moved by."""
    at = (np.arange(200) + 0.5) / 200
    return float(np.abs(np.quantile(one, at) - np.quantile(other, at)).mean())


def _feature_distance(original: Floats, new: Floats) -> float:
    spread = np.maximum(original.std(axis=0), 1e-6)
    moved = np.abs(new.mean(axis=0) - original.mean(axis=0)) / spread
    return float(np.minimum(moved, 100).mean())
