"""Whether to adapt at all, decided from unlabelled pictures.

A method is judged by how the network's scores on held-out pictures of the new line compare with its
scores on the original line: a line that makes the same parts should score healthy and defective ones alike.
How many of either kind it makes nobody knows, so the original's labelled pictures are counted as if so many
were defective as brings the two closest (label shift): a line with 5 % defects is not far from an original
whose pictures were collected half and half.

Three rules, each of which says no: the scores are as close as the original's own pictures are to each other
and raise no crowd of alarms (leave it as it is); no method brings them clearly closer; a method that does
leaves the pooled features farther apart, or raises implausibly many or few alarms (many: more than the
unadapted model too).  Of two that say yes, one that the original line pays for gives way.  Nothing here sees a label
of the new line, so the rules can be wrong; how often they were is for an evaluation to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats, Ints
from training.data.views import Views

__all__ = ["CANDIDATES", "COSTS", "Decision", "Facts", "Scores", "candidates", "decide_method", "facts_of", "noise_of",
           "scores_of"]  # fmt: skip

CANDIDATES: Mapping[str, tuple[str, ...]] = {"cells": ("adabn", "dann"), "classifier": ("mmd", "adabn")}
"""What is tried where no method is named, by the head, the one that is taken if it does first.

On drawn lines and solar cells, seeds from 100 on, a classifier ranked better with MMD than with AdaBN (which
MMD contains) at 50 % and at 5 % defects, and as little harmed as any.  MMD aligns one vector a picture, which is what
a classifier's head reads; of a map it is the background's mean, and hazelnuts' cells ranked worse with it.  ADDA gained
most at 50 % defects and lost most at 5 %, and no rule without labels tells the two apart, so it must be named.
"""
MEASURED_ONLY = "adabn"
"""Never tried by itself on a frozen trunk: its pretrained features stand on the statistics they were trained with.  On
solar cells and tiles, seeds from 100 on, measuring others cost ranking in five cases of six."""
TELLING = 2.0
"""A distance must be so many times the noise of equally many original pictures before it says anything."""
CLOSER = 0.8
"""Share of the unadapted distance that a method must come down to."""
CROWD = 3.0
"""At most so many times the original's alarms."""
CROWD_POINTS = 0.25
"""Unadapted, at most so much more than the original's share of alarms passes without a second look."""
SILENT = 12.0
"""At least the same part of the original's alarms: a real line makes fewer defects than a collection shows."""
COSTS = 0.02
"""Of balanced accuracy on the original line, more than which no adaptation may cost: nothing that does is shipped, so
it gives way to a method that does not."""
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8)
"""Of defective pictures, that the original's are counted as; up to half as many again as there are."""


def candidates(head: str, *, frozen: bool) -> tuple[str, ...]:
    """What is tried where no method is named.

    Args:
        head: ``cells`` or ``classifier``.
        frozen: The trunk is not trained.
    """
    return tuple(method for method in CANDIDATES[head] if not (frozen and method == MEASURED_ONLY))


@dataclass(frozen=True, eq=False)
class Scores:
    """What a network says of N pictures under one line's statistics."""

    logits: Floats
    """``(N, K, h, w)``, or ``(T, K, h, w)`` of T tiles of them."""
    features: Floats
    """``(N, F)`` pooled."""
    valid: Bools
    """``(N, h, w)`` or ``(T, h, w)`` cells that show the picture."""
    defective: Bools | None = None
    """``(N,)`` of the original line, where it is known; never of a new one."""
    of: Ints | None = None
    """``(T,)`` the picture that each tile is of, ascending from 0; ``None``: they are not cut."""

    def __len__(self) -> int:
        return len(self.features)

    @property
    def cells(self) -> Array:
        """Logits of every cell that shows the picture, the largest over classes, flat."""
        return np.asarray(self.logits.max(axis=1)[self.valid])

    @property
    def maxima(self) -> Array:
        """``(N,)``: of each picture its strongest cell's logit."""
        strongest = np.where(self.valid, self.logits.max(axis=1), -np.inf).max(axis=(1, 2))
        if self.of is None:
            return np.asarray(strongest)
        found = np.full(len(self), -np.inf, strongest.dtype)
        np.maximum.at(found, self.of, strongest)
        return found

    @property
    def pictures(self) -> Array:
        """Of every cell of ``cells`` the picture that it is of."""
        of = np.arange(len(self)) if self.of is None else self.of
        return np.repeat(of, self.valid.sum(axis=(1, 2)))


