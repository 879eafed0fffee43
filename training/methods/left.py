"""A new line by its normals alone, or as it is: nothing is trained."""

from __future__ import annotations

from training.data.views import batches_of
from training.methods.normals import Transferred
from training.methods.task import Task
from training.moments import moments_of, statistics_from

__all__ = ["direct", "statistics"]


def direct(task: Task) -> Transferred:
    """The control: the original line's network with its own normalisations.

    Reference:
        Adapted contrastive learning (slides, Bosch CR/APT4, 2023), baseline "domain transfer", which works where the
        lines are closely related.
    """
    home = task.checkpoint.line("original")
    return Transferred(task.checkpoint.network, home, home.statistics, factory=task.checkpoint.factory)


def statistics(task: Task) -> Transferred:
    """The new line's normalisations are those of its normals; all weights stay, and no gradient is taken.

    ``y = gamma (x - mu_n) / sqrt(var_n + eps) + beta`` with the mean and variance of the new line's normal pictures and
    their places: what AdaBN does with whatever a line makes, and what a network trained with normal-referenced
    normalisation expects.

    Reference:
        Li et al., Revisiting batch normalization for practical domain adaptation, 2016, section 3.2, on normals.
    """
    checkpoint = task.checkpoint
    measured = moments_of(checkpoint.network, batches_of(task.new.images, checkpoint.preprocess, flips=True))
    own = statistics_from(measured, checkpoint.network)
    notes = () if not checkpoint.network.frozen else (
        "the trunk is frozen with pretrained weights, which stand on the statistics they were trained with; measuring "
        "others often costs ranking there, so let an audit choose",
    )
    return Transferred(
        checkpoint.network, checkpoint.line("original"), own, factory=checkpoint.factory, notes=notes
    )
