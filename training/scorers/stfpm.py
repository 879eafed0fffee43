"""A student that learns on good parts to say what the frozen trunk says, and fails where it has seen nothing alike.

With ``F_t^l(p)`` and ``F_s^l(p)`` in R^C_l what teacher and student say at stage ``l`` of a place ``p``, and a hat for
the division by the L2 length:

    D_l(p) = 1/2 |F^_t^l(p) - F^_s^l(p)|^2      in [0, 2], 1 minus the cosine
    L      = sum_l mean_p D_l(p)                what the student is trained by
    M(p)   = (prod_l up_l(D_l)(p) / d_l)^(1/n)  of n stages

``up_l`` brings a stage to the grid, enlarged linearly or averaged; ``d_l`` is the mean of ``D_l`` on good parts.  The
paper's score is the product alone: dividing by ``d_l`` and taking the root leave the order as it is, keep FP16 in range
and put good parts near 1, as the other scorers do.  The student has the teacher's architecture and weights of its own;
the paper trains by SGD, here the one training loop does, AdamW with one cycle of the rate.

Reference:
    Wang, Han, Ding and Huang, Student-teacher feature pyramid matching for anomaly detection, BMVC 2021, eq. 1 to 3
    (loss), section 3.3 (score).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edge_sdk.arrays import Image
from edge_sdk.vision.preprocess import PreprocessSpec
from training.data.views import normalised
from training.fitting import Terms, fit
from training.scorers.embedding import Stages

if TYPE_CHECKING:
    from training.train import Progress

__all__ = ["ITERATIONS", "StudentHead", "fit_student", "unit"]

ITERATIONS = 400
"""Steps."""
BATCH = 2
"""Pictures a step: of a minute on one core many small steps teach more than few large ones."""
RATE = 4e-3
DECAY = 1e-4
FIRST = 32
"""Pictures that lengths and usual distances are measured on."""
TINY = 1e-6
"""Under the length of a feature that is usually 1, so that a place where nothing fires has no direction."""
FLOOR = 1e-4
"""Added to a stage's distance over its usual one, so that one stage alone cannot hide what the others see."""


class StudentHead(nn.Module):
    """What teacher and student say to ``M``, ``(N, 1, h, w)``; no branch depends on the data.

    Args:
        channels: Of each stage.
        strides: Of each stage.
        stride: Of the grid.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, stride: int) -> None:
        super().__init__()
        self.strides, self.stride = tuple(strides), stride
        self.compared = nn.ModuleList(Compared() for _ in channels)

    def forward(self, taught: Sequence[Tensor], learnt: Sequence[Tensor]) -> Tensor:
        power = 1 / len(self.strides)
        whole = [
            _on_grid(compared.ratio(one, other), own, self.stride).pow(power)
            for compared, one, other, own in zip(self.stages(), taught, learnt, self.strides, strict=True)
        ]
        found = whole[0]
        for one in whole[1:]:
            found = found * one
        return found

    def stages(self) -> list[Compared]:
        """What compares each."""
        return [one for one in self.compared if isinstance(one, Compared)]

    def distances(self, taught: Sequence[Tensor], learnt: Sequence[Tensor]) -> list[Tensor]:
        """``D_l``, ``(N, 1, h_l, w_l)``, of what teacher and student say at each stage."""
        return [
            compared.distance(one, other)
            for compared, one, other in zip(self.stages(), taught, learnt, strict=True)
        ]


class Compared(nn.Module):
    """One stage of teacher and student, ``(N, C, h, w)`` each."""

    inverse_length: Tensor
    """One over the root mean square length of the teacher's features, so that squares stay small.  The first that is
    done with them, with a weight of the head's own, so that nothing behind it is rounded to INT8."""
    inverse_usual: Tensor
    """1 / d_l."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("inverse_length", torch.ones(1, 1, 1, 1))
        self.register_buffer("inverse_usual", torch.ones(1, 1, 1, 1))

    def distance(self, taught: Tensor, learnt: Tensor) -> Tensor:
        """``D_l``, ``(N, 1, h, w)``."""
        off = unit(taught * self.inverse_length) - unit(learnt * self.inverse_length)
        return (off * off).sum(dim=1, keepdim=True) * 0.5

    def ratio(self, taught: Tensor, learnt: Tensor) -> Tensor:
        """``D_l / d_l``, a little above 0."""
        return self.distance(taught, learnt) * self.inverse_usual + FLOOR


def unit(maps: Tensor) -> Tensor:
    """``(N, C, h, w)`` over its L2 length along C."""
    return maps / ((maps * maps).sum(dim=1, keepdim=True) + TINY).sqrt()


def fit_student(
    stages: Stages,
    student: Stages,
    head: StudentHead,
    images: Image,
    spec: PreprocessSpec,
    *,
    iterations: int | None,
    seed: int,
    resume: Path | None,
    told: str,
    progress: Progress,
) -> None:
    """Train the student from random weights, and measure what is usual.

    Args:
        stages: The teacher.
        student: To train.
        head: To fill.
        images: ``(N, H, W, 3)`` uint8 good parts as the network sees them, at least one.
        spec: Their normalisation.
        iterations: Steps; ``ITERATIONS`` if not given.
        seed: Of weights and batches.
        resume: File that keeps the state of a training under way.
        told: What is trained on what, see ``fit``.
        progress: Told of every step.
    """
    with torch.no_grad():
        taught = _stages_of(stages, images[:FIRST], spec)
        for maps, compared in zip(taught, head.stages(), strict=True):
            length = (maps * maps).sum(dim=1).mean().sqrt()
            compared.inverse_length.fill_(1 / float(length.clamp(min=1e-6)))
    _begin(student, seed=seed)
    chance = np.random.default_rng([seed, 17])
    student.requires_grad_(True)

    def losses(done: float) -> Terms:
        picks = chance.choice(len(images), min(BATCH, len(images)), replace=False)
        frames = normalised(images[picks], spec)
        with torch.no_grad():
            teaching = stages(frames)
        off = head.distances(teaching, student(frames))
        return {f"stage{number + 1}": one.mean() for number, one in enumerate(off)}

    fit(
        {"network": student},
        losses,
        iterations=iterations or ITERATIONS,
        rate=RATE,
        weight_decay=DECAY,
        averaging=0.0,
        chance=chance,
        resume=resume,
        told=told,
        progress=lambda step, steps, terms: progress("fit stfpm", step, steps, terms),
        measure_every=0,
    )
    student.requires_grad_(False)
    with torch.no_grad():
        learnt = _stages_of(student, images[:FIRST], spec)
        for off, compared in zip(head.distances(taught, learnt), head.stages(), strict=True):
            compared.inverse_usual.fill_(1 / float(off.mean().clamp(min=1e-6)))


def _begin(student: nn.Module, *, seed: int) -> None:
    """Weights by lot, the same for a seed, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in student.modules():
            reset = getattr(module, "reset_parameters", None)
            if reset is not None:
                reset()


def _stages_of(stages: Stages, images: Image, spec: PreprocessSpec) -> list[Tensor]:
    pieces = [stages(normalised(images[start : start + 8], spec)) for start in range(0, len(images), 8)]
    return [torch.cat(maps) for maps in zip(*pieces, strict=True)]


def _on_grid(x: Tensor, own: int, stride: int) -> Tensor:
    if own < stride:
        return F.avg_pool2d(x, stride // own)
    if own == stride:
        return x
    return F.interpolate(x, scale_factor=own // stride, mode="bilinear", align_corners=False)
