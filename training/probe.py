"""How well a line is told from another by its features: the domain probe.

A domain loss that stands at ln 2 says that the adversary has given up, not that the lines look alike.  The
probe is trained afresh on features nobody adapted to, and asked about pictures it has not seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge_sdk.arrays import Array
from edge_sdk.errors import ShapeError

__all__ = ["Probe", "domain_probe"]

LEAST = 6
"""Pictures of a line below which nothing is said."""
FOLDS = 5
STRENGTH = 0.1
"""Inverse regularisation of the logistic regression, on standardised features."""


@dataclass(frozen=True)
class Probe:
    """What a held-out probe makes of two lines."""

    error: float
    """Balanced over the lines, in [0, 1]; 0.5 is guessing."""
    pictures: int
    """How many it was asked about."""

    @property
    def distance(self) -> float:
        """Proxy A-distance ``2 (1 - 2 error)``, in [0, 2]: 0 where the lines look alike, 2 where they are told apart.

        Reference:
            Ben-David et al., Analysis of representations for domain adaptation, NeurIPS 2006, section 4.
        """
        return max(0.0, 2 * (1 - 2 * self.error))


def domain_probe(
    original: Array,
    new: Array,
    *,
    original_units: Sequence[str] | None = None,
    new_units: Sequence[str] | None = None,
    seed: int = 0,
) -> Probe | None:
    """Cross-validate a logistic regression that tells two lines apart; whole units are held out.

    A part that both lines show stays on one side of every fold, so the probe cannot know it again.

    Args:
        original: ``(n, F)`` pooled features.
        new: ``(m, F)``.
        original_units: ``(n,)`` what may not be torn apart; each picture for itself without.
        new_units: ``(m,)``.
        seed: Of the folds.

    Returns:
        ``None`` where a line has fewer than 6 pictures, or all of one unit: nothing can be held out.

    Raises:
        ShapeError: The features disagree on F, or units and pictures on their number.
    """
    if original.ndim != 2 or new.ndim != 2 or original.shape[1] != new.shape[1]:
        raise ShapeError(f"features are {original.shape} and {new.shape}; give (n, F) and (m, F)")
    units = [
        *(original_units if original_units is not None else (f"original {n}" for n in range(len(original)))),
        *(new_units if new_units is not None else (f"new {n}" for n in range(len(new)))),
    ]
    if len(units) != len(original) + len(new):
        raise ShapeError(f"{len(units)} units for {len(original) + len(new)} pictures; give one a picture")
    if min(len(original), len(new)) < LEAST:
        return None
    features = np.concatenate([original, new]).astype(np.float64)
    is_new = np.r_[np.zeros(len(original), bool), np.ones(len(new), bool)]
    groups = np.unique(np.array(units), return_inverse=True)[1]
    folds = min(FOLDS, *(len(np.unique(groups[is_new == side])) for side in (False, True)))
    if folds < 2:
        return None
    asked, said = _answers(features, is_new, groups, folds, seed)
    if not (is_new[asked].any() and (~is_new[asked]).any()):
        return None
    wrong = said != is_new[asked]
    error = float(np.mean([wrong[is_new[asked] == side].mean() for side in (False, True)]))
    return Probe(error, int(asked.size))


def _answers(features: Array, is_new: Array, groups: Array, folds: int, seed: int) -> tuple[Array, Array]:
    """Rows that were asked about, and what the probe said of each."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    asked, said = [], []
    dealing = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for train, test in dealing.split(features, is_new, groups):
        if len(np.unique(is_new[train])) < 2:  # one large unit may take a whole line
            continue
        probe = make_pipeline(
            StandardScaler(), LogisticRegression(C=STRENGTH, max_iter=500, class_weight="balanced")
        )
        probe.fit(features[train], is_new[train])
        asked.append(test)
        said.append(probe.predict(features[test]))
    if not asked:
        return np.zeros(0, np.intp), np.zeros(0, bool)
    return np.concatenate(asked), np.concatenate(said).astype(bool)
