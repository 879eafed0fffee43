"""One calibration, from pictures to a range table that says which rule it chose and by what."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

from calibration.choosing import choose, ends_of, table_with
from calibration.collect import channels_from_pictures, entries_of, ranges_from_pictures
from calibration.equalising import sites_of
from calibration.factors import factors_of
from calibration.graphs import Graph
from calibration.pictures import MODEST, Dealt, balanced, dealt, odd_sizes
from calibration.ranges import RangeTable
from calibration.scales import RULES, Rule
from edge_sdk.quality.datasets import Sample
from edge_sdk.vision.preprocess import PreprocessSpec

__all__ = ["AUTO", "Steps", "calibrate", "why_of"]

AUTO: Literal["auto"] = "auto"
Steps = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def calibrate(
    graph: Graph,
    samples: Sequence[Sample],
    spec: PreprocessSpec,
    *,
    rule: Rule | Literal["auto"] = AUTO,
    most: int = 256,
    most_float: int | None = None,
    keep_float: Collection[str] = (),
    equalise: bool = True,
    threads: int = 1,
    kept: Path | None = None,
    say: Callable[[str], None] = lambda _: None,
    progress: Steps = lambda what, done, of: None,
) -> RangeTable:
    """Deal the pictures, watch the graph on some, and choose the rule and the layers in float on others.

    Args:
        graph: FP32.
        samples: Typical pictures.
        spec: What the network was trained with.
        rule: ``auto`` takes the one whose TensorRT rendering loses least.
        most: Pictures that are calibrated on, 1 or more.
        most_float: See ``choose``.
        keep_float: Nodes that stay in float whatever is found.
        equalise: Try to equalise channels for TensorRT.
        threads: Of the runtime.
        kept: Where to keep what was seen; remove it once the table is written.
        say: Told what is to be said of the pictures.
        progress: Told of every step.

    Raises:
        DatasetError: There is no picture, or one cannot be read.
        RangeError: A picture makes a tensor NaN or infinite.
        FormatError: The graph takes another size, or has nothing to quantise.
    """
    sites = sites_of(graph) if equalise else ()
    # nothing is left to choose where the rule is given, no layer may stay in float and no channel can be equalised
    settled = rule != AUTO and most_float == 0 and not sites
    deal = Dealt(balanced(samples, most), (), 0) if settled else dealt(samples, most)
    for sentence in _remarks(deal):
        say(f"warning: {sentence}")
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("watching tensors", done, len(deal.calibrating))

    first: Rule = "mse" if rule == AUTO else rule
    factors = {}
    if deal.choosing and sites:
        names = [site.tensor for site in sites]
        seen = channels_from_pictures(graph, deal.calibrating, spec, names, threads=threads)
        factors = factors_of(graph, sites, seen)
    table = ranges_from_pictures(
        graph, deal.calibrating, spec, rule=first, threads=threads, kept=kept, factors=factors, progress=step
    )
    if not deal.choosing:
        return table
    rules = RULES if rule == AUTO else (first,)
    tried, candidates = 0, len(rules) * (2 if factors else 1) + len(ends_of(graph, keep_float))

    def trial() -> None:
        nonlocal tried
        tried += 1
        progress("choosing", tried, max(tried, candidates))

    choice = choose(
        graph,
        table,
        deal.choosing,
        spec,
        rules=rules,
        keep_float=keep_float,
        most_float=most_float,
        threads=threads,
        progress=trial,
    )
    return table_with(table, choice, entries_of(deal.choosing))


def why_of(table: RangeTable) -> str:
    """How the rule and the layers in float were chosen, in a sentence."""
    if not table.choosing:
        return f"rule {table.rule}, untested: no pictures of other parts are left to choose on; give ten or more"
    decibels, rest = _decibels(table.decibels), ""
    if table.equalisation and table.factors:
        plain = _decibels(table.sqnr_db)
        rest = f"; channels of {len(table.factors)} tensors equalised for TensorRT (without: {plain})"
    elif table.equalisation:
        rest = f"; equalising channels for TensorRT gained too little ({_decibels(table.equalisation.sqnr_db)})"
    floats = ", ".join(f"{layer.node} (+{layer.gain_db:.1f} dB)" for layer in table.float_layers)
    left = f"; left in float for TensorRT: {floats}" if floats else ""
    return f"rule {table.rule}, chosen on {len(table.choosing)} pictures of their own ({decibels}){rest}{left}"


def _decibels(rules: Mapping[Rule, float | None]) -> str:
    return ", ".join(f"{rule} {'exact' if value is None else f'{value:.1f} dB'}" for rule, value in rules.items())


def _remarks(deal: Dealt) -> list[str]:
    """What is to be said of the pictures before they are looked at."""
    n, found = len(deal.calibrating), []
    if n < MODEST:
        count = f"{n} picture{'' if n == 1 else 's'}"
        found.append(f"only {count} to calibrate on; below {MODEST} ranges still move when more come")
    if deal.twins:
        found.append(f"{deal.twins} pictures have the bytes of another one and are left out")
    odd = odd_sizes([*deal.calibrating, *deal.choosing])
    return [*found, odd] if odd else found
