"""What changed between two sets of pictures of one line, and what to do about it: the host's look at drift.

The station's watch says that the input changed; here whole sets are at hand, so that it can be tested: Kolmogorov and
Smirnov on each class's scores, the maximum mean discrepancy on features, the facts of the pictures, and, where the
reference is labelled, the share of defects by black-box shift estimation.  Where it is the light that changed, the six
numbers of ``camera.adjust`` are computed and tried on the same pictures.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_sdk.documents import write_atomic
from edge_sdk.errors import DatasetError
from edge_sdk.quality.drift_reference import MOVED
from edge_sdk.quality.facts import causes
from edge_sdk.vision.preprocess import Adjustment
from training.drift_sides import Model, Picture, Seen, seen_of
from training.drift_words import SURE, Told, Verdict, has_moved, too_few
from training.page import Page, Table, write_page
from training.prior import Prior, defect_prior
from training.probe import Probe, domain_probe
from training.two_sample import LEAST, Test, ks_test, mmd_test

__all__ = ["Comparison", "adjustment", "compare", "write_comparison"]

GAINS, OFFSETS = (0.2, 5.0), 128.0
"""What ``camera.adjust`` takes."""


@dataclass(frozen=True)
class Comparison:
    """What came out."""

    sentence: str
    """What changed."""
    advice: str
    """What to do."""
    verdict: Verdict
    was: int
    now: int
    """Pictures."""
    scores: Mapping[str, Test]
    """By class."""
    features: Test | None
    probe: Probe | None
    causes: tuple[str, ...]
    detected: tuple[float, float]
    """Share of pictures with a detection, before and now."""
    prior: Prior | None
    """``None`` where the reference has no labels."""
    adjust: Adjustment | None
    """Where the light changed."""
    adjusted: Test | None
    """The features' test with the adjustment."""
    adjusted_scores: Test | None
    """Of the scores with it, the class that differs most."""
    notes: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """Ready for JSON."""
        prior = None if self.prior is None else {**asdict(self.prior), "nearly_singular": self.prior.singular}
        probe = None if self.probe is None else {**asdict(self.probe), "distance": self.probe.distance}
        return {"schema": "drift-comparison/1", **asdict(self), "prior": prior, "probe": probe}


def compare(
    model: Model,
    was: tuple[Picture, ...],
    now: tuple[Picture, ...],
    *,
    notes: tuple[str, ...] = (),
    seed: int = 0,
    step: Callable[[str, int, int], None] = lambda what, done, all_: None,
) -> Comparison:
    """Compare two sets.

    Pictures of the reference that are labelled defective serve the share of defects alone; all else is of the others.

    Args:
        model: That looks at them.
        was: The reference.
        now: What the line shows now.
        notes: What was assumed so far.
        seed: Of the tests that draw.
        step: Told what is done, how many pictures of how many.

    Raises:
        DatasetError: A set has too few pictures, or one cannot be read.
    """
    for name, pictures in (("--was", was), ("--now", now)):
        if sum(one.healthy is not False for one in pictures) < LEAST:
            raise DatasetError(
                f"{name} holds {len(pictures)} pictures, fewer than {LEAST} of them healthy or unlabelled; give "
                f"{LEAST} or more, better 100"
            )
    before = seen_of(model, was, step=lambda done, all_: step("look at what was", done, all_))
    after = seen_of(model, now, step=lambda done, all_: step("look at what is", done, all_))
    home, away = _usable(before), _usable(after)
    units = home.units, away.units
    scores = {
        name: ks_test(home.scores[:, k], away.scores[:, k], units=units) for k, name in enumerate(model.classes)
    }
    counts = len(set(home.units)), len(set(away.units))
    features = mmd_test(home.features, away.features, units=units, seed=seed)
    why = causes(
        home.facts.mean(axis=0), home.facts.std(axis=0), away.facts.mean(axis=0), count=len(away), reference=len(home)
    )
    prior = _prior(before, after)
    adjust = adjusted = shift = None
    if _light_changed(why):
        adjust = adjustment(home, away)
        tried = seen_of(
            model, away.pictures, adjust=adjust, step=lambda done, all_: step("try the adjustment", done, all_)
        )
        adjusted = mmd_test(home.features, tried.features, units=units, seed=seed)
        tests = (ks_test(home.scores[:, k], tried.scores[:, k], units=units) for k in range(len(model.classes)))
        shift = max(tests, key=lambda test: test.statistic)
    moved = any(has_moved(test, len(scores)) for test in scores.values())
    differs = (features is not None and features.p < SURE) or bool(why)
    most = max(test.statistic for test in scores.values())
    if moved:
        verdict: Verdict = "changed" if differs else "more defects"
    elif differs:
        verdict = "unsure" if most >= MOVED and too_few(*counts) else "harmless"
    else:
        verdict = "unchanged"
    told = Told(verdict, why, prior, most, counts, adjust, shift)
    return Comparison(
        sentence=told.sentence,
        advice=told.advice,
        verdict=verdict,
        was=len(home),
        now=len(away),
        scores=scores,
        features=features,
        probe=domain_probe(
            home.features, away.features, original_units=home.units, new_units=away.units, seed=seed
        ),
        causes=why,
        detected=(float(home.detected.mean()), float(away.detected.mean())),
        prior=prior,
        adjust=adjust,
        adjusted=adjusted,
        adjusted_scores=shift,
        notes=notes + _told_by_station(now),
    )