def scores_of(views: Views, logits: Floats, features: Floats, *, labelled: bool = False) -> Scores:
    """What a network says of pictures; of one that is cut into tiles the mean feature counts, as on the station.

    Args:
        views: The pictures, or their tiles.
        logits: ``(N, K, h, w)`` of the views.
        features: ``(N, F)`` of the views.
        labelled: Which are defective is known.
    """
    defective = views.shown_defective if labelled else None
    if not views.tiled:
        return Scores(logits, features, views.valid, defective)
    counts = np.bincount(views.pictures, minlength=views.count)[:, None]
    order = np.argsort(views.pictures, kind="stable")
    pooled = np.asarray(views.of_pictures(features, np.add) / counts, np.float32)
    return Scores(logits[order], pooled, views.valid[order], defective, views.pictures[order])



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
    share_new: float | None = None
    """Of defective pictures, at which the original's scores come closest to the new line's; ``None`` without labels."""
    kept: float | None = None
    """Balanced accuracy on the original line's labelled pictures; ``None`` where they are of one kind."""


@dataclass(frozen=True)
class Decision:
    """What the rules say."""

    method: str
    """What is taken."""
    why: str
    """One sentence."""
    facts: Mapping[str, Facts]
    noise: float
    """Score distance between equally many pictures of the original line itself; infinite where one is all there is."""
    advised: str = ""
    """What the rules would take; they are not asked where a method was named, and say it all the same."""
    undecided: bool = False
    """The scores are far from the original's and no method brings them back: do not ship without answers."""

    def document(self) -> dict[str, object]:
        """Ready for JSON."""
        facts = {
            name: {key: None if value is None else round(value, 4) for key, value in asdict(one).items()}
            for name, one in self.facts.items()
        }
        return {
            "method": self.method,
            "advised": self.advised or self.method,
            "undecided": self.undecided,
            "why": self.why,
            "noise": round(self.noise, 4) if np.isfinite(self.noise) else None,
            "facts": facts,
        }


def facts_of(original: Scores, new: Scores) -> Facts:
    """Compare a method's scores on the new line with the original's, held out; of the new line nothing is known."""
    distance, share = _score_distance(original, new)
    return Facts(
        positive_rate_new=float((new.maxima >= 0).mean()),
        positive_rate_original=float((original.maxima >= 0).mean()),
        unsure_new=float((np.abs(new.cells) < np.log(9)).mean()),
        unsure_original=float((np.abs(original.cells) < np.log(9)).mean()),
        score_distance=distance,
        feature_distance=_feature_distance(original.features, new.features),
        share_new=share,
    )


