"""Where defective areas lie in feature space, before mentoring and after: the mentoring paper's figure 3.

    python -m benchmarks.adaptation.mentoring_picture docs/images/mentoring-areas.png
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from benchmarks.adaptation.mentoring import FLAGGED, ITERATIONS, RECIPE, SEEDS
from benchmarks.adaptation.mentoring_drawn import Bench
from benchmarks.adaptation.mentoring_lines import FULL, ROUNDS, Sizes
from edge_sdk.documents import write_atomic

__all__ = ["SHOWN", "areas_picture"]

SHOWN = {"scratch": "from scratch", "scratch+dann": "with DANN", "masked+omnia": "transfer + OMNIA"}
"""Strategies beside the baseline, and what they are called over their picture."""


def areas_picture(
    *, seed: int = SEEDS[0], sizes: Sizes = FULL, iterations: int | None = None, form: Literal["svg", "png"] = "png"
) -> bytes:
    """t-SNE planes, one a model, with the A-distance below each.

    Args:
        seed: Draws the lines, trains, and starts t-SNE.
        sizes: Of the parts.
        iterations: Of the training; without it those of E4.
        form: Of the file; an SVG of so many points is large.
    """
    from training.figures import alignment_picture
    from training.mentors import Mentor
    from training.recipe import Recipe
    from training.strategies import STRATEGIES

    recipe = Recipe(**RECIPE, seed=seed, iterations=iterations or ITERATIONS)
    bench, mentor = Bench(recipe, sizes, ROUNDS), Mentor(flagged=FLAGGED)
    clouds = [bench.cloud(bench.baseline, "before")]
    clouds += [bench.cloud(bench.retrained(STRATEGIES[name], mentor), said) for name, said in SHOWN.items()]
    return alignment_picture(clouds, seed=seed, form=form)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    write_atomic(Path(sys.argv[1]), areas_picture())
