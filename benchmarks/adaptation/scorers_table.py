"""From scores to E5's rows and bounds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.adaptation.protocol import averaged, best_of_others, by_seed, paired
from benchmarks.adaptation.scored import Scored, auroc
from benchmarks.adaptation.scorers_fold import KNOWING
from benchmarks.adaptation.scorers_time import DEFAULTS, ratio_of_medians
from benchmarks.results import Value
from edge_sdk.arrays import Array

__all__ = ["BEST_ON", "LEVEL", "SAME", "Best", "Judged", "Table"]

LEVEL = 0.05
"""FP32's share of good parts above the threshold."""
SAME = {"gaussian, position": "padim", "patchcore": "patchcore", "stfpm": "stfpm"}
"""What of anomalib's is the same method as ours."""
WITHOUT = "supersimple"
"""The same as ``KNOWING``, of good parts alone."""
RENDERINGS = ("int8", "int8_trt")
BEST_ON = "magnetic"
"""The set that decides which scorer is the best."""
ROUNDS = 1000


@dataclass(frozen=True)
class Judged:
    """Which pictures were judged, of one set and seed."""

    held: int
    """The first so many are good parts, the others defective."""
    groups: tuple[str, ...]
    kinds: tuple[str, ...] = ()
    """What is wrong with each; of good parts it says nothing."""


@dataclass(frozen=True)
class Best:
    """Of each seed the scorer that is best on the others on ``BEST_ON``."""

    names: tuple[str, ...]
    """By seed."""
    value: float
    """AUROC of pictures, mean over seeds."""
    low: float
    high: float
    by_kind: Mapping[str, float]
    """Of each kind of defect against the good parts."""


