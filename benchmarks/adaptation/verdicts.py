"""How often the label-free rules were right: what they decided against what an evaluation then found.

The rules choose a method, and the health panel says whether to ship it, from unlabelled pictures.  Labelled test
pictures of the new line tell afterwards, and only here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edge_sdk.errors import RangeError

__all__ = ["FALLEN", "POINTS", "WORTHLESS", "Judgement", "judge", "rows_of", "summary_of"]

POINTS = 0.02
"""Figures nearer to each other than this are as good as each other."""
FALLEN = 0.10
"""A model that is so much worse on the new line than on its own had better not been shipped."""
WORTHLESS = 0.6
"""Balanced accuracy on its own line under which a model is not worth shipping anywhere."""
SLACK = 1e-9


@dataclass(frozen=True)
class Judgement:
    """One decision, and how good it was."""

    case: str
    """Which set, gap and seed."""
    decided: str
    shipped: bool
    figure: float
    """Of what was decided, on the new line's test pictures."""
    source: float
    """Of the model as it was."""
    best: str
    """The method with the highest figure.  The highest of several is partly luck, so even a perfect rule falls
    behind it now and then."""
    behind: float
    """The best's figure less the decided one's, 0 or more."""
    gain: float
    """The decided one's figure less the source's."""
    home: float | None
    """Figure of the model as it was on the original line; ``None`` where it is not comparable."""
    worthless: bool | None = None
    """Whether test pictures of the original line itself say that the model is."""

    @property
    def close(self) -> bool:
        """Within 2 points of the best."""
        return self.behind <= POINTS + SLACK

    @property
    def safe(self) -> bool:
        """Not more than 2 points under the source."""
        return self.gain >= -POINTS - SLACK

    @property
    def fallen(self) -> bool | None:
        """Whether what was decided is 10 points or more worse on the new line than the model was at home."""
        return None if self.home is None else self.home - self.figure >= FALLEN - SLACK

    @property
    def deserved(self) -> bool | None:
        """Whether not to ship is right: it has fallen, or was worthless at home; ``None`` where neither is known."""
        known = [one for one in (self.fallen, self.worthless) if one is not None]
        return any(known) if known else None

    @property
    def right(self) -> bool:
        """Shipped: close to the best and safe.  Refused: safe because nothing ships, right where it was deserved."""
        if self.shipped:
            return self.close and self.safe
        return self.deserved is not False


def judge(
    case: str,
    decided: str,
    figures: Mapping[str, float],
    *,
    shipped: bool = True,
    home: float | None = None,
    home_accuracy: float | None = None,
) -> Judgement:
    """Hold a decision against the evaluated figures of everything that could have been decided.

    Args:
        case: Which set, gap and seed.
        decided: A method of ``figures``.
        figures: By method, on the new line's test pictures, higher is better; ``source`` among them, and no row
            that saw labels of the new line.
        shipped: What the health panel said.
        home: The same figure of ``source`` on the original line.
        home_accuracy: Balanced accuracy of ``source`` there, of whole pictures.

    Raises:
        RangeError: ``source`` or ``decided`` has no figure.
    """
    for name in ("source", decided):
        if name not in figures:
            raise RangeError(f"{case}: no figure of {name}; give one for each of {', '.join(figures) or 'the methods'}")
    best = max(figures, key=lambda name: (figures[name], name == "source"))
    return Judgement(
        case=case,
        decided=decided,
        shipped=shipped,
        figure=figures[decided],
        source=figures["source"],
        best=best,
        behind=figures[best] - figures[decided],
        gain=figures[decided] - figures["source"],
        home=home,
        worthless=None if home_accuracy is None else home_accuracy < WORTHLESS,
    )


def rows_of(judgements: Iterable[Judgement]) -> list[dict[str, Any]]:
    """A row a decision, ready for a result file."""
    return [
        {
            "case": one.case,
            "decided": one.decided,
            "shipped": one.shipped,
            "figure": round(one.figure, 4),
            "source": round(one.source, 4),
            "best": one.best,
            "behind": round(one.behind, 4),
            "gain": round(one.gain, 4),
            "home": None if one.home is None else round(one.home, 4),
            "fallen": one.fallen,
            "worthless": one.worthless,
            "right": one.right,
        }
        for one in judgements
    ]


def summary_of(judgements: Sequence[Judgement]) -> dict[str, int | float]:
    """How often the rules were right, and in which way they were wrong.

    Returns:
        ``cases``; ``right`` and its share; of those shipped ``close``, ``safe`` and ``fallen_shipped``; of those
        refused ``refused_rightly`` and ``refused_needlessly``, where the figure at home is known; ``worst_gain`` over
        what was shipped, 0 where nothing was.

    Raises:
        RangeError: There is no decision.
    """
    if not judgements:
        raise RangeError("no decision to judge; give at least one")
    shipped = [one for one in judgements if one.shipped]
    refused = [one for one in judgements if not one.shipped]
    right = sum(one.right for one in judgements)
    return {
        "cases": len(judgements),
        "right": right,
        "right_share": round(right / len(judgements), 4),
        "shipped": len(shipped),
        "close": sum(one.close for one in shipped),
        "safe": sum(one.safe for one in shipped),
        "fallen_shipped": sum(one.fallen is True for one in shipped),
        "refused": len(refused),
        "refused_rightly": sum(one.deserved is True for one in refused),
        "refused_needlessly": sum(one.deserved is False for one in refused),
        "worst_gain": round(min((one.gain for one in shipped), default=0.0), 4),
    }
