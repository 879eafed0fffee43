"""What a detector's boxes were worth, kept as JSON and compared pair by pair: for E9."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_sdk.arrays import Array

if TYPE_CHECKING:
    from training.box_precision import Hits

__all__ = ["difference", "f1", "mean_classes", "packed", "unpacked"]

ROUNDS = 1000
_KINDS = {"confidence": "<f4", "true": "<u1", "classes": "<u1", "picture": "<u2", "drawn": "<u1"}


def difference(
    after: Sequence[Sequence[Hits]], before: Sequence[Sequence[Hits]], units: Sequence[Sequence[tuple[str, ...]]]
) -> tuple[float, float, float, list[float]]:
    """Mean over seeds of the paired difference, its interval over groups, and each seed's."""
    names = sorted({unit for folds in units for one in folds for unit in one})
    place = {name: k for k, name in enumerate(names)}
    chance = np.random.default_rng(0)
    counts = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    drawn, each = [], []
    for mine, others, folds in zip(after, before, units, strict=True):
        of_seed, of_draws = [], []
        for one, other, groups in zip(mine, others, folds, strict=True):
            weights = counts[:, [place[group] for group in groups]]
            of_seed.append(mean_classes(one) - mean_classes(other))
            of_draws.append(mean_classes(one, weights) - mean_classes(other, weights))
        each.append(float(np.mean(of_seed)))
        drawn.append(np.mean(of_draws, axis=0))
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    return float(np.mean(each)), float(low), float(high), each


def mean_classes(hits: Hits, weights: Array | None = None) -> Any:
    """Over the classes that are drawn at all, which a draw of groups may leave fewer."""
    from training.box_precision import average_precisions

    each = average_precisions(hits, weights)
    there = np.isfinite(each)
    return np.where(there, each, 0).sum(axis=-1) / np.maximum(there.sum(axis=-1), 1)


def f1(int8: Sequence[Mapping[str, Any]]) -> tuple[float, float, float]:
    """Mean over seeds, and its interval over groups, of ``counts`` as ``agreement`` gives them."""
    names = sorted({unit for one in int8 for unit in one["units"]})
    place = {name: k for k, name in enumerate(names)}
    chance = np.random.default_rng(0)
    draws = chance.multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    values, drawn = [], []
    for one in int8:
        counts = np.array(one["counts"])
        values.append(counts[:, 0].sum() / max(counts[:, 1].sum(), 1e-12))
        weights = draws[:, [place[unit] for unit in one["units"]]]
        total = weights @ counts
        drawn.append(total[:, 0] / np.maximum(total[:, 1], 1e-12))
    low, high = np.quantile(np.mean(drawn, axis=0), (0.025, 0.975))
    return float(np.mean(values)), float(low), float(high)


def packed(hits: Hits) -> dict[str, str]:
    """As text that JSON can hold."""
    return {
        name: base64.b64encode(zlib.compress(np.asarray(getattr(hits, name)).astype(kind).tobytes())).decode()
        for name, kind in _KINDS.items()
    }


def unpacked(kept: Mapping[str, str], pictures: int) -> Hits:
    """What ``packed`` made text of; ``pictures`` says how many there were."""
    from training.box_precision import Hits

    found = {
        name: np.frombuffer(zlib.decompress(base64.b64decode(kept[name])), kind) for name, kind in _KINDS.items()
    }
    return Hits(
        confidence=found["confidence"],
        true=found["true"].astype(bool),
        classes=found["classes"].astype(np.int32),
        picture=found["picture"].astype(np.int32),
        drawn=found["drawn"].astype(np.int32).reshape(pictures, -1),
    )
