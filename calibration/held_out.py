"""Which pictures of a folder made nothing of an INT8 rendering: they alone may judge it, or set its thresholds.

Left out, by their content, are those that calibrated its ranges, chose its rule or fine-tuned its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from calibration.graphs import Graph
from calibration.qdq import RANGES
from calibration.ranges import RangeTable, read_ranges
from calibration.renderings import tuned_of
from calibration.tuned import TUNED_NAME
from edge_sdk.documents import sha256_file
from edge_sdk.errors import DatasetError, FormatError
from edge_sdk.quality.datasets import Sample

__all__ = ["HeldOut", "held_out"]


@dataclass(frozen=True)
class HeldOut:
    """What may judge, and what is known of the rest."""

    samples: tuple[Sample, ...]
    left_out: int
    ranges: RangeTable | None
    """The table that the renderings were written from, where it is known."""
    tuned_on: dict[str, int]
    """By kind of rendering, of those with fine-tuned weights: pictures that these were trained on."""


def held_out(
    graph: Graph,
    files: dict[str, Path],
    samples: Sequence[Sample],
    *,
    beside: Path,
    ranges: Path | None,
    tuned: Path | None,
    say: Callable[[str], None],
) -> HeldOut:
    """The pictures that neither calibrated nor chose nor fine-tuned any of these renderings.

    Args:
        graph: FP32.
        files: Kind to rendering.
        samples: A folder's.
        beside: The FP32 graph's file; its neighbours ``ranges.json`` and ``tuned.safetensors`` are the default.
        ranges: Where the table is, if elsewhere.
        tuned: Where the weights are, if elsewhere.
        say: Told how many were left out, or why none could be.

    Raises:
        DatasetError: None is left.
        FormatError: Table or weights are damaged, or the renderings were written with others.
    """
    path = ranges or beside.with_name("ranges.json")
    table = read_ranges(path) if ranges or path.exists() else None
    known: set[str] = set()
    if table is None:
        say(f"warning: there is no {path}, so pictures that calibrated cannot be told; give the table: --ranges")
    else:
        table.check_graph(graph)
        for file in files.values():
            _check_table(file, table, path)
        known = {picture.sha256 for picture in (*table.pictures, *table.choosing)}
    finer, kinds = tuned_of(files, tuned or beside.with_name(TUNED_NAME))
    if finer is not None:
        known |= {picture.sha256 for picture in finer.said.pictures}
    kept = tuple(sample for sample in samples if sha256_file(sample.path) not in known)
    left_out = len(samples) - len(kept)
    how = "calibrated or fine-tuned" if finer else "calibrated"
    if not kept:
        raise DatasetError(f"all {len(samples)} pictures were {how} on; give a folder of others, held out for this")
    if left_out:
        say(f"{left_out} of the pictures were {how} on and are left out")
    return HeldOut(kept, left_out, table, {kind: len(finer.said.pictures) for kind in kinds} if finer else {})


def _check_table(file: Path, table: RangeTable, path: Path) -> None:
    said = {entry.key: entry.value for entry in onnx.load(file, load_external_data=False).metadata_props}
    if said.get(RANGES) != table.digest():
        raise FormatError(
            f"{file} was rendered with other ranges than {path}; give the table that it was rendered with (--ranges), "
            "or render it again: python -m calibration render"
        )
