"""What a line looked like when its bundle was packed: what the watch for drift compares with.

``export pack`` makes it of pictures of the line, from what each rendering makes of them; the manifest carries it.
Symbols are those of ``quality.drift``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array, Bools, Floats
from edge_sdk.errors import RangeError, ShapeError
from edge_sdk.quality.facts import FACTS

__all__ = ["FALSE_ALARMS", "FEWEST", "KEPT", "LEVELS", "WINDOW", "Reference", "areas_of", "reference_of", "statistic",
           "summary_of"]  # fmt: skip

WINDOW = 32
"""W, frames."""
KEPT = 5
"""Windows looked back on."""
FALSE_ALARMS = 0.01
"""alpha: windows of an unchanged line that lie above the threshold."""
FEWEST = 32
"""Pictures that passed, below which no reference is made."""
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.9, 0.95)
"""Of the reference's scores: the quantiles that are watched."""
MOVED = 0.2
"""Share of frames that must have changed sides of a quantile before scores count as moved, however sure it is."""
ROUNDS = 2000
"""Windows drawn to set a threshold."""
HOMES, SURE = 200, 0.9
"""References drawn anew, and the share of them that must keep ``FALSE_ALARMS``: what is wrong with a reference of few
pictures stays wrong for as long as the bundle is used."""
SMALLEST = 1e-6
"""Of a standard deviation, so that a feature that is always 0 divides nothing by 0."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What a line looked like when its bundle was packed."""

    mean: Floats
    """``(d,)``."""
    sd: Floats
    """``(d,)``."""
    n: int
    """Pictures it was made of; all passed."""
    threshold: float
    """h, of T."""
    scores: Floats
    """``(Q,)`` quantiles of the pictures' scores at ``LEVELS``; a score is a picture's strongest confidence."""
    below: Floats
    """``(Q,)`` share of the reference's pictures at or below each."""
    score_threshold: float
    """Of the largest change of those shares over ``KEPT`` windows."""
    facts_mean: Floats
    """``(6,)`` in the order of ``facts.FACTS``."""
    facts_sd: Floats
    detected: float | None = None
    """Share of pictures with a detection, where they came as the line makes them; ``None``: the station learns it."""
    looked_at: int = 0
    """Pictures that this share is of."""
    window: int = WINDOW
    false_alarms: float = FALSE_ALARMS

    def __post_init__(self) -> None:
        if self.mean.shape != self.sd.shape or self.mean.ndim != 1:
            raise ShapeError(f"mean is {self.mean.shape} and sd {self.sd.shape}; give (d,) and (d,)")
        if self.scores.shape != self.below.shape or self.facts_mean.shape != (len(FACTS),):
            raise ShapeError(
                f"scores are {self.scores.shape}, below {self.below.shape}, facts {self.facts_mean.shape}; "
                f"give (Q,), (Q,) and ({len(FACTS)},)"
            )


def statistic(mean: Array, reference_mean: Array, reference_sd: Array, *, window: int) -> float:
    """``T = W mean_j ((m_j - mu_j) / sd_j)^2``."""
    z = (mean - reference_mean) / np.maximum(reference_sd, SMALLEST)
    return float(window * np.mean(z * z))


def areas_of(confidence: Floats) -> Floats:
    """``(K, areas)`` of a map ``(K, h, w)`` or of a detector's ``(A, K)``."""
    return confidence.reshape(len(confidence), -1) if confidence.ndim == 3 else confidence.T


def summary_of(confidence: Floats) -> Floats:
    """What is watched of a graph without a feature: mean, standard deviation and maximum of each class's logits.

    Args:
        confidence: ``(K, h, w)``, or of a detector ``(A, K)``, in [0, 1].

    Returns:
        ``(3 K,)`` float32.
    """
    sure = np.clip(areas_of(confidence).astype(np.float64), 1e-6, 1 - 1e-6)
    logits = np.log(sure / (1 - sure))
    return np.concatenate([logits.mean(axis=1), logits.std(axis=1), logits.max(axis=1)]).astype(np.float32)


