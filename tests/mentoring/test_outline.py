"""Where the cells lie on the frame, found again from the item alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge_sdk.vision.preprocess import PreprocessSpec, geometry, valid_cells
from mentoring.outline import rectangles_of

CELL_PX = 16


@given(
    st.sampled_from(["letterbox", "stretch"]),
    st.integers(40, 900),
    st.integers(40, 900),
    st.integers(4, 16),
    st.integers(4, 16),
    st.data(),
)
def test_agrees_with_the_station_s_own_geometry(
    resize: str, width: int, height: int, rows: int, columns: int, data: st.DataObject
) -> None:
    spec = PreprocessSpec(columns * CELL_PX, rows * CELL_PX, resize=resize)  # type: ignore[arg-type]
    place = geometry(spec, height, width)
    # nobody is asked about padding
    asked = [(int(r), int(c)) for r, c in np.argwhere(valid_cells(spec, height, width, (rows, columns)))]
    assume(asked)
    row, column = data.draw(st.sampled_from(asked))
    near = [(r, c) for r, c in asked if abs(r - row) <= 1 and abs(c - column) <= 1]
    cells = [(row, column), *data.draw(st.lists(st.sampled_from(near), max_size=8))]
    on_input = np.array([[c, r, c + 1, r + 1] for r, c in cells], np.float32) * CELL_PX
    truth = place.boxes_to_frame(on_input)
    box = (*truth[:, :2].min(axis=0).tolist(), *truth[:, 2:].max(axis=0).tolist())
    found = rectangles_of(cells, box, grid=(rows, columns), width=width, height=height)
    # the picture takes whole pixels of the network's input, so its edges are off by up to one of them
    slack = 1.5 * max(1 / place.scale_x, 1 / place.scale_y) + 0.05
    # and a box cut by the frame's edge may fit both layouts, which then lie close together
    slack = max(slack, 0.5 * CELL_PX / place.scale_x, 0.5 * CELL_PX / place.scale_y)
    around = (*np.min(found, axis=0)[:2], *np.max(found, axis=0)[2:])
    assert np.abs(np.array(around) - box).max() <= max(slack / 2, 0.25 * CELL_PX / place.scale_x)
    assert np.abs(np.array(found) - truth).max() <= slack


def test_a_layout_in_which_a_cell_would_be_padding_is_not_used() -> None:
    # both fill the box; letterboxed, the first row would lie above the frame
    found = rectangles_of([(0, 0), (2, 0)], (0, 0, 10, 20), grid=(6, 4), width=40, height=40)
    assert found == [(0, 0, 10, 6.67), (0, 13.33, 10, 20)]


def test_without_a_grid_the_box_is_divided() -> None:
    found = rectangles_of([(2, 3), (2, 4)], (30, 20, 50, 30), grid=None, width=100, height=100)
    assert found == [(30, 20, 40, 30), (40, 20, 50, 30)]


def test_a_layout_that_does_not_fit_the_box_is_not_used() -> None:
    found = rectangles_of([(0, 0)], (60, 60, 70, 70), grid=(10, 10), width=100, height=100)
    assert found == [(60, 60, 70, 70)]


@pytest.mark.parametrize("grid", [None, (4, 4)])
def test_a_question_without_cells_is_its_box(grid: tuple[int, int] | None) -> None:
    assert rectangles_of([], (1, 2, 3, 4), grid=grid, width=9, height=9) == [(1, 2, 3, 4)]
