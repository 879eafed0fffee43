"""Adaptive batch normalisation: nothing is trained, only measured."""

from __future__ import annotations

from training.data.views import batches_of
from training.methods.task import Adapted, Task
from training.statistics import estimated

__all__ = ["adabn"]


def adabn(task: Task) -> Adapted:
    """The new line's normalisations are measured on its own pictures; all weights stay.

    Each normalisation computes ``gamma (x - mu) / sqrt(var + eps) + beta``, where gamma and beta are
    weights that all lines share, and ``mu`` and ``var`` are the mean and variance of x over the pictures
    and places of one line.

    Reference:
        Li et al., Revisiting batch normalization for practical domain adaptation, 2016, section 3.2.
    """
    network = task.checkpoint.network
    batches = batches_of(task.new.images, task.checkpoint.preprocess, flips=True)
    return Adapted(network, task.checkpoint.line("original"), estimated(network, batches))
