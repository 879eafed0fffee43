"""Every result by its id, and the module that measures it."""

from __future__ import annotations

import importlib
from typing import cast

from benchmarks.results import Benchmark
from edge_sdk.errors import ConfigError

__all__ = ["MODULES", "benchmark"]

MODULES = {
    "E1": "benchmarks.adaptation.domains",
    "E2": "benchmarks.adaptation.solar",
    "E3": "benchmarks.adaptation.without_defects",
    "E4": "benchmarks.adaptation.mentoring",
    "E5": "benchmarks.adaptation.scorers",
    "E6": "benchmarks.adaptation.selection",
    "E7": "benchmarks.adaptation.pretraining",
    "E8": "benchmarks.adaptation.drift",
    "E9": "benchmarks.adaptation.detector",
    "L1": "benchmarks.loop",
    "Q1": "benchmarks.quantisation.calibrating",
    "Q3": "benchmarks.quantisation.speed",
    "Q4": "benchmarks.quantisation.heads",
    "Q2": "benchmarks.quantisation.renderings",
    "Q5": "benchmarks.export_nodes",
    "R4": "benchmarks.startup",
    "S2": "benchmarks.adaptation.parts",
    "S3": "benchmarks.adaptation.several",
    "S4": "benchmarks.adaptation.full_width",
    "S5": "benchmarks.adaptation.encoders",
}


def benchmark(identifier: str) -> Benchmark:
    """The benchmark of an id; only its module is imported.

    Raises:
        ConfigError: There is no such id.
    """
    if identifier not in MODULES:
        raise ConfigError(f"there is no result {identifier}; there are {', '.join(sorted(MODULES))}")
    return cast(Benchmark, importlib.import_module(MODULES[identifier]))