def adjustment(was: Seen, now: Seen) -> Adjustment:
    """The gain and offset a channel that give the new pictures the mean and the standard deviation of the old ones.

    ``gain = sd_was / sd_now``, ``offset = mean_was - gain * mean_now``, over all pixels of all pictures of a set, cut
    to what ``camera.adjust`` takes.
    """
    mean_was, mean_now = was.level.mean(axis=0), now.level.mean(axis=0)
    spread = [np.sqrt(np.maximum(one.square.mean(axis=0) - one.level.mean(axis=0) ** 2, 1e-6)) for one in (was, now)]
    gain = np.clip(spread[0] / spread[1], *GAINS)
    offset = np.clip(mean_was - gain * mean_now, -OFFSETS, OFFSETS)
    blue, green, red = (round(float(one), 4) for one in gain)
    first, second, third = (round(float(one), 2) for one in offset)
    return Adjustment((blue, green, red), (first, second, third))


def write_comparison(found: Comparison, folder: Path, facts: Mapping[str, Any]) -> None:
    """Write ``drift.json`` and ``drift.html`` into a folder, each whole or not at all.

    Args:
        found: As ``compare`` gives it.
        folder: Made where it is not there.
        facts: What was compared with what, for the page.
    """
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found.document(), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(folder / "drift.json", text.encode() + b"\n")
    tests: list[tuple[Any, ...]] = [
        (f"scores of {name}, Kolmogorov and Smirnov", one.statistic, one.p) for name, one in found.scores.items()
    ]
    if found.features is not None:
        tests.append(("features, maximum mean discrepancy", found.features.statistic, found.features.p))
    if found.adjusted is not None:
        tests.append(("the same with the adjustment", found.adjusted.statistic, found.adjusted.p))
    if found.adjusted_scores is not None:
        tests.append(("scores with the adjustment", found.adjusted_scores.statistic, found.adjusted_scores.p))
    shares: list[tuple[Any, ...]] = [("pictures with a detection", *(f"{one:.1%}" for one in found.detected), "")]
    if found.prior is not None:
        reach = f"{found.prior.low:.1%} to {found.prior.high:.1%}"
        shares.append(("defective, estimated (BBSE)", f"{found.prior.original:.1%}", f"{found.prior.share:.1%}", reach))
    tables = [
        Table("What changed", ("finding",), tuple((f"the picture {clause}",) for clause in found.causes)
              or (("no fact of the pictures moved",),)),
        Table("Tests", ("of", "statistic", "p"), tuple(tests), "p: chance of at least this much where nothing differs"),
        Table("Shares", ("of", "was", "is", "95 %"), tuple(shares),
              "the estimate holds where defects look as they did; behind a changed picture it need not"),
    ]  # fmt: skip
    page = Page(
        title=f"{found.sentence[0].upper()}{found.sentence[1:]}",
        command="drift",
        facts={"do": found.advice, **facts, "pictures": f"{found.was} before, {found.now} now"},
        notes=found.notes,
        tables=tuple(tables),
    )
    write_page(page, folder / "drift.html")


def _light_changed(causes: tuple[str, ...]) -> bool:
    """Whether the six numbers may mend it: the level or the colour moved, and no blur is behind it."""
    light = ("became darker", "became brighter", "changed its colour")
    return any(one.startswith(light) for one in causes) and not any("blurred" in one for one in causes)


def _usable(seen: Seen) -> Seen:
    """Without what is labelled defective."""
    kept = np.array([picture.healthy is not False for picture in seen.pictures])
    return Seen(
        pictures=tuple(picture for picture in seen.pictures if picture.healthy is not False),
        features=seen.features[kept],
        scores=seen.scores[kept],
        detected=seen.detected[kept],
        facts=seen.facts[kept],
        level=seen.level[kept],
        square=seen.square[kept],
    )


def _prior(before: Seen, after: Seen) -> Prior | None:
    """The new set's share of defects, where the reference is labelled and the new set is as it came."""
    labelled = np.array([picture.healthy is not None for picture in before.pictures])
    if not labelled.any():
        return None
    defective = np.array([picture.healthy is False for picture in before.pictures])
    return defect_prior(before.detected[labelled], defective[labelled], after.detected)


def _told_by_station(pictures: tuple[Picture, ...]) -> tuple[str, ...]:
    """What the station's watch said, each sentence once."""
    said = dict.fromkeys(picture.note for picture in pictures if picture.note)
    return tuple(f"the station said: {sentence}" for sentence in list(said)[-3:])
