"""What a checkpoint's figures say of whole pictures, against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, balanced_accuracy_score, roc_auc_score

from edge_sdk.arrays import Array
from edge_sdk.vision.decode import confidence_from_logits
from training.data.views import Views
from training.evaluate import Judged, figures_of


def judged(logits: Array, truth: Array, *, known: bool = True, temperature: float = 1.0) -> Judged:
    count, _, rows, columns = logits.shape
    views = Views(
        images=np.zeros((count, 4, 4, 3), np.uint8),
        truth=truth.astype(np.float32),
        known=np.full_like(truth, known, dtype=np.float32),
        maximum=np.zeros(logits.shape[:2], np.float32),
        valid=np.ones((count, rows, columns), bool),
        defective=truth.any(axis=(1, 2, 3)),
        units=tuple(str(n // 3) for n in range(count)),
        names=tuple(str(n) for n in range(count)),
    )
    return Judged(views, logits, confidence_from_logits(logits, temperature), np.zeros((count, 2), np.float32))


def drawn(seed: int, side: int = 3) -> tuple[Array, Array]:
    chance = np.random.default_rng(seed)
    truth = chance.random((40, 1, side, side)) < 0.08
    return (chance.normal(0, 1, truth.shape) + 1.2 * truth).astype(np.float32), truth


@pytest.mark.parametrize("boundary", [0.5, 0.8])
def test_pictures_agree_with_scikit_learn(boundary: float) -> None:
    logits, truth = drawn(0)
    found = figures_of(judged(logits, truth), boundary=boundary)
    strongest, defective = logits.max(axis=(1, 2, 3)), truth.any(axis=(1, 2, 3))
    assert found["unit"] == "cells"
    assert found["picture_ap"] == pytest.approx(average_precision_score(defective, strongest), abs=1e-4)
    assert found["picture_auroc"] == pytest.approx(roc_auc_score(defective, strongest), abs=1e-4)
    alarms = 1 / (1 + np.exp(-strongest)) >= boundary
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(defective, alarms), abs=1e-4)
    assert found["ap"] == pytest.approx(average_precision_score(truth.ravel(), logits.ravel()), abs=1e-4)


def test_the_boundary_is_one_of_tempered_confidence() -> None:
    logits, truth = drawn(1)
    cold = figures_of(judged(logits, truth, temperature=0.25), boundary=0.8)
    plain = figures_of(judged(logits / 0.25, truth), boundary=0.8)
    assert cold == plain


def test_one_cell_is_a_picture_and_one_kind_alone_says_nothing() -> None:
    logits, truth = drawn(2, side=1)
    truth[:4] = True
    found = figures_of(judged(logits, truth), boundary=0.5)
    assert found["unit"] == "pictures" and found["ap"] == found["picture_ap"]
    alone = figures_of(judged(logits, np.ones_like(truth)), boundary=0.5)
    assert alone["balanced_accuracy"] is None and alone["picture_auroc"] is None
    nothing = figures_of(judged(logits, np.zeros_like(truth)), boundary=0.5)
    assert nothing["picture_ap"] is None and nothing["balanced_accuracy"] is None