def reference_of(
    vectors: Floats,
    scores: Floats,
    facts: Floats,
    detected: Bools,
    *,
    as_they_come: bool = False,
    window: int = WINDOW,
    false_alarms: float = FALSE_ALARMS,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> Reference:
    """Make a line's reference, with thresholds that an unchanged line seldom crosses.

    Windows are drawn from the pictures, and the reference itself is drawn anew ``HOMES`` times: h is so high that
    ``SURE`` of the references as small as this one have at most alpha of the windows above it.  Where neighbouring
    pictures are alike, as on a web, what is drawn are runs of neighbours: independent pictures would differ less than
    the line's own windows do.

    Args:
        vectors: ``(n, d)`` in the order in which the pictures were taken.
        scores: ``(n,)`` strongest confidence of each picture, in [0, 1].
        facts: ``(n, 6)``, see ``quality.facts``.
        detected: ``(n,)`` whether the picture has a detection; those that have none are what the reference is made of.
        as_they_come: The pictures hold as many defects as the line makes, so they tell the usual share of detections.
        window: W.
        false_alarms: alpha, in (0, 0.5).
        rounds: Windows drawn.
        seed: Of the drawing.

    Raises:
        ShapeError: The arrays disagree on n.
        RangeError: Fewer than ``FEWEST`` pictures pass, a value is not finite, or alpha is out of range.
    """
    n = len(vectors)
    if vectors.ndim != 2 or scores.shape != (n,) or detected.shape != (n,) or facts.shape != (n, len(FACTS)):
        raise ShapeError(
            f"vectors are {vectors.shape}, scores {scores.shape}, facts {facts.shape} and detected {detected.shape}; "
            "give (n, d), (n,), (n, 6) and (n,)"
        )
    if not 0 < false_alarms < 0.5:
        raise RangeError(f"false_alarms is {false_alarms:g}; give a share above 0 and below 0.5, e.g. 0.01")
    if not (np.isfinite(vectors).all() and np.isfinite(scores).all() and np.isfinite(facts).all()):
        raise RangeError("a feature, score or fact of a picture is not finite; the graph overflows, export it again")
    passed = ~detected
    if passed.sum() < FEWEST:
        raise RangeError(
            f"{passed.sum()} of {n} pictures pass, too few for a drift reference; give {FEWEST} or more healthy ones"
        )
    x, scores, facts = vectors[passed].astype(np.float64), scores[passed], facts[passed]
    n = len(x)
    quantiles = np.quantile(scores, LEVELS, method="higher").astype(np.float32)
    sides = (scores[:, None] <= quantiles).astype(np.float64)
    block = window if _alike(x) else 1
    chance = np.random.default_rng(seed)
    windows = np.stack([x[_run(n, window, block, chance)].mean(axis=0) for _ in range(rounds)])
    late = np.stack([sides[_run(n, window * KEPT, block, chance)].mean(axis=0) for _ in range(rounds)])
    high, moved = np.empty(HOMES), np.empty(HOMES)
    for home in range(HOMES):
        which = _run(n, n, block, chance)
        z = (windows - x[which].mean(axis=0)) / np.maximum(x[which].std(axis=0), SMALLEST)
        high[home] = np.quantile(window * np.mean(z * z, axis=1), 1 - false_alarms)
        moved[home] = np.quantile(np.abs(late - sides[which].mean(axis=0)).max(axis=1), 1 - false_alarms)
    return Reference(
        mean=x.mean(axis=0).astype(np.float32),
        sd=x.std(axis=0).astype(np.float32),
        n=n,
        threshold=float(np.quantile(high, SURE)),
        scores=quantiles,
        below=sides.mean(axis=0).astype(np.float32),
        score_threshold=max(MOVED, float(np.quantile(moved, SURE))),
        facts_mean=facts.mean(axis=0).astype(np.float32),
        facts_sd=facts.std(axis=0).astype(np.float32),
        detected=float(np.mean(detected)) if as_they_come else None,
        looked_at=len(detected),
        window=window,
        false_alarms=false_alarms,
    )


def _alike(x: Array) -> bool:
    """Whether neighbours are alike: the mean lag-1 correlation over features lies above what chance gives one."""
    spread = x.std(axis=0)
    z = (x - x.mean(axis=0))[:, spread > SMALLEST] / spread[spread > SMALLEST]
    return bool(z.size and np.mean(z[1:] * z[:-1]) > 2 / np.sqrt(len(z)))


def _run(n: int, count: int, block: int, chance: np.random.Generator) -> Array:
    """``count`` numbers below n, drawn with replacement in runs of ``block`` neighbours, round the end."""
    starts = chance.integers(0, n, -(-count // block))
    return np.asarray((starts[:, None] + np.arange(block)).ravel()[:count] % n)
