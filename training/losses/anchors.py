"""What a detector minimises: classification and regression of anchors, the latter on fully annotated pictures alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from edge_sdk.arrays import Array, Bools, Floats, Ints
from edge_sdk.vision.boxes import overlaps
from training.losses.masked import masked_bce
from training.networks.anchornet import offsets_of_boxes

__all__ = ["NEGATIVES", "Matched", "anchor_loss", "hard_negatives", "matched", "weak_anchor_loss"]

POSITIVE, NEGATIVE = 0.5, 0.4
"""An anchor that overlaps a box by this or more is a defect; below the second it is background; between, neither."""
NEGATIVES = 3
"""Background anchors for each defective one that are learnt from, the hardest."""


class Matched(NamedTuple):
    """What the boxes of one picture say of its anchors."""

    truth: Floats
    """``(A, K)`` in {0, 1}."""
    known: Floats
    """``(A, K)`` in {0, 1}: where ``truth`` is one."""
    box: Floats
    """``(A, 4)`` the box that a defective anchor is of; 0 elsewhere."""
    positive: Bools
    """``(A,)``: anchors that are regressed."""


def matched(anchors: Array, boxes: Array, classes: Ints, *, count: int) -> Matched:
    """Which anchors are defects, which are background, and which are neither.

    An anchor is a defect of the class of the box it overlaps most, from an intersection over union of 0.5 up;
    and so is, for every box, the anchor that overlaps it most of those no other box has, however little, so that
    none is left out.
    Below 0.4 with every box it is background for all classes; between, it has no truth.  A defect of one class is
    background for the others.

    Args:
        anchors: ``(A, 4)`` centre x, centre y, width, height.
        boxes: ``(D, 4)`` left, top, right, bottom, same pixels.
        classes: ``(D,)`` in 0 to K - 1.
        count: K.

    Reference:
        Liu et al., SSD, 2016, section 2.2, and Lin et al., RetinaNet, 2017, section 4, for the two limits.
    """
    half = anchors[:, 2:] / 2
    corners = np.concatenate([anchors[:, :2] - half, anchors[:, :2] + half], axis=1)
    truth = np.zeros((len(anchors), count), np.float32)
    known = np.ones_like(truth)
    box = np.zeros((len(anchors), 4), np.float32)
    positive = np.zeros(len(anchors), bool)
    if not len(boxes):
        return Matched(truth, known, box, positive)
    shared = overlaps(corners, boxes)
    nearest, most = shared.argmax(axis=1), shared.max(axis=1)
    positive = most >= POSITIVE
    left = shared.copy()
    for _ in range(min(len(boxes), len(anchors))):  # the best pair first, so that no two boxes want one anchor
        anchor, one = np.unravel_index(int(left.argmax()), left.shape)
        nearest[anchor], positive[anchor] = one, True
        left[anchor], left[:, one] = -1, -1
    known[~positive & (most >= NEGATIVE)] = 0
    truth[positive, classes[nearest[positive]]] = 1
    box[positive] = boxes[nearest[positive]]
    return Matched(truth, known, box, np.asarray(positive))


def anchor_loss(
    scores: Tensor, boxes: Tensor, truth: Tensor, known: Tensor, wanted: Tensor, anchors: Tensor
) -> dict[str, Tensor]:
    """``L_S`` of a detector: ``L_cls + L_reg``.

    ``L_cls = -1/P sum_{(i,k) in P or H} (y_ik log p_ik + (1 - y_ik) log(1 - p_ik))`` where P are the anchors and
    classes that are defects, ``P`` their number in the batch, and H the ``3 P`` hardest of the others: of 500 anchors
    one or two are defects, and plain cross-entropy over all of them stays at "nothing is anywhere" for most of a
    short training.
    ``L_reg = 1/P sum_i sum_c smoothL1(t_ic - t*_ic)`` over the anchors that are defects, ``t`` the offsets of eq. 2
    of Faster R-CNN, with its beta 1.

    Args:
        scores: ``(N, A, K)`` logits.
        boxes: ``(N, A, 4)`` as the network gives them, left, top, right, bottom.
        truth: ``(N, A, K)`` in {0, 1}; read where ``known`` is 1.
        known: ``(N, A, K)`` in {0, 1}.
        wanted: ``(N, A, 4)`` the box of each defective anchor.
        anchors: ``(A, 4)`` centre x, centre y, width, height.

    Returns:
        ``classification`` and ``regression``, scalars; the latter is 0, with a graph, without a defect.

    Reference:
        ``L_S`` of eq. 3 of the mentoring paper (Cordier, Das, Gutierrez, QCAV 2021) for the areas of its eq. 2,
        anchors; hard negatives 1:3 after Liu et al., SSD, 2016, section 2.2.
    """
    each = F.binary_cross_entropy_with_logits(scores, truth, reduction="none")
    positive = (truth * known) > 0
    used = positive | hard_negatives(each.detach(), truth, known)
    number = positive.sum().clamp(min=1)
    classification = (each * used).sum() / number
    hit = positive.any(dim=2)
    of = anchors.expand(len(boxes), -1, -1)[hit]
    found, target = offsets_of_boxes(boxes[hit], of), offsets_of_boxes(wanted[hit], of)
    regression = F.smooth_l1_loss(found, target, reduction="sum") / hit.sum().clamp(min=1)
    return {"classification": classification, "regression": regression}


def hard_negatives(loss: Tensor, truth: Tensor, known: Tensor, *, ratio: int = NEGATIVES) -> Tensor:
    """The background of each picture that costs most, ``ratio`` for each defect of the picture and 8 at least.

    Args:
        loss: ``(N, A, K)``.
        truth: ``(N, A, K)`` in {0, 1}.
        known: ``(N, A, K)`` in {0, 1}.
        ratio: At least 1.

    Returns:
        ``(N, A, K)`` bool.
    """
    background = (known > 0) & (truth == 0)
    flat = torch.where(background, loss, torch.full_like(loss, -1.0)).flatten(1)
    wanted = (ratio * ((truth * known) > 0).flatten(1).sum(dim=1)).clamp(min=8, max=flat.shape[1])
    most, places = flat.topk(int(wanted.max()), dim=1)
    chosen = (torch.arange(most.shape[1]) < wanted[:, None]) & (most >= 0)
    return torch.zeros_like(flat, dtype=torch.bool).scatter(1, places, chosen).view_as(loss)


def weak_anchor_loss(scores: Tensor, truth: Tensor, mentored: Tensor) -> Tensor:
    """``L_W`` of a detector: eq. 4 over its anchors, and no regression.

    An operator's answer says whether there is a defect, not where its edges are, so the offsets of mentored pictures
    get no gradient: the boxes are not even an argument.

    Args:
        scores: ``(N, A, K)`` logits.
        truth: ``(N, A, K)`` in {0, 1}; read where ``mentored`` is 1.
        mentored: ``(N, A, K)`` in {0, 1}: the set M.

    Reference:
        Mentoring paper (Cordier, Das, Gutierrez, QCAV 2021), eq. 4 and section 3.3: "we do not backpropagate the
        regression loss term for new data".
    """
    return masked_bce(scores, truth, mentored)
