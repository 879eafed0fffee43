"""Pairs of real lines, of which one is thought to show good parts alone: E3's, and why each is here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

__all__ = ["CELLS", "PAIRS", "TILES", "Pair"]

SHARED = machine.ROOT.parent / "shared" / "data"
TILES = SHARED / "magnetic_tile"
CELLS = SHARED / "elpv_solar"
DIM, BRIGHT = ("exposure1", "exposure2"), ("exposure5", "exposure6")


@dataclass(frozen=True)
class Pair:
    """Two lines of real pictures, and why they are here."""

    name: str
    folder: Path
    why: str
    original: tuple[str, ...] | None = None
    new: tuple[str, ...] | None = None
    gap: str | None = None


PAIRS = (
    Pair("solar cells, mono to poly", CELLS, "another material: grain that looks like cracks; only labels of pictures",
         ("mono",), ("poly",)),
    Pair("solar cells, poly to mono", CELLS, "the same the other way round: from a rich background to a plain one",
         ("poly",), ("mono",)),
    Pair("tiles, exposures 1, 2 to 5, 6", TILES, "the same parts and defects under another exposure; masks",
         DIM, BRIGHT),
    Pair("tiles, exposures 5, 6 to 1, 2", TILES, "the same the other way round", BRIGHT, DIM),
    Pair("hazelnuts under another lamp", machine.ROOT / "examples" / "data" / "hazelnut",
         "colour pictures of the example behind a drawn lamp: a gap of light and colour alone", gap="lamp"),
    Pair("tiles behind another camera", TILES, "real pictures behind a drawn camera response and tint",
         DIM, gap="gamma+tint"),
    Pair("solar cells behind another camera", CELLS, "the same gap, with more pictures: grey made coloured",
         ("mono", "poly"), gap="gamma+tint"),
)  # fmt: skip
"""Named before a figure of a reported seed was looked at.  The last one takes both kinds of cells: the blocks of one
are too few to be dealt into two lines and a test, and left a line without a normal."""
