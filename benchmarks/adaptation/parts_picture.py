"""The feature space of one part of S2 before and after adapting: the colour-gap paper's figures 2 to 4.

    python -m benchmarks.adaptation.parts_picture docs/images/colour-gap.svg
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.adaptation.parts import METHODS, PARTS, SEEDS, SLIM, Part, Work, models_of
from edge_sdk.documents import write_atomic

__all__ = ["colour_gap_picture"]


def colour_gap_picture(part: Part = PARTS[0], *, seed: int = SEEDS[0], fold: int = 0, work: Work = SLIM) -> bytes:
    """t-SNE of the test pictures of one fold, by line and by class, with the A-distance below each model.

    Args:
        part: One of ``PARTS``, its new line behind the gap.
        seed: Of the dealing, of the training and of t-SNE.
        fold: 0 or 1.
        work: How much is trained.

    Returns:
        An SVG.
    """
    from training.figures_clouds import features_picture

    made = models_of(part, "new", seed, fold, work)
    models = {"before": made.source, **{f"after {METHODS[name]}": made.adapted[name] for name in ("adda", "dann")}}
    return features_picture(models, made.fold.judging, seed=seed)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    write_atomic(Path(sys.argv[1]), colour_gap_picture())
