"""What a comparison of two sets of pictures found, in words: a sentence, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_sdk.quality.drift_reference import MOVED
from edge_sdk.vision.preprocess import Adjustment
from training.prior import Prior
from training.two_sample import Test

__all__ = ["SURE", "Told", "Verdict", "has_moved", "too_few"]

SURE = 0.01
"""p below which a difference is taken for one."""
ENOUGH = 33
"""Pictures, or parts with several, of each set from which a change of scores by 0.4 is sure."""

Verdict = Literal["unchanged", "harmless", "unsure", "changed", "more defects"]
"""``harmless``: the pictures changed, the scores did not; ``unsure``: too few pictures to say whether they did."""


def has_moved(test: Test, tests: int) -> bool:
    """Whether scores moved: surely, and by enough to mind.

    Args:
        test: Of one class's scores.
        tests: How many classes were tested.
    """
    return test.p < SURE / tests and test.statistic >= MOVED


def too_few(was: int, now: int) -> bool:
    """Whether so many pictures miss a change of scores by 0.4: Smirnov's limit ``1.63 sqrt((n + m) / (n m))``."""
    return bool(1.63 * np.sqrt((was + now) / (was * now)) > 1.63 * np.sqrt(2 / ENOUGH))


@dataclass(frozen=True)
class Told:
    """The findings in words."""

    verdict: Verdict
    causes: tuple[str, ...]
    prior: Prior | None
    shift: float
    """Largest D of the scores."""
    counts: tuple[int, int]
    """Pictures before and now; those of one part count as one."""
    adjust: Adjustment | None
    adjusted: Test | None
    """Of the scores with the adjustment, the class that differs most."""

    @property
    def sentence(self) -> str:
        """What changed."""
        cause = f"the picture {' and '.join(self.causes)}" if self.causes else (
            "neither brightness nor colour, contrast or sharpness moved"
        )  # fmt: skip
        if self.verdict == "unchanged":
            return "nothing changed that the pictures' facts, the model's features or its scores show"
        if self.verdict == "unsure":
            return f"the pictures changed; whether the scores did, {self._pictures} do not tell: {cause}"
        if self.verdict == "harmless":
            return f"the pictures changed, the scores hardly (by {self.shift:.2f} at most): {cause}"
        if self.verdict == "more defects":
            return f"the scores moved by {self.shift:.2f}, but not the pictures: other parts, {self._share}"
        return f"the pictures changed and the scores moved by {self.shift:.2f}: {cause}"

    @property
    def advice(self) -> str:
        """What to do."""
        if self.verdict == "unchanged":
            return "leave everything as it is"
        if self.verdict == "more defects":
            return (
                "look at the parts; the model and its thresholds stand as they did; but if --was shows pictures that "
                "the model was made of, which it knows and scores lower, give others instead"
            )
        if any("blurred" in one for one in self.causes):
            return "clean or focus the lens; no gain mends a blur"
        if self.adjust is not None:
            line = f"adjust: {{gain: {list(self.adjust.gain)}, offset: {list(self.adjust.offset)}}}"
            if self.adjusted is not None and not has_moved(self.adjusted, 1):
                limit = f", as far as {self._pictures} tell" if too_few(*self.counts) else ""
                return f"mend the light, or write under camera in station.yaml {line}: scores are then as before{limit}"
            return (
                "look whether it is the same product: another one needs a model of its own; else mend the light: "
                f"{line} under camera in station.yaml is not enough by itself, so adapt after it"
            )
        if any("noisier" in one for one in self.causes):
            return "look at the camera's gain and exposure, and at the light; if it stays so, adapt"
        if self.verdict == "unsure":
            return f"give {ENOUGH} or more pictures of each, and look at them for another product or dirt"
        if self.verdict == "harmless":
            return "look at the pictures when you pass by; thresholds still hold"
        return (
            "look at the pictures for another product or dirt; if they are to stay so, recalibrate on an answered "
            "control sample, or adapt: python -m training adapt"
        )

    @property
    def _pictures(self) -> str:
        return f"{self.counts[0]} and {self.counts[1]} pictures"

    @property
    def _share(self) -> str:
        if self.prior is None or self.prior.singular:
            return "how many more defects cannot be said without labels in --was"
        return (
            f"{self.prior.share:.0%} defective ({self.prior.low:.0%} to {self.prior.high:.0%}) after "
            f"{self.prior.original:.0%}"
        )
