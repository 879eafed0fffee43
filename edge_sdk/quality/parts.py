"""Dealing a set into train, validate, mentor and test, so that no group is torn apart.

The order is a hash of seed and name: the same seed gives the same parts on every machine, and a
picture that is added moves few others.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from edge_sdk.errors import RangeError
from edge_sdk.quality.samples import Dataset, Sample

__all__ = ["PARTS", "SHARES", "deal", "dealt", "folds", "halves"]

PARTS = ("train", "validate", "mentor", "test")
SHARES = (0.5, 0.1, 0.2, 0.2)

Stratum = tuple[str, bool | None]
"""Domain, and whether healthy."""


def deal(
    dataset: Dataset,
    *,
    seed: int,
    shares: Sequence[float] = SHARES,
    fold: tuple[int, int] | None = None,
    honour_split: bool | None = None,
) -> dict[str, str]:
    """The part of every picture, by its name.

    Groups (or single pictures), in order of the sha256 of seed and name, go one by one to the part
    that is furthest below its share, counted per domain and per healthy or defective.

    Args:
        dataset: As read.
        seed: Of the order.
        shares: Of train, validate, mentor and test; they are scaled to sum to 1.
        fold: ``(k, K)``: fold ``k`` of ``K`` is the part test.
        honour_split: Whether a ``split`` column decides what is test.  ``None``: unless supervised
            training or testing could not be done with it.

    Raises:
        RangeError: The shares are negative or all 0, or the fold does not exist.
    """
    return dealt(dataset, seed=seed, shares=shares, fold=fold, honour_split=honour_split)[0]


def folds(dataset: Dataset, *, seed: int, count: int) -> dict[str, int]:
    """The fold of every picture, by its name: the same dealing into ``count`` equal parts.

    Raises:
        RangeError: ``count`` is below 2.
    """
    if count < 2:
        raise RangeError(f"{count} folds; give at least 2")
    units = _units(dataset.samples)
    place = _spread(units, {str(k): 1 / count for k in range(count)}, str(seed))
    return {sample.image: int(place[sample.unit]) for sample in dataset.samples}


def halves(samples: Iterable[Sample], *, seed: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    """Two halves by a second hash, dealt as the parts are: for lines that share one domain.

    Where there are too few groups for that, so that a half would stay empty or without a defect, the
    pictures are dealt one by one; then the halves share groups.
    """
    samples = tuple(samples)
    for by_unit in (True, False):
        names = {sample.image: sample.unit if by_unit else sample.image for sample in samples}
        units: dict[str, Counter[Stratum]] = {}
        for sample in samples:
            units.setdefault(names[sample.image], Counter())[(sample.domain, sample.healthy)] += 1
        place = _spread(units, {"first": 0.5, "second": 0.5}, f"{seed}:half")
        first = tuple(sample for sample in samples if place[names[sample.image]] == "first")
        second = tuple(sample for sample in samples if place[names[sample.image]] == "second")
        if all(any(sample.healthy is False for sample in half) for half in (first, second)):
            break
    return first, second


def dealt(
    dataset: Dataset,
    *,
    seed: int,
    shares: Sequence[float] = SHARES,
    fold: tuple[int, int] | None = None,
    honour_split: bool | None = None,
) -> tuple[dict[str, str], tuple[str, ...]]:
    """``deal``, and the sentences that say what was ignored or filled up."""
    if len(shares) != len(PARTS) or min(shares) < 0 or sum(shares) <= 0:
        raise RangeError(f"shares are {tuple(shares)}; give four numbers from 0 up, of {', '.join(PARTS)}")
    whole = {part: share / sum(shares) for part, share in zip(PARTS, shares, strict=True)}
    notes: list[str] = []
    fixed = _fixed_by_split(dataset, honour_split, notes)
    if fold is not None:
        number, count = fold
        if not (count >= 2 and 0 <= number < count):
            raise RangeError(
                f"fold {number} of {count}; give a fold from 0 to one below the count, of at least 2"
            )
        by_fold = folds(dataset, seed=seed, count=count)
        fixed = {sample.unit: by_fold[sample.image] == number for sample in dataset.samples}
    units = _units(dataset.samples)
    free = {unit: count for unit, count in units.items() if unit not in fixed}
    learning = {unit: count for unit, count in units.items() if fixed.get(unit) is False}
    place = {unit: "test" for unit, test in fixed.items() if test}
    place.update(_spread(free, whole, str(seed)))
    place.update(_spread(learning, {part: whole[part] for part in PARTS[:3]}, str(seed)))
    parts = {sample.image: place[sample.unit] for sample in dataset.samples}
    for part in ("test", "validate", "mentor"):
        if whole[part] > 0 and not (part == "test" and fixed):
            share = whole[part] / max(whole[part] + whole["train"], 1e-9)
            _fill(dataset.samples, parts, part, share, seed, notes)
    return parts, tuple(notes)


def _units(samples: Iterable[Sample]) -> dict[str, Counter[Stratum]]:
    found: dict[str, Counter[Stratum]] = {}
    for sample in samples:
        found.setdefault(sample.unit, Counter())[(sample.domain, sample.healthy)] += 1
    return found


def _ordered(names: Iterable[str], salt: str) -> list[str]:
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).hexdigest())


def _spread(units: Mapping[str, Counter[Stratum]], shares: Mapping[str, float], salt: str) -> dict[str, str]:
    """Each unit to the part that lacks most of what the unit holds."""
    whole = sum(shares.values()) or 1.0
    totals: Counter[Stratum] = Counter()
    for count in units.values():
        totals.update(count)
    have: dict[str, Counter[Stratum]] = {part: Counter() for part in shares}
    place = {}
    for unit in _ordered(units, salt):
        held = [stratum for stratum in units[unit] if stratum[1] is not None] or list(units[unit])
        lack = {
            # each stratum counts by how much of it the unit holds: a block of defects seeks a part that lacks defects
            part: sum(
                units[unit][stratum]
                / totals[stratum]
                * (share / whole - have[part][stratum] / totals[stratum])
                for stratum in held
            )
            for part, share in shares.items()
        }
        place[unit] = max(lack, key=lambda part: lack[part])  # of equals the first
        have[place[unit]].update(units[unit])
    return place


def _fixed_by_split(dataset: Dataset, honour: bool | None, notes: list[str]) -> dict[str, bool]:
    """Unit → whether the split column makes it test; empty where the column does not decide."""
    fixed: dict[str, bool] = {}
    if honour is False:
        return fixed
    torn = _torn_by_split(dataset.samples)
    for domain in dataset.domains:
        samples = [sample for sample in dataset.samples if sample.domain == domain and sample.split]
        if not samples:
            continue
        why = "" if honour else _split_leaves(dataset, samples)
        if torn:
            why = f"tears the group {torn} apart"
        if why:
            notes.append(f"the split given for {domain} is ignored for supervised use, since it {why}")
            continue
        for sample in samples:
            fixed[sample.unit] = fixed.get(sample.unit, False) or sample.split == "test"
    return fixed


def _torn_by_split(samples: Iterable[Sample]) -> str | None:
    seen: dict[str, str] = {}
    for sample in samples:
        if sample.split and seen.setdefault(sample.unit, sample.split) != sample.split:
            return sample.unit
    return None


def _split_leaves(dataset: Dataset, samples: Sequence[Sample]) -> str:
    train = [sample for sample in samples if sample.split == "train"]
    test = [sample for sample in samples if sample.split == "test"]
    if not any(sample.healthy is False for sample in train):
        return "leaves train without a defect"
    if any(sample.healthy for sample in dataset.samples) and not any(sample.healthy for sample in test):
        return "leaves test without a healthy picture"
    if not any(sample.healthy is False and (sample.mask or not dataset.has_masks) for sample in test):
        return "leaves test without a defect that can be scored"
    return ""


def _fill(
    samples: Sequence[Sample], parts: dict[str, str], part: str, share: float, seed: int, notes: list[str]
) -> None:
    """Take from train, by inner folds, what a part has none of."""
    strata = {(s.domain, s.healthy) for s in samples if s.healthy is not None}
    for domain, healthy in sorted(strata):
        of = [s for s in samples if (s.domain, s.healthy) == (domain, healthy)]
        spare = [s for s in of if parts[s.image] == "train"]
        if len(spare) < 2 or any(parts[s.image] == part for s in of):
            continue
        wanted = max(1, round(share * len(spare)))
        salt = f"{seed}:inner:{part}"
        groups = _ordered({s.unit for s in spare}, salt)
        moved: set[str] = set()
        for group in groups[:-1]:
            if sum(s.image in moved for s in spare) < wanted:
                moved.update(s.image for s in samples if s.unit == group and parts[s.image] == "train")
        torn = not moved
        if torn:  # one group alone: its pictures must do
            moved.update(_ordered((s.image for s in spare), salt)[: min(wanted, len(spare) - 1)])
        parts.update(dict.fromkeys(moved, part))
        what = "healthy" if healthy else "defective"
        notes.append(
            f"{part} had no {what} picture of {domain}, so {len(moved)} "
            f"picture{'s' if len(moved) > 1 else ''} of train went there by inner folds"
            + (", out of a group that train keeps the rest of" if torn and spare[0].group else "")
        )
