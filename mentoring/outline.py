"""Where a question's cells lie on the frame.

An item says which cells are asked about and in which box they lie, not how the frame was laid onto
the network's input.  A box inside the frame is
divided; of one that the frame's edge has cut, the layout is found again: of the two there are, the one
in which the cells fill the box and none of them is padding, about which nobody is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Rectangle", "rectangles_of"]

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom in frame pixels; right and bottom lie outside."""


def rectangles_of(
    cells: Sequence[tuple[int, int]],
    box: Rectangle,
    *,
    grid: tuple[int, int] | None,
    width: int,
    height: int,
) -> list[Rectangle]:
    """The rectangle of every cell on the frame.

    Args:
        cells: Row and column of each; none for a question that is a box.
        box: Around them, in frame pixels, cut off at the frame's edges.
        grid: Rows and columns of the confidence map; ``None`` where the item has none.
        width: Of the frame, pixels.
        height: Of the frame, pixels.

    Returns:
        One a cell, in their order, cut off at the frame's edges; the box itself where there is no cell.
    """
    if not cells:
        return [box]
    layout = _inside(box, cells)
    cut = box[0] <= 0 or box[1] <= 0 or box[2] >= width or box[3] >= height
    if cut and grid is not None:
        # what lies outside the frame is missing from the box, so dividing it would shift the cells
        best = min(
            (_letterboxed(grid, width, height), _stretched(grid, width, height)),
            key=lambda layout: (
                any(_padding(cell, layout, width, height) for cell in cells),
                _misses(box, cells, layout, width, height),
            ),
        )
        if _misses(box, cells, best, width, height) < 0.25 * min(best[2:]):
            layout = best
    return [_cut(cell, layout, width, height) for cell in cells]


# a layout: left and top of cell (0, 0), width and height of a cell, in frame pixels
_Layout = tuple[float, float, float, float]


def _stretched(grid: tuple[int, int], width: int, height: int) -> _Layout:
    return 0.0, 0.0, width / grid[1], height / grid[0]


def _letterboxed(grid: tuple[int, int], width: int, height: int) -> _Layout:
    side = max(height / grid[0], width / grid[1])
    return (width - side * grid[1]) / 2, (height - side * grid[0]) / 2, side, side


def _inside(box: Rectangle, cells: Sequence[tuple[int, int]]) -> _Layout:
    rows, columns = [row for row, _ in cells], [column for _, column in cells]
    wide = (box[2] - box[0]) / (max(columns) - min(columns) + 1)
    tall = (box[3] - box[1]) / (max(rows) - min(rows) + 1)
    return box[0] - min(columns) * wide, box[1] - min(rows) * tall, wide, tall


def _misses(
    box: Rectangle, cells: Sequence[tuple[int, int]], layout: _Layout, width: int, height: int
) -> float:
    """By how many pixels the cells would fill another box than the one they are known to fill."""
    lefts, tops, rights, bottoms = zip(*(_cut(cell, layout, width, height) for cell in cells), strict=True)
    around = min(lefts), min(tops), max(rights), max(bottoms)
    return float(max(abs(a - b) for a, b in zip(around, box, strict=True)))


def _padding(cell: tuple[int, int], layout: _Layout, width: int, height: int) -> bool:
    """Well under half of it lies on the frame; the station's own rule is half, on whole input pixels."""
    left, top, right, bottom = _cut(cell, layout, width, height)
    return (right - left) < 0.4 * layout[2] or (bottom - top) < 0.4 * layout[3]


def _cut(cell: tuple[int, int], layout: _Layout, width: int, height: int) -> Rectangle:
    left, top, wide, tall = layout
    row, column = cell
    edges = (left + column * wide, top + row * tall, left + (column + 1) * wide, top + (row + 1) * tall)
    most = (width, height, width, height)
    a, b, c, d = (
        round(min(max(edge, 0.0), float(limit)), 2) for edge, limit in zip(edges, most, strict=True)
    )
    return a, b, c, d
