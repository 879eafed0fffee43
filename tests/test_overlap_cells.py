"""What of a line-scan camera's repeated lines is the same defect is told by its cells, not by boxes that cross."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_sdk import Station, Verdict
from edge_sdk.arrays import Array, Floats
from edge_sdk.detections import Detections, Question
from edge_sdk.labels import Thresholds
from edge_sdk.overlap import Overlap, Told
from edge_sdk.vision.decode import decode_cells
from edge_sdk.vision.preprocess import PreprocessSpec, geometry
from tests import stations
from tests.test_station_overlap import counted, frame_of

CELL, WIDTH, ROWS = 8, 160, 320
BAND = Thresholds.uniform(2, boundary=0.5, pass_below=0.3, defective_from=0.8)
SPEC = PreprocessSpec(width=64, height=64, tile_overlap_px=32)
STROKES = st.tuples(
    st.integers(0, WIDTH - 1), st.integers(0, ROWS - 1), st.integers(-90, 90), st.integers(-90, 90), st.integers(0, 1)
)
"""Column and row of one end, columns and rows to the other, and the class."""


def drawn(strokes: list[tuple[int, int, int, int, int]]) -> tuple[Array, int]:
    """Strokes of a pixel's width on a web ``(2, ROWS, WIDTH)``, and how many: of a class none is nearer to another
    than two cells, so that wherever the cells lie, an empty one lies between."""
    web, count = np.zeros((2, ROWS, WIDTH), np.uint8), 0
    around = np.ones((4 * CELL - 1, 4 * CELL - 1), np.uint8)
    for x, y, across, down, kind in strokes:
        end = (int(np.clip(x + across, 0, WIDTH - 1)), int(np.clip(y + down, 0, ROWS - 1)))
        one = cv2.line(np.zeros((ROWS, WIDTH), np.uint8), (x, y), end, 1)
        if not (cv2.dilate(one, around) & web[kind]).any():
            web[kind] |= one
            count += 1
    return web, count


def decoded(lines: Array) -> Detections:
    """A network that sees a cell's every pixel, and nothing else."""
    kinds, height, width = lines.shape
    padded = np.pad(lines, ((0, 0), (0, -height % CELL), (0, -width % CELL)))
    cells = padded.reshape(kinds, padded.shape[1] // CELL, CELL, -1, CELL).max(axis=(2, 4))
    confidence: Floats = (cells * 0.9).astype(np.float32)
    return decode_cells(confidence, BAND.pass_below, place=geometry(SPEC, height, width), cell_px=CELL)


def judged(web: Array, cuts: list[int], lines: int) -> list[Told]:
    """What is told of each frame of a web that is cut before these lines."""
    overlap, said = Overlap(lines), []
    for n, (top, bottom) in enumerate(pairwise([0, *cuts, web.shape[1]])):
        longer = overlap.extended(frame_of(np.zeros((bottom - top, WIDTH, 3), np.uint8), n))
        seen = web[:, bottom - longer.pixels.shape[0] : bottom]
        said.append(overlap.told(decoded(seen), BAND, model="a", near=CELL, of_cells=True))
    return said


@settings(max_examples=200, deadline=None)
@given(
    strokes=st.lists(STROKES, min_size=1, max_size=12),
    cuts=st.lists(st.integers(1, ROWS - 1), max_size=6, unique=True).map(sorted),
    lines=st.integers(2 * CELL, 80),
)
def test_thin_strokes_on_a_web_that_is_cut_anywhere_count_as_on_the_whole(
    strokes: list[tuple[int, int, int, int, int]], cuts: list[int], lines: int
) -> None:
    web, count = drawn(strokes)
    (whole,) = judged(web, [], lines)
    assert len(whole.detections) == count and not whole.continued
    said = judged(web, cuts, lines)
    assert sum(len(one.detections) - len(one.continued) for one in said) == count
    for one, (top, bottom) in zip(said, pairwise([0, *cuts, ROWS]), strict=True):
        for kind in set(np.flatnonzero(web[:, top:bottom].any(axis=(1, 2))).tolist()):
            assert kind in one.detections.classes, "a frame whose own lines show a defect is not passed"


def crossing() -> Array:
    """Two slanting strokes whose boxes lie on each other while they are 40 columns apart."""
    web = np.zeros((2, ROWS, WIDTH), np.uint8)
    cv2.line(web[0], (10, 60), (90, 140), 1)
    cv2.line(web[0], (60, 60), (140, 140), 1)
    return web


def test_a_defect_beside_one_that_was_reported_is_neither_dropped_nor_counted_with_it() -> None:
    web = crossing()
    first = web.copy()
    cv2.line(first[0], (60, 60), (140, 140), 0)
    for bottom, continued in ((150, 0), (100, 1)):  # the reported one ends before the border, or goes on over it
        overlap = Overlap(96)
        overlap.extended(frame_of(np.zeros((bottom, WIDTH, 3), np.uint8), 0))
        overlap.told(decoded(first[:, :bottom]), BAND, model="a", near=CELL, of_cells=True)
        longer = overlap.extended(frame_of(np.zeros((100, WIDTH, 3), np.uint8), 1)).pixels.shape[0]
        found = decoded(web[:, bottom + 100 - longer : bottom + 100])
        assert len(found) == 2
        told = overlap.told(found, BAND, model="a", near=CELL, of_cells=True)
        assert len(told.detections) - len(told.continued) == 1, "the one that was not seen before"
        assert (len(told.again), len(told.continued)) == (1 - continued, continued)


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), height=st.integers(60, 100), lines=st.integers(1, 50))
def test_what_goes_on_is_what_the_rectangles_of_cells_say(seed: int, height: int, lines: int) -> None:
    rng = np.random.default_rng(seed)
    overlap = Overlap(lines)
    overlap.extended(frame_of(np.zeros((height, WIDTH, 3), np.uint8), 0))
    known = scattered(rng, height)
    overlap.told(known, BAND, model="a", near=CELL, of_cells=True)
    longer = overlap.extended(frame_of(np.zeros((40, WIDTH, 3), np.uint8), 1)).pixels.shape[0]
    found = scattered(rng, longer)
    told = overlap.told(found, BAND, model="a", near=CELL, of_cells=True)

    def rectangles(one: Detections, n: int, up: int) -> list[tuple[int, int]]:
        return [(int(row) * CELL - up, int(column) * CELL) for k, row, column in one.cells if k == n]

    def same(d: int, e: int, apart: int, lowest: int) -> bool:
        return found.classes[d] == known.classes[e] and any(
            abs(y - v) < CELL + apart and abs(x - u) < CELL + apart
            for y, x in rectangles(found, d, 0)
            for v, u in rectangles(known, e, height - lines)
            if v + CELL >= lowest
        )

    pairs = [(d, e) for d in range(len(found)) for e in range(len(known))]
    on = {(d, e) for d, e in pairs if same(d, e, 0, -height)}
    left = set(range(len(known))) - {e for _, e in on}
    by = {(d, e) for d, e in pairs if e in left and same(d, e, CELL, lines - CELL)}
    old = {d for d in range(len(found)) if found.boxes[d, 3] <= lines}
    again = old & {d for d, _ in on}
    on_ = [d for d in range(len(found)) if d not in again and d in {d for d, _ in on} | ({d for d, _ in by} - old)]
    assert told.again.boxes.tolist() == found.boxes[sorted(again)].tolist()
    assert told.detections.boxes[list(told.continued)].tolist() == found.boxes[on_].tolist()


