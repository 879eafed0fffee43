"""Interpolation between deployed and retrained weights, as far as the original line bears it.

``theta(a) = (1 - a) * theta_0 + a * theta_1``

with ``theta_0`` the deployed weights, ``theta_1`` the retrained ones and ``a`` the share of these, in [0, 1].  The
second was trained from the first, so both lie in one basin and what lies between them works too.  Running statistics
are not interpolated: those of the weights between are neither end's, and are measured anew.

Reference:
    Wortsman et al., Robust fine-tuning of zero-shot models (WiSE-FT), CVPR 2022, section 3, eq. 1; the share is
    chosen by the line that must not suffer, which is ours.  Jordan et al., REPAIR, ICLR 2023, on statistics of
    interpolated networks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edge_sdk.errors import FormatError, RangeError
from edge_sdk.vision.preprocess import PreprocessSpec
from training.data.views import Views, batches_of
from training.evaluate import Judged, figures_of
from training.lines import predicted
from training.networks.cellnet import CellNetwork
from training.statistics import Statistics, estimated, some_of, statistics_of

__all__ = ["BORNE", "FEW", "SHARES", "UNMEASURED", "Borne", "borne", "borne_share", "in_words", "interpolate",
           "weights_of"]  # fmt: skip

SHARES = (0.8, 0.6, 0.4, 0.2, 0.0)
"""Of the retrained weights, tried from the largest on.  The first fifth of the way back is always gone: it spared the
original line 0.007 AP and cost the new one 0.003 (drawn lines, seeds from 100 up)."""
FEW = 10
"""Defective held-out pictures below which precision says too little to choose by."""
UNMEASURED = SHARES[0]
"""The share where nothing can be measured.  WiSE-FT recommends a half then; on a line of seven training pictures
that cost the new line more than it spared the original one."""
BORNE = ("share_of_retrained", "original_ap_deployed", "original_ap_kept")
"""Names in a checkpoint's figures."""


@dataclass(frozen=True)
class Borne:
    """How far the weights went, and what that cost."""

    share: float
    """Of the retrained weights, in [0, 1]."""
    before: float | None
    """Held-out average precision of the deployed weights on the original line; ``None``: too few pictures of a kind."""
    after: float | None
    """Of the weights at this share."""

    def document(self) -> dict[str, float | None]:
        """As a checkpoint's figures say it."""
        return dict(zip(BORNE, (self.share, self.before, self.after), strict=True))


def in_words(share_of_retrained: float, original_ap_deployed: float | None, original_ap_kept: float | None) -> str:
    """``Borne.document`` as a sentence for whoever retrained."""
    way = f"For the original line's sake the weights went {share_of_retrained:.0%} of the way to the retrained ones"
    if original_ap_deployed is None or original_ap_kept is None:
        few = f"fewer than {FEW} are defective or none is healthy"
        return f"{way}: of its held-out pictures {few}, too few to measure by."
    return f"{way}: its held-out average precision was {original_ap_deployed:.3f} and is {original_ap_kept:.3f}."


def weights_of(network: nn.Module, *, like: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """A copy of the trainable parameters by name; with ``like`` of those that it names."""
    return {
        name: p.detach().clone()
        for name, p in network.named_parameters()
        if (p.requires_grad if like is None else name in like)
    }


def interpolate(network: nn.Module, start: Mapping[str, Tensor], end: Mapping[str, Tensor], share: float) -> None:
    """Put ``(1 - share) * start + share * end`` into the network; at 0 and 1 exactly one of them.

    Args:
        network: Has the parameters that are named; all others stay.
        start: By name.
        end: Of the same names and shapes.
        share: In [0, 1].

    Raises:
        RangeError: The share lies outside.
        FormatError: The ends are of different networks.
    """
    if not 0 <= share <= 1:
        raise RangeError(f"the share of the retrained weights is {share:g}; give one from 0 to 1")
    if {name: one.shape for name, one in start.items()} != {name: one.shape for name, one in end.items()}:
        raise FormatError("deployed and retrained weights are of different networks; retrain from the deployed one")
    own = dict(network.named_parameters())
    with torch.no_grad():
        for name, one in start.items():
            own[name].copy_(torch.lerp(one, end[name], share))


def borne_share(precision: Callable[[float], float], before: float, *, may_lose: float) -> tuple[float, float]:
    """The largest of ``SHARES`` that loses no more than it may, and its precision; 0 where none does.

    Args:
        precision: Of a share.
        before: Of the deployed weights.
        may_lose: At least 0, in units of precision.
    """
    after = before
    for share in SHARES:
        after = precision(share)
        if before - after <= may_lose:
            return share, after
    return SHARES[-1], after


def borne(
    network: CellNetwork,
    deployed: CellNetwork,
    statistics: Statistics,
    original: Views,
    held_out: Views,
    spec: PreprocessSpec,
    *,
    may_lose: float,
) -> Borne:
    """Take a retrained network back towards the deployed one, as far as the original line needs it.

    Nothing of the new line is looked at: its truth is what the operators have not given.  The original line's
    thresholds are later fitted on the same held-out pictures, for one of the ``SHARES`` that these chose among.

    Args:
        network: Retrained from ``deployed``; its weights become those of the share.
        deployed: Stays as it is.
        statistics: Of the deployed network on the original line.
        original: Training pictures of the original line, for the statistics of the weights between.
        held_out: Labelled pictures of the original line that neither was trained on.
        spec: Of the network's input.
        may_lose: Cell AP (of a classifier picture AP) that the original line may lose on ``held_out``.
    """
    end = weights_of(network)
    start = weights_of(deployed, like=end)
    defective = held_out.shown_defective
    if defective.sum() < FEW or defective.all():
        interpolate(network, start, end, UNMEASURED)
        return Borne(UNMEASURED, None, None)
    images = some_of(original.images)

    def precision(share: float) -> float:
        interpolate(network, start, end, share)
        own = statistics_of(network) if network.frozen else estimated(network, batches_of(images, spec, flips=True))
        return _precision(network, own, held_out, spec)

    before = _precision(deployed, statistics, held_out, spec)
    share, after = borne_share(precision, before, may_lose=may_lose)
    return Borne(share, before, after)


def _precision(network: CellNetwork, statistics: Statistics, views: Views, spec: PreprocessSpec) -> float:
    logits, features = predicted(network, statistics, views.images, spec)
    figures = figures_of(Judged(views, logits, logits, features), boundary=0.5, rounds=0)
    return float(figures["ap"] or 0.0)
