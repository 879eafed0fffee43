"""What can be measured of an adapted model without a label of the new line: the signs of its health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edge_sdk.arrays import Bools
from training.checkpoint import Checkpoint, LineState
from training.data.views import Views
from training.evaluate import Judged, figures_of
from training.lines import boundary_logits, confidence, predicted
from training.prior import Prior, defect_prior
from training.probe import Probe, domain_probe
from training.rules import Facts, Scores, facts_of, scores_of

__all__ = ["Kept", "Seen", "Signs", "gradients_of", "kept_of", "seen_of", "signs_of"]


@dataclass(frozen=True, eq=False)
class Seen:
    """What one method's model says of held-out pictures of both lines, each under its own statistics.

    The logits are moved so that each class's decision boundary lies at 0.
    """

    original: Scores
    new: Scores


@dataclass(frozen=True)
class Kept:
    """How good a model is on the original line's labelled pictures; a figure that they do not allow is ``None``."""

    unit: str
    """``cells`` or ``pictures``: of AP and AUROC."""
    ap: float | None
    auroc: float | None
    balanced_accuracy: float | None
    """Mean of the share of defective pictures with a cell from the boundary up and of healthy ones without."""
    hit_rate: float | None
    """Share of the defective pictures with a cell from the boundary up."""
    alarm_rate: float | None
    """Of the healthy ones."""
    defective: int
    healthy: int

    @property
    def found(self) -> int:
        """Defective pictures with a cell from the boundary up."""
        return round((self.hit_rate or 0) * self.defective)

    @property
    def disturbed(self) -> int:
        """Healthy ones with such a cell."""
        return round((self.alarm_rate or 0) * self.healthy)


@dataclass(frozen=True)
class Signs:
    """One method."""

    method: str
    pictures_original: int
    pictures_new: int
    facts: Facts
    """Positive rates, unsure cells, and how far scores and features lie from the original line's."""
    spread_original: float
    """Standard deviation of the pictures' strongest logits."""
    spread_new: float
    kept: Kept
    probe: Probe | None
    """Of the original line's features against the new line's; ``None`` with too few pictures."""
    prior: Prior | None
    gradients: Mapping[str, float]
    """By loss term the median over the training of its gradient's norm; empty where nothing was trained."""

    @property
    def subject(self) -> str:
        """How sentences call it."""
        return "the model as it was" if self.method == "source" else self.method

    @property
    def passed_original(self) -> int:
        """Pictures of the original line without a cell from the boundary up."""
        return round((1 - self.facts.positive_rate_original) * self.pictures_original)

    @property
    def passed_new(self) -> int:
        """The same of the new line."""
        return round((1 - self.facts.positive_rate_new) * self.pictures_new)

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        probe = None if self.probe is None else {**asdict(self.probe), "distance": self.probe.distance}
        prior = None if self.prior is None else {**asdict(self.prior), "nearly_singular": self.prior.singular}
        said: dict[str, Any] = {**asdict(self), "gradients": dict(self.gradients), "probe": probe, "prior": prior}
        return {key: _rounded(value) for key, value in said.items()}


def signs_of(
    method: str,
    checkpoint: Checkpoint,
    *,
    name: str,
    held: Views,
    reference: Views,
    history: Sequence[Mapping[str, float]] = (),
) -> tuple[Signs, Seen]:
    """Measure one method's model.

    Args:
        method: Its name.
        checkpoint: With the lines ``original`` and ``name``.
        name: Of the new line.
        held: Pictures of the new line, at least one; nothing but their looks and units is read.
        reference: Labelled pictures of the original line, at least one.
        history: The training's terms, step by step; ``grad_<term>`` is that term's gradient norm.
    """
    home = checkpoint.line("original")
    here, judged = seen_of(checkpoint, home, reference)
    there, judged_new = seen_of(checkpoint, checkpoint.line(name), held)
    said, said_new = here.maxima >= 0, there.maxima >= 0
    # a line's boundary decides what is an alarm there; how sure the network is, it has no say in
    facts = replace(
        facts_of(_scores(judged, labelled=True), _scores(judged_new)),
        positive_rate_original=float(said.mean()),
        positive_rate_new=float(said_new.mean()),
    )
    signs = Signs(
        method=method,
        pictures_original=reference.count,
        pictures_new=held.count,
        facts=facts,
        spread_original=float(here.maxima.std()),
        spread_new=float(there.maxima.std()),
        kept=kept_of(judged, said, boundary=float(home.thresholds.boundary.min())),
        probe=domain_probe(
            here.features, there.features, original_units=reference.picture_units, new_units=held.picture_units
        ),
        prior=defect_prior(said, reference.shown_defective, said_new),
        gradients=gradients_of(history),
    )
    return signs, Seen(here, there)


def seen_of(checkpoint: Checkpoint, state: LineState, views: Views) -> tuple[Scores, Judged]:
    """Scores of a line's pictures around its own decision boundary, and what they were made of."""
    logits, features = predicted(checkpoint.network, state.statistics, views.images, checkpoint.preprocess)
    moved = (logits - boundary_logits(state)[None, :, None, None]).astype(np.float32)
    return scores_of(views, moved, features), Judged(views, logits, confidence(logits, state), features)


def _scores(judged: Judged, *, labelled: bool = False) -> Scores:
    logits, features = judged.logits.astype(np.float32), judged.features.astype(np.float32)
    return scores_of(judged.views, logits, features, labelled=labelled)


def kept_of(judged: Judged, said: Bools, *, boundary: float) -> Kept:
    """How good the model is on labelled pictures of the original line.

    Args:
        judged: With their labels.
        said: ``(N,)`` whether a picture has a cell from the boundary up.
        boundary: Confidence in (0, 1).
    """
    figures = figures_of(judged, boundary=boundary, rounds=0)
    defective = judged.views.shown_defective
    hits = float(said[defective].mean()) if defective.any() else None
    alarms = float(said[~defective].mean()) if (~defective).any() else None
    return Kept(
        unit=figures["unit"],
        ap=figures["ap"],
        auroc=figures["auroc"],
        balanced_accuracy=None if hits is None or alarms is None else (hits + 1 - alarms) / 2,
        hit_rate=hits,
        alarm_rate=alarms,
        defective=int(defective.sum()),
        healthy=int((~defective).sum()),
    )


def gradients_of(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median gradient norm of each loss term over a training; steps that did not note it are passed over."""
    terms = sorted({key for step in history for key in step if key.startswith("grad_")})
    return {
        term.removeprefix("grad_"): float(np.median([step[term] for step in history if term in step]))
        for term in terms
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return value