def scattered(rng: np.random.Generator, height: int) -> Detections:
    """Defective cells anywhere, as detections that are all equally sure."""
    counts = rng.random((2, -(-height // CELL), WIDTH // CELL)) < 0.12
    confidence: Floats = (counts * 0.9).astype(np.float32)
    return decode_cells(confidence, BAND.pass_below, place=geometry(SPEC, height, WIDTH), cell_px=CELL)


def test_a_question_is_left_out_with_the_detection_that_it_is_about_and_no_other() -> None:
    found = decoded(crossing()[:, 50:150])
    told = Told(found[np.array([1])], (), found[np.array([0])])
    left, top, right, bottom = (float(edge) for edge in found.boxes[0])
    asked = []
    for n, kind in ((0, 0), (0, 1), (1, 0)):
        _, row, column = found.cells[found.cells[:, 0] == n][0]
        asked.append(Question(kind, 0.9, (left, top, right, bottom), ((int(row), int(column)),)))
    assert told.new_questions(tuple(asked)) == (asked[1], asked[2]), "of another class, and of another detection"


@pytest.mark.parametrize("second", [((100, 60), (150, 110)), ((52, 140), (52, 170))], ids=["beside", "below"])
def test_a_station_counts_two_scratches_whose_boxes_meet_wherever_the_web_is_cut(
    tmp_path: Path, second: tuple[tuple[int, int], tuple[int, int]]
) -> None:
    stations.spot_bundle(tmp_path / "bundle", preprocess=replace(stations.SPEC, tile_overlap_px=32))
    web = stations.drawn_picture(300, WIDTH, seed=5)
    for start, end in (((40, 60), (130, 150)), second):  # as thin as a network of means of cells sees without a gap
        cv2.line(web, start, end, (10, 10, 10), 14)
    with Station.open(stations.settings(tmp_path, camera={"uri": "file:none", "overlap_lines": 80})) as station:
        for n, cut in enumerate(range(90, 180)):
            frames = [frame_of(web[:cut], 2 * n, camera=str(n)), frame_of(web[cut:], 2 * n + 1, camera=str(n))]
            found = [station.inspect(frame) for frame in frames]
            assert counted(found) == 2, cut
            assert found[0].verdict is Verdict.DEFECTIVE
            assert found[1].verdict is Verdict.DEFECTIVE or cut > 140