@dataclass(frozen=True, eq=False)
class Table:
    """Everything that was measured."""

    recommended: str
    judged: Mapping[str, Sequence[Judged]]
    """By set, by seed."""
    ours: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
    """By scorer, by set, by seed, as ``fold_of`` gives it; of some scorers the first seeds alone."""
    theirs: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]
    """As ``peer_fold`` gives it, of the first seeds; empty where there is no peer."""
    times: Mapping[str, Mapping[str, Sequence[float]]]
    """Of ``times_of``."""

    def summary(self) -> list[dict[str, object]]:
        """A row a scorer."""
        rows: list[dict[str, object]] = []
        for name, found in self.ours.items():
            shifts = [self.shift(name, form)[0] for form in RENDERINGS]
            rows.append({"name": f"{name} (recommended)" if name == self.recommended else name,
                         **self._accuracy(found, "onnx"),
                         "int8_alarms_points": _round(max(shifts, key=abs), 2),
                         **{f"{form}_ms": self._ms(form, name) for form in ("torch", "onnx", "int8")},
                         "onnx_mb": self._mb(found, "onnx"), "int8_mb": self._mb(found, "int8")})  # fmt: skip
        for name, found in self.theirs.items():
            rows.append({"name": f"anomalib's {name}, same trunk", **self._accuracy(found, None),
                         "torch_ms": self._ms("peer", name), "torch_mb": self._mb(found, None)})  # fmt: skip
        if self.theirs:
            rows.append({"name": "anomalib's patchcore at its defaults, random weights (time alone)",
                         "torch_ms": self._ms("peer", DEFAULTS)})  # fmt: skip
        return rows

    def each_set(self) -> list[dict[str, object]]:
        """A row a set and scorer."""
        rows: list[dict[str, object]] = []
        for one in self.judged:
            for name, by_set in self.ours.items():
                found = by_set[one]
                low, high = interval(self._runs(one, found, "onnx"))
                rows.append({"name": f"{one}: {name}",
                             **{f"auroc_{form}": _round(averaged(self._runs(one, found, form), auroc))
                                for form in ("torch", "onnx", "int8")},
                             "auroc_low": _round(low), "auroc_high": _round(high),
                             **self._places(found, "torch", ""), **self._places(found, "int8", "_int8")})  # fmt: skip
            for name, by_set in self.theirs.items():
                low, high = interval(self._runs(one, by_set[one], None))
                rows.append({"name": f"{one}: anomalib's {name}",
                             "auroc_torch": _round(averaged(self._runs(one, by_set[one], None), auroc)),
                             "auroc_low": _round(low), "auroc_high": _round(high),
                             **self._places(by_set[one], None, "")})  # fmt: skip
        return rows

    def differences(self) -> list[dict[str, object]]:
        """Ours less anomalib's, of one method, on the same pictures; and with defects known less without."""
        rows = [
            paired(self._beside(one, mine, other), self._runs(one, self.theirs[other][one], None), auroc)
            .row(f"{one}: {mine} - anomalib's {other}, AUROC")
            for mine, other in SAME.items()
            if mine in self.ours and other in self.theirs
            for one in self.judged
        ]  # fmt: skip
        if {KNOWING, WITHOUT} <= set(self.ours):
            for one in self.judged:
                knows, without = (self._runs(one, self.ours[name][one], "onnx") for name in (KNOWING, WITHOUT))
                rows.append(paired(knows, without, auroc).row(f"{one}: {KNOWING} - {WITHOUT}, AUROC"))
        return rows

    def musts(self) -> dict[str, Value]:
        """What could be measured of E5's keys."""
        shifts = {(name, form): self.shift(name, form) for name in self.ours for form in RENDERINGS}
        shift, low, high = max(shifts.values(), key=lambda found: abs(found[0]))
        ends = (low, high) if shift >= 0 else (-high, -low)
        found = {
            "E5.int8_fpr_shift_points": Value(_round(abs(shift), 3), _round(ends[0], 3), _round(ends[1], 3)),
            "E5.parity_max_abs": Value(float(f"{self.parity:.3g}")),
        }
        if "peer" in self.times:
            ratio, *ends_ = ratio_of_medians(self.times["onnx"][self.recommended], self.times["peer"][DEFAULTS])
            found["E5.ms_vs_patchcore"] = Value(*(_round(one) for one in (ratio, *ends_)))
        if BEST_ON in self.judged and len(self.judged[BEST_ON]) > 1:
            best = self.best_of()
            found["E5.best_image_auroc_magnetic"] = Value(*map(_round, (best.value, best.low, best.high)))
        return found

    def best_of(self, excluded: Collection[str] = ()) -> Best:
        """The best scorer on ``BEST_ON``, of all but those excluded; there are two seeds at least."""
        rows = {name: by_seed(self._runs(BEST_ON, found[BEST_ON], "onnx"), auroc) for name, found in self.ours.items()}
        best = best_of_others(rows, excluded=excluded)
        names = tuple(name for name, _ in best)
        runs = [self._runs(BEST_ON, self.ours[name][BEST_ON], "onnx")[seed] for seed, name in enumerate(names)]
        return Best(names, float(np.mean([value for _, value in best])), *interval(runs), self._by_kind(names))

    def _by_kind(self, names: Sequence[str]) -> dict[str, float]:
        """AUROC on ``BEST_ON`` of each seed's scorer, each kind of defect against the good parts; mean over seeds."""
        found: dict[str, list[float]] = {}
        for seed, name in enumerate(names):
            judged = self.judged[BEST_ON][seed]
            scores = self.ours[name][BEST_ON][seed]["scores"]["onnx"]
            for kind in sorted(set(judged.kinds[judged.held :])):
                held = (*range(judged.held), *(n for n in range(judged.held, len(scores)) if judged.kinds[n] == kind))
                groups = tuple(judged.groups[n] for n in held)
                one = _scored(Judged(judged.held, groups), [scores[n] for n in held])
                found.setdefault(kind, []).append(averaged([[one]], auroc))
        return {kind: float(np.mean(values)) for kind, values in found.items()}

    @property
    def parity(self) -> float:
        """Largest difference of a place between torch and ONNX over the inter-quartile range of normals' scores."""
        found = []
        for by_set in self.ours.values():
            for one, seeds in by_set.items():
                for judged, step in zip(self.judged[one], seeds, strict=False):
                    normals = np.asarray(step["scores"]["torch"][: judged.held])
                    low, high = np.quantile(normals, [0.25, 0.75])
                    found.append(step["parity"] / (high - low))
        return float(max(found))

    def normals(self) -> tuple[int, int]:
        """Good parts judged, and how many different ones at least: of one seed."""
        counts = [sum(seeds[k].held for seeds in self.judged.values()) for k in range(self._seeds)]
        return sum(counts), min(counts)

    def shift(self, name: str, form: str) -> tuple[float, float, float]:
        """Points by which a rendering's false alarms differ from FP32's at FP32's threshold, and the interval."""
        moved: list[Array] = []
        groups: list[str] = []
        for one, seeds in self.ours[name].items():
            for judged, step in zip(self.judged[one], seeds, strict=False):
                fp32, int8 = (np.asarray(step["scores"][said][: judged.held]) for said in ("onnx", form))
                threshold = np.quantile(fp32, 1 - LEVEL)
                moved.append((int8 > threshold).astype(float) - (fp32 > threshold))
                groups += judged.groups[: judged.held]
        each = 100 * np.concatenate(moved)
        low, high = _drawn_means(each, groups)
        return float(each.mean()), low, high

    @property
    def _seeds(self) -> int:
        return len(next(iter(self.judged.values())))

    def _accuracy(self, found: Mapping[str, Sequence[Mapping[str, Any]]], form: str | None) -> dict[str, object]:
        each = {one: averaged(self._runs(one, found[one], form), auroc) for one in self.judged}
        row: dict[str, object] = {}
        if BEST_ON in each:
            low, high = interval(self._runs(BEST_ON, found[BEST_ON], form))
            row = {f"{BEST_ON}_auroc": _round(each[BEST_ON]), "low": _round(low), "high": _round(high)}
        return {**row, "mean_auroc": _round(float(np.mean(list(each.values()))))}

    def _runs(self, one: str, seeds: Sequence[Mapping[str, Any]], form: str | None) -> list[list[Scored]]:
        return [[_scored(judged, step["scores"] if form is None else step["scores"][form])]
                for judged, step in zip(self.judged[one], seeds, strict=False)]  # fmt: skip

    def _beside(self, one: str, mine: str, other: str) -> list[list[Scored]]:
        """Ours of the seeds that the peer was asked for."""
        return self._runs(one, self.ours[mine][one][: len(self.theirs[other][one])], "onnx")

    def _places(self, seeds: Sequence[Mapping[str, Any]], form: str | None, suffix: str) -> dict[str, object]:
        each = [step["figures"] if form is None else step["figures"][form] for step in seeds]
        return {f"{name}{suffix}": _round(float(np.mean([one[name] for one in each]))) for name in each[0]}

    def _ms(self, form: str, name: str) -> float:
        return _round(float(np.median(self.times[form][name])), 2)

    def _mb(self, found: Mapping[str, Sequence[Mapping[str, Any]]], form: str | None) -> float:
        last = list(found.values())[-1][0]["mb"]
        return _round(float(last if form is None else last[form]), 2)


def interval(runs: Sequence[Sequence[Scored]]) -> tuple[float, float]:
    """95 % of the seed-averaged AUROC when whole groups are drawn, the same in every seed."""
    names = sorted({group for folds in runs for one in folds for group in one.groups})
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    drawn = np.array([[auroc(one, one.weights(counts, names)) for one in folds] for folds in runs]).mean(axis=(0, 1))
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975])
    return float(low), float(high)


def _drawn_means(values: Array, groups: Sequence[str]) -> tuple[float, float]:
    names, of = np.unique(np.asarray(groups), return_inverse=True)
    sums, sizes = np.bincount(of, values), np.bincount(of)
    counts = np.random.default_rng(0).multinomial(len(names), np.full(len(names), 1 / len(names)), size=ROUNDS)
    low, high = np.quantile((counts @ sums) / (counts @ sizes), [0.025, 0.975])
    return float(low), float(high)


def _scored(judged: Judged, scores: Sequence[float]) -> Scored:
    truth = (np.arange(len(scores)) >= judged.held).astype(np.uint8)
    return Scored(np.asarray(scores, np.float64), truth, judged.groups)


def _round(value: float, digits: int = 4) -> float:
    return round(float(value), digits)
