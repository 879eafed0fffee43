"""One seed's drawn lines with the baseline that is mentored there: what every row of E4 is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.adaptation.mentoring_lines import Drawn, Sizes, drawn
from edge_sdk.arrays import Array
from edge_sdk.quality.measures import average_precision, precision_recall_at

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint
    from training.data.views import Views
    from training.figures import Cloud
    from training.mentors import Asked, Mentor
    from training.recipe import Recipe
    from training.strategies import Strategy

__all__ = ["DRIFTS", "FIGURES", "Bench", "mean_rows", "recall_at_precision"]

DRIFTS = (0.0, 0.5, 1.0)
"""Of the three rounds."""
FIGURES = ("original_ap", "new_ap", "precision", "recall", "recall_at_p90")
WANTED = 0.9
"""Precision at which recall is stated: precision and recall at 0.5 mostly move the operating point."""


class Bench:
    """Draws, trains and asks when first needed, then keeps it: a resumed run pays for what it lacks alone.

    Args:
        recipe: With the seed, which draws the pictures too.
        sizes: Of the parts.
        rounds: Of the parts of a round's new line.
    """

    def __init__(self, recipe: Recipe, sizes: Sizes, rounds: Sizes) -> None:
        self._recipe, self._sizes, self._rounds = recipe, sizes, rounds
        self._asked: dict[Mentor, Asked] = {}
        self._retrained: dict[tuple[Strategy, Mentor], Checkpoint] = {}
        self._tests: dict[float, Views] = {}

    @cached_property
    def drawn(self) -> Drawn:
        """Both lines."""
        return drawn(self._recipe.seed, self._sizes)

    @cached_property
    def baseline(self) -> Checkpoint:
        """Trained for the original line, never shown the new one."""
        from training.train import train

        return train(self.drawn.dataset, self.drawn.lines, self._recipe)

    @cached_property
    def adabn(self) -> Checkpoint:
        """The baseline with the new line's statistics: what normalisation alone gains, without an answer."""
        from training.data.views import batches_of, views_of
        from training.lines import line_state
        from training.statistics import estimated

        found, line = self.baseline, self.drawn.lines.new[0]
        spec = found.preprocess
        images = views_of(line, line.train, spec, grid=found.grid, labelled=False).images
        statistics = estimated(found.network, batches_of(images, spec, flips=True))
        return found.with_line("new", line_state(found.network, statistics, images, spec, method="adabn"))

    def asked(self, mentor: Mentor) -> Asked:
        """The baseline's questions with this operator's answers."""
        from training.mentors import ask

        if mentor not in self._asked:
            self._asked[mentor] = ask(self.baseline, self.drawn.lines.new[0], mentor, seed=self._recipe.seed)
        return self._asked[mentor]

    def row(self, strategy: Strategy, mentor: Mentor) -> dict[str, float]:
        """Retrain, and judge both lines."""
        asked = self.asked(mentor)
        found = self.retrained(strategy, mentor)
        answers = sum(asked.counts.values()) if strategy.asks else 0
        minutes = round(asked.minutes, 2) if strategy.asks else 0.0
        return {**self.judged(found), "answers": answers, "minutes": minutes}

    def judged(self, checkpoint: Checkpoint) -> dict[str, float]:
        """``FIGURES`` of the test parts, by cells."""
        from training.evaluate import judge

        original = judge(checkpoint, "original", self._test_original)
        new = judge(checkpoint, "new", self._test(0.0))
        return {
            "original_ap": average_precision(original.logits, original.views.truth),
            **_figures(new.logits, new.views.truth),
        }

    def rounds(self, strategy: Strategy, mentor: Mentor) -> list[dict[str, float]]:
        """Three rounds on a line that drifts on; each asks with the model of the round before.

        Every round trains on what its own model was answered: older answers show the line as it was, and are in the
        weights already.

        Returns:
            A round: new cell AP on its own test ``after`` and ``before`` it, and of the first round's model
            (``first``) on the same test.
        """
        from training.evaluate import judge
        from training.mentors import ask
        from training.retrain import retrain

        model, first = self.baseline, None
        found = []
        for drift in DRIFTS:
            lines = self._drifted(drift).lines
            if first is None:
                asked, later = self.asked(mentor), self.retrained(strategy, mentor)
                first = later
            else:
                asked = ask(model, lines.new[0], mentor, seed=self._recipe.seed)
                later = retrain(model, lines, self._recipe, mentored=asked.taught(strategy), strategy=strategy)
            test = self._test(drift)

            def ap(one: Checkpoint, views: Views = test) -> float:
                return average_precision(judge(one, "new", views).logits, views.truth)

            found.append({"drift": drift, "before": ap(model), "after": ap(later), "first": ap(first),
                          "baseline": ap(self.baseline), "answers": sum(asked.counts.values())})  # fmt: skip
            model = later
        return found

    def cloud(self, checkpoint: Checkpoint, title: str) -> Cloud:
        """The features of the defective areas of both test parts, as the paper's figure 3 shows them."""
        from training.evaluate import Evaluation, judge
        from training.figures_clouds import areas_cloud

        tests = {"original": self._test_original, "new": self._test(0.0)}
        judged = {name: judge(checkpoint, name, views) for name, views in tests.items()}
        return areas_cloud(Evaluation({}, judged), checkpoint, title=title)

    def retrained(self, strategy: Strategy, mentor: Mentor) -> Checkpoint:
        """The baseline after this operator's answers."""
        from training.retrain import retrain

        if (strategy, mentor) not in self._retrained:
            taught = self.asked(mentor).taught(strategy) if strategy.asks else None
            self._retrained[strategy, mentor] = retrain(
                self.baseline, self.drawn.lines, self._recipe, mentored=taught, strategy=strategy
            )
        return self._retrained[strategy, mentor]

    @cached_property
    def _test_original(self) -> Views:
        from training.data.views import views_of

        line, found = self.drawn.judging.original, self.baseline
        return views_of(line, line.test, found.preprocess, grid=found.grid, labelled=True)

    def _test(self, drift: float) -> Views:
        from training.data.views import views_of

        if drift not in self._tests:
            line, found = self._drifted(drift).judging.new[0], self.baseline
            self._tests[drift] = views_of(line, line.test, found.preprocess, grid=found.grid, labelled=True)
        return self._tests[drift]

    def _drifted(self, drift: float) -> Drawn:
        """The original line, and the new one as far as it has drifted."""
        if not drift:
            return self.drawn
        later = drawn(self._recipe.seed, self._rounds, drift=drift)
        return Drawn(
            self.drawn.dataset,
            replace(self.drawn.lines, new=later.lines.new),
            replace(self.drawn.judging, new=later.judging.new),
        )


def _figures(logits: Array, truth: Array) -> dict[str, float]:
    precision, recall = precision_recall_at(logits, truth, 0.0)
    return {
        "new_ap": average_precision(logits, truth),
        "precision": precision,
        "recall": recall,
        "recall_at_p90": recall_at_precision(logits, truth, WANTED),
    }


def recall_at_precision(scores: Array, truth: Array, wanted: float) -> float:
    """Most recall of any boundary from which precision is at least ``wanted``; 0 where there is none."""
    scores, truth = scores.ravel(), truth.ravel() > 0
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.r_[np.diff(scores[order]) != 0, True])
    hits = np.cumsum(truth[order])[ends]
    enough = hits / (ends + 1) >= wanted
    return float(hits[enough].max() / truth.sum()) if enough.any() and truth.any() else 0.0


def mean_rows(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Every figure's mean over seeds."""
    return {name: round(float(np.mean([one[name] for one in found])), 4) for name in found[0]}