def noise_of(original: Scores, count: int, *, rounds: int = 40, seed: int = 0) -> float:
    """The score distance that ``count`` pictures of the original line itself would have: the mean over draws.

    Of T pictures c are drawn and compared with the others, c at most half of them; the mean is scaled by
    ``sqrt((1 / T + 1 / count) / (1 / (T - c) + 1 / c))`` to what T pictures and ``count`` others would have.  Infinite
    where there is one picture alone: nothing is known then.
    """
    chance = np.random.default_rng(seed)
    total = len(original)
    if total < 2:
        return float("inf")
    part = max(1, min(count, total // 2))
    found = []
    for _ in range(rounds):
        drawn = chance.permutation(total)
        found.append(_score_distance(_some(original, drawn[part:]), _some(original, drawn[:part]))[0])
    wider = (1 / total + 1 / max(1, count)) / (1 / (total - part) + 1 / part)
    return float(np.mean(found) * np.sqrt(wider))


def decide_method(facts: Mapping[str, Facts], *, noise: float, order: Sequence[str] = CANDIDATES["cells"]) -> Decision:
    """Which method to take; ``source`` where nothing says that another is better.

    Args:
        facts: By method; ``source`` is the network as it is.
        noise: Of ``noise_of``; infinite where it is not known, and then nothing is decided.
        order: Methods that may be taken; the first that does is, one that the original line does not pay for before
            one that it does.
    """
    source = facts["source"]
    here = source.score_distance
    if not np.isfinite(noise):
        why = (
            "one picture of the original line is all that the new one's scores could be compared with, which does not "
            "tell how far its pictures lie from each other, so it is left as it is: undecided; add labelled pictures"
        )
        return Decision("source", why, facts, noise, undecided=True)
    if here <= TELLING * noise and source.positive_rate_new <= source.positive_rate_original + CROWD_POINTS:
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
        and _plausible(facts[name], source)
    ]
    if not better:
        why = (
            f"the scores on the new line are far from the original's ({here:.2f}, noise {noise:.2f}), but no method "
            "brings them and the features clearly closer with a plausible share of alarms, so it is left as it is: "
            "undecided"
        )
        return Decision("source", why, facts, noise, undecided=True)
    best = next((name for name in better if not _costly(facts[name], source)), better[0])
    found = facts[best]
    why = (
        f"{best} brings the scores on the new line from {here:.2f} to {found.score_distance:.2f} of the original's "
        f"spread (noise {noise:.2f}); alarms on {found.positive_rate_new:.0%} of its pictures against "
        f"{found.positive_rate_original:.0%} on the original line, {source.positive_rate_new:.0%} unadapted"
    )
    if best != better[0]:
        why += f"; {better[0]} would too, but costs the original line more than {COSTS:.0%} of balanced accuracy"
    return Decision(best, why, facts, noise)


def _costly(facts: Facts, source: Facts) -> bool:
    """Whether the original line loses more than anything that ships may cost it."""
    return facts.kept is not None and source.kept is not None and source.kept - facts.kept > COSTS + 1e-9


def _plausible(facts: Facts, source: Facts) -> bool:
    """No crowd of alarms, unless the unadapted model raises it too, and not silence where the original line has alarms.

    A method that ranks better and alarms as often as before is worth taking, if not shipping: that is the health
    panel's to say.
    """
    rate, expected = facts.positive_rate_new, max(facts.positive_rate_original, 0.05)
    return expected / SILENT <= rate <= max(expected * CROWD, source.positive_rate_new)


def _some(scores: Scores, which: Array) -> Scores:
    defective = None if scores.defective is None else scores.defective[which]
    if scores.of is None:
        return Scores(scores.logits[which], scores.features[which], scores.valid[which], defective)
    place = np.full(len(scores), -1)
    place[which] = np.arange(len(which))
    of = place[scores.of]
    tiles = np.flatnonzero(of >= 0)
    tiles = tiles[np.argsort(of[tiles], kind="stable")]
    found = of[tiles].astype(np.int32)
    return Scores(scores.logits[tiles], scores.features[which], scores.valid[tiles], defective, found)


def _score_distance(original: Scores, new: Scores) -> tuple[float, float | None]:
    """Of cells and of pictures' maxima, in the original's spread; at the share of defects that makes it least."""
    cells, maxima = original.cells, original.maxima
    pairs = ((cells, new.cells), (maxima, new.maxima))
    spreads = [max(float(one.std()), 1e-6) for one, _ in pairs]
    defective = original.defective
    if defective is None or defective.all() or not defective.any():
        return sum(_wasserstein(one, other) / wide for (one, other), wide in zip(pairs, spreads, strict=True)), None
    pictures = original.pictures
    own = float(defective.mean())
    found: list[tuple[float, float]] = []
    for share in sorted({own, *(one for one in SHARES if one <= 1.5 * own)}):
        weight = np.where(defective, share / own, (1 - share) / (1 - own))
        weights = (weight[pictures], weight)
        apart = [_wasserstein(one, other, w) for (one, other), w in zip(pairs, weights, strict=True)]
        found.append((sum(far / wide for far, wide in zip(apart, spreads, strict=True)), share))
    return min(found)


def _wasserstein(one: Array, other: Array, weights: Array | None = None) -> float:
    """Mean difference of the quantiles: the distance that mass must be moved by; ``weights`` count ``one``."""
    at = (np.arange(200) + 0.5) / 200
    if weights is None:
        mine = np.quantile(one, at)
    else:
        order = np.argsort(one, kind="stable")
        below = np.cumsum(weights[order])
        middle = (below - weights[order] / 2) / below[-1]
        mine = np.interp(at, middle, one[order])
    return float(np.abs(mine - np.quantile(other, at)).mean())


def _feature_distance(original: Floats, new: Floats) -> float:
    spread = np.maximum(original.std(axis=0), 1e-6)
    moved = np.abs(new.mean(axis=0) - original.mean(axis=0)) / spread
    return float(np.minimum(moved, 100).mean())
