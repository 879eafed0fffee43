"""Batches of an unlabelled line in which about half the pictures are thought defective."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from training.data.views import Views, batches_of
from training.lines import predicted
from training.methods.task import Task
from training.rules import Scores, facts_of
from training.statistics import estimated

__all__ = ["rebalanced"]


def rebalanced(task: Task) -> Views:
    """The new line's pictures with a guess of which are defective, so that a stream can draw half and half.

    Alignment makes the features of both lines alike; of an original line drawn half defective and a new
    one with 5 % defects it makes healthy pictures look like defects.  Here the pictures are ranked by the AdaBN
    model's strongest cell, and as many of the highest are taken for defective as the share at which the
    original's scores, counted class by class, come closest to these.  A guess weighs what is drawn and
    is no truth: nothing is learned from it as a label.

    Of pictures that are cut into tiles it is the tiles that are ranked and guessed at, since tiles are drawn.

    Args:
        task: Its new pictures are ranked; its original ones, labelled, say what scores of either kind look like.

    Returns:
        The same pictures; ``defective`` is the guess, of at least one picture and not of all.
    """
    checkpoint, new = task.checkpoint, task.new
    network, spec, home = checkpoint.network, checkpoint.preprocess, checkpoint.line("original").statistics
    own = home if network.frozen else estimated(network, batches_of(new.images, spec, flips=True))
    # of a tile that is nothing but padding there is nothing to say
    seen, known = (np.flatnonzero(views.valid.any(axis=(1, 2))) for views in (new, task.original))
    old = task.original.taken(known)
    here, there = (
        Scores(*predicted(network, statistics, views.images, spec), views.valid, defective)
        for views, statistics, defective in ((old, home, old.defective), (new.taken(seen), own, None))
    )
    share = facts_of(here, there).share_new or 0.5
    count = min(max(1, round(share * len(seen))), max(1, len(seen) - 1))
    guess = np.zeros(len(new), bool)
    guess[seen[np.argsort(-there.maxima, kind="stable")[:count]]] = True
    return replace(new, defective=guess)
